//! Zones: which names, and which addresses, are leased to whom.

use config::route::HostMatch;

use super::evict::evict;
use super::{Decision, transact};
use crate::registry::api::problem::{Problem, reason};
use crate::registry::claims::zones_overlap;
use crate::registry::keys::{self, Key};
use crate::registry::record::Zone;
use crate::registry::shared::RouteRegistry;
use crate::registry::store::{Put, Range, Revision, Transaction};

/// Leases names to a tenant; true if there was no such zone before. Routes of the tenant that no
/// zone allows any more (their addresses may have been taken out) go.
///
/// # Errors
/// If the zone overlaps with another tenant's and not both are shared.
pub async fn put_zone(
    registry: &RouteRegistry,
    tenant: &str,
    pattern: &HostMatch,
    zone: &Zone,
) -> Result<(Revision, bool), Problem> {
    let key = keys::zone(tenant, pattern);
    let value = serde_json::to_vec(zone).expect("a zone is JSON");
    let ranges = [keys::all_zones()];
    let (revision, created) = transact(registry, &ranges, |listing| {
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
        let created = !listing.entries.iter().any(|it| it.key == key);
        let put = Put {
            key: key.clone(),
            value: value.clone().into(),
            lease: None,
        };
        let transaction = Transaction {
            puts: vec![put],
            ..Transaction::default()
        };
        Ok(Decision::Commit(transaction, created))
    })
    .await?;
    if !created {
        evict(registry, tenant, revision).await?;
    }
    Ok((revision, created))
}

/// Takes a zone back; routes of the tenant that no other zone of it allows go at once.
///
/// # Errors
/// If there is no such zone.
pub async fn delete_zone(
    registry: &RouteRegistry,
    tenant: &str,
    pattern: &HostMatch,
) -> Result<Revision, Problem> {
    let key = keys::zone(tenant, pattern);
    let ranges = [Range::key(&key)];
    let (revision, ()) = transact(registry, &ranges, |listing| {
        if listing.entries.is_empty() {
            let detail = format!("tenant {tenant} has no zone {pattern}");
            return Err(Problem::not_found(detail));
        }
        let transaction = Transaction {
            present: vec![key.clone()],
            deletes: vec![key.clone()],
            ..Transaction::default()
        };
        Ok(Decision::Commit(transaction, ()))
    })
    .await?;
    evict(registry, tenant, revision).await?;
    Ok(revision)
}
