//! What can be asked of a registry, with types.

use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, IF_MATCH, IF_NONE_MATCH};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::connection::Question;
use super::{Answer, Client, ClientError, DEADLINE, Events, MAX_ANSWER, MAX_LIST, tag_of};
use crate::registry::api::types::{
    Announced, Announcement, Health, Instance, Instances, NewToken, Revoked, Route, RouteSpec,
    Routes, Token, TokenSpec, Tokens, Zone, ZonePut, ZoneSpec, ZoneTaken, Zones,
};

/// Entries per page.
const PAGE: u32 = 1000;
/// Pages at most: a registry that never says the last one does not keep us for ever.
const MAX_PAGES: usize = 10_000;

/// When a change is to be made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Precondition {
    /// In any case.
    #[default]
    None,
    /// Only if there is nothing of that name.
    Absent,
    /// Only if it is still this version.
    Match(String),
}

/// A value and its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tagged<T> {
    /// The value.
    pub value: T,
    /// Its version, for [`Precondition::Match`].
    pub tag: Option<String>,
    /// Whether the call has made it.
    pub created: bool,
}

/// Each fails with a [`ClientError`]: no connection, no answer in time, a refusal, or an answer
/// that is none of a registry.
#[allow(clippy::missing_errors_doc, reason = "said once for all")]
impl Client {
    /// Announces everything of an instance, or renews it.
    pub async fn announce(
        &self,
        tenant: &str,
        instance: &str,
        announcement: &Announcement,
        deadline: Duration,
    ) -> Result<Announced, ClientError> {
        let path = instance_path(tenant, instance);
        let question = with_body(Method::PUT, path, announcement);
        self.json(question, MAX_ANSWER, deadline).await
    }

    /// Withdraws everything of an instance; fine if there is nothing.
    pub async fn withdraw(
        &self,
        tenant: &str,
        instance: &str,
        deadline: Duration,
    ) -> Result<(), ClientError> {
        let question = plain(Method::DELETE, instance_path(tenant, instance));
        self.call(question, MAX_ANSWER, deadline).await.map(drop)
    }

    /// Every route that the caller may see, or one tenant's.
    pub async fn routes(&self, tenant: Option<&str>) -> Result<Vec<Route>, ClientError> {
        self.pages("/v1/routes", tenant, |page: Routes| {
            (page.routes, page.next)
        })
        .await
    }

    /// One route.
    pub async fn route(&self, host: &str) -> Result<Tagged<Route>, ClientError> {
        let question = plain(Method::GET, route_path(host, None));
        self.tagged(question).await
    }

    /// Adds or replaces a route. Operators name the tenant.
    pub async fn put_route(
        &self,
        host: &str,
        tenant: Option<&str>,
        route: &RouteSpec,
        precondition: &Precondition,
    ) -> Result<Tagged<Route>, ClientError> {
        let mut question = with_body(Method::PUT, route_path(host, tenant), route);
        question.fields.extend(self.field_of(precondition)?);
        self.tagged(question).await
    }

    /// Deletes what [`Client::put_route`] has put.
    pub async fn delete_route(
        &self,
        host: &str,
        precondition: &Precondition,
    ) -> Result<(), ClientError> {
        let mut question = plain(Method::DELETE, route_path(host, None));
        question.fields.extend(self.field_of(precondition)?);
        self.call(question, MAX_ANSWER, DEADLINE).await.map(drop)
    }

    /// Every instance that the caller may see, or one tenant's.
    pub async fn instances(&self, tenant: Option<&str>) -> Result<Vec<Instance>, ClientError> {
        self.pages("/v1/instances", tenant, |page: Instances| {
            (page.instances, page.next)
        })
        .await
    }

    /// Every zone that the caller may see, or one tenant's.
    pub async fn zones(&self, tenant: Option<&str>) -> Result<Vec<Zone>, ClientError> {
        self.pages("/v1/zones", tenant, |page: Zones| (page.zones, page.next))
            .await
    }

