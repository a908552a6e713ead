//! Takes away routes that their tenant's zones no longer allow.
//!
//! Who is suspected is found in the view, in slices. What goes is decided by what stands in the
//! store, on the condition that it still stands there: an instance that announces anew meanwhile
//! keeps what it announced.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use config::route::HostMatch;

use super::{Decision, transact};
use crate::registry::api::problem::Problem;
use crate::registry::claims::{outside, zone_covers};
use crate::registry::keys::{self, API_SOURCE, Key};
use crate::registry::record::{Instance, RouteSource, Zone};
use crate::registry::shared::RouteRegistry;
use crate::registry::store::{
    Listing, MOST_CHANGES, MOST_CONDITIONS, Put, Range, Revision, Transaction,
};
use crate::registry::view::View;

/// How long the view may take to come to the change of the zone.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long for what may have come before.
const BRIEFLY: Duration = Duration::from_secs(1);
/// Names that are looked at while the view is locked.
const SLICE: usize = 1000;

/// What one source added to a route, and adds no longer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Evicted {
    /// An instance's name, or `@api`.
    pub source: Arc<str>,
    /// The rule.
    pub host: HostMatch,
}

/// Names that are leased to one tenant; a zone that cannot be read is `None`.
#[derive(Debug, Default)]
pub(super) struct Leased(pub(super) Vec<(HostMatch, Option<Zone>)>);

impl Leased {
    /// As the view has them.
    pub(super) fn of_view(view: &View, tenant: &str) -> Self {
        let readable = view.zones_of(tenant);
        let readable = readable.map(|(pattern, zone)| (pattern.clone(), Some(zone.record.clone())));
        let unreadable = view
            .unreadable()
            .filter_map(|(key, _)| match Key::parse(key) {
                Some(Key::Zone {
                    tenant: owner,
                    pattern,
                }) if owner == tenant => Some((pattern, None)),
                _ => None,
            });
        Self(readable.chain(unreadable).collect())
    }

    /// As they stand in the store.
    pub(super) fn of_listing(listing: &Listing, tenant: &str) -> Self {
        let zones = listing.entries.iter().filter_map(|entry| {
            let Some(Key::Zone {
                tenant: owner,
                pattern,
            }) = Key::parse(&entry.key)
            else {
                return None;
            };
            let zone = serde_json::from_slice(&entry.value).ok();
            (owner == tenant).then_some((pattern, zone))
        });
        Self(zones.collect())
    }

    /// Whether a route may stay. A zone that cannot be read (a newer version wrote it) allows no new
    /// claim, but takes nothing away either.
    pub(super) fn allow(&self, host: &HostMatch, source: &RouteSource) -> bool {
        let covering = self.0.iter();
        let covering = covering.filter(|(pattern, _)| zone_covers(pattern, host));
        let zones: Option<Vec<&Zone>> = covering.map(|(_, zone)| zone.as_ref()).collect();
        zones.is_none_or(|zones| outside(&zones, &source.endpoints).is_none())
    }
}

/// Deletes the tenant's routes that no zone allows as of `revision`. What is left of an instance
/// keeps its record, but with no digest: its next announcement is judged and not merely renewed.
///
/// Claims that are under way cannot slip through: each is conditional on the zones it rests on.
///
/// # Errors
/// If the store does not take it; asking once more goes on where it stopped.
pub(super) async fn evict(
    registry: &RouteRegistry,
    tenant: &str,
    revision: Revision,
) -> Result<Vec<Evicted>, Problem> {
    follow_to(registry, revision).await?;
    evict_strays(registry, tenant).await
}

/// The same, as of whatever the view has come to.
///
/// # Errors
/// As [`evict`].
pub(in crate::registry) async fn evict_strays(
    registry: &RouteRegistry,
    tenant: &str,
) -> Result<Vec<Evicted>, Problem> {
    let leased = Leased::of_view(&registry.view(), tenant);
    let suspects = held(registry, tenant, |host, source| !leased.allow(host, source)).await;
    let mut gone = Vec::new();
    for some in in_parts(suspects) {
        let ranges = ranges(tenant, &some);
        let (revision, evicted) =
            transact(registry, &ranges, |listing| Ok(strays(listing, tenant))).await?;
        for Evicted { host, source } in &evicted {
            tracing::info!(
                tenant, %host, %source, revision = revision.0,
                "a route outside of its tenant's zones is gone"
            );
        }
        gone.extend(evicted);
    }
    Ok(gone)
}

/// Waits a moment for a revision at which nothing was left to change. It may be one that no watch
/// tells of, so that waiting longer would be in vain.
pub(super) async fn look_again(registry: &RouteRegistry, revision: Revision) {
    let _ = registry.has_followed(revision, BRIEFLY).await;
}

/// Waits until the view knows of a change of zones.
pub(super) async fn follow_to(registry: &RouteRegistry, revision: Revision) -> Result<(), Problem> {
    if registry.has_followed(revision, PATIENCE).await {
        return Ok(());
    }
    let detail = "which routes lose their zone cannot be seen yet: ask again";
    Err(Problem::store_unreachable(detail))
}

