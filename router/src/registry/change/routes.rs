//! Routes that are put and deleted by calls rather than announced.

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use config::route::{HostMatch, UpstreamProtocol};
use http::StatusCode;

use super::{Decision, FileNames, refused, stands_in_a_file, transact};
use crate::registry::api::problem::{Problem, reason};
use crate::registry::api::types;
use crate::registry::claims::{self, Claim};
use crate::registry::hex::to_hex;
use crate::registry::keys::{self, API_SOURCE, Key};
use crate::registry::record::{Protocol, RouteSource, Trust};
use crate::registry::shared::RouteRegistry;
use crate::registry::store::{Batch, Event, KeyValue, Listing, Put, Revision, Transaction};
use crate::registry::view::{Source, View, resolve};

/// A route to be put.
pub struct PutRoute<'a> {
    /// Whose it is to be.
    pub tenant: &'a str,
    /// The name.
    pub host: &'a HostMatch,
    /// What it is to be.
    pub source: RouteSource,
    /// What has to be there before.
    pub expect: Expect,
    /// Routes that the tenant may hold.
    pub most: usize,
    /// Whether an operator asks, who may know other tenants' names.
    pub by_operator: bool,
}

/// A route that was put.
pub struct RoutePut {
    /// As it is now.
    pub route: types::Route,
    /// Its entity tag.
    pub etag: String,
    /// Whether there was none before.
    pub created: bool,
}

/// What a conditional request expects to be there (RFC 9110, section 13.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Expect {
    /// Whatever.
    #[default]
    Anything,
    /// Nothing: `If-None-Match: *`.
    Nothing,
    /// Something: `If-Match: *`.
    Something,
    /// One of these entity tags: `If-Match`.
    OneOf(Vec<String>),
}

/// Puts a route.
///
/// # Errors
/// Why not: whatever is wrong, with the reason of the contract.
pub async fn put_route(
    registry: &RouteRegistry,
    files: &dyn FileNames,
    request: PutRoute<'_>,
) -> Result<(Revision, RoutePut), Problem> {
    let PutRoute { tenant, host, .. } = request;
    if let Some(why) = files.file_owner(host, tenant, request.source.shared) {
        return Err(stands_in_a_file(host, &why, request.by_operator));
    }
    let (held, holds) = {
        let view = registry.view();
        let holds = view.sources(host).iter().any(|it| *it.tenant == *tenant);
        (view.held_by(tenant), holds)
    };
    if !holds && held >= request.most {
        return Err(too_many(request.most));
    }
    let _turn = registry.turns.take(tenant).await?;
    let lease = match request.source.time_to_live() {
        Some(ttl) => Some(registry.store.grant(ttl).await?),
        None => None,
    };
    let value = serde_json::to_vec(&request.source).expect("a route is JSON");
    let put = Put {
        key: keys::route(host, tenant, API_SOURCE),
        value: value.into(),
        lease,
    };
    let result = transact(registry, &claims::ranges(tenant, host), |listing| {
        let claim = Claim {
            tenant,
            host,
            shared: request.source.shared,
            endpoints: &request.source.endpoints,
        };
        let zones = claims::judge(claim, &listing.entries)
            .map_err(|refusal| refused(host, &refusal, request.by_operator))?;
        let before = sources(listing, host);
        request.expect.check(&before)?;
        let mut present = zones;
        if matches!(request.expect, Expect::Something | Expect::OneOf(_)) {
            // A deletion since it was read is a change as well.
            let known = before
                .iter()
                .map(|it| keys::route(host, &it.tenant, &it.name));
            present.extend(known);
        }
        let transaction = Transaction {
            present,
            puts: vec![put.clone()],
            ..Transaction::default()
        };
        Ok(Decision::Commit(
            transaction,
            (listing.clone(), before.is_empty()),
        ))
    })
    .await;
    let (revision, (listing, created)) = match result {
        Ok(done) => done,
        Err(unmade) => {
            if let Some(lease) = lease.filter(|_| unmade.is_certain()) {
                // Best effort: a lease that nothing hangs on ends by itself.
                let _ = registry.store.revoke(lease).await;
            }
            return Err(unmade.into());
        }
    };
    let now = after(listing, put, revision, host);
    let route = represent(host, &now).ok_or_else(Problem::internal)?;
    let put = RoutePut {
        route,
        etag: etag(&now),
        created,
    };
    Ok((revision, put))
}

