//! Zones: which names, and which addresses, are leased to whom.

use config::route::HostMatch;

use super::evict::{Evicted, Leased, evict, evict_strays, follow_to, held, look_again};
use super::{Decision, Expect, transact};
use crate::registry::api::problem::{Problem, reason};
use crate::registry::claims::zones_overlap;
use crate::registry::keys::{self, Key};
use crate::registry::record::Zone;
use crate::registry::shared::RouteRegistry;
use crate::registry::store::{KeyValue, Put, Range, Revision, Transaction};

/// Routes that are named in a refusal.
const EXAMPLES: usize = 3;

/// A zone to be changed.
#[derive(Clone, Copy, Debug)]
pub struct ZoneChange<'a> {
    /// Whom it is leased to.
    pub tenant: &'a str,
    /// Its names.
    pub pattern: &'a HostMatch,
    /// What has to be there before.
    pub expect: &'a Expect,
    /// Whether routes that no zone would allow any more may go; it is refused otherwise.
    pub evict: bool,
}

/// What a change of a zone came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneChanged {
    /// Where the zone stands now.
    pub revision: Revision,
    /// Whether there was no such zone before.
    pub created: bool,
    /// Routes that went with it.
    pub evicted: Vec<Evicted>,
}

/// Leases names to a tenant. Routes of the tenant that no zone allows any more (their addresses may
/// have been taken out) go.
///
/// # Errors
/// If the zone overlaps with another tenant's and not both are shared, if it is not as expected, or
/// if routes would go that may not.
pub async fn put_zone(
    registry: &RouteRegistry,
    change: ZoneChange<'_>,
    zone: &Zone,
) -> Result<ZoneChanged, Problem> {
    let ZoneChange {
        tenant, pattern, ..
    } = change;
    spare_routes(registry, change, Some(zone)).await?;
    let key = keys::zone(tenant, pattern);
    let value = serde_json::to_vec(zone).expect("a zone is JSON");
    let ranges = [keys::all_zones()];
    let (revision, created) = transact(registry, &ranges, |listing| {
        let known = listing.entries.iter().find(|it| it.key == key);
        check(change.expect, known)?;
        for entry in &listing.entries {
            let Some(Key::Zone {
                tenant: other,
                pattern: theirs,
            }) = Key::parse(&entry.key)
            else {
                continue;
            };
            // One that cannot be read is not shared.
            let shared = serde_json::from_slice::<Zone>(&entry.value).is_ok_and(|it| it.shared);
            if other != tenant && zones_overlap(pattern, &theirs) && !(shared && zone.shared) {
                let detail = format!(
                    "{pattern} overlaps with {theirs} of tenant {other}, and not both are shared"
                );
                return Err(Problem::conflict(reason::ZONES_OVERLAP, detail));
            }
        }
        let put = Put {
            key: key.clone(),
            value: value.clone().into(),
            lease: None,
        };
        let transaction = Transaction {
            // A deletion since it was read is a change as well.
            present: still_there(change.expect, &key),
            puts: vec![put],
            ..Transaction::default()
        };
        Ok(Decision::Commit(transaction, known.is_none()))
    })
    .await?;
    let evicted = if created {
        Vec::new()
    } else {
        evict(registry, tenant, revision).await?
    };
    Ok(ZoneChanged {
        revision,
        created,
        evicted,
    })
}

/// Takes a zone back; routes of the tenant that no other zone of it allows go at once. With the zone
/// gone already, it ends what an earlier call may have left undone.
///
/// # Errors
/// If there is no such zone and nothing is left to do, if it is not as expected, or if routes would
/// go that may not.
pub async fn delete_zone(
    registry: &RouteRegistry,
    change: ZoneChange<'_>,
) -> Result<ZoneChanged, Problem> {
    let ZoneChange {
        tenant, pattern, ..
    } = change;
    spare_routes(registry, change, None).await?;
    let key = keys::zone(tenant, pattern);
    let ranges = [Range::key(&key)];
    let (revision, deleted) = transact(registry, &ranges, |listing| {
        let known = listing.entries.first();
        if known.is_none() {
            return Ok(Decision::Nothing(false));
        }
        check(change.expect, known)?;
        let transaction = Transaction {
            present: vec![key.clone()],
            deletes: vec![key.clone()],
            ..Transaction::default()
        };
        Ok(Decision::Commit(transaction, true))
    })
    .await?;
    let evicted = if deleted {
        evict(registry, tenant, revision).await?
    } else {
        look_again(registry, revision).await;
        evict_strays(registry, tenant).await?
    };
    if !deleted && evicted.is_empty() {
        check(change.expect, None)?;
        let detail = format!("tenant {tenant} has no zone {pattern}");
        return Err(Problem::not_found(detail));
    }
    Ok(ZoneChanged {
        revision,
        created: false,
        evicted,
    })
}

