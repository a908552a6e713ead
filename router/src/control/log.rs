//! What the control plane says of loads and of the registry's changes.

use std::time::Duration;

use config::ConfigErrors;

use super::publish::ReloadReport;
use super::registry::EditOutcome;
use crate::observe::metrics::{RegistrySize, SnapshotSize};

/// Lines of one kind that are logged at once, before the rest is only counted.
const MAX_LOGGED: usize = 50;

pub(super) fn report(report: &ReloadReport, size: &SnapshotSize) {
    for warning in report.warnings.iter().take(MAX_LOGGED) {
        tracing::warn!("{warning}");
    }
    let more = report.warnings.len().saturating_sub(MAX_LOGGED);
    if more > 0 {
        tracing::warn!(more, "more warnings: see `router check`");
    }
    if !report.needs_restart.is_empty() {
        let fields = report.needs_restart.join(", ");
        tracing::warn!(fields, "these settings change at the next start only");
    }
    tracing::info!(
        generation = report.generation,
        changed = report.changed,
        routes = size.routes,
        upstreams = size.upstreams,
        certificates = size.certificates,
        took_ms = u64::try_from(report.took.as_millis()).unwrap_or(u64::MAX),
        "configuration loaded"
    );
}

pub(super) fn refusal(errors: &ConfigErrors, generation: u64) {
    for error in errors.errors().iter().take(MAX_LOGGED) {
        tracing::error!("{error}");
    }
    tracing::error!(
        errors = errors.errors().len(),
        generation,
        "configuration refused: what was in force stays in force"
    );
}

pub(super) fn registry(outcome: &EditOutcome, size: &RegistrySize, took: Duration) {
    left_out(outcome);
    tracing::debug!(
        changes = outcome.changes,
        generation = size.generation,
        routes = size.registry_routes,
        left_out = size.left_out,
        took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
        "routes of the registry changed"
    );
}

/// Tells of routes that are left out since now, and of those that no longer are.
pub(super) fn left_out(outcome: &EditOutcome) {
    for left_out in outcome.left_out.iter().take(MAX_LOGGED) {
        let (host, tenant, why) = (&left_out.host, &left_out.tenant, &left_out.why);
        tracing::warn!(%host, %tenant, %why, "a route of the registry is left out");
    }
    let more = outcome.left_out.len().saturating_sub(MAX_LOGGED);
    if more > 0 {
        tracing::warn!(
            more,
            "more routes of the registry are left out: see /config"
        );
    }
    for host in outcome.back.iter().take(MAX_LOGGED) {
        tracing::info!(%host, "a route of the registry is in force again");
    }
}
