//! An announcement in parts that every store takes: in one, unless its names have very many hyphens
//! or need very many zones. Pure.

use std::collections::BTreeSet;

use config::route::HostMatch;

use super::{FileNames, judge};
use crate::registry::api::problem::Problem;
use crate::registry::claims::{Basis, Claim};
use crate::registry::keys;
use crate::registry::record::{Instance, RouteSource};
use crate::registry::store::{LeaseId, Listing, MOST_CONDITIONS, Put, Range};

/// Routes that are claimed together, and what their verdicts rest on.
pub(super) struct Part<'a> {
    routes: Vec<&'a (HostMatch, RouteSource)>,
    basis: Basis,
    /// Zones that the verdicts rest on, at most.
    zones: usize,
}

/// Whose announcement it is.
#[derive(Clone, Copy)]
pub(super) struct Whose<'a> {
    pub(super) tenant: &'a str,
    pub(super) instance: &'a str,
}

/// Each part rests on the instance's record as well.
pub(super) fn in_parts<'a>(
    whose: Whose<'_>,
    routes: &'a [(HostMatch, RouteSource)],
) -> Vec<Part<'a>> {
    let record = Range::key(&keys::instance(whose.tenant, whose.instance));
    let mut parts: Vec<Part<'a>> = Vec::new();
    for route in routes {
        let (host, source) = route;
        let mut basis = Basis::of(whose.tenant, host, source.shared);
        basis.records.insert(record.clone());
        // One zone for each, if no two are in the same.
        let zones = source.endpoints.len();
        if let Some(part) = parts.last_mut() {
            let mut together = part.basis.clone();
            together.add(basis.clone());
            if together.len() + part.zones + zones <= MOST_CONDITIONS {
                part.basis = together;
                part.zones += zones;
                part.routes.push(route);
                continue;
            }
        }
        parts.push(Part {
            routes: vec![route],
            basis,
            zones,
        });
    }
    parts
}

impl Part<'_> {
    pub(super) fn basis(&self) -> Basis {
        self.basis.clone()
    }

    /// Keys that must be there, and puts, if the claims may be made.
    pub(super) fn claim(
        &self,
        whose: Whose<'_>,
        files: &dyn FileNames,
        listing: &Listing,
        lease: Option<LeaseId>,
    ) -> Result<(Vec<String>, Vec<Put>), Problem> {
        let (mut present, mut puts) = (Vec::new(), Vec::new());
        for (host, source) in &self.routes {
            let claim = Claim {
                tenant: whose.tenant,
                host,
                shared: source.shared,
                endpoints: &source.endpoints,
            };
            present.extend(judge(files, claim, &listing.entries, false)?);
            let value = serde_json::to_vec(source).expect("a route is JSON");
            puts.push(Put {
                key: keys::route(host, whose.tenant, whose.instance),
                value: value.into(),
                lease,
            });
        }
        Ok((present, puts))
    }
}

/// The record of an instance that stands between two announcements: it is known to hold what
/// either says, so that whatever comes next takes away what it does not say itself. `is_first`:
/// nothing of the new one is written yet.
///
/// One that stood between two already keeps no more than the new one says: else it would grow
/// with every attempt.
pub(super) fn between(before: Option<&Instance>, new: &Instance, is_first: bool) -> Instance {
    let mut hosts: BTreeSet<String> = new.hosts.iter().cloned().collect();
    if let Some(before) = before.filter(|it| !is_first || !it.digest.is_empty()) {
        hosts.extend(before.hosts.iter().cloned());
    }
    Instance {
        // Of no announcement, so that none is merely renewed.
        digest: String::new(),
        hosts: hosts.into_iter().collect(),
        ..new.clone()
    }
}

/// The keys of what `before` holds and `after` does not.
pub(super) fn left_out(
    whose: Whose<'_>,
    before: Option<&Instance>,
    after: &Instance,
) -> Vec<String> {
    let kept: BTreeSet<&String> = after.hosts.iter().collect();
    let hosts = before.into_iter().flat_map(|it| &it.hosts);
    hosts
        .filter(|host| !kept.contains(host))
        .filter_map(|host| HostMatch::parse(host).ok())
        .map(|host| keys::route(&host, whose.tenant, whose.instance))
        .collect()
}
