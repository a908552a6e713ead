//! The text form of a host rule.

use std::fmt;
use std::str::FromStr;

use super::HostMatch;
use crate::error::{InvalidValue, quoted};
use crate::net::HostName;

impl HostMatch {
    /// Regular expression that every accepted text matches.
    pub(super) const PATTERN: &'static str = "^(\\*[-.])?[A-Za-z0-9-]+(\\.[A-Za-z0-9-]+)*\\.?$";

    /// Reads `www.example.org`, `*.example.org` or `*-apps-7.k8s.example.org`.
    ///
    /// # Errors
    /// If there is a star anywhere but first, if something other than `-` or `.` follows it, if
    /// what follows has less than two labels (`*.org` would own everybody), or if the rest is not
    /// a host name.
    pub fn parse(text: &str) -> Result<Self, InvalidValue> {
        let Some(suffix) = text.strip_prefix('*') else {
            if text.contains('*') {
                return Err(refuse(text, "a star stands only at the very beginning"));
            }
            return HostName::parse(text).map(Self::Exact);
        };
        if suffix.contains('*') {
            return Err(refuse(text, "only one star is allowed"));
        }
        if !suffix.starts_with(['-', '.']) {
            return Err(refuse(text, "after the star must stand `-` or `.`")
                .help("write for example `*.example.org` or `*-apps-7.example.org`"));
        }
        // The star stands for one character or more: with one, the rule must be a name.
        let shortest = HostName::parse(&format!("x{suffix}")).map_err(|reason| {
            // The reason quotes the stand-in, which the reader never wrote.
            let rule = reason.message.split_once(": ").map_or("", |(_, rule)| rule);
            InvalidValue {
                message: refuse(text, rule).message,
                help: reason.help,
            }
        })?;
        let suffix = &shortest.as_str()[1..];
        if suffix.split('.').filter(|label| !label.is_empty()).count() < 2 {
            return Err(refuse(text, "at least two labels must follow the star"));
        }
        Ok(Self::Suffix(suffix.to_owned()))
    }

    /// Whether the rule takes a name (lower case, without a trailing dot).
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        match self {
            Self::Exact(exact) => exact.as_str() == name,
            Self::Suffix(suffix) => name
                .strip_suffix(suffix.as_str())
                .is_some_and(|star| !star.is_empty() && !star.contains('.')),
        }
    }
}

impl HostMatch {
    /// Every suffix that could take all names of this rule and more, as [`HostMatch::Suffix`] holds
    /// it: each begins at a hyphen of the first label or at the first dot, and leaves at least one
    /// character to the star.
    pub fn wider_suffixes(&self) -> impl Iterator<Item = &str> {
        let text = match self {
            Self::Exact(name) => name.as_str(),
            Self::Suffix(suffix) => suffix.as_str(),
        };
        // A star never stands for a dot. A suffix that begins with one has nothing wider.
        let first_dot = text.find('.').unwrap_or(text.len());
        let label = text.as_bytes().get(1..=first_dot).unwrap_or_default();
        label
            .iter()
            .enumerate()
            .filter(|(_, byte)| matches!(byte, b'-' | b'.'))
            .map(move |(index, _)| &text[index + 1..])
    }

    /// Whether every host that `other` takes is taken by this rule as well.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (_, Self::Exact(name)) => self.matches(name.as_str()),
            (Self::Exact(_), Self::Suffix(_)) => false,
            (Self::Suffix(wide), Self::Suffix(narrow)) => narrow
                .strip_suffix(wide.as_str())
                .is_some_and(|star| !star.contains('.')),
        }
    }
}

impl FromStr for HostMatch {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        Self::parse(text)
    }
}

impl fmt::Display for HostMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => write!(f, "{name}"),
            Self::Suffix(suffix) => write!(f, "*{suffix}"),
        }
    }
}

fn refuse(text: &str, reason: &str) -> InvalidValue {
    InvalidValue::new(format!("{} is not a host rule: {reason}", quoted(text)))
}
