//! `/v1/tokens`: what proves a tenant.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Extension;
use axum::extract::State;
use http::StatusCode;

use super::Api;
use super::extract::{Json, NoQuery, Path};
use super::problem::Problem;
use super::responses::{Always, ForNames};
use super::types::{NewToken, Token, TokenSpec, Tokens};
use super::valid;
use crate::registry::auth::audit::Change;
use crate::registry::auth::tokens::TOKEN_BYTES;
use crate::registry::auth::{Caller, TokenKind, new_token};
use crate::registry::change;

/// Lists tokens, without their secrets
#[utoipa::path(get, path = "/v1/tokens", tag = "tokens",
    responses((status = 200, body = Tokens), Always))]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    _: NoQuery,
) -> Result<Json<Tokens>, Problem> {
    valid::operator(&caller)?;
    let view = api.registry.view();
    let tokens = view.tokens().map(|(id, token)| Token {
        id: id.to_owned(),
        tenant: token.tenant.clone(),
        note: token.note.clone(),
        created: token.created,
        expires: token.expires,
        scope: token.scope.clone(),
    });
    Ok(Json(Tokens {
        tokens: tokens.collect(),
    }))
}

/// Makes a token
///
/// The answer is the only place where it ever stands: the registry keeps a digest.
#[utoipa::path(post, path = "/v1/tokens", tag = "tokens", request_body = TokenSpec,
    responses((status = 201, body = NewToken), ForNames, Always))]
pub(super) async fn create(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    _: NoQuery,
    Json(spec): Json<TokenSpec>,
) -> Result<(StatusCode, Extension<Change>, Json<NewToken>), Problem> {
    valid::operator(&caller)?;
    valid::token(&spec)?;
    let mut random = [0; TOKEN_BYTES];
    if aws_lc_rs::rand::fill(&mut random).is_err() {
        tracing::error!("the system hands out no random numbers");
        return Err(Problem::internal());
    }
    let new = new_token(TokenKind::Tenant, &random);
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |since| since.as_secs());
    let expires = spec.expires_in.map(|seconds| now + u64::from(seconds));
    let mut record = new.record(&spec.tenant, &spec.note, now, expires);
    record.scope = spec.scope;
    let revision = change::create_token(&api.registry, &new.token.id, &record).await?;
    let change = Change {
        tenant: Some(spec.tenant.into()),
        action: Some("create-token"),
        object: Some(new.token.id.clone()),
        revision: Some(revision),
        ..Change::default()
    };
    let token = NewToken {
        id: new.token.id.clone(),
        token: new.token.reveal(),
    };
    Ok((StatusCode::CREATED, Extension(change), Json(token)))
}

/// Revokes a token
///
/// What was announced with it stays until its time is up.
#[utoipa::path(delete, path = "/v1/tokens/{id}", tag = "tokens",
    params(("id" = String, Path, example = "0123456789abcdef")),
    responses((status = 204, description = "It proves nothing any more"), ForNames, Always))]
pub(super) async fn revoke(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    _: NoQuery,
) -> Result<(StatusCode, Extension<Change>), Problem> {
    valid::operator(&caller)?;
    let digits = id.len() == 16 && id.bytes().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f'));
    if !digits {
        return Err(Problem::not_found("there is no such token"));
    }
    let revision = change::revoke_token(&api.registry, &id).await?;
    let change = Change {
        action: Some("revoke-token"),
        object: Some(id),
        revision: Some(revision),
        ..Change::default()
    };
    Ok((StatusCode::NO_CONTENT, Extension(change)))
}
