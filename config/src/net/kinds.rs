//! The kinds of field that hold addresses, names and amounts.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::{HostName, IpRange, parse_duration, parse_size};
use crate::document::{Node, Value};
use crate::error::{InvalidValue, quoted};
use crate::reader::kinds::{Integer, Text, integer, text};
use crate::reader::{Kind, Reader};

/// Longest duration that any field takes.
pub const MAX_DURATION: Duration = Duration::from_secs(24 * 60 * 60);

/// Regular expression of a DNS label in lower case: tenants, nodes, upstreams.
pub const LABEL_PATTERN: &str = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$";

/// An address with a port, such as `10.0.0.1:443` or `[fd00::1]:443`.
#[must_use]
pub fn socket_address() -> Text<SocketAddr> {
    text("an address with a port", Some("^.+:[0-9]{1,5}$"), |value| {
        let wrong =
            || InvalidValue::new(format!("{} is not an address with a port", quoted(value)));
        let address: SocketAddr = value.parse().map_err(|_| {
            if value.parse::<IpAddr>().is_ok() {
                wrong().help("add the port: `10.0.0.1:443`, or \"[fd00::1]:443\" for IPv6")
            } else if value.contains(|c: char| c.is_ascii_alphabetic() && !c.is_ascii_hexdigit()) {
                wrong().help("write an address, not a name: names are not resolved")
            } else {
                wrong().help("write for example `10.0.0.1:443` or \"[fd00::1]:443\"")
            }
        })?;
        if address.port() == 0 {
            return Err(wrong().help("port 0 names no port"));
        }
        Ok(match address.ip().to_canonical() {
            // Keeps the scope of a link-local IPv6 address.
            IpAddr::V6(_) => address,
            mapped @ IpAddr::V4(_) => SocketAddr::new(mapped, address.port()),
        })
    })
}

/// An address without a port. Mapped IPv4 addresses become IPv4 ones.
#[must_use]
pub fn ip_address() -> Text<IpAddr> {
    text("an address", Some("^[0-9A-Fa-f.:]+$"), |value| {
        let address: IpAddr = value.parse().map_err(|_| {
            let reason = InvalidValue::new(format!("{} is not an address", quoted(value)));
            if IpRange::parse(value).is_ok() {
                reason.help("a single address is expected here, not a range")
            } else {
                reason.help("write for example `10.0.0.1` or \"fd00::1\", without a port")
            }
        })?;
        Ok(address.to_canonical())
    })
}

/// An address or a CIDR range.
#[must_use]
pub fn ip_range() -> Text<IpRange> {
    text(
        "an address or range",
        Some("^[0-9A-Fa-f.:]+(/[0-9]{1,3})?$"),
        IpRange::parse,
    )
}

/// A DNS host name.
#[must_use]
pub fn host_name() -> Text<HostName> {
    text(
        "a host name",
        Some("^[A-Za-z0-9-]+(\\.[A-Za-z0-9-]+)*\\.?$"),
        HostName::parse,
    )
}

/// A name of ours (tenant, node, cluster, upstream): a DNS label in lower case.
#[must_use]
pub fn label() -> Text<String> {
    text("a name", Some(LABEL_PATTERN), |value| {
        check_label(value).map(|()| value.to_owned())
    })
}

/// Whether a text is a name of ours: lower-case letters, digits and inner hyphens, at most 63.
///
/// # Errors
/// If it is not; the reason says the rule.
pub fn check_label(value: &str) -> Result<(), InvalidValue> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let right = (1..=HostName::MAX_LABEL).contains(&value.len())
        && value.bytes().all(allowed)
        && !value.starts_with('-')
        && !value.ends_with('-');
    if right {
        return Ok(());
    }
    Err(
        InvalidValue::new(format!("{} is not a name", quoted(value)))
            .help("use up to 63 lower-case letters, digits and hyphens, no hyphen at either end"),
    )
}

/// A port from 1 to 65535.
#[must_use]
pub fn port() -> Integer {
    integer(1..=65535)
}

/// A duration within bounds, written with units.
#[derive(Clone, Copy, Debug)]
pub struct DurationKind {
    least: Duration,
    most: Duration,
    zero: bool,
}

