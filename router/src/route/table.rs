//! The table of host rules, built once and never changed.
//!
//! A lookup costs one hash of the exact name and, where that misses, one of the parent domain.
//! Only if the parent domain has suffix rules follows one more hash per dash of the first label
//! whose distance to the dot is that of some rule. None of it depends on the number of routes.

use std::hash::{BuildHasher, Hasher};
use std::path::Path;
use std::sync::Arc;

use config::document::Position;
use config::route::HostMatch;
use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::Host;
use crate::upstream::Upstream;

/// Host rules and where they lead.
pub struct RouteTable {
    targets: Box<[Arc<RouteTarget>]>,
    /// Exact rules, as indices into `targets`.
    exact: HashTable<u32>,
    /// Suffix rules, as indices into `targets`, hashed by parent and label part.
    suffixes: HashTable<u32>,
    parents: Vec<Parent>,
    /// Indices into `parents`.
    parent_index: HashTable<u32>,
    hasher: RandomState,
}

/// A host rule and the upstream it leads to.
#[derive(Clone, Debug)]
pub struct RouteTarget {
    /// Which hosts the rule takes.
    pub host: HostMatch,
    /// Where their requests go.
    pub upstream: Arc<Upstream>,
    /// Where the rule stands in `file`.
    pub position: Position,
    /// The route file it came from.
    pub file: Arc<Path>,
}

/// Two rules for the same hosts.
#[derive(Debug, thiserror::Error)]
#[error(
    "{} is routed twice: by {} and by {}",
    .first.host,
    Origin(.first),
    Origin(.second)
)]
pub struct DuplicateOwner {
    /// The rule that came first.
    pub first: Arc<RouteTarget>,
    /// The rule that repeats it.
    pub second: Arc<RouteTarget>,
}

impl RouteTable {
    /// Builds the table.
    ///
    /// # Errors
    /// When two rules are for the same host or suffix, whoever owns them.
    ///
    /// # Panics
    /// With more than 2^32 rules.
    pub fn build(entries: Vec<RouteTarget>) -> Result<Self, DuplicateOwner> {
        let targets: Box<[_]> = entries.into_iter().map(Arc::new).collect();
        let exact_rules = targets
            .iter()
            .filter(|t| matches!(t.host, HostMatch::Exact(_)))
            .count();
        let mut table = Self {
            exact: HashTable::with_capacity(exact_rules),
            suffixes: HashTable::with_capacity(targets.len() - exact_rules),
            parents: Vec::new(),
            parent_index: HashTable::new(),
            hasher: RandomState::default(),
            targets,
        };
        for index in 0..table.targets.len() {
            let index = u32::try_from(index).expect("a table holds fewer than 2^32 rules");
            if let Err(first) = table.insert(index) {
                return Err(DuplicateOwner {
                    first: Arc::clone(table.target(first)),
                    second: Arc::clone(table.target(index)),
                });
            }
        }
        Ok(table)
    }

    /// The rule for a host: the exact one, or else the longest suffix that fits.
    pub fn lookup(&self, host: &Host) -> Option<&Arc<RouteTarget>> {
        if host.is_literal() {
            return None;
        }
        if let Some(index) = self.find_exact(host.as_bytes()) {
            return Some(self.target(index));
        }
        let parent = self.find_parent(host.parent())?;
        let label = host.first_label();
        let lengths = self.parents[parent as usize].lengths;
        // The star stands for at least one byte, so a candidate never starts at 0. Leftmost first
        // is longest first; the last candidate is the dot that ends the label.
        let dashes = (1..label.len()).filter(|&at| label[at] == b'-');
        dashes
            .chain([label.len()])
            .filter(|&at| lengths & length_bit(label.len() - at) != 0)
            .find_map(|at| self.find_suffix(parent, &label[at..], &host.as_bytes()[at..]))
            .map(|index| self.target(index))
    }

