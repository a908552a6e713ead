//! What is counted of the route registry: its API, and how well it is followed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use daemon::prometheus::{Kind, Page};

use super::unix_seconds;

/// How well the registry is followed. Any thread may write.
#[derive(Debug, Default)]
pub struct FollowMetrics {
    /// 1 if there is a registry to follow.
    configured: AtomicU64,
    revision: AtomicU64,
    /// Unix seconds since when the store is out of reach; 0: it is not.
    lost: AtomicU64,
    foreign: AtomicU64,
}

impl FollowMetrics {
    /// There is a registry to follow; it has not been reached yet.
    pub fn begin(&self, now: SystemTime) {
        self.lost.store(unix_seconds(now), Relaxed);
        self.configured.store(1, Relaxed);
    }

    /// Everything up to this revision was taken in.
    pub fn followed(&self, revision: i64) {
        self.revision
            .store(u64::try_from(revision).unwrap_or(0), Relaxed);
    }

    /// The store answers, or it does not any more.
    pub fn reachable(&self, reachable: bool, now: SystemTime) {
        let lost = if reachable { 0 } else { unix_seconds(now) };
        self.lost.store(lost, Relaxed);
    }

    /// What answers is another store than the routes in force came from, or is not any more.
    pub fn foreign(&self, foreign: bool) {
        self.foreign.store(u64::from(foreign), Relaxed);
    }

    /// See [`FollowMetrics::foreign`].
    pub fn is_foreign(&self) -> bool {
        self.foreign.load(Relaxed) != 0
    }

    /// For how many seconds the store has been out of reach; `None` while it is not.
    pub fn stale_for(&self, now: SystemTime) -> Option<u64> {
        match self.lost.load(Relaxed) {
            0 => None,
            since => Some(unix_seconds(now).saturating_sub(since)),
        }
    }
}

/// What the registry's etcd says of itself. Any thread may write.
#[derive(Debug, Default)]
pub struct EtcdMetrics {
    /// 1 once it has said anything.
    seen: AtomicU64,
    size_bytes: AtomicU64,
    used_bytes: AtomicU64,
    full: AtomicU64,
    compactions: AtomicU64,
}

impl EtcdMetrics {
    /// How much room there is, and whether it takes no writes for lack of it.
    pub fn room(&self, size_bytes: u64, used_bytes: u64, is_full: bool) {
        self.size_bytes.store(size_bytes, Relaxed);
        self.used_bytes.store(used_bytes, Relaxed);
        self.full.store(u64::from(is_full), Relaxed);
        self.seen.store(1, Relaxed);
    }

    /// This router has compacted it.
    pub fn compacted(&self) {
        self.compactions.fetch_add(1, Relaxed);
    }
}

/// What the registry's API counts. Any thread may write.
#[derive(Debug, Default)]
pub struct ApiMetrics {
    /// By status.
    requests: Mutex<BTreeMap<u16, u64>>,
    connections_open: AtomicU64,
    connections_over_limit: AtomicU64,
    handshakes_failed: AtomicU64,
    audit_failures: AtomicU64,
}

impl ApiMetrics {
    /// A request was answered with `status`.
    pub fn request(&self, status: u16) {
        // A count is whole at every moment, so a panic elsewhere cannot have torn it.
        let requests = self.requests.lock();
        let mut requests = requests.unwrap_or_else(PoisonError::into_inner);
        *requests.entry(status).or_default() += 1;
    }

    /// A connection was accepted. Call [`ApiMetrics::connection_closed`] once for it.
    pub fn connection(&self) {
        self.connections_open.fetch_add(1, Relaxed);
    }

    /// A connection that was counted by [`ApiMetrics::connection`] is gone.
    pub fn connection_closed(&self) {
        self.connections_open.fetch_sub(1, Relaxed);
    }

    /// A connection was closed at once because there were too many.
    pub fn connection_over_limit(&self) {
        self.connections_over_limit.fetch_add(1, Relaxed);
    }

    /// A connection ended before there was TLS.
    pub fn handshake_failed(&self) {
        self.handshakes_failed.fetch_add(1, Relaxed);
    }

    /// A line of the audit log's file is missing.
    pub fn audit_failed(&self) {
        self.audit_failures.fetch_add(1, Relaxed);
    }
}

pub(super) fn render_follow(page: &mut Page, follow: &FollowMetrics, now: SystemTime) {
    if follow.configured.load(Relaxed) == 0 {
        return;
    }
    let stale = follow.stale_for(now);
    page.gauge(
        "router_registry_connected",
        "1 while the registry's store is followed; 0: the routes known last are in force.",
        u64::from(stale.is_none()),
    );
    page.gauge(
        "router_registry_stale_seconds",
        "For how long the registry's store has been out of reach; 0 while it is not.",
        stale.unwrap_or(0),
    );
    page.gauge(
        "router_registry_foreign_store",
        "1 while another store answers than the routes in force came from, which is not followed.",
        follow.foreign.load(Relaxed),
    );
    page.gauge(
        "router_registry_revision",
        "Revision of the registry's store up to which it was followed.",
        follow.revision.load(Relaxed),
    );
}

pub(super) fn render_etcd(page: &mut Page, etcd: &EtcdMetrics) {
    let load = |value: &AtomicU64| value.load(Relaxed);
    if load(&etcd.seen) == 0 {
        return;
    }
    page.gauge(
        "router_registry_etcd_size_bytes",
        "Size of the database of the etcd member that this router asks; its quota limits this.",
        load(&etcd.size_bytes),
    );
    page.gauge(
        "router_registry_etcd_used_bytes",
        "Of router_registry_etcd_size_bytes, what holds something; defragmenting frees the rest.",
        load(&etcd.used_bytes),
    );
    page.gauge(
        "router_registry_etcd_full",
        "1 while etcd takes no changes because it has reached its quota (alarm NOSPACE).",
        load(&etcd.full),
    );
    page.counter(
        "router_registry_etcd_compactions_total",
        "How often this router has compacted etcd; of several routers one does.",
        load(&etcd.compactions),
    );
}

pub(super) fn render_api(page: &mut Page, api: &ApiMetrics) {
    let load = |value: &AtomicU64| value.load(Relaxed);
    page.family(
        "router_registry_requests_total",
        Kind::Counter,
        "Requests that the registry's API answered, by status.",
    );
    let requests = api.requests.lock();
    for (status, count) in requests.unwrap_or_else(PoisonError::into_inner).iter() {
        page.sample(&[("code", &status.to_string())], *count);
    }
    page.gauge(
        "router_registry_connections_open",
        "Connections to the registry's API open now.",
        load(&api.connections_open),
    );
    page.counter(
        "router_registry_connections_over_limit_total",
        "Connections to the registry's API closed at once because there were too many.",
        load(&api.connections_over_limit),
    );
    page.counter(
        "router_registry_handshakes_failed_total",
        "Connections to the registry's API that ended before there was TLS.",
        load(&api.handshakes_failed),
    );
    page.counter(
        "router_registry_audit_failures_total",
        "Lines that are missing in the audit log's file because it could not be written.",
        load(&api.audit_failures),
    );
}
