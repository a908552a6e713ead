//! Routes that are put and deleted by calls rather than announced.

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use config::route::{HostMatch, UpstreamProtocol};

use super::room::{Quota, make_room, took};
use super::{Decision, FileNames, judge, refuse_wide, transact};
use crate::registry::api::problem::Problem;
use crate::registry::api::types;
use crate::registry::claims::{Basis, Claim};
use crate::registry::hex::to_hex;
use crate::registry::keys::{self, API_SOURCE};
use crate::registry::record::{Protocol, RouteSource, Trust};
use crate::registry::shared::RouteRegistry;
use crate::registry::store::{KeyValue, LeaseId, Listing, Put, Revision, Transaction};
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
    /// What the tenant may have.
    pub quota: Quota,
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
    let claim = Claim {
        tenant,
        host,
        shared: request.source.shared,
        endpoints: &request.source.endpoints,
    };
    let turn = registry.turns.take(tenant).await?;
    let routes = [(host, &request.source)];
    let added = make_room(registry, request.quota, (tenant, API_SOURCE), &routes)?;
    refuse_wide(&registry.view(), claim, request.by_operator)?;
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
    let basis = Basis::of(tenant, host, request.source.shared);
    let result = transact(registry, basis, |listing| {
        let mut present = judge(files, claim, &listing.entries, request.by_operator)?;
        let before = of_host(listing, host);
        present.extend(request.expect.check(host, &sources(&before, host))?);
        let transaction = Transaction {
            present,
            puts: vec![put.clone()],
            ..Transaction::default()
        };
        Ok(Decision::Commit(transaction, before))
    })
    .await;
    if let Ok((revision, _)) = &result {
        took(registry, tenant, added, *revision);
    }
    drop(turn);
    let (revision, before) = match result {
        Ok(done) => done,
        Err(unmade) => {
            if unmade.is_certain() {
                give_back(registry, lease).await;
            }
            return Err(unmade.into());
        }
    };
    give_back(registry, lease_of(&before, &put.key)).await;
    let created = before.is_empty();
    let now = after(before, put, revision, host);
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
    let (revision, (holder, lease)) = transact(registry, &ranges, |listing| {
        let entries = of_host(listing, host);
        let all = sources(&entries, host);
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
        let key = keys::route(host, &put.tenant, API_SOURCE);
        let mut present = expect.check(host, &all)?;
        present.push(key.clone());
        let lease = lease_of(&entries, &key);
        let transaction = Transaction {
            present,
            deletes: vec![key],
            ..Transaction::default()
        };
        let holder = Arc::clone(&put.tenant);
        Ok(Decision::Commit(transaction, (holder, lease)))
    })
    .await?;
    give_back(registry, lease).await;
    Ok((revision, holder))
}

/// Ends a lease that nothing hangs on any more: each was granted for one route that was put. Best
/// effort, for it ends by itself as well.
async fn give_back(registry: &RouteRegistry, lease: Option<LeaseId>) {
    if let Some(lease) = lease {
        let _ = registry.store.revoke(lease).await;
    }
}

fn lease_of(entries: &[KeyValue], key: &str) -> Option<LeaseId> {
    let entry = entries.iter().find(|it| it.key == key)?;
    entry.lease
}

impl Expect {
    /// Whether it is met by the sources of a rule. The keys that must still be there for it come
    /// back: a deletion since they were read is a change as well.
    fn check(&self, host: &HostMatch, sources: &[Source]) -> Result<Vec<String>, Problem> {
        let met = match self {
            Self::Anything => true,
            Self::Nothing => sources.is_empty(),
            Self::Something => !sources.is_empty(),
            Self::OneOf(tags) => !sources.is_empty() && tags.contains(&etag(sources)),
        };
        if !met {
            return Err(Problem::changed(match self {
                Self::Nothing => "the route is there already",
                _ if sources.is_empty() => "there is no such route",
                _ => "the route is no longer the one that If-Match names",
            }));
        }
        let resting_on = match self {
            Self::Anything | Self::Nothing => &[],
            // Any one will do.
            Self::Something => &sources[..1],
            Self::OneOf(_) => sources,
        };
        let keys = resting_on.iter();
        Ok(keys
            .map(|it| keys::route(host, &it.tenant, &it.name))
            .collect())
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
        credential: source.spec.credential.as_deref().map(str::to_owned),
    }
}

/// The records of a rule, out of all that was read.
fn of_host(listing: &Listing, host: &HostMatch) -> Vec<KeyValue> {
    let range = keys::sources(host);
    let entries = listing.entries.iter();
    entries
        .filter(|it| range.contains(&it.key))
        .cloned()
        .collect()
}

/// The sources that these records of a rule tell of.
fn sources(entries: &[KeyValue], host: &HostMatch) -> Vec<Source> {
    let mut view = View::default();
    view.reset(Listing {
        revision: Revision::default(),
        entries: entries.to_vec(),
    });
    view.sources(host).to_vec()
}

/// The sources of a rule with one that was put since.
fn after(
    mut entries: Vec<KeyValue>,
    put: Put,
    revision: Revision,
    host: &HostMatch,
) -> Vec<Source> {
    let known = entries.iter().position(|it| it.key == put.key);
    let entry = KeyValue {
        created: known.map_or(revision, |place| entries[place].created),
        key: put.key,
        value: put.value,
        modified: revision,
        lease: put.lease,
    };
    match known {
        Some(place) => entries[place] = entry,
        None => entries.push(entry),
    }
    sources(&entries, host)
}
