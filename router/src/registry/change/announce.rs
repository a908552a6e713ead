//! What registrars announce, renew and withdraw.
//!
//! An announcement is everything that one instance offers. The same again renews its lease and
//! writes nothing; another one replaces it. Its keys hang on the lease, so that an instance that
//! falls silent is gone when its time is up, whoever else is down then.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use config::route::HostMatch;

use super::routes::too_many;
use super::{Decision, FileNames, TRANSACTION_ITEMS, Unmade, refused, stands_in_a_file, transact};
use crate::registry::ahead::Mark;
use crate::registry::api::problem::Problem;
use crate::registry::api::types::{Announced, Announcement};
use crate::registry::claims::{self, Claim};
use crate::registry::hex::to_hex;
use crate::registry::keys;
use crate::registry::record::{Instance, RouteSource};
use crate::registry::shared::RouteRegistry;
use crate::registry::store::{LeaseId, Listing, Put, Range, Revision, StoreError, Transaction};
use crate::registry::view::InstanceEntry;

/// An announcement whose texts were read.
pub struct Announce<'a> {
    /// Whose it is.
    pub tenant: &'a str,
    /// Who announces.
    pub instance: &'a str,
    /// Seconds that it holds.
    pub ttl: u32,
    /// Rules with what this instance adds to them; none twice.
    pub routes: Vec<(HostMatch, RouteSource)>,
    /// The credential, for whoever looks at it later.
    pub credential: &'a str,
    /// Routes that the tenant may hold.
    pub most: usize,
}

/// Renews an announcement, or puts it in place of the instance's last one.
///
/// # Errors
/// If one of its names or endpoints is refused, and then nothing of it holds but what held before.
pub async fn announce(
    registry: &RouteRegistry,
    files: &dyn FileNames,
    announcement: &Announcement,
    request: Announce<'_>,
) -> Result<Announced, Problem> {
    let Announce {
        tenant,
        instance,
        ttl,
        ..
    } = request;
    let digest = digest_of(announcement);
    let followed = registry.view().revision();
    // A renewal waits for nobody, unless a change of this very instance is under way.
    if !registry
        .ahead
        .is_ahead(tenant, instance, followed, Instant::now())
        && let Renewed::All(announced) = renew(registry, &request, &digest).await?
    {
        return Ok(announced);
    }
    let turn = registry.turns.take(tenant).await?;
    // Meanwhile an earlier call may have been done that nobody waited for.
    let lease = match renew(registry, &request, &digest).await? {
        Renewed::All(announced) => return Ok(announced),
        Renewed::Lease(held) => Some(held),
        Renewed::Nothing => None,
    };
    for (host, source) in &request.routes {
        if let Some(why) = files.file_owner(host, request.tenant, source.shared) {
            return Err(stands_in_a_file(host, &why, false));
        }
    }
    refuse_too_many(registry, &request)?;
    let new_lease = lease.is_none();
    let lease = match lease {
        Some(lease) => lease,
        None => {
            let ttl = Duration::from_secs(ttl.into());
            registry.store.grant(ttl).await?
        }
    };
    let record = Instance {
        digest,
        ttl,
        hosts: request.routes.iter().map(|it| it.0.to_string()).collect(),
        credential: request.credential.to_owned(),
    };
    let changing = Changing::begin(registry, tenant, instance);
    let replaced = replace(registry, &request, record, lease).await;
    changing.end(&replaced);
    drop(turn);
    match replaced {
        Ok(revision) => Ok(Announced {
            revision: revision.0,
            ttl,
            renewed: false,
        }),
        Err(unmade) => {
            if new_lease && unmade.is_certain() {
                // Best effort: a lease that nothing hangs on ends by itself.
                let _ = registry.store.revoke(lease).await;
            }
            Err(unmade.into())
        }
    }
}

/// What a renewal came to.
enum Renewed {
    /// The same was announced before.
    All(Announced),
    /// Something else was; its lease goes on.
    Lease(LeaseId),
    /// There is no lease to go on with.
    Nothing,
}

