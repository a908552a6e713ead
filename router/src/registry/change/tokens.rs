//! Tokens of tenants.

use std::sync::Arc;

use config::route::HostMatch;

use super::announce::withdraw_if;
use super::evict::{follow_to, held, look_again};
use super::{Decision, transact};
use crate::registry::api::problem::Problem;
use crate::registry::keys::{self, API_SOURCE};
use crate::registry::record::{Instance, RouteSource, Token};
use crate::registry::shared::RouteRegistry;
use crate::registry::store::{Put, Range, Revision, Transaction};

/// What was made with a credential, and is no more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Withdrawn {
    /// Instances, with their tenants.
    pub instances: Vec<(Arc<str>, String)>,
    /// Routes that were put, with their tenants.
    pub routes: Vec<(Arc<str>, HostMatch)>,
}

impl Withdrawn {
    /// Whether there was nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.instances.is_empty() && self.routes.is_empty()
    }
}

/// Keeps a new token.
///
/// # Errors
/// If the store does not take it.
pub async fn create_token(
    registry: &RouteRegistry,
    id: &str,
    token: &Token,
) -> Result<Revision, Problem> {
    let key = keys::token(id);
    let value = serde_json::to_vec(token).expect("a token is JSON");
    let (revision, ()) = transact(registry, &[Range::key(&key)], |listing| {
        if !listing.entries.is_empty() {
            // 64 random bits met twice: very likely they are not random.
            tracing::error!(id, "a new token has the id of another one");
            return Err(Problem::internal());
        }
        let put = Put {
            key: key.clone(),
            value: value.clone().into(),
            lease: None,
        };
        let transaction = Transaction {
            puts: vec![put],
            ..Transaction::default()
        };
        Ok(Decision::Commit(transaction, ()))
    })
    .await?;
    Ok(revision)
}

/// Forgets a token: from now on it proves nothing. Tells whose it was, if there was one.
///
/// # Errors
/// If the store does not take it.
pub async fn revoke_token(
    registry: &RouteRegistry,
    id: &str,
) -> Result<(Revision, Option<Arc<str>>), Problem> {
    let key = keys::token(id);
    let (revision, tenant) = transact(registry, &[Range::key(&key)], |listing| {
        let Some(entry) = listing.entries.first() else {
            return Ok(Decision::Nothing(None));
        };
        // One that cannot be read proves nothing, and is to go all the same.
        let tenant = serde_json::from_slice::<Token>(&entry.value)
            .map_or_else(|_| String::new(), |token| token.tenant);
        let transaction = Transaction {
            deletes: vec![key.clone()],
            ..Transaction::default()
        };
        Ok(Decision::Commit(transaction, Some(tenant.into())))
    })
    .await?;
    Ok((revision, tenant))
}

/// Takes away everything that was announced or put with a credential, as of the revision at which it
/// was revoked, or found to be gone: of one tenant, or of any. What was announced anew with another
/// credential meanwhile stays.
///
/// # Errors
/// If the store does not take it; asking once more goes on where it stopped.
pub async fn withdraw_all_of(
    registry: &RouteRegistry,
    credential: &str,
    tenant: Option<&str>,
    (revision, revoked): (Revision, bool),
) -> Result<Withdrawn, Problem> {
    if revoked {
        follow_to(registry, revision).await?;
    } else {
        look_again(registry, revision).await;
    }
    let instances: Vec<(Arc<str>, String)> = {
        let view = registry.view();
        let theirs = view.instances_after(None).filter(|(owner, _, entry)| {
            entry.record.credential == credential && tenant.is_none_or(|tenant| *owner == tenant)
        });
        theirs
            .map(|(owner, name, _)| (owner.into(), name.to_owned()))
            .collect()
    };
    let mut withdrawn = Withdrawn::default();
    for (owner, name) in instances {
        let theirs = |record: &Instance| record.credential == credential;
        if withdraw_if(registry, &owner, &name, theirs).await?.1 {
            withdrawn.instances.push((owner, name));
        }
    }
    let tenants: Vec<Arc<str>> = match tenant {
        Some(tenant) => vec![tenant.into()],
        None => registry.view().holders().cloned().collect(),
    };
    let made = |source: &RouteSource| source.credential.as_deref() == Some(credential);
    for owner in tenants {
        let put = held(registry, &owner, |_, source| made(source)).await;
        for found in put.into_iter().filter(|it| *it.source == *API_SOURCE) {
            let key = keys::route(&found.host, &owner, API_SOURCE);
            let (_, gone) = transact(registry, &[Range::key(&key)], |listing| {
                let theirs = listing.entries.first().is_some_and(|entry| {
                    serde_json::from_slice::<RouteSource>(&entry.value).is_ok_and(|it| made(&it))
                });
                if !theirs {
                    return Ok(Decision::Nothing(false));
                }
                let transaction = Transaction {
                    deletes: vec![key.clone()],
                    ..Transaction::default()
                };
                Ok(Decision::Commit(transaction, true))
            })
            .await?;
            if gone {
                withdrawn.routes.push((Arc::clone(&owner), found.host));
            }
        }
    }
    Ok(withdrawn)
}