/// Deletes what [`put_route`] put; what instances announced goes when they withdraw it. Whose it was
/// comes back.
///
/// # Errors
/// If there is nothing of that, or not as expected.
pub async fn delete_route(
    registry: &RouteRegistry,
    tenant: Option<&str>,
    host: &HostMatch,
    expect: &Expect,
) -> Result<(Revision, Arc<str>), Problem> {
    let ranges = [keys::sources(host)];
    let done = transact(registry, &ranges, |listing| {
        let all = sources(listing, host);
        let theirs = |it: &&Source| tenant.is_none_or(|tenant| *it.tenant == *tenant);
        let found: Vec<_> = all.iter().filter(theirs).collect();
        let Some(put) = found.iter().find(|it| *it.name == *API_SOURCE) else {
            return Err(match found.first() {
                None => Problem::not_found(format!("there is no route {host}")),
                Some(announced) => Problem::not_found(format!(
                    "{host} is announced by instance {}: it goes when that withdraws it",
                    announced.name
                )),
            });
        };
        expect.check(&all)?;
        let key = keys::route(host, &put.tenant, API_SOURCE);
        let transaction = Transaction {
            present: vec![key.clone()],
            deletes: vec![key],
            ..Transaction::default()
        };
        Ok(Decision::Commit(transaction, Arc::clone(&put.tenant)))
    })
    .await?;
    Ok(done)
}

impl Expect {
    fn check(&self, sources: &[Source]) -> Result<(), Problem> {
        let met = match self {
            Self::Anything => true,
            Self::Nothing => sources.is_empty(),
            Self::Something => !sources.is_empty(),
            Self::OneOf(tags) => !sources.is_empty() && tags.contains(&etag(sources)),
        };
        if met {
            return Ok(());
        }
        Err(Problem::changed(match self {
            Self::Nothing => "the route is there already",
            _ if sources.is_empty() => "there is no such route",
            _ => "the route is no longer the one that If-Match names",
        }))
    }
}

/// How a route is shown; `None` if there is none.
pub fn represent(host: &HostMatch, sources: &[Source]) -> Option<types::Route> {
    let route = resolve(host, sources)?;
    let mut theirs: Vec<_> = sources
        .iter()
        .filter(|it| it.tenant == route.tenant)
        .collect();
    theirs.sort_by(|a, b| a.name.cmp(&b.name));
    let newest = theirs.iter().map(|it| it.modified).max()?;
    Some(types::Route {
        host: host.to_string(),
        tenant: route.tenant.to_string(),
        endpoints: route.endpoints.iter().map(|it| it.address).collect(),
        protocol: match route.protocol {
            UpstreamProtocol::Http1 => Protocol::Http1,
            UpstreamProtocol::Http2 => Protocol::Http2,
        },
        shared: route.shared,
        check: route.check,
        sources: theirs.into_iter().map(source).collect(),
        revision: newest.0,
        authorities: BTreeMap::new(),
    })
}

/// The entity tag of a route: another one whenever a source comes, changes or goes.
pub fn etag(sources: &[Source]) -> String {
    let mut lines: Vec<_> = sources
        .iter()
        .map(|it| format!("{}/{} {}\n", it.tenant, it.name, it.modified.0))
        .collect();
    lines.sort();
    let digest = digest(&SHA256, lines.concat().as_bytes());
    format!("\"{}\"", to_hex(&digest.as_ref()[..8]))
}

/// The refusal of one name too many.
pub(super) fn too_many(most: usize) -> Problem {
    let detail = format!("the tenant holds {most} routes, and may hold no more");
    Problem::new(StatusCode::CONFLICT, reason::TOO_MANY_ROUTES, detail)
}

fn source(source: &Source) -> types::Source {
    let tls = source.tls.as_deref().map(|tls| types::SourceTls {
        server_name: tls.server_name.clone(),
        trust: match (&tls.trust, &source.ca) {
            (Trust::CaPem(_), ca) => {
                types::SourceTrust::CaSha256(ca.as_deref().unwrap_or_default().to_owned())
            }
            (Trust::System, _) => types::SourceTrust::System,
            (Trust::InsecureAcceptAnyCertificate, _) => {
                types::SourceTrust::InsecureAcceptAnyCertificate
            }
        },
    });
    types::Source {
        source: source.name.to_string(),
        endpoints: source.spec.endpoints.clone(),
        protocol: source.spec.protocol,
        tls,
        ttl: source.spec.ttl,
    }
}

/// The sources of a rule, out of all that was read.
fn sources(listing: &Listing, host: &HostMatch) -> Vec<Source> {
    let of_host = |entry: &&KeyValue| matches!(Key::parse(&entry.key), Some(Key::Route { host: other, .. }) if other == *host);
    let mut view = View::default();
    view.reset(Listing {
        revision: listing.revision,
        entries: listing.entries.iter().filter(of_host).cloned().collect(),
    });
    view.sources(host).to_vec()
}

/// The sources of a rule with one that was put since.
fn after(listing: Listing, put: Put, revision: Revision, host: &HostMatch) -> Vec<Source> {
    let known = listing.entries.iter().find(|it| it.key == put.key);
    let entry = KeyValue {
        created: known.map_or(revision, |it| it.created),
        key: put.key,
        value: put.value,
        modified: revision,
        lease: put.lease,
    };
    let mut view = View::default();
    view.reset(listing);
    view.apply(Batch {
        revision,
        events: vec![Event::Put(entry)],
    });
    view.sources(host).to_vec()
}
