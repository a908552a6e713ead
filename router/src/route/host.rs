//! The host of a request, in the one form that rules and certificates are compared with.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Longest name in text form, without the trailing dot (RFC 1035, section 2.3.4).
const MAX_NAME: usize = 253;
/// Longest label (RFC 1035, section 2.3.4).
const MAX_LABEL: usize = 63;

/// The normalised host of a request or of a TLS server name: ASCII lower case, without port and
/// without trailing dot.
///
/// Lives on the stack; making one allocates nothing.
#[derive(Clone, Copy)]
pub struct Host {
    text: [u8; MAX_NAME],
    length: u8,
    /// Length of the first label; equals `length` where there is no dot.
    first_label: u8,
    literal: bool,
}

/// A host that is neither a DNS name nor an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidHost {
    /// Nothing, or nothing but a dot.
    #[error("the host is empty")]
    Empty,
    /// More than 253 bytes, or a label of more than 63.
    #[error("the host is longer than a DNS name can be")]
    TooLong,
    /// Two dots in a row, or a leading one.
    #[error("the host has an empty label")]
    EmptyLabel,
    /// A byte other than a letter, a digit, `-`, `_` or `.`.
    #[error("the host holds a byte that no DNS name has")]
    ForbiddenByte,
    /// Brackets that do not hold an IPv6 address (RFC 3986, section 3.2.2).
    #[error("the host is not a valid IPv6 literal")]
    InvalidIpv6,
}

impl Host {
    /// Normalises a host without port, as it stands in `Host`, `:authority` or SNI.
    ///
    /// Addresses (`192.0.2.1`, `[2001:db8::1]`) are valid hosts that no rule and no certificate
    /// matches. Percent-encoding and names that are not ASCII are refused: browsers send A-labels.
    ///
    /// # Errors
    /// When the text is neither a DNS name nor an address.
    pub fn parse(raw: &str) -> Result<Self, InvalidHost> {
        let raw = raw.as_bytes();
        if raw.first() == Some(&b'[') {
            return Self::parse_ipv6(raw);
        }
        let name = raw.strip_suffix(b".").unwrap_or(raw);
        if name.is_empty() {
            return Err(InvalidHost::Empty);
        }
        if name.len() > MAX_NAME {
            return Err(InvalidHost::TooLong);
        }
        let mut text = [0; MAX_NAME];
        let mut first_label = None;
        let mut label_start = 0;
        for (at, (&byte, place)) in name.iter().zip(&mut text).enumerate() {
            match byte {
                b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => *place = byte,
                b'A'..=b'Z' => *place = byte.to_ascii_lowercase(),
                b'.' => {
                    check_label(at - label_start)?;
                    first_label.get_or_insert(at);
                    label_start = at + 1;
                    *place = byte;
                }
                _ => return Err(InvalidHost::ForbiddenByte),
            }
        }
        check_label(name.len() - label_start)?;
        // Only what ends in a digit can be an address; a name rarely does.
        let literal = name.last().is_some_and(u8::is_ascii_digit)
            && std::str::from_utf8(name).is_ok_and(|name| name.parse::<Ipv4Addr>().is_ok());
        Ok(Self {
            text,
            length: name.len() as u8,
            first_label: first_label.unwrap_or(name.len()) as u8,
            literal,
        })
    }

    fn parse_ipv6(raw: &[u8]) -> Result<Self, InvalidHost> {
        raw.strip_prefix(b"[")
            .and_then(|rest| rest.strip_suffix(b"]"))
            .and_then(|inner| std::str::from_utf8(inner).ok())
            .and_then(|inner| inner.parse::<Ipv6Addr>().ok())
            .ok_or(InvalidHost::InvalidIpv6)?;
        let mut text = [0; MAX_NAME];
        for (place, byte) in text.iter_mut().zip(raw) {
            *place = byte.to_ascii_lowercase();
        }
        Ok(Self {
            text,
            // An IPv6 address in text is at most 45 bytes long.
            length: raw.len() as u8,
            first_label: raw.len() as u8,
            literal: true,
        })
    }

    /// The host as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).expect("parse lets only ASCII through")
    }

    /// The host as bytes, all of them ASCII.
    pub fn as_bytes(&self) -> &[u8] {
        &self.text[..usize::from(self.length)]
    }

    /// Whether this is an address, which no rule and no certificate matches.
    pub fn is_literal(&self) -> bool {
        self.literal
    }

    /// What stands before the first dot.
    pub(crate) fn first_label(&self) -> &[u8] {
        &self.text[..usize::from(self.first_label)]
    }

    /// What stands after the first dot; empty when there is none.
    pub(crate) fn parent(&self) -> &[u8] {
        self.as_bytes()
            .get(usize::from(self.first_label) + 1..)
            .unwrap_or_default()
    }
}

fn check_label(length: usize) -> Result<(), InvalidHost> {
    match length {
        0 => Err(InvalidHost::EmptyLabel),
        1..=MAX_LABEL => Ok(()),
        _ => Err(InvalidHost::TooLong),
    }
}

impl PartialEq for Host {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Host {}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Host").field(&self.as_str()).finish()
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