/// A duration from 1 ms to 24 h.
#[must_use]
pub fn duration() -> DurationKind {
    DurationKind {
        least: Duration::from_millis(1),
        most: MAX_DURATION,
        zero: false,
    }
}

impl DurationKind {
    /// The same with other bounds, both inclusive.
    #[must_use]
    pub fn within(mut self, least: Duration, most: Duration) -> Self {
        (self.least, self.most) = (least, most);
        self
    }

    /// The same, and 0 as well, which then means "none".
    #[must_use]
    pub fn or_zero(mut self) -> Self {
        self.zero = true;
        self
    }

    fn check(&self, value: Duration) -> Result<Duration, InvalidValue> {
        if value.is_zero() && self.zero {
            return Ok(value);
        }
        if value < self.least || value > self.most {
            let bounds = format!("must be from {} to {}", shown(self.least), shown(self.most));
            let zero = if self.zero { ", or 0 for none" } else { "" };
            return Err(InvalidValue::new(format!(
                "{bounds}{zero}, found {}",
                shown(value)
            )));
        }
        Ok(value)
    }
}

impl Kind for DurationKind {
    type Value = Duration;

    fn read(&self, node: &Node, reader: &mut Reader) -> Option<Duration> {
        let parsed = match &node.value {
            Value::Text(text) => parse_duration(text),
            Value::Integer(0) => Ok(Duration::ZERO),
            Value::Integer(number) => Err(InvalidValue::new(format!(
                "a duration needs a unit, found the number {number}"
            ))
            .help(format!("write `{number}s` or `{number}ms`"))),
            _ => {
                reader.refuse_type(node, "a duration such as `10s`");
                return None;
            }
        };
        match parsed.and_then(|value| self.check(value)) {
            Ok(value) => Some(value),
            Err(reason) => {
                reader.refuse(node.position, reason);
                None
            }
        }
    }

    fn schema(&self) -> Json {
        let text = json!({
            "type": "string",
            "pattern": "^([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$",
            "minLength": 2,
        });
        if self.zero {
            json!({ "anyOf": [text, { "const": 0 }] })
        } else {
            text
        }
    }
}

/// A size in bytes within bounds, written with a unit.
#[derive(Clone, Copy, Debug)]
pub struct SizeKind(u64, u64);

/// A size in bytes within bounds, both inclusive.
#[must_use]
pub fn size(least: u64, most: u64) -> SizeKind {
    SizeKind(least, most)
}

impl Kind for SizeKind {
    type Value = u64;

    fn read(&self, node: &Node, reader: &mut Reader) -> Option<u64> {
        let parsed = match &node.value {
            Value::Text(text) => parse_size(text),
            Value::Integer(number) => Err(InvalidValue::new(format!(
                "a size needs a unit, found the number {number}"
            ))
            .help(format!("write `{number}B` or `{number}KiB`"))),
            _ => {
                reader.refuse_type(node, "a size such as `32KiB`");
                return None;
            }
        };
        let checked = parsed.and_then(|value| {
            if (self.0..=self.1).contains(&value) {
                return Ok(value);
            }
            let (least, most) = (self.0, self.1);
            Err(InvalidValue::new(format!(
                "must be from {least}B to {most}B, found {value}B"
            )))
        });
        match checked {
            Ok(value) => Some(value),
            Err(reason) => {
                reader.refuse(node.position, reason);
                None
            }
        }
    }

    fn schema(&self) -> Json {
        json!({ "type": "string", "pattern": "^[0-9]+(B|KiB|MiB|GiB)$" })
    }
}

/// A duration as it would be written, for messages.
fn shown(value: Duration) -> String {
    let millis = value.as_millis();
    match millis {
        0 => "0".to_owned(),
        _ if millis.is_multiple_of(3_600_000) => format!("{}h", millis / 3_600_000),
        _ if millis.is_multiple_of(60_000) => format!("{}m", millis / 60_000),
        _ if millis.is_multiple_of(1_000) => format!("{}s", millis / 1_000),
        _ => format!("{millis}ms"),
    }
}
