//! Host and authority (RFC 9110 section 7.2).

/// The longest host name that DNS can carry, with room for a port.
const MAX_HOST: usize = 255 + 6;

/// A host with an optional port, syntactically checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostPort<'b> {
    /// As the client sent it.
    pub text: &'b str,
    /// Without the port, not lower-cased; IPv6 with its brackets.
    pub name: &'b str,
    /// `None` where the text has none.
    pub port: Option<u16>,
}

impl<'b> HostPort<'b> {
    /// Reads a Host field or an HTTP/2 `:authority`.
    ///
    /// Narrower than RFC 3986: letters, digits, `-`, `_` and single dots, or an IPv6 address in
    /// brackets; port 1 to 65535. No user information, no percent-encoding, no lists. `None` for
    /// anything else.
    pub fn parse(text: &'b [u8]) -> Option<Self> {
        if text.is_empty() || text.len() > MAX_HOST {
            return None;
        }
        let text = std::str::from_utf8(text).ok()?;
        let (name, port) = if text.starts_with('[') {
            let end = text.find(']')? + 1;
            text[1..end - 1].parse::<std::net::Ipv6Addr>().ok()?;
            (&text[..end], &text[end..])
        } else {
            let end = text.find(':').unwrap_or(text.len());
            if !is_name(&text.as_bytes()[..end]) {
                return None;
            }
            (&text[..end], &text[end..])
        };
        let port = match port.as_bytes() {
            [] => None,
            [b':', digits @ ..] => Some(parse_port(digits)?),
            _ => return None,
        };
        Some(Self { text, name, port })
    }

    /// Same host and same port, where no port means 443.
    pub fn is_same_as(&self, other: &HostPort<'_>) -> bool {
        self.name.eq_ignore_ascii_case(other.name)
            && self.port.unwrap_or(443) == other.port.unwrap_or(443)
    }
}

fn is_name(name: &[u8]) -> bool {
    // A dot at the end is the root of DNS and stays; other empty labels name nothing.
    let mut after_dot = true;
    for &b in name {
        match b {
            b'.' if after_dot => return false,
            b'.' => after_dot = true,
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => after_dot = false,
            _ => return false,
        }
    }
    !name.is_empty()
}

fn parse_port(digits: &[u8]) -> Option<u16> {
    if digits.is_empty() || digits.len() > 5 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let port = digits
        .iter()
        .fold(0u32, |sum, d| sum * 10 + u32::from(d - b'0'));
    u16::try_from(port).ok().filter(|&port| port != 0)
}
