//! The table of host rules: the same rules are the same bytes in all versions of it.
//!
//! A lookup costs one hash of the exact name and, where that misses, one of the parent domain.
//! Only if the parent domain has suffix rules follows one more hash per dash of the first label
//! whose distance to the dot is that of some rule. None of it depends on the number of routes, and
//! neither does a change: see [`Shards`].

use std::hash::{BuildHasher, Hasher};
use std::path::Path;
use std::sync::Arc;

use config::document::Position;
use config::route::HostMatch;
use foldhash::fast::RandomState;

use super::Host;
use super::shards::Shards;
use crate::upstream::Upstream;

/// Host rules and where they lead.
///
/// A clone shares everything with its original, and a change of one of them copies only what it
/// touches.
#[derive(Clone, Default)]
pub struct RouteTable {
    exact: Shards<Arc<RouteTarget>>,
    /// Suffix rules, hashed by parent and label part.
    suffixes: Shards<Arc<RouteTarget>>,
    parents: Shards<Arc<Parent>>,
    hasher: RandomState,
}

/// A host rule and the upstream it leads to.
#[derive(Clone, Debug)]
pub struct RouteTarget {
    /// Which hosts the rule takes.
    pub host: HostMatch,
    /// Where their requests go.
    pub upstream: Arc<Upstream>,
    /// Whether other tenants may hold narrower names beneath a suffix.
    pub shared: bool,
    /// Where the rule comes from.
    pub origin: Origin,
}

/// Where a rule comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A route file.
    File {
        /// The file.
        file: Arc<Path>,
        /// Where the rule stands in it.
        position: Position,
    },
    /// The route registry.
    Registry,
}

/// Two rules for the same hosts.
#[derive(Debug, thiserror::Error)]
#[error("{} is routed twice: by {} and by {}", .first.host, Place(.first), Place(.second))]
pub struct DuplicateOwner {
    /// The rule that came first.
    pub first: Arc<RouteTarget>,
    /// The rule that repeats it.
    pub second: Arc<RouteTarget>,
}

impl RouteTable {
    /// Builds a table.
    ///
    /// # Errors
    /// When two rules are for the same host or suffix, whoever owns them.
    pub fn build(targets: Vec<RouteTarget>) -> Result<Self, DuplicateOwner> {
        let mut table = Self::default();
        for target in targets {
            table.insert(Arc::new(target))?;
        }
        Ok(table)
    }

    /// The rule for a host: the exact one, or else the longest suffix that fits.
    pub fn lookup(&self, host: &Host) -> Option<&Arc<RouteTarget>> {
        if host.is_literal() {
            return None;
        }
        let name = host.as_bytes();
        let exact = self.exact.find(self.hash_name(name), is(name));
        if exact.is_some() {
            return exact;
        }
        let parent_hash = self.hash_name(host.parent());
        let parent = self.parents.find(parent_hash, named(host.parent()))?;
        let label = host.first_label();
        // The star stands for at least one byte, so a candidate never starts at 0. Leftmost first
        // is longest first; the last candidate is the dot that ends the label.
        let dashes = (1..label.len()).filter(|&at| label[at] == b'-');
        dashes
            .chain([label.len()])
            .filter(|&at| parent.has(label.len() - at))
            .find_map(|at| {
                let hash = self.hash_suffix(parent_hash, &label[at..]);
                self.suffixes.find(hash, is(&name[at..]))
            })
    }

    /// The rule that is written like this, if there is one.
    pub fn get(&self, rule: &HostMatch) -> Option<&Arc<RouteTarget>> {
        match rule {
            HostMatch::Exact(name) => {
                let name = name.as_str().as_bytes();
                self.exact.find(self.hash_name(name), is(name))
            }
            HostMatch::Suffix(suffix) => self.get_suffix(suffix),
        }
    }

    /// The rule for what ends with `suffix`, if there is one that is written like this.
    pub fn get_suffix(&self, suffix: &str) -> Option<&Arc<RouteTarget>> {
        let (part, parent) = split_first_label(suffix.as_bytes());
        let hash = self.hash_suffix(self.hash_name(parent), part);
        self.suffixes.find(hash, is(suffix.as_bytes()))
    }

