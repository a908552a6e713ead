//! The kinds of field that hold URLs.

use super::HostName;
use crate::error::{InvalidValue, quoted};
use crate::reader::kinds::{Text, text};

/// An `https://` address without a path, such as `https://edge-1.example.org:8444`.
#[must_use]
pub fn https_url() -> Text<String> {
    text(
        "an https:// address",
        Some("^https://[^/\\s]+/?$"),
        |value| {
            let (rest, host) = parse_url(value, &["https://"])?;
            if !matches!(rest, "" | "/") {
                return Err(InvalidValue::new(format!("{} has a path", quoted(value)))
                    .help(format!("write `https://{host}`")));
            }
            Ok(format!("https://{host}"))
        },
    )
}

/// An `http://` or `https://` address, with a path or without.
#[must_use]
pub fn url() -> Text<String> {
    text(
        "an http:// or https:// address",
        Some("^https?://[^/\\s]+(/\\S*)?$"),
        |value| parse_url(value, &["http://", "https://"]).map(|_| value.to_owned()),
    )
}

/// Splits a URL into its path and its authority: a host name or address, and perhaps a port.
fn parse_url<'a>(value: &'a str, schemes: &[&str]) -> Result<(&'a str, &'a str), InvalidValue> {
    let wrong = |why: &str| InvalidValue::new(format!("{} {why}", quoted(value)));
    let rest = schemes
        .iter()
        .find_map(|scheme| value.strip_prefix(scheme))
        .ok_or_else(|| wrong(&format!("does not begin with {}", schemes.join(" or "))))?;
    if !value.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(wrong(
            "holds a blank, a control character or a letter beyond ASCII",
        ));
    }
    let end = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    if port.is_some_and(|port| port.parse::<u16>().map_or(true, |port| port == 0)) {
        return Err(wrong("has no valid port"));
    }
    let bracketed = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let right = match bracketed {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.parse::<std::net::Ipv4Addr>().is_ok() || HostName::parse(host).is_ok(),
    };
    if right {
        Ok((path, authority))
    } else {
        Err(wrong("has no valid host"))
    }
}
