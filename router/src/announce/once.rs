//! Checks and announces a single time, for people and scripts that want to see what happens.

use std::net::SocketAddr;
use std::time::Instant;

use serde::Serialize;
use tokio::task::JoinSet;

use super::check::check;
use super::load::Loaded;
use super::registries::Registries;
use super::state::{Action, Note, State};

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Everything is healthy and announced.
    pub ok: bool,
    /// Whose routes.
    pub tenant: String,
    /// In whose name.
    pub instance: String,
    /// The registry that took the announcement.
    pub registry: Option<String>,
    /// Seconds that it holds.
    pub ttl: u64,
    /// Why there is none, or what went wrong before there was.
    pub errors: Vec<String>,
    /// In the order of the configuration.
    pub routes: Vec<ReportedRoute>,
}

/// What happened to one route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReportedRoute {
    /// Its host rule.
    pub host: String,
    /// What is announced for it.
    pub endpoint: SocketAddr,
    /// Whether its check has succeeded.
    pub healthy: bool,
    /// Whether it is announced now.
    pub announced: bool,
    /// Why not.
    pub reason: Option<String>,
}

/// Makes every check once, all at the same time, and announces what is healthy; where nothing is,
/// withdraws what an earlier registrar has left. Each registry is tried once at most, but for routes
/// that are left out because it refuses them.
pub async fn once(loaded: &Loaded) -> Report {
    let registries = Registries::new(loaded);
    let mut state = State::new(loaded.settings, loaded.wanted.clone(), Instant::now());
    let mut failures: Vec<Option<String>> = vec![None; loaded.wanted.len()];
    let mut checks = JoinSet::new();
    for (route, wanted) in loaded.wanted.iter().cloned().enumerate() {
        checks.spawn(async move { (route, check(&wanted.check, wanted.route.endpoint).await) });
    }
    for (route, result) in checks.join_all().await {
        state.checked(route, result.is_ok());
        failures[route] = result.err().map(|error| error.to_string());
    }
    let (mut registry, mut errors) = (None, Vec::new());
    while let Action::Call(call) = state.next(Instant::now()) {
        let outcome = registries.clone().call(call).await;
        for note in state.answered(outcome, Instant::now(), 0.5) {
            match note {
                Note::Announced { registry: by, .. } | Note::Withdrawn { registry: by } => {
                    registry = Some(registries.name(by));
                }
                Note::Refused { refusal, .. } => errors.push(refusal.to_string()),
                Note::Failing { error, .. } => errors.push(error),
                Note::LeftOut { .. } | Note::Renewed { .. } | Note::Contended => {}
            }
        }
    }
    let held: Vec<usize> = state.held(Instant::now()).collect();
    let routes = state.routes().iter().zip(failures).enumerate();
    let routes: Vec<ReportedRoute> = routes
        .map(|(index, (route, failure))| ReportedRoute {
            host: route.wanted.route.host.clone(),
            endpoint: route.wanted.route.endpoint,
            healthy: route.health.is_healthy(),
            announced: held.contains(&index),
            reason: failure.or_else(|| route.refusal.as_ref().map(ToString::to_string)),
        })
        .collect();
    Report {
        ok: routes.iter().all(|route| route.announced),
        tenant: loaded.tenant.clone(),
        instance: loaded.instance.clone(),
        registry,
        ttl: loaded.settings.ttl.as_secs(),
        errors,
        routes,
    }
}