    /// One zone.
    pub async fn zone(&self, tenant: &str, pattern: &str) -> Result<Tagged<Zone>, ClientError> {
        let question = plain(Method::GET, zone_path(tenant, pattern, false));
        self.tagged(question).await
    }

    /// Leases names to a tenant. `evict`: routes that no zone allows any more may go.
    pub async fn put_zone(
        &self,
        tenant: &str,
        pattern: &str,
        zone: &ZoneSpec,
        precondition: &Precondition,
        evict: bool,
    ) -> Result<Tagged<ZonePut>, ClientError> {
        let mut question = with_body(Method::PUT, zone_path(tenant, pattern, evict), zone);
        question.fields.extend(self.field_of(precondition)?);
        self.tagged(question).await
    }

    /// Takes names back. `evict`: routes that no zone allows any more may go.
    pub async fn delete_zone(
        &self,
        tenant: &str,
        pattern: &str,
        precondition: &Precondition,
        evict: bool,
    ) -> Result<ZoneTaken, ClientError> {
        let mut question = plain(Method::DELETE, zone_path(tenant, pattern, evict));
        question.fields.extend(self.field_of(precondition)?);
        self.json(question, MAX_ANSWER, DEADLINE).await
    }

    /// Every token, or one tenant's, without their secrets.
    pub async fn tokens(&self, tenant: Option<&str>) -> Result<Vec<Token>, ClientError> {
        self.pages("/v1/tokens", tenant, |page: Tokens| {
            (page.tokens, page.next)
        })
        .await
    }

    /// Makes a token.
    pub async fn create_token(&self, token: &TokenSpec) -> Result<NewToken, ClientError> {
        let question = with_body(Method::POST, "/v1/tokens".to_owned(), token);
        self.json(question, MAX_ANSWER, DEADLINE).await
    }

    /// Makes a token invalid. `withdraw`: what was made with it goes as well.
    pub async fn revoke_token(&self, id: &str, withdraw: bool) -> Result<Revoked, ClientError> {
        let path = format!("/v1/tokens/{}", encoded(id));
        let path = query(&path, &[("withdraw", withdraw.then_some("true"))]);
        self.json(plain(Method::DELETE, path), MAX_ANSWER, DEADLINE)
            .await
    }

    /// Whether the registry can take changes. Nobody has to prove anything for it.
    pub async fn health(&self) -> Result<Health, ClientError> {
        let question = plain(Method::GET, "/v1/health".to_owned());
        self.json(question, MAX_ANSWER, DEADLINE).await
    }

    /// Follows the routes that the caller may see, or one tenant's; after an event that was seen
    /// before, if `last_event` is its id.
    pub async fn watch(
        &self,
        tenant: Option<&str>,
        last_event: Option<&str>,
    ) -> Result<Events, ClientError> {
        let mut question = plain(Method::GET, query("/v1/watch", &[("tenant", tenant)]));
        if let Some(id) = last_event {
            let value = self.field_value(id)?;
            question
                .fields
                .push((HeaderName::from_static("last-event-id"), value));
        }
        self.stream(question).await
    }

    async fn pages<P: DeserializeOwned, T>(
        &self,
        path: &str,
        tenant: Option<&str>,
        take_apart: impl Fn(P) -> (Vec<T>, Option<String>),
    ) -> Result<Vec<T>, ClientError> {
        let mut all = Vec::new();
        let mut after: Option<String> = None;
        let limit = PAGE.to_string();
        for _ in 0..MAX_PAGES {
            let of_page = [
                ("tenant", tenant),
                ("limit", Some(limit.as_str())),
                ("after", after.as_deref()),
            ];
            let question = plain(Method::GET, query(path, &of_page));
            let (entries, next) = take_apart(self.json(question, MAX_LIST, DEADLINE).await?);
            all.extend(entries);
            match next {
                None => return Ok(all),
                Some(next) => after = Some(next),
            }
        }
        Err(self.unexpected("a list without an end".to_owned()))
    }

