//! Whether an announcement is the same as the last one, and whose lease goes on.

use std::time::Instant;

use super::Unmade;
use super::announce::Announce;
use crate::registry::ahead::Mark;
use crate::registry::api::problem::Problem;
use crate::registry::api::types::Announced;
use crate::registry::keys;
use crate::registry::shared::RouteRegistry;
use crate::registry::store::{LeaseId, Range, Revision, StoreError};
use crate::registry::view::InstanceEntry;

/// What a renewal came to.
pub(super) enum Renewed {
    /// The same was announced before.
    All(Announced),
    /// Something else was; its lease goes on.
    Lease(LeaseId),
    /// There is no lease to go on with.
    Nothing,
}

/// Renews the lease of what an instance announced last.
pub(super) async fn renew(
    registry: &RouteRegistry,
    request: &Announce<'_>,
) -> Result<Renewed, Problem> {
    let Announce {
        tenant,
        instance,
        ttl,
        credential,
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
        // Who renews with another credential is recorded with that one.
        Ok(())
            if known.record.digest == request.digest && *known.record.credential == *credential =>
        {
            Ok(Renewed::All(Announced {
                revision: revision.0,
                ttl,
                renewed: true,
            }))
        }
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
        Some(InstanceEntry {
            record,
            lease: entry.lease,
            bytes: 0,
        })
    });
    Ok((listing.revision, known))
}

/// A change of an instance that is being committed. Dropped without having ended, it leaves the
/// instance in doubt.
pub(super) struct Changing<'a> {
    registry: &'a RouteRegistry,
    tenant: &'a str,
    instance: &'a str,
    before: Option<Mark>,
}

impl<'a> Changing<'a> {
    pub(super) fn begin(registry: &'a RouteRegistry, tenant: &'a str, instance: &'a str) -> Self {
        Self {
            registry,
            tenant,
            instance,
            before: registry.ahead.begin(tenant, instance, Instant::now()),
        }
    }

    pub(super) fn end(self, outcome: &Result<Revision, Unmade>) {
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
