//! `/v1/tokens`: what proves a tenant.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Extension;
use axum::extract::State;
use http::StatusCode;

use super::Api;
use super::conditions::Unconditional;
use super::extract::{Json, NoQuery, Path, Query};
use super::problem::Problem;
use super::responses::{Always, ForNames};
use super::types::{ListQuery, NewToken, Revoked, Token, TokenSpec, Tokens, WithdrawQuery};
use super::valid;
use crate::registry::auth::audit::{Change, Consequences};
use crate::registry::auth::tokens::TOKEN_BYTES;
use crate::registry::auth::{Caller, TokenKind, new_token};
use crate::registry::change::{self, Withdrawn};

/// Lists tokens, without their secrets
#[utoipa::path(get, path = "/v1/tokens", tag = "tokens", params(ListQuery),
    responses((status = 200, body = Tokens), Always))]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<ListQuery>,
) -> Result<Json<Tokens>, Problem> {
    valid::operator(&caller)?;
    let tenant = valid::limited_to(&caller, query.tenant.as_deref())?;
    let limit = valid::page(query.limit)?;
    let view = api.registry.view();
    let mut found = view
        .tokens_after(query.after.as_deref())
        .filter(|(_, token)| tenant.is_none_or(|tenant| token.tenant == tenant));
    let page: Vec<_> = found.by_ref().take(limit).collect();
    let last = page.last().map(|(id, _)| (*id).to_owned());
    let next = found.next().and(last);
    let tokens = page.into_iter().map(|(id, token)| Token {
        id: id.to_owned(),
        tenant: token.tenant.clone(),
        note: token.note.clone(),
        created: token.created,
        expires: token.expires,
        scope: token.scope.clone(),
    });
    Ok(Json(Tokens {
        tokens: tokens.collect(),
        next,
        revision: view.revision().0,
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
    _: Unconditional,
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
/// What was announced or put with it stays until its time is up, unless `withdraw` says that it goes
/// at once. With the token gone already, this ends what an earlier call left undone; so it does with
/// the id of an operator's token, which is revoked in the operators' file.
#[utoipa::path(delete, path = "/v1/tokens/{id}", tag = "tokens",
    params(("id" = String, Path, example = "0123456789abcdef"), WithdrawQuery),
    responses((status = 200, description = "It proves nothing any more", body = Revoked), ForNames, Always))]
pub(super) async fn revoke(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    Query(query): Query<WithdrawQuery>,
    _: Unconditional,
) -> Result<(Extension<Change>, Extension<Consequences>, Json<Revoked>), Problem> {
    valid::operator(&caller)?;
    let digits = id.len() == 16 && id.bytes().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f'));
    if !digits {
        return Err(Problem::not_found("there is no such token"));
    }
    let (revision, tenant) = change::revoke_token(&api.registry, &id).await?;
    let withdrawn = if query.withdraw == Some(true) {
        let credential = format!("token:{id}");
        let owner = tenant.as_deref().filter(|tenant| !tenant.is_empty());
        change::withdraw_all_of(
            &api.registry,
            &credential,
            owner,
            (revision, tenant.is_some()),
        )
        .await?
    } else {
        Withdrawn::default()
    };
    if tenant.is_none() && withdrawn.is_empty() {
        return Err(Problem::not_found(format!("there is no token {id}")));
    }
    let change = |tenant, action, object| Change {
        tenant,
        action: Some(action),
        object: Some(object),
        revision: Some(revision),
        ..Change::default()
    };
    let consequence = "withdrawn-by-revoke-token";
    let instances = withdrawn
        .instances
        .iter()
        .map(|(owner, name)| change(Some(Arc::clone(owner)), consequence, name.clone()));
    let routes = withdrawn
        .routes
        .iter()
        .map(|(owner, host)| change(Some(Arc::clone(owner)), consequence, host.to_string()));
    let consequences = Consequences(instances.chain(routes).collect());
    let revoked = Revoked {
        instances: withdrawn.instances.len(),
        routes: withdrawn.routes.len(),
        id: id.clone(),
    };
    Ok((
        Extension(change(tenant, "revoke-token", id)),
        Extension(consequences),
        Json(revoked),
    ))
}
