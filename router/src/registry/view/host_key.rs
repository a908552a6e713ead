//! The order of host rules.

use config::route::HostMatch;

/// A host rule, ordered as in the store: by its characters from the last to the first, so that what
/// lies within one domain stands together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostKey(pub HostMatch);

impl PartialOrd for HostKey {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for HostKey {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        backwards(&self.0).cmp(backwards(&other.0))
    }
}

/// The characters of a rule from the last to the first.
fn backwards(host: &HostMatch) -> impl Iterator<Item = u8> {
    let (text, star) = match host {
        HostMatch::Exact(name) => (name.as_str(), None),
        HostMatch::Suffix(suffix) => (suffix.as_str(), Some(b'*')),
    };
    text.bytes().rev().chain(star)
}
