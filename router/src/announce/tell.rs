//! What a registrar says: its log, and its state for the service manager.

use std::fmt::Write as _;
use std::time::Instant;

use super::check::CheckError;
use super::registries::Registries;
use super::state::{Note, RouteState, State};

/// Logs a note.
pub fn note(note: &Note, registries: &Registries) {
    let name = |registry: &usize| registries.name(*registry);
    match note {
        Note::Announced { routes, registry } => {
            tracing::info!(routes, registry = name(registry), "announced");
        }
        Note::Renewed { registry } => tracing::debug!(registry = name(registry), "renewed"),
        Note::Withdrawn { registry } => {
            tracing::info!(registry = name(registry), "nothing is announced");
        }
        Note::LeftOut { host, refusal } => tracing::warn!(
            host,
            reason = refusal.reason,
            detail = refusal.detail,
            "the registry refuses a route; the others are announced without it"
        ),
        Note::Refused { registry, refusal } => tracing::error!(
            registry = name(registry),
            reason = refusal.reason,
            detail = refusal.detail,
            "the registry refuses the announcement"
        ),
        Note::Contended => tracing::warn!(
            "the registry had something else under this instance's name: does another registrar use it?"
        ),
        Note::Failing { registry, error } => {
            tracing::warn!(registry = name(registry), error, "cannot announce");
        }
    }
}

/// Logs a result of a check that has changed something, and any failure for who debugs.
pub fn checked(route: &RouteState, result: &Result<(), CheckError>, changed: bool) {
    let announced = &route.wanted.route;
    let (host, endpoint) = (&announced.host, announced.endpoint);
    match result {
        Ok(()) if changed => tracing::info!(host, %endpoint, "healthy"),
        Ok(()) => {}
        Err(error) if changed => tracing::warn!(host, %endpoint, %error, "not healthy"),
        Err(error) => tracing::debug!(host, %endpoint, %error, "check failed"),
    }
}

/// One line on how things are.
pub fn status(state: &State, registries: &Registries, now: Instant) -> String {
    let held = state.held(now).count();
    let routes = state.routes();
    let mut text = format!("{held} of {} routes announced", routes.len());
    // Writing to a String cannot fail.
    if held > 0 {
        let _ = write!(text, " by {}", registries.name(state.registry()));
    }
    for (count, what) in [
        (
            routes
                .iter()
                .filter(|route| !route.health.is_healthy())
                .count(),
            "not healthy",
        ),
        (
            routes
                .iter()
                .filter(|route| route.refusal.is_some())
                .count(),
            "refused",
        ),
    ] {
        if count > 0 {
            let _ = write!(text, ", {count} {what}");
        }
    }
    text
}
