//! The rules of all route files in force, and what of the registry they do not go with.
//!
//! A wider suffix in a file takes registry routes out of force. The very same name: whoever was in
//! force first stays; a reload is refused at its line, a start takes the file's. The rule is that of
//! [`config::route::owners`], asked between the two.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use config::route::HostMatch;
use hashbrown::HashMap;

use crate::route::{Origin, RouteTable, RouteTarget};
use crate::upstream::Upstream;

/// What the files in force have brought into the table.
#[derive(Default)]
pub(super) struct FileRules {
    /// Every rule of theirs.
    pub(super) targets: Vec<Arc<RouteTarget>>,
    /// Every upstream of theirs, one use each, those without a rule as well.
    pub(super) upstreams: Vec<Arc<Upstream>>,
    /// How many of the upstreams have no rule.
    pub(super) unused_upstreams: usize,
    /// Number of tenants that own a file.
    pub(super) tenants: usize,
    /// Number of files.
    pub(super) files: usize,
    within: OnceLock<HashMap<Box<str>, Within, foldhash::fast::RandomState>>,
}

/// Rules of files that lie within a suffix: one, and one of another tenant if there is any. More
/// need not be known to tell whether somebody else's is among them.
struct Within {
    first: u32,
    other: Option<u32>,
}

/// Why a rule of the registry cannot be in force beside those of the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileConflict {
    /// A file has the very same rule.
    Same(FileRule),
    /// It lies within a suffix that a file gives to another tenant and does not share.
    Within(FileRule),
    /// It is a suffix, not shared, that takes a name which a file gives to another tenant.
    Above(FileRule),
}

/// A rule of a file, for messages to operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileRule {
    /// The rule.
    pub host: HostMatch,
    /// Whose it is.
    pub tenant: Arc<str>,
    /// The file.
    pub file: PathBuf,
    /// Line in it, from 1.
    pub line: usize,
}

impl FileRules {
    /// Whether a rule of the registry goes with the files' rules, which `table` must hold. Costs a
    /// look-up per hyphen of the first label.
    pub(super) fn conflict(
        &self,
        table: &RouteTable,
        host: &HostMatch,
        tenant: &str,
        shared: bool,
    ) -> Option<FileConflict> {
        if let Some(same) = table.get(host).and_then(|it| FileRule::of(it)) {
            return Some(FileConflict::Same(same));
        }
        for wider in host.wider_suffixes() {
            if let Some(wider) = table.get_suffix(wider)
                && !wider.shared
                && *wider.upstream.tenant != *tenant
                && let Some(rule) = FileRule::of(wider)
            {
                return Some(FileConflict::Within(rule));
            }
        }
        match host {
            HostMatch::Suffix(suffix) if !shared => self
                .strangers_within(suffix, tenant)
                .and_then(FileRule::of)
                .map(FileConflict::Above),
            _ => None,
        }
    }

    /// A rule of another tenant that lies within a suffix.
    fn strangers_within(&self, suffix: &str, tenant: &str) -> Option<&RouteTarget> {
        // Made at the first question: who has no registry never asks.
        let within = self.within.get_or_init(|| self.index()).get(suffix)?;
        [Some(within.first), within.other]
            .into_iter()
            .flatten()
            .map(|index| &*self.targets[index as usize])
            .find(|target| *target.upstream.tenant != *tenant)
    }

    fn index(&self) -> HashMap<Box<str>, Within, foldhash::fast::RandomState> {
        let mut index: HashMap<Box<str>, Within, _> = HashMap::default();
        for (at, target) in self.targets.iter().enumerate() {
            let at = u32::try_from(at).expect("files hold fewer than 2^32 rules");
            for suffix in target.host.wider_suffixes() {
                let Some(known) = index.get_mut(suffix) else {
                    let (first, other) = (at, None);
                    index.insert(suffix.into(), Within { first, other });
                    continue;
                };
                let first = &self.targets[known.first as usize];
                if first.upstream.tenant != target.upstream.tenant {
                    known.other.get_or_insert(at);
                }
            }
        }
        index
    }
}

impl FileRule {
    /// `None` if the rule is not a file's.
    pub(super) fn of(target: &RouteTarget) -> Option<Self> {
        match &target.origin {
            Origin::File { file, position } => Some(Self {
                host: target.host.clone(),
                tenant: Arc::clone(&target.upstream.tenant),
                file: file.to_path_buf(),
                line: position.line,
            }),
            Origin::Registry => None,
        }
    }
}

impl fmt::Display for FileConflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Same(rule) => write!(f, "it stands in a file: {}", Place(rule)),
            Self::Within(rule) => write!(
                f,
                "it lies within {} of another tenant, which is not shared: {}",
                rule.host,
                Place(rule)
            ),
            Self::Above(rule) => write!(
                f,
                "it is not shared and takes {} of another tenant: {}",
                rule.host,
                Place(rule)
            ),
        }
    }
}

struct Place<'a>(&'a FileRule);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(rule) = self;
        write!(
            f,
            "{}:{} (tenant {})",
            rule.file.display(),
            rule.line,
            rule.tenant
        )
    }
}
