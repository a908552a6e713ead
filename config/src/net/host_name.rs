//! A DNS host name in its one normal form.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::error::{InvalidValue, quoted};

/// A host name by RFC 1123, section 2.1: labels of letters, digits and hyphens, no hyphen at
/// either end of a label, at most 63 characters per label and 253 in all.
///
/// Lower case and without a trailing dot, so that equal names compare equal. Underscores are
/// refused: they occur in DNS, but not in host names, and no public certificate may hold one. A
/// name whose last label is all digits is refused, since it could be an address.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostName(Arc<str>);

impl HostName {
    /// Longest name, in characters without a trailing dot (RFC 1035, section 2.3.4).
    pub const MAX_LENGTH: usize = 253;

    /// Longest label, in characters.
    pub const MAX_LABEL: usize = 63;

    /// Reads a name in any case, with or without one trailing dot.
    ///
    /// # Errors
    /// If the text is not a host name; the reason names the rule.
    pub fn parse(text: &str) -> Result<Self, InvalidValue> {
        let name = text.strip_suffix('.').unwrap_or(text);
        let refuse = |reason: &str| {
            InvalidValue::new(format!("{} is not a host name: {reason}", quoted(text)))
        };
        if name.is_empty() {
            return Err(refuse("it is empty"));
        }
        if let Some(c) = name
            .chars()
            .find(|c| !c.is_ascii_alphanumeric() && !"-.".contains(*c))
        {
            let shown = quoted(&c.to_string());
            let reason = refuse(&format!("{shown} is not a letter, digit, hyphen or dot"));
            return Err(match c {
                '_' => reason.help("host names have no underscores (RFC 1123)"),
                ':' | '/' => reason.help("write the name alone, without scheme, port or path"),
                c if !c.is_ascii() => reason.help("write an international name in its xn-- form"),
                _ => reason,
            });
        }
        if name.len() > Self::MAX_LENGTH {
            return Err(refuse("it is longer than 253 characters"));
        }
        for label in name.split('.') {
            if label.is_empty() {
                return Err(refuse("it holds an empty label"));
            }
            if label.len() > Self::MAX_LABEL {
                return Err(refuse("a label is longer than 63 characters"));
            }
            if label.starts_with('-') || label.ends_with('-') {
                return Err(refuse("a label begins or ends with a hyphen"));
            }
        }
        let last = name.rsplit('.').next().unwrap_or(name);
        if last.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(refuse("its last label is a number, as in an address"));
        }
        Ok(Self(name.to_ascii_lowercase().into()))
    }

    /// The name, lower case, without a trailing dot.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for HostName {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        Self::parse(text)
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

impl AsRef<str> for HostName {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}