/// What the tenant holds and `which` is true of, by source. The view is locked for a slice at a
/// time.
pub(super) async fn held(
    registry: &RouteRegistry,
    tenant: &str,
    which: impl Fn(&HostMatch, &RouteSource) -> bool,
) -> Vec<Evicted> {
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let last = {
            let view = registry.view();
            let mut last = None;
            for host in view.hosts_after(Some(tenant), after.as_ref()).take(SLICE) {
                let theirs = view.sources(host).iter();
                let theirs = theirs.filter(|it| *it.tenant == *tenant && which(host, &it.spec));
                found.extend(theirs.map(|it| Evicted {
                    source: Arc::clone(&it.name),
                    host: host.clone(),
                }));
                last = Some(host);
            }
            last.cloned()
        };
        if last.is_none() {
            break;
        }
        after = last;
        tokio::task::yield_now().await;
    }
    found.sort();
    found
}

/// As many as one transaction takes: each route is a range that is read, and a condition and a
/// deletion after that; so is the record of its instance, which must still be there besides; and the
/// zones are one range more.
fn in_parts(suspects: Vec<Evicted>) -> Vec<Vec<Evicted>> {
    const ROOM: usize = if MOST_CHANGES < MOST_CONDITIONS {
        MOST_CHANGES
    } else {
        MOST_CONDITIONS
    } - 1;
    let mut parts: Vec<Vec<Evicted>> = Vec::new();
    let mut room = 0;
    for suspect in suspects {
        let known = parts.last().and_then(|part| part.last());
        let cost = |begun: bool| if begun { 1 } else { 3 };
        let mut begun = known.is_some_and(|it| it.source == suspect.source);
        if room < cost(begun) {
            parts.push(Vec::new());
            (room, begun) = (ROOM, false);
        }
        room -= cost(begun);
        if let Some(part) = parts.last_mut() {
            part.push(suspect);
        }
    }
    parts
}

fn ranges(tenant: &str, suspects: &[Evicted]) -> Vec<Range> {
    let mut ranges = vec![keys::zones(tenant)];
    for suspect in suspects {
        ranges.push(Range::key(&keys::route(
            &suspect.host,
            tenant,
            &suspect.source,
        )));
        ranges.push(Range::key(&keys::instance(tenant, &suspect.source)));
    }
    ranges.sort();
    ranges.dedup();
    ranges
}

/// Deletes the routes of a listing that its zones do not allow, and takes them off the records of
/// their instances.
fn strays(listing: &Listing, tenant: &str) -> Decision<Vec<Evicted>> {
    let leased = Leased::of_listing(listing, tenant);
    let (mut transaction, mut evicted) = (Transaction::default(), Vec::new());
    let mut by_instance: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for entry in &listing.entries {
        let Some(Key::Route { host, source, .. }) = Key::parse(&entry.key) else {
            continue;
        };
        // What cannot be read is not in force.
        let Ok(spec) = serde_json::from_slice::<RouteSource>(&entry.value) else {
            continue;
        };
        if leased.allow(&host, &spec) {
            continue;
        }
        transaction.deletes.push(entry.key.clone());
        if source != API_SOURCE {
            by_instance
                .entry(source)
                .or_default()
                .push(host.to_string());
        }
        let source = source.into();
        evicted.push(Evicted { source, host });
    }
    if evicted.is_empty() {
        return Decision::Nothing(evicted);
    }
    for (instance, gone) in by_instance {
        let key = keys::instance(tenant, instance);
        let Some(entry) = listing.entries.iter().find(|it| it.key == key) else {
            continue;
        };
        let left = serde_json::from_slice::<Instance>(&entry.value)
            .ok()
            .and_then(|record| without(record, &gone));
        match left {
            // Nothing of it is left, or nobody can tell what is: it has to announce anew.
            None => transaction.deletes.push(key),
            Some(record) => {
                let value = serde_json::to_vec(&record).expect("a record is JSON");
                // One that was withdrawn meanwhile must not come back.
                transaction.present.push(key.clone());
                transaction.puts.push(Put {
                    key,
                    value: value.into(),
                    lease: entry.lease,
                });
            }
        }
    }
    Decision::Commit(transaction, evicted)
}

/// An instance's record without some of its names and without its digest, so that no announcement
/// is the same as the last one; `None` if it has no names any more.
fn without(mut record: Instance, gone: &[String]) -> Option<Instance> {
    record.hosts.retain(|host| !gone.contains(host));
    record.digest.clear();
    (!record.hosts.is_empty()).then_some(record)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_at_once_fits_into_a_transaction() {
        let suspect = |source: usize, host: usize| Evicted {
            source: format!("w{source:04}").into(),
            host: HostMatch::parse(&format!("h{host}.example.org")).unwrap(),
        };
        for routes in [1, 2, 32, 500] {
            let all: Vec<_> = (0..200)
                .flat_map(|source| (0..routes).map(move |host| suspect(source, host)))
                .collect();
            let parts = in_parts(all.clone());
            for part in &parts {
                let ranges = ranges("acme", part).len();
                let records = ranges - 1 - part.len();
                assert!(ranges + records <= MOST_CONDITIONS, "{routes}");
                assert!(part.len() + records <= MOST_CHANGES, "{routes}");
            }
            assert_eq!(parts.concat(), all, "{routes}");
        }
    }
}