async fn renew(
    registry: &RouteRegistry,
    request: &Announce<'_>,
    digest: &str,
) -> Result<Renewed, Problem> {
    let Announce {
        tenant,
        instance,
        ttl,
        ..
    } = *request;
    let (revision, known) = last_announced(registry, tenant, instance).await?;
    let Some(known) = known.filter(|known| known.record.ttl == ttl) else {
        return Ok(Renewed::Nothing);
    };
    let Some(lease) = known.lease else {
        return Ok(Renewed::Nothing);
    };
    match registry.store.renew(lease).await {
        Ok(()) if known.record.digest == digest => Ok(Renewed::All(Announced {
            revision: revision.0,
            ttl,
            renewed: true,
        })),
        Ok(()) => Ok(Renewed::Lease(lease)),
        Err(StoreError::LeaseGone) => Ok(Renewed::Nothing),
        Err(error) => Err(error.into()),
    }
}

/// What an instance announced last, as of a revision: by the view, and by the store where the view
/// may be wrong. Another router's change may still be on its way to this view; who meets that is
/// put right by the next renewal.
async fn last_announced(
    registry: &RouteRegistry,
    tenant: &str,
    instance: &str,
) -> Result<(Revision, Option<InstanceEntry>), Problem> {
    let (followed, known) = {
        let view = registry.view();
        (view.revision(), view.instance(tenant, instance).cloned())
    };
    let ahead = &registry.ahead;
    if registry.is_reachable() && !ahead.is_ahead(tenant, instance, followed, Instant::now()) {
        return Ok((followed, known));
    }
    let key = keys::instance(tenant, instance);
    let listing = registry.store.read(&[Range::key(&key)]).await?;
    let entry = listing.entries.first();
    let known = entry.and_then(|entry| {
        // One that cannot be read is put anew.
        let record = serde_json::from_slice(&entry.value).ok()?;
        let lease = entry.lease;
        Some(InstanceEntry { record, lease })
    });
    Ok((listing.revision, known))
}

/// A change of an instance that is being committed. Dropped without having ended, it leaves the
/// instance in doubt.
struct Changing<'a> {
    registry: &'a RouteRegistry,
    tenant: &'a str,
    instance: &'a str,
    before: Option<Mark>,
}

impl<'a> Changing<'a> {
    fn begin(registry: &'a RouteRegistry, tenant: &'a str, instance: &'a str) -> Self {
        Self {
            registry,
            tenant,
            instance,
            before: registry.ahead.begin(tenant, instance, Instant::now()),
        }
    }

    fn end(self, outcome: &Result<Revision, Unmade>) {
        let Self {
            registry,
            tenant,
            instance,
            before,
        } = self;
        match outcome {
            Ok(revision) => {
                let followed = registry.view().revision();
                let now = Instant::now();
                registry
                    .ahead
                    .committed(tenant, instance, *revision, followed, now);
            }
            Err(unmade) if unmade.is_certain() => {
                registry.ahead.refused(tenant, instance, before);
            }
            Err(_) => {}
        }
    }
}

/// Withdraws everything that an instance announced; also fine if there is nothing.
///
/// # Errors
/// If the store does not take it.
pub async fn withdraw(
    registry: &RouteRegistry,
    tenant: &str,
    instance: &str,
) -> Result<Revision, Problem> {
    let key = keys::instance(tenant, instance);
    let ranges = [Range::key(&key)];
    let _turn = registry.turns.take(tenant).await?;
    let changing = Changing::begin(registry, tenant, instance);
    let mut lease = None;
    let withdrawn = transact(registry, &ranges, |listing| {
        let Some(entry) = listing.entries.first() else {
            return Ok(Decision::Nothing(()));
        };
        lease = entry.lease;
        let mut deletes = announced_keys(listing, tenant, instance);
        deletes.push(key.clone());
        let transaction = Transaction {
            deletes,
            ..Transaction::default()
        };
        Ok(Decision::Commit(transaction, ()))
    })
    .await
    .map(|(revision, ())| revision);
    changing.end(&withdrawn);
    let revision = withdrawn?;
    if let Some(lease) = lease {
        // The keys are gone; the lease would end by itself.
        let _ = registry.store.revoke(lease).await;
    }
    Ok(revision)
}

