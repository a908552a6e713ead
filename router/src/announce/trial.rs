//! Tries out a configuration without announcing anything.

use std::net::SocketAddr;

use serde::Serialize;
use tokio::task::JoinSet;

use super::check::check;
use super::load::Loaded;
use super::registries::Registries;

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Trial {
    /// Every route is healthy, and every registry would take changes.
    pub ok: bool,
    /// Whose routes.
    pub tenant: String,
    /// In whose name they would be announced.
    pub instance: String,
    /// In the order of the configuration.
    pub routes: Vec<TriedRoute>,
    /// In the order of the configuration.
    pub registries: Vec<TriedRegistry>,
}

/// A route whose check was made once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TriedRoute {
    /// Its host rule.
    pub host: String,
    /// What would be announced for it.
    pub endpoint: SocketAddr,
    /// Whether its check has succeeded.
    pub healthy: bool,
    /// Why not.
    pub reason: Option<String>,
}

/// A registry that was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TriedRegistry {
    /// Its address.
    pub registry: String,
    /// Whether it can take changes, and takes the credential for the tenant's.
    pub ok: bool,
    /// Why not.
    pub reason: Option<String>,
}

/// Makes every check once, and asks every registry, by a connection with the configured credential,
/// for its health and for the tenant's instances. Whether the registry would take the routes is not
/// asked: it says that of announcements alone.
pub async fn try_out(loaded: &Loaded) -> Trial {
    let registries = Registries::new(loaded);
    let mut checks = JoinSet::new();
    for (index, wanted) in loaded.wanted.iter().cloned().enumerate() {
        checks.spawn(async move {
            let result = check(&wanted.check, wanted.route.endpoint).await;
            let reason = result.err().map(|error| error.to_string());
            let route = TriedRoute {
                host: wanted.route.host,
                endpoint: wanted.route.endpoint,
                healthy: reason.is_none(),
                reason,
            };
            (index, route)
        });
    }
    let mut questions = JoinSet::new();
    for index in 0..loaded.registries.len() {
        let registries = registries.clone();
        questions.spawn(async move {
            let result = registries.probe(index).await;
            let reason = result.err().map(|error| error.to_string());
            let registry = TriedRegistry {
                registry: registries.name(index),
                ok: reason.is_none(),
                reason,
            };
            (index, registry)
        });
    }
    let routes = in_order(checks).await;
    let registries = in_order(questions).await;
    Trial {
        ok: routes.iter().all(|route| route.healthy) && registries.iter().all(|it| it.ok),
        tenant: loaded.tenant.clone(),
        instance: loaded.instance.clone(),
        routes,
        registries,
    }
}

async fn in_order<T: Send + 'static>(tasks: JoinSet<(usize, T)>) -> Vec<T> {
    let mut results = tasks.join_all().await;
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}
