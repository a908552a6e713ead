//! What registrars announce, renew and withdraw.
//!
//! An announcement is everything that one instance offers. The same again renews its lease and
//! writes nothing; another one replaces it. Its keys hang on the lease, so that an instance that
//! falls silent is gone when its time is up, whoever else is down then.

use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use config::route::HostMatch;

use super::part::{Part, Whose, between, in_parts, left_out};
use super::renew::{Changing, Renewed, renew};
use super::room::{Quota, make_room, took};
use super::{Decision, FileNames, Unmade, refuse_wide, transact};
use crate::registry::api::problem::Problem;
use crate::registry::api::types::{Announced, Announcement};
use crate::registry::claims::Claim;
use crate::registry::hex::to_hex;
use crate::registry::keys;
use crate::registry::record::{Instance, RouteSource};
use crate::registry::shared::RouteRegistry;
use crate::registry::store::{LeaseId, Listing, Put, Range, Revision, Transaction};

/// An announcement whose texts were read.
pub struct Announce<'a> {
    /// Whose it is.
    pub tenant: &'a str,
    /// Who announces.
    pub instance: &'a str,
    /// Seconds that it holds.
    pub ttl: u32,
    /// What was sent, by [`digest_of`].
    pub digest: String,
    /// Rules with what this instance adds to them; none twice.
    pub routes: Vec<(HostMatch, RouteSource)>,
    /// The credential, for whoever looks at it later.
    pub credential: &'a str,
    /// What the tenant may have.
    pub quota: Quota,
}

/// Renews an announcement, or puts it in place of the instance's last one.
///
/// # Errors
/// If one of its names or endpoints is refused, and then nothing of it holds but what held before.
pub async fn announce(
    registry: &RouteRegistry,
    files: &dyn FileNames,
    request: Announce<'_>,
) -> Result<Announced, Problem> {
    let Announce {
        tenant,
        instance,
        ttl,
        ..
    } = request;
    let followed = registry.view().revision();
    // A renewal waits for nobody, unless a change of this very instance is under way.
    if !registry
        .ahead
        .is_ahead(tenant, instance, followed, Instant::now())
        && let Renewed::All(announced) = renew(registry, &request).await?
    {
        return Ok(announced);
    }
    let turn = registry.turns.take(tenant).await?;
    // Meanwhile an earlier call may have been done that nobody waited for.
    let held = match renew(registry, &request).await? {
        Renewed::All(announced) => return Ok(announced),
        Renewed::Lease(held) => Some(held),
        Renewed::Nothing => None,
    };
    let routes: Vec<_> = request.routes.iter().map(|(host, it)| (host, it)).collect();
    let added = make_room(registry, request.quota, (tenant, instance), &routes)?;
    let parts = in_parts(request.whose(), &request.routes);
    judge_all(registry, files, &request, &parts).await?;
    let lease = match held {
        Some(lease) => lease,
        None => {
            let ttl = Duration::from_secs(ttl.into());
            registry.store.grant(ttl).await?
        }
    };
    let changing = Changing::begin(registry, tenant, instance);
    let mut replaced = None;
    let outcome = replace(registry, files, &request, &parts, lease, &mut replaced).await;
    changing.end(&outcome);
    if let Ok(revision) = outcome {
        took(registry, tenant, added, revision);
    }
    drop(turn);
    // Best effort, both: a lease that nothing hangs on ends by itself.
    match &outcome {
        Ok(_) => {
            if let Some(replaced) = replaced.filter(|it| *it != lease) {
                let _ = registry.store.revoke(replaced).await;
            }
        }
        Err(unmade) => {
            if held.is_none() && unmade.is_certain() {
                let _ = registry.store.revoke(lease).await;
            }
        }
    }
    Ok(Announced {
        revision: outcome?.0,
        ttl,
        renewed: false,
    })
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
    let (revision, _) = withdraw_if(registry, tenant, instance, |_| true).await?;
    Ok(revision)
}

