//! Takes away, in the background, what a change of zones that was cut short has left behind.
//!
//! Whoever changes a zone evicts what it no longer allows, in a second step. If that fails and
//! nobody asks again, or the router ends in between, routes stay without a zone. So every router
//! looks a while after it has seen a zone change or has listed everything: usually there is nothing
//! left to do, and if several find the same, the first one's transaction leaves nothing to the
//! others.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

pub(in crate::registry) use super::evict::evict_strays;
use crate::registry::auth::TokenSource as _;
use crate::registry::jitter::fraction;
use crate::registry::shared::RouteRegistry;

/// How long whoever changed the zone is left to do it, at least; at most twice as long, so that not
/// all routers look at once.
const LEFT_TO_OTHERS: Duration = Duration::from_secs(10);

/// Sweeps; never ends.
pub async fn sweep(registry: &RouteRegistry) {
    let mut followed = registry.subscribe();
    let mut due = BTreeSet::new();
    loop {
        due.append(&mut rezoned(registry));
        if due.is_empty() {
            // Never an error: the registry has the sender.
            let _ = followed.changed().await;
            continue;
        }
        tokio::time::sleep(LEFT_TO_OTHERS.mul_f64(1.0 + fraction())).await;
        due.append(&mut rezoned(registry));
        due = sweep_tenants(registry, due).await;
    }
}

/// Sweeps up after these; those come back for which it failed.
pub(in crate::registry) async fn sweep_tenants(
    registry: &RouteRegistry,
    tenants: BTreeSet<Arc<str>>,
) -> BTreeSet<Arc<str>> {
    let mut failed = BTreeSet::new();
    for tenant in tenants {
        match evict_strays(registry, &tenant).await {
            Ok(evicted) if evicted.is_empty() => {}
            Ok(evicted) => tracing::warn!(
                tenant = &*tenant,
                routes = evicted.len(),
                "a change of the tenant's zones had left routes behind that no zone allows: they are gone now"
            ),
            Err(problem) => {
                tracing::warn!(
                    tenant = &*tenant,
                    reason = problem.reason,
                    "routes that no zone of their tenant allows cannot be taken away yet"
                );
                failed.insert(tenant);
            }
        }
    }
    failed
}

/// Tenants to look after. None while only routes are known that were written down before this
/// process began: zones are not written down.
pub(in crate::registry) fn rezoned(registry: &RouteRegistry) -> BTreeSet<Arc<str>> {
    if registry.is_ready() {
        registry.view().take_rezoned()
    } else {
        BTreeSet::new()
    }
}