    /// Every rule, in the order it was given.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<RouteTarget>> {
        self.targets.iter()
    }

    /// Number of rules.
    pub fn len(&self) -> usize {
        self.targets.len()
    }

    /// Whether there is no rule at all.
    pub fn is_empty(&self) -> bool {
        self.targets.is_empty()
    }

    /// `Err` holds the rule that is there already.
    fn insert(&mut self, index: u32) -> Result<(), u32> {
        let target = Arc::clone(self.target(index));
        let text = pattern_text(&target.host);
        match &target.host {
            HostMatch::Exact(_) => {
                if let Some(first) = self.find_exact(text) {
                    return Err(first);
                }
                let Self {
                    exact,
                    targets,
                    hasher,
                    ..
                } = self;
                exact.insert_unique(hash_name(hasher, text), index, |&i| {
                    hash_name(hasher, pattern_text(&targets[i as usize].host))
                });
            }
            HostMatch::Suffix(_) => {
                let (part, parent) = split_first_label(text);
                let parent = self.parent_or_insert(parent);
                if let Some(first) = self.find_suffix(parent, part, text) {
                    return Err(first);
                }
                self.parents[parent as usize].lengths |= length_bit(part.len());
                let hash = self.hash_suffix(parent, part);
                // Room for every suffix rule was reserved, so nothing is ever hashed again; had the
                // table to grow, this is what it would need.
                let Self {
                    suffixes,
                    targets,
                    hasher,
                    parents,
                    parent_index,
                    ..
                } = self;
                suffixes.insert_unique(hash, index, |&i| {
                    let (part, parent) = split_first_label(pattern_text(&targets[i as usize].host));
                    let parent = find_parent(parent_index, parents, hasher, parent)
                        .expect("the parent of a suffix is inserted before the suffix");
                    hash_suffix(hasher, parent, part)
                });
            }
        }
        Ok(())
    }

    fn parent_or_insert(&mut self, name: &[u8]) -> u32 {
        if let Some(index) = self.find_parent(name) {
            return index;
        }
        let index = u32::try_from(self.parents.len()).expect("no more parents than rules");
        self.parents.push(Parent {
            name: name.into(),
            lengths: 0,
        });
        let Self {
            parents,
            parent_index,
            hasher,
            ..
        } = self;
        parent_index.insert_unique(hash_name(hasher, name), index, |&i| {
            hash_name(hasher, &parents[i as usize].name)
        });
        index
    }

    fn target(&self, index: u32) -> &Arc<RouteTarget> {
        &self.targets[index as usize]
    }

    fn find_exact(&self, name: &[u8]) -> Option<u32> {
        self.exact
            .find(hash_name(&self.hasher, name), |&i| {
                pattern_text(&self.target(i).host) == name
            })
            .copied()
    }

    fn find_parent(&self, name: &[u8]) -> Option<u32> {
        find_parent(&self.parent_index, &self.parents, &self.hasher, name)
    }

    fn find_suffix(&self, parent: u32, part: &[u8], suffix: &[u8]) -> Option<u32> {
        self.suffixes
            .find(self.hash_suffix(parent, part), |&i| {
                pattern_text(&self.target(i).host) == suffix
            })
            .copied()
    }

    fn hash_suffix(&self, parent: u32, part: &[u8]) -> u64 {
        hash_suffix(&self.hasher, parent, part)
    }
}

/// A domain that has suffix rules directly beneath it.
struct Parent {
    name: Box<[u8]>,
    /// Bit n: some rule has n bytes between the star and the dot.
    lengths: u64,
}

/// Labels have at most 63 bytes and the star takes one; longer parts share the last bit, which
/// costs a hash and never a match.
fn length_bit(length: usize) -> u64 {
    1 << length.min(63)
}

fn find_parent(
    index: &HashTable<u32>,
    parents: &[Parent],
    hasher: &RandomState,
    name: &[u8],
) -> Option<u32> {
    index
        .find(hash_name(hasher, name), |&i| {
            *parents[i as usize].name == *name
        })
        .copied()
}

fn hash_name(hasher: &RandomState, name: &[u8]) -> u64 {
    let mut state = hasher.build_hasher();
    state.write(name);
    state.finish()
}

fn hash_suffix(hasher: &RandomState, parent: u32, part: &[u8]) -> u64 {
    let mut state = hasher.build_hasher();
    state.write_u32(parent);
    state.write(part);
    state.finish()
}

/// What a rule is compared by: the name, or what follows the star.
fn pattern_text(host: &HostMatch) -> &[u8] {
    match host {
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

struct Origin<'a>(&'a RouteTarget);

impl std::fmt::Display for Origin<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self(target) = self;
        write!(
            f,
            "{}:{}:{} (tenant {})",
            target.file.display(),
            target.position.line,
            target.position.column,
            target.upstream.tenant
        )
    }
}
