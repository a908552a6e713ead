//! The registries that a registrar calls for its instance.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::load::Loaded;
use super::outcome::outcome;
use super::schedule::share;
use super::state::{Call, Outcome};
use crate::registry::client::{Client, ClientError};

/// Clients of every registry, for one instance of one tenant.
#[derive(Clone)]
pub struct Registries {
    clients: Arc<[Client]>,
    tenant: Arc<str>,
    instance: Arc<str>,
}

impl Registries {
    /// Opens no connection yet.
    #[must_use]
    pub fn new(loaded: &Loaded) -> Self {
        let client = |address: &_| Client::new(Clone::clone(address), loaded.credentials.clone());
        Self {
            clients: loaded.registries.iter().map(client).collect(),
            tenant: loaded.tenant.as_str().into(),
            instance: loaded.instance.as_str().into(),
        }
    }

    /// Others in their place, which know where these have found the same registries.
    #[must_use]
    pub fn replaced(&self, loaded: &Loaded) -> Self {
        let new = Self::new(loaded);
        for client in &*new.clients {
            let mut earlier = self.clients.iter();
            if let Some(earlier) = earlier.find(|it| it.address() == client.address()) {
                client.remember(earlier);
            }
        }
        new
    }

    /// The address of a registry, for people.
    #[must_use]
    pub fn name(&self, registry: usize) -> String {
        self.clients[registry].address().to_string()
    }

    /// Whether calls are made in the same name.
    #[must_use]
    pub fn is_for(&self, loaded: &Loaded) -> bool {
        *self.tenant == *loaded.tenant && *self.instance == *loaded.instance
    }

    /// Whether calls are made to the same registries, in the same name, with the same credentials:
    /// then there is no need for new connections. `before` is what these were made of.
    #[must_use]
    pub fn do_for(&self, before: &Loaded, loaded: &Loaded) -> bool {
        self.is_for(loaded)
            && before.registries == loaded.registries
            && before.credentials == loaded.credentials
    }

    /// Makes a call.
    pub async fn call(self, call: Call) -> Outcome {
        let client = &self.clients[call.registry];
        let (tenant, instance, deadline) = (&self.tenant, &self.instance, call.deadline);
        let result = match &call.announcement {
            Some(announcement) => client
                .announce(tenant, instance, announcement, deadline)
                .await
                .map(|announced| announced.renewed),
            None => client
                .withdraw(tenant, instance, deadline)
                .await
                .map(|()| false),
        };
        outcome(result)
    }

    /// Withdraws everything: asks one registry after the other, beginning with `first`, until one
    /// has done it. Gives up after `patience`.
    pub async fn withdraw(&self, first: usize, patience: Duration) {
        let end = Instant::now() + patience;
        let count = self.clients.len();
        for tried in 0..count {
            let client = &self.clients[(first + tried) % count];
            let deadline = share(end.duration_since(Instant::now()), count - tried);
            let call = client.withdraw(&self.tenant, &self.instance, deadline);
            let result: Result<(), ClientError> = match timeout_at(end, call).await {
                Ok(result) => result,
                Err(_) => break,
            };
            let registry = client.address();
            match result {
                Ok(()) => {
                    tracing::info!(%registry, "everything is withdrawn");
                    return;
                }
                Err(error) => tracing::warn!(%registry, %error, "cannot withdraw"),
            }
        }
        tracing::error!(
            "no registry has withdrawn anything: it goes when its time to live is over"
        );
    }
}
