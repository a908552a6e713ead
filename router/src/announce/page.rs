//! The registrar's page on loopback: metrics and health.

use std::time::Instant;

use daemon::page::{METRICS, Request, Response, TEXT, answer};
use http::StatusCode;

use super::state::{Outcome, State};
use crate::announce::health::Health;
use crate::observe::metrics::{RegistrarMetrics, RouteNumbers};

/// Answers a request to the page; [`daemon::page::serve`] asks.
pub fn respond(metrics: &RegistrarMetrics, request: &Request) -> Response {
    match request.uri().path() {
        "/metrics" => answer(StatusCode::OK, METRICS, metrics.render(Instant::now())),
        "/healthz" => answer(StatusCode::OK, TEXT, "ok\n"),
        "/readyz" => match metrics.not_ready() {
            None => answer(StatusCode::OK, TEXT, "ok\n"),
            Some(why) => answer(StatusCode::SERVICE_UNAVAILABLE, TEXT, why + "\n"),
        },
        "/" => answer(StatusCode::OK, TEXT, "/metrics\n/healthz\n/readyz\n"),
        _ => answer(StatusCode::NOT_FOUND, TEXT, "404 Not Found\n"),
    }
}

/// What the page says of the routes.
pub fn numbers(state: &State, now: Instant) -> Vec<RouteNumbers> {
    let held: Vec<usize> = state.held(now).collect();
    let routes = state.routes().iter().enumerate();
    routes
        .map(|(index, route)| RouteNumbers {
            host: route.wanted.route.host.clone(),
            endpoint: route.wanted.route.endpoint,
            healthy: (route.health != Health::Unknown).then(|| route.health.is_healthy()),
            announced: held.contains(&index),
            refused: route.refusal.as_ref().map(|refusal| refusal.reason.clone()),
        })
        .collect()
}

/// The label of how a call has ended.
pub fn label(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Accepted { .. } => "accepted",
        Outcome::Refused(_) => "refused",
        Outcome::Unwelcome(_) => "unwelcome",
        Outcome::Busy(_) => "busy",
        Outcome::Failed { .. } => "failed",
    }
}
