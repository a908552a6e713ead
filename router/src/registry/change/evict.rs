//! Takes away routes that their tenant's zones no longer allow.

use std::collections::BTreeSet;
use std::time::Duration;

use config::route::HostMatch;

use crate::registry::api::problem::Problem;
use crate::registry::claims::{outside, zone_covers};
use crate::registry::keys;
use crate::registry::record::Zone;
use crate::registry::shared::RouteRegistry;
use crate::registry::store::{Revision, Transaction};
use crate::registry::view::{Source, View};

/// How long the view may take to come to the change of the zone.
const PATIENCE: Duration = Duration::from_secs(5);
/// Keys of one transaction.
const AT_ONCE: usize = 100;

/// Deletes the tenant's routes that no zone allows as of `revision`, and the records of instances
/// that announced one, so that their next announcement is judged and not merely renewed.
///
/// Claims that are under way cannot slip through: each is conditional on the zones it rests on.
///
/// # Errors
/// If the store does not take it; asking once more goes on where it stopped.
pub(super) async fn evict(
    registry: &RouteRegistry,
    tenant: &str,
    revision: Revision,
) -> Result<(), Problem> {
    if !registry.has_followed(revision, PATIENCE).await {
        let detail = "the zone is changed, but which routes lose it cannot be seen yet: ask again";
        return Err(Problem::store_unreachable(detail));
    }
    let keys = not_allowed(&registry.view(), tenant);
    for some in keys.chunks(AT_ONCE) {
        let transaction = Transaction {
            deletes: some.to_vec(),
            ..Transaction::default()
        };
        registry.store.commit(&transaction).await?;
    }
    if !keys.is_empty() {
        tracing::info!(
            tenant,
            keys = keys.len(),
            "routes outside of their tenant's zones are gone"
        );
    }
    Ok(())
}

fn not_allowed(view: &View, tenant: &str) -> Vec<String> {
    let zones: Vec<_> = view.zones().filter(|it| it.0 == tenant).collect();
    let allows = |host: &HostMatch, source: &Source| {
        let covering: Vec<&Zone> = zones
            .iter()
            .filter(|(_, pattern, _)| zone_covers(pattern, host))
            .map(|(_, _, zone)| *zone)
            .collect();
        outside(&covering, &source.spec.endpoints).is_none()
    };
    let mut keys = BTreeSet::new();
    for host in view.hosts_after(Some(tenant), None) {
        for source in view.sources(host) {
            if *source.tenant == *tenant && !allows(host, source) {
                keys.insert(keys::route(host, tenant, &source.name));
                keys.insert(keys::instance(tenant, &source.name));
            }
        }
    }
    keys.into_iter().collect()
}