/// Writes all routes, the instance's record, and takes away what it announces no longer. In one
/// transaction, unless names with very many hyphens make it too big for the store.
async fn replace(
    registry: &RouteRegistry,
    request: &Announce<'_>,
    record: Instance,
    lease: LeaseId,
) -> Result<Revision, Unmade> {
    let Announce {
        tenant, instance, ..
    } = *request;
    let record_key = keys::instance(tenant, instance);
    let mut parts = in_parts(tenant, &request.routes);
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        transact(registry, &part.ranges(&record_key), |listing| {
            let (present, puts) = claimed(request, &part.routes, listing, lease)?;
            let transaction = Transaction {
                present,
                puts,
                ..Transaction::default()
            };
            Ok(Decision::Commit(transaction, ()))
        })
        .await?;
    }
    let value = serde_json::to_vec(&record).expect("a record is JSON");
    let (revision, ()) = transact(registry, &last.ranges(&record_key), |listing| {
        let (present, mut puts) = claimed(request, &last.routes, listing, lease)?;
        let kept: BTreeSet<_> = request
            .routes
            .iter()
            .map(|(host, _)| keys::route(host, tenant, instance))
            .collect();
        let mut deletes = announced_keys(listing, tenant, instance);
        deletes.retain(|key| !kept.contains(key));
        puts.push(Put {
            key: record_key.clone(),
            value: value.clone().into(),
            lease: Some(lease),
        });
        let transaction = Transaction {
            present,
            puts,
            deletes,
            ..Transaction::default()
        };
        Ok(Decision::Commit(transaction, ()))
    })
    .await?;
    Ok(revision)
}

/// Routes that are claimed together, and what their verdicts rest on.
#[derive(Default)]
struct Part<'a> {
    routes: Vec<&'a (HostMatch, RouteSource)>,
    ranges: BTreeSet<Range>,
}

impl Part<'_> {
    fn ranges(&self, record: &str) -> Vec<Range> {
        let ranges = self.ranges.iter().cloned();
        ranges.chain([Range::key(record)]).collect()
    }
}

fn in_parts<'a>(tenant: &str, routes: &'a [(HostMatch, RouteSource)]) -> Vec<Part<'a>> {
    // Zones that verdicts rest on are conditions as well, and few.
    const ROOM: usize = TRANSACTION_ITEMS - 24;
    let mut parts = vec![Part::default()];
    for route in routes {
        let ranges: BTreeSet<_> = claims::ranges(tenant, &route.0).into_iter().collect();
        let part = parts.last_mut().expect("one is there from the start");
        if !part.routes.is_empty() && part.ranges.union(&ranges).count() > ROOM {
            parts.push(Part::default());
        }
        let part = parts.last_mut().expect("one is there from the start");
        part.ranges.extend(ranges);
        part.routes.push(route);
    }
    parts
}

/// Conditions and puts of claims that may be made.
fn claimed(
    request: &Announce<'_>,
    routes: &[&(HostMatch, RouteSource)],
    listing: &Listing,
    lease: LeaseId,
) -> Result<(Vec<String>, Vec<Put>), Problem> {
    let mut present = Vec::new();
    let mut puts = Vec::new();
    for (host, source) in routes {
        let claim = Claim {
            tenant: request.tenant,
            host,
            shared: source.shared,
            endpoints: &source.endpoints,
        };
        let zones = claims::judge(claim, &listing.entries)
            .map_err(|refusal| refused(host, &refusal, false))?;
        present.extend(zones);
        let value = serde_json::to_vec(source).expect("a route is JSON");
        puts.push(Put {
            key: keys::route(host, request.tenant, request.instance),
            value: value.into(),
            lease: Some(lease),
        });
    }
    Ok((present, puts))
}

/// The keys of everything that an instance announced before.
fn announced_keys(listing: &Listing, tenant: &str, instance: &str) -> Vec<String> {
    let key = keys::instance(tenant, instance);
    let record = listing.entries.iter().find(|it| it.key == key);
    let record = record.and_then(|it| serde_json::from_slice::<Instance>(&it.value).ok());
    let hosts = record.map_or(Vec::new(), |it| it.hosts);
    let hosts = hosts.iter().filter_map(|host| HostMatch::parse(host).ok());
    hosts
        .map(|host| keys::route(&host, tenant, instance))
        .collect()
}

fn refuse_too_many(registry: &RouteRegistry, request: &Announce<'_>) -> Result<(), Problem> {
    let view = registry.view();
    let held = |host: &HostMatch| {
        let mut sources = view.sources(host).iter();
        sources.any(|it| *it.tenant == *request.tenant)
    };
    let new = request.routes.iter().filter(|(host, _)| !held(host));
    let new = new.count();
    if new > 0 && view.held_by(request.tenant) + new > request.most {
        return Err(too_many(request.most));
    }
    Ok(())
}

/// The same for the same announcement at every router.
fn digest_of(announcement: &Announcement) -> String {
    let text = serde_json::to_vec(announcement).expect("an announcement is JSON");
    to_hex(digest(&SHA256, &text).as_ref())
}