/// The entity tag of a zone: when it changed last.
#[must_use]
pub fn zone_etag(modified: Revision) -> String {
    format!("\"{}\"", modified.0)
}

/// Refuses a change that would take routes away, unless it may: an address range that was left out
/// by mistake must not take a tenant off the air. Routes that come at the very moment of the change
/// are not seen here, and go.
async fn spare_routes(
    registry: &RouteRegistry,
    change: ZoneChange<'_>,
    zone: Option<&Zone>,
) -> Result<(), Problem> {
    let ZoneChange {
        tenant, pattern, ..
    } = change;
    if change.evict {
        return Ok(());
    }
    let listing = registry.store.read(&[keys::zones(tenant)]).await?;
    let key = keys::zone(tenant, pattern);
    let known = listing.entries.iter().find(|it| it.key == key);
    if known.is_none() {
        // One zone more takes nothing away.
        return Ok(());
    }
    check(change.expect, known)?;
    // Not the revision of the listing: what others keep in the same etcd raises it as well, and no
    // watch of ours tells of that.
    let newest = listing.entries.iter().map(|entry| entry.modified).max();
    follow_to(registry, newest.unwrap_or_default()).await?;
    let before = Leased::of_listing(&listing, tenant);
    let mut after = Leased::of_listing(&listing, tenant);
    after.0.retain(|(other, _)| other != pattern);
    after
        .0
        .extend(zone.map(|zone| (pattern.clone(), Some(zone.clone()))));
    let losers = held(registry, tenant, |host, source| {
        before.allow(host, source) && !after.allow(host, source)
    })
    .await;
    if losers.is_empty() {
        return Ok(());
    }
    Err(would_evict(tenant, &losers))
}

fn would_evict(tenant: &str, losers: &[Evicted]) -> Problem {
    let mut hosts: Vec<_> = losers.iter().map(|it| it.host.to_string()).collect();
    hosts.sort();
    hosts.dedup();
    let more = hosts.len().saturating_sub(EXAMPLES);
    hosts.truncate(EXAMPLES);
    let mut names = hosts.join(", ");
    if more > 0 {
        names.push_str(&format!(" and {more} more"));
    }
    let count = losers.len();
    let detail = format!(
        "evicted: {count} routes of tenant {tenant} would go at once ({names}): ask with evict=true if they are to"
    );
    Problem::conflict(reason::WOULD_EVICT, detail)
}

fn still_there(expect: &Expect, key: &str) -> Vec<String> {
    match expect {
        Expect::Something | Expect::OneOf(_) => vec![key.to_owned()],
        Expect::Anything | Expect::Nothing => Vec::new(),
    }
}

fn check(expect: &Expect, known: Option<&KeyValue>) -> Result<(), Problem> {
    let met = match (expect, known) {
        (Expect::Anything, _) | (Expect::Nothing, None) | (Expect::Something, Some(_)) => true,
        (Expect::OneOf(tags), Some(known)) => tags.contains(&zone_etag(known.modified)),
        (Expect::Nothing, Some(_)) | (Expect::Something | Expect::OneOf(_), None) => false,
    };
    if met {
        return Ok(());
    }
    Err(Problem::changed(match (expect, known) {
        (Expect::Nothing, _) => "the zone is there already",
        (_, None) => "there is no such zone",
        _ => "the zone is no longer the one that If-Match names",
    }))
}