/// The same, if what it announced is still as wanted; a record that cannot be read is. Tells whether
/// there was such a thing.
///
/// # Errors
/// As [`withdraw`].
pub(super) async fn withdraw_if(
    registry: &RouteRegistry,
    tenant: &str,
    instance: &str,
    wanted: impl Fn(&Instance) -> bool,
) -> Result<(Revision, bool), Problem> {
    let key = keys::instance(tenant, instance);
    let ranges = [Range::key(&key)];
    let _turn = registry.turns.take(tenant).await?;
    let changing = Changing::begin(registry, tenant, instance);
    let mut lease = None;
    let withdrawn = transact(registry, &ranges, |listing| {
        let Some(entry) = listing.entries.first() else {
            return Ok(Decision::Nothing(false));
        };
        let known = announced(listing, &key);
        if !known.as_ref().is_none_or(&wanted) {
            return Ok(Decision::Nothing(false));
        }
        lease = entry.lease;
        let hosts = known.map_or(Vec::new(), |it| it.hosts);
        let hosts = hosts.iter().filter_map(|host| HostMatch::parse(host).ok());
        let routes = hosts.map(|host| keys::route(&host, tenant, instance));
        let deletes = routes.chain([key.clone()]).collect();
        let transaction = Transaction {
            deletes,
            ..Transaction::default()
        };
        Ok(Decision::Commit(transaction, true))
    })
    .await;
    let (withdrawn, found) = match withdrawn {
        Ok((revision, found)) => (Ok(revision), found),
        Err(unmade) => (Err(unmade), false),
    };
    changing.end(&withdrawn);
    let revision = withdrawn?;
    if let Some(lease) = lease {
        // The keys are gone; the lease would end by itself.
        let _ = registry.store.revoke(lease).await;
    }
    Ok((revision, found))
}

/// Judges everything, where that is not done by the transaction that writes it: what is refused
/// must be so before the first part is written.
async fn judge_all(
    registry: &RouteRegistry,
    files: &dyn FileNames,
    request: &Announce<'_>,
    parts: &[Part<'_>],
) -> Result<(), Problem> {
    {
        let view = registry.view();
        for (host, source) in &request.routes {
            let claim = Claim {
                tenant: request.tenant,
                host,
                shared: source.shared,
                endpoints: &source.endpoints,
            };
            refuse_wide(&view, claim, false)?;
        }
    }
    if parts.len() < 2 {
        return Ok(());
    }
    for part in parts {
        let basis = part.basis();
        let (records, keys) = (Vec::from_iter(basis.records), Vec::from_iter(basis.keys));
        let listing = registry.store.read_partly(&records, &keys).await?;
        part.claim(request.whose(), files, &listing, None)?;
    }
    Ok(())
}

/// Writes all routes, the instance's record, and takes away what it announces no longer. In one
/// transaction, unless that is too much for the store. Amid several, the record says that the
/// instance holds what either announcement says. `replaced` becomes the lease of the last one.
async fn replace(
    registry: &RouteRegistry,
    files: &dyn FileNames,
    request: &Announce<'_>,
    parts: &[Part<'_>],
    lease: LeaseId,
    replaced: &mut Option<LeaseId>,
) -> Result<Revision, Unmade> {
    let whose = request.whose();
    let record_key = keys::instance(request.tenant, request.instance);
    let record = request.record();
    let mut revision = Revision::default();
    for (index, part) in parts.iter().enumerate() {
        let (is_first, is_last) = (index == 0, index + 1 == parts.len());
        let written = transact(registry, part.basis(), |listing| {
            let (present, mut puts) = part.claim(whose, files, listing, Some(lease))?;
            let entry = listing.entries.iter().find(|it| it.key == record_key);
            if is_first {
                *replaced = entry.and_then(|it| it.lease);
            }
            let before = announced(listing, &record_key);
            let now = match is_last {
                true => record.clone(),
                false => between(before.as_ref(), &record, is_first),
            };
            let value = serde_json::to_vec(&now).expect("a record is JSON");
            puts.push(Put {
                key: record_key.clone(),
                value: value.into(),
                lease: Some(lease),
            });
            let transaction = Transaction {
                present,
                puts,
                deletes: left_out(whose, before.as_ref(), &now),
                ..Transaction::default()
            };
            Ok(Decision::Commit(transaction, ()))
        })
        .await;
        revision = match written {
            Ok((revision, ())) => revision,
            // What is written hangs on the lease already.
            Err(Unmade::Refused(problem)) if !is_first => return Err(Unmade::Partly(problem)),
            Err(unmade) => return Err(unmade),
        };
    }
    Ok(revision)
}

/// An instance's record, among what was read.
fn announced(listing: &Listing, key: &str) -> Option<Instance> {
    let entry = listing.entries.iter().find(|it| it.key == key)?;
    serde_json::from_slice(&entry.value).ok()
}

impl Announce<'_> {
    fn whose(&self) -> Whose<'_> {
        Whose {
            tenant: self.tenant,
            instance: self.instance,
        }
    }

    fn record(&self) -> Instance {
        Instance {
            digest: self.digest.clone(),
            ttl: self.ttl,
            hosts: self.routes.iter().map(|it| it.0.to_string()).collect(),
            credential: self.credential.to_owned(),
        }
    }
}

/// The digest of an announcement: the same for the same at every router.
#[must_use]
pub fn digest_of(announcement: &Announcement) -> String {
    let text = serde_json::to_vec(announcement).expect("an announcement is JSON");
    to_hex(digest(&SHA256, &text).as_ref())
}