    async fn tagged<T: DeserializeOwned>(
        &self,
        question: Question,
    ) -> Result<Tagged<T>, ClientError> {
        let answer = self.call(question, MAX_ANSWER, DEADLINE).await?;
        Ok(Tagged {
            value: self.parse(&answer)?,
            tag: tag_of(&answer.fields),
            created: answer.status == StatusCode::CREATED,
        })
    }

    async fn json<T: DeserializeOwned>(
        &self,
        question: Question,
        limit: usize,
        deadline: Duration,
    ) -> Result<T, ClientError> {
        let answer = self.call(question, limit, deadline).await?;
        self.parse(&answer)
    }

    fn parse<T: DeserializeOwned>(&self, answer: &Answer) -> Result<T, ClientError> {
        serde_json::from_slice(&answer.body).map_err(|error| self.unexpected(error.to_string()))
    }

    fn field_of(
        &self,
        precondition: &Precondition,
    ) -> Result<Option<(HeaderName, HeaderValue)>, ClientError> {
        Ok(match precondition {
            Precondition::None => None,
            Precondition::Absent => Some((IF_NONE_MATCH, HeaderValue::from_static("*"))),
            Precondition::Match(tag) => Some((IF_MATCH, self.field_value(tag)?)),
        })
    }

    fn field_value(&self, text: &str) -> Result<HeaderValue, ClientError> {
        let odd = |_| self.unexpected(format!("{text:?} cannot stand in a field"));
        HeaderValue::try_from(text).map_err(odd)
    }
}

fn plain(method: Method, path: String) -> Question {
    Question {
        method,
        path,
        fields: Vec::new(),
        body: Bytes::new(),
    }
}

fn with_body(method: Method, path: String, body: &impl Serialize) -> Question {
    let body = serde_json::to_vec(body).expect("our types have text as keys");
    Question {
        method,
        path,
        fields: vec![(CONTENT_TYPE, HeaderValue::from_static("application/json"))],
        body: body.into(),
    }
}

fn instance_path(tenant: &str, instance: &str) -> String {
    let (tenant, instance) = (encoded(tenant), encoded(instance));
    format!("/v1/tenants/{tenant}/instances/{instance}")
}

fn route_path(host: &str, tenant: Option<&str>) -> String {
    let path = format!("/v1/routes/{}", encoded(host));
    query(&path, &[("tenant", tenant)])
}

fn zone_path(tenant: &str, pattern: &str, evict: bool) -> String {
    let path = format!("/v1/zones/{}/{}", encoded(tenant), encoded(pattern));
    query(&path, &[("evict", evict.then_some("true"))])
}

fn query(path: &str, parameters: &[(&str, Option<&str>)]) -> String {
    let mut whole = path.to_owned();
    let mut separator = '?';
    for (name, value) in parameters {
        if let Some(value) = value {
            // Writing to a String cannot fail.
            let _ = write!(whole, "{separator}{name}={}", encoded(value));
            separator = '&';
        }
    }
    whole
}

/// Everything but unreserved characters and the star in percent-encoding (RFC 3986, section 2.1).
fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'*' => {
                encoded.push(char::from(byte));
            }
            byte => {
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_hold_nothing_that_means_something_else() {
        assert_eq!(
            route_path("*-7.example.org", None),
            "/v1/routes/*-7.example.org"
        );
        assert_eq!(
            route_path("a/../b?x#y", Some("a&b=c é")),
            "/v1/routes/a%2F..%2Fb%3Fx%23y?tenant=a%26b%3Dc%20%C3%A9"
        );
        assert_eq!(
            query(
                "/v1/routes",
                &[("a", None), ("b", Some("1")), ("c", Some("2"))]
            ),
            "/v1/routes?b=1&c=2"
        );
    }
}
