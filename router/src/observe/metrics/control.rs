//! What the control plane counts: loads, and what is in force.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::SystemTime;

use daemon::prometheus::{Kind, Page};

use super::unix_seconds;

/// What the control plane counts. Any thread may write.
#[derive(Debug, Default)]
pub struct ControlMetrics {
    reloads_ok: AtomicU64,
    reloads_failed: AtomicU64,
    generation: AtomicU64,
    /// Unix seconds; 0 is never.
    last_success: AtomicU64,
    last_failed: AtomicU64,
    certificates: AtomicU64,
    /// Unix seconds; 0 is no certificate.
    soonest_expiry: AtomicU64,
    routes: AtomicU64,
    upstreams: AtomicU64,
    endpoints_unhealthy: AtomicU64,
    /// 0 is none.
    ticket_epoch: AtomicU64,
    registry_routes: AtomicU64,
    registry_left_out: AtomicU64,
    registry_batches: AtomicU64,
    registry_changes: AtomicU64,
}

/// What a published snapshot holds, for the metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SnapshotSize {
    /// The snapshot's generation.
    pub generation: u64,
    /// Host rules.
    pub routes: u64,
    /// Upstreams.
    pub upstreams: u64,
    /// Server certificates.
    pub certificates: u64,
    /// When the first of them expires; `None` without certificates.
    pub soonest_expiry: Option<SystemTime>,
}

/// What is in force after a change of the registry, for the metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RegistrySize {
    /// The snapshot's generation.
    pub generation: u64,
    /// Host rules, those of files included.
    pub routes: u64,
    /// Upstreams, those of files included.
    pub upstreams: u64,
    /// Host rules of the registry.
    pub registry_routes: u64,
    /// Routes that the registry announces and that are not in force.
    pub left_out: u64,
}

impl ControlMetrics {
    /// A configuration was loaded and is in force as of `now`, changed or not.
    pub fn reload_succeeded(&self, now: SystemTime, size: SnapshotSize) {
        self.reloads_ok.fetch_add(1, Relaxed);
        self.last_failed.store(0, Relaxed);
        self.last_success.store(unix_seconds(now), Relaxed);
        self.generation.store(size.generation, Relaxed);
        self.routes.store(size.routes, Relaxed);
        self.upstreams.store(size.upstreams, Relaxed);
        self.certificates.store(size.certificates, Relaxed);
        self.soonest_expiry
            .store(size.soonest_expiry.map_or(0, unix_seconds), Relaxed);
    }

    /// So many endpoints fail their checks now.
    pub fn endpoints_unhealthy(&self, count: u64) {
        self.endpoints_unhealthy.store(count, Relaxed);
    }

    /// The epoch whose key encrypts session tickets from now on.
    pub fn ticket_epoch(&self, epoch: u64) {
        self.ticket_epoch.store(epoch, Relaxed);
    }

    /// What the registry said was taken in, and with it so many routes came, changed or went.
    pub fn registry_applied(&self, changes: u64, size: RegistrySize) {
        self.registry_batches.fetch_add(1, Relaxed);
        self.registry_changes.fetch_add(changes, Relaxed);
        self.registry_size(size);
    }

    /// What is in force of the registry, after a change of the files.
    pub fn registry_size(&self, size: RegistrySize) {
        self.generation.store(size.generation, Relaxed);
        self.routes.store(size.routes, Relaxed);
        self.upstreams.store(size.upstreams, Relaxed);
        self.registry_routes.store(size.registry_routes, Relaxed);
        self.registry_left_out.store(size.left_out, Relaxed);
    }

    /// A configuration was refused; the one before stays in force.
    pub fn reload_failed(&self) {
        self.reloads_failed.fetch_add(1, Relaxed);
        self.last_failed.store(1, Relaxed);
    }
}

pub(super) fn render(page: &mut Page, control: &ControlMetrics) {
    let load = |value: &AtomicU64| value.load(Relaxed);
    page.family(
        "router_reloads_total",
        Kind::Counter,
        "Configuration loads, the first included, by outcome.",
    );
    page.sample(&[("outcome", "ok")], load(&control.reloads_ok));
    page.sample(&[("outcome", "failed")], load(&control.reloads_failed));
    page.gauge(
        "router_last_reload_failed",
        "1 while the files on disk are not what is in force because they were refused.",
        load(&control.last_failed),
    );
    page.gauge(
        "router_last_reload_success_timestamp_seconds",
        "When a configuration was last loaded, in Unix seconds.",
        load(&control.last_success),
    );
    page.gauge(
        "router_snapshot_generation",
        "Generation of the configuration in force.",
        load(&control.generation),
    );
    page.gauge(
        "router_routes",
        "Host rules in force.",
        load(&control.routes),
    );
    page.gauge(
        "router_upstreams",
        "Upstreams in force, and those of routes of the registry that are left out.",
        load(&control.upstreams),
    );
    page.gauge(
        "router_certificates",
        "Server certificates in force.",
        load(&control.certificates),
    );
    page.gauge(
        "router_endpoints_unhealthy",
        "Endpoints that fail this router's checks and are passed over.",
        load(&control.endpoints_unhealthy),
    );
    page.gauge(
        "router_ticket_epoch",
        "Epoch of the shared secrets that encrypts session tickets; 0 while there is none.",
        load(&control.ticket_epoch),
    );
    page.gauge(
        "router_registry_routes",
        "Host rules in force that the registry announces.",
        load(&control.registry_routes),
    );
    page.gauge(
        "router_registry_left_out",
        "Routes that the registry announces and that are not in force: see /config.",
        load(&control.registry_left_out),
    );
    page.counter(
        "router_registry_batches_total",
        "Batches of changes that were taken from the registry.",
        load(&control.registry_batches),
    );
    page.counter(
        "router_registry_changes_total",
        "Routes of the registry that came, changed or went.",
        load(&control.registry_changes),
    );
    let expiry = load(&control.soonest_expiry);
    if expiry != 0 {
        page.gauge(
            "router_certificate_soonest_expiry_timestamp_seconds",
            "When the first of the server certificates expires, in Unix seconds.",
            expiry,
        );
    }
}
