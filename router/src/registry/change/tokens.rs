//! Tokens of tenants.

use super::{Decision, transact};
use crate::registry::api::problem::Problem;
use crate::registry::keys;
use crate::registry::record::Token;
use crate::registry::shared::RouteRegistry;
use crate::registry::store::{Put, Range, Revision, Transaction};

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

/// Forgets a token: from now on it proves nothing.
///
/// # Errors
/// If there is no such token.
pub async fn revoke_token(registry: &RouteRegistry, id: &str) -> Result<Revision, Problem> {
    let key = keys::token(id);
    let (revision, ()) = transact(registry, &[Range::key(&key)], |listing| {
        if listing.entries.is_empty() {
            return Err(Problem::not_found(format!("there is no token {id}")));
        }
        let transaction = Transaction {
            deletes: vec![key.clone()],
            ..Transaction::default()
        };
        Ok(Decision::Commit(transaction, ()))
    })
    .await?;
    Ok(revision)
}