    /// Every rule, in no particular order. Costs a walk over all of the table.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<RouteTarget>> {
        self.exact.iter().chain(self.suffixes.iter())
    }

    /// Number of rules.
    pub fn len(&self) -> usize {
        self.exact.len() + self.suffixes.len()
    }

    /// Whether there is no rule at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a rule.
    ///
    /// # Errors
    /// When there is one for the same host or suffix; then nothing changes.
    pub fn insert(&mut self, target: Arc<RouteTarget>) -> Result<(), DuplicateOwner> {
        if let Some(first) = self.get(&target.host) {
            return Err(DuplicateOwner {
                first: Arc::clone(first),
                second: target,
            });
        }
        match &target.host {
            HostMatch::Exact(name) => {
                let hash = self.hash_name(name.as_str().as_bytes());
                self.exact.insert(hash, target);
            }
            HostMatch::Suffix(suffix) => {
                let (part, parent) = split_first_label(suffix.as_bytes());
                let parent_hash = self.hash_name(parent);
                match self.parents.find_mut(parent_hash, named(parent)) {
                    Some(known) => Arc::make_mut(known).add(part.len()),
                    None => {
                        let made = Arc::new(Parent::new(parent, part.len()));
                        self.parents.insert(parent_hash, made);
                    }
                }
                let hash = self.hash_suffix(parent_hash, part);
                self.suffixes.insert(hash, target);
            }
        }
        Ok(())
    }

    /// Takes a rule out; `None` if there is none that is written like this.
    pub fn remove(&mut self, rule: &HostMatch) -> Option<Arc<RouteTarget>> {
        let text = text(rule);
        match rule {
            HostMatch::Exact(_) => self.exact.remove(self.hash_name(text), is(text)),
            HostMatch::Suffix(_) => {
                let (part, parent) = split_first_label(text);
                let parent_hash = self.hash_name(parent);
                let hash = self.hash_suffix(parent_hash, part);
                let removed = self.suffixes.remove(hash, is(text))?;
                let known = self.parents.find_mut(parent_hash, named(parent));
                let left = known.is_some_and(|known| Arc::make_mut(known).remove(part.len()));
                if !left {
                    self.parents.remove(parent_hash, named(parent));
                }
                Some(removed)
            }
        }
    }

    /// Number of domains that have suffix rules directly beneath them.
    #[cfg(test)]
    pub(super) fn parents(&self) -> usize {
        self.parents.len()
    }

    fn hash_name(&self, name: &[u8]) -> u64 {
        let mut state = self.hasher.build_hasher();
        state.write(name);
        state.finish()
    }

    fn hash_suffix(&self, parent: u64, part: &[u8]) -> u64 {
        let mut state = self.hasher.build_hasher();
        state.write_u64(parent);
        state.write(part);
        state.finish()
    }
}

/// A domain that has suffix rules directly beneath it.
#[derive(Clone)]
struct Parent {
    name: Box<[u8]>,
    /// Bit n: some rule has n bytes between the star and the dot.
    lengths: u64,
    /// How many rules there are for each bit that is set, lowest first.
    rules: Vec<u32>,
}

impl Parent {
    fn new(name: &[u8], length: usize) -> Self {
        Self {
            name: name.into(),
            lengths: length_bit(length),
            rules: vec![1],
        }
    }

    fn has(&self, length: usize) -> bool {
        self.lengths & length_bit(length) != 0
    }

    fn add(&mut self, length: usize) {
        let at = self.index(length);
        if self.has(length) {
            self.rules[at] += 1;
        } else {
            self.lengths |= length_bit(length);
            self.rules.insert(at, 1);
        }
    }

    /// Whether there are rules left.
    fn remove(&mut self, length: usize) -> bool {
        let at = self.index(length);
        self.rules[at] -= 1;
        if self.rules[at] == 0 {
            self.rules.remove(at);
            self.lengths &= !length_bit(length);
        }
        self.lengths != 0
    }

    fn index(&self, length: usize) -> usize {
        (self.lengths & (length_bit(length) - 1)).count_ones() as usize
    }
}

/// Labels have at most 63 bytes and the star takes one; longer parts share the last bit, which
/// costs a hash and never a match.
fn length_bit(length: usize) -> u64 {
    1 << length.min(63)
}

/// Whether a target's rule has this text; that it is of the right kind follows from where it is.
fn is(wanted: &[u8]) -> impl Fn(&Arc<RouteTarget>) -> bool {
    move |target| text(&target.host) == wanted
}

fn named(wanted: &[u8]) -> impl Fn(&Arc<Parent>) -> bool {
    move |parent| *parent.name == *wanted
}

/// What a rule is compared by: the name, or what follows the star.
fn text(rule: &HostMatch) -> &[u8] {
    match rule {
        HostMatch::Exact(name) => name.as_str().as_bytes(),
        HostMatch::Suffix(suffix) => suffix.as_bytes(),
    }
}

/// What stands before the first dot and what after it.
fn split_first_label(text: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memchr(b'.', text) {
        Some(dot) => (&text[..dot], &text[dot + 1..]),
        None => (text, &[]),
    }
}

/// Where a rule stands, and whose it is.
struct Place<'a>(&'a RouteTarget);

impl std::fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self(target) = self;
        match &target.origin {
            Origin::File { file, position } => {
                let (line, column) = (position.line, position.column);
                write!(f, "{}:{line}:{column}", file.display())?;
            }
            Origin::Registry => f.write_str("the registry")?,
        }
        write!(f, " (tenant {})", target.upstream.tenant)
    }
}
