//! A Kubernetes version.

use std::fmt;

use crate::error::{InvalidValue, quoted};

/// A version such as `1.20.2`, ordered as versions are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Always 1 so far.
    pub major: u16,
    /// The release that the version skew rules count in.
    pub minor: u16,
    /// The patch.
    pub patch: u16,
}

impl Version {
    /// Reads `1.20.2`.
    ///
    /// # Errors
    /// If the text is not three numbers.
    pub fn parse(text: &str) -> Result<Self, InvalidValue> {
        let wrong = || {
            InvalidValue::new(format!("{} is not a version", quoted(text)))
                .help("write all three numbers without a `v`: `1.20.2`")
        };
        let numbers: Option<Vec<u16>> = text.split('.').take(4).map(number).collect();
        match numbers.as_deref() {
            Some(&[major, minor, patch]) => Ok(Self {
                major,
                minor,
                patch,
            }),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// Digits without a leading zero: `1.08.0` and `1.8.0` must not be two spellings of one version.
fn number(text: &str) -> Option<u16> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let plain = text == "0" || !text.starts_with('0');
    if digits && plain {
        text.parse().ok()
    } else {
        None
    }
}
