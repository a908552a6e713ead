//! How much one tenant may have: a single credential in the wrong hands must not fill the store that
//! all share, nor the memory of every router. The decisions are pure.

use std::collections::{BTreeSet, HashSet};
use std::net::SocketAddr;
use std::time::Instant;

use config::route::HostMatch;

use crate::registry::ahead::Added;
use crate::registry::api::problem::{Problem, reason};
use crate::registry::api::types::MAX_ENDPOINTS_TOGETHER;
use crate::registry::keys::{self, API_SOURCE};
use crate::registry::record::RouteSource;
use crate::registry::shared::RouteRegistry;
use crate::registry::store::Revision;
use crate::registry::view::{Usage, View};

/// What one tenant may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Rules that it holds.
    pub routes: usize,
    /// Instances that announce.
    pub instances: usize,
    /// Keys and values of its routes' and instances' records.
    pub bytes: usize,
}

/// Whether there is room for what a tenant's source says of rules, by the view and what this router
/// has committed since. What it adds comes back, for [`took`]. To be called when it is the tenant's
/// turn. `source` is an instance, or [`API_SOURCE`].
pub(super) fn make_room(
    registry: &RouteRegistry,
    quota: Quota,
    (tenant, source): (&str, &str),
    routes: &[(&HostMatch, &RouteSource)],
) -> Result<Added, Problem> {
    let view = registry.view();
    for (host, spec) in routes {
        check_endpoints(&view, (tenant, source), host, &spec.endpoints)?;
    }
    let added = added(&view, (tenant, source), routes);
    let earlier = registry
        .ahead
        .added(tenant, view.revision(), Instant::now());
    // Instances that come at once announce the same names, and each counts once.
    let mut hosts: HashSet<&HostMatch> = earlier.iter().flat_map(|it| &it.hosts).collect();
    let mut instances: HashSet<&String> = earlier
        .iter()
        .filter_map(|it| it.instance.as_ref())
        .collect();
    let has = Usage {
        routes: hosts.len(),
        instances: instances.len(),
        bytes: earlier.iter().map(|it| it.bytes).sum(),
    };
    let (given_up, given_back) = given_up(&view, (tenant, source), routes);
    let new = added.hosts.iter().filter(|it| hosts.insert(it)).count();
    let adds = Usage {
        routes: new.saturating_sub(given_up),
        instances: added
            .instance
            .iter()
            .filter(|it| instances.insert(it))
            .count(),
        bytes: added.bytes.saturating_sub(given_back),
    };
    check(quota, view.usage(tenant).plus(has), adds)?;
    Ok(added)
}

/// What [`make_room`] said was added is committed.
pub(super) fn took(registry: &RouteRegistry, tenant: &str, added: Added, revision: Revision) {
    let followed = registry.view().revision();
    let now = Instant::now();
    registry.ahead.add(tenant, added, revision, followed, now);
}

fn check(quota: Quota, has: Usage, added: Usage) -> Result<(), Problem> {
    let is_too_much = |has: usize, added: usize, most: usize| added > 0 && has + added > most;
    if is_too_much(has.routes, added.routes, quota.routes) {
        let most = quota.routes;
        let detail = format!("the tenant has {} routes and may hold {most}", has.routes);
        return Err(Problem::conflict(reason::TOO_MANY_ROUTES, detail));
    }
    if is_too_much(has.instances, added.instances, quota.instances) {
        let (has, most) = (has.instances, quota.instances);
        let detail = format!("{has} instances of the tenant announce, and {most} may");
        return Err(Problem::conflict(reason::TOO_MANY_INSTANCES, detail));
    }
    if is_too_much(has.bytes, added.bytes, quota.bytes) {
        let (has, most) = (has.bytes, quota.bytes);
        let detail = format!("the tenant's routes and instances take {has} bytes, and may {most}");
        return Err(Problem::conflict(reason::TOO_MUCH_DATA, detail));
    }
    Ok(())
}

/// What a source adds to what the view has; nothing where it takes the place of as much.
fn added(
    view: &View,
    (tenant, source): (&str, &str),
    routes: &[(&HostMatch, &RouteSource)],
) -> Added {
    let mut hosts = Vec::new();
    let (mut bytes, mut replaced) = (0, 0);
    for (host, spec) in routes {
        let theirs = || view.sources(host).iter().filter(|it| *it.tenant == *tenant);
        if theirs().next().is_none() {
            hosts.push(HostMatch::clone(host));
        }
        let own = theirs().find(|it| *it.name == *source);
        replaced += own.map_or(0, |it| it.bytes as usize);
        let value = serde_json::to_vec(spec).map_or(0, |it| it.len());
        bytes += keys::route(host, tenant, source).len() + value;
    }
    let is_new = source != API_SOURCE && view.instance(tenant, source).is_none();
    Added {
        hosts,
        instance: is_new.then(|| source.to_owned()),
        bytes: usize::saturating_sub(bytes, replaced),
    }
}

/// What an instance gives up by announcing these routes and no others: rules that nobody else of the
/// tenant has, and bytes. Who is at the limit may put one name in the place of another.
fn given_up(
    view: &View,
    (tenant, source): (&str, &str),
    routes: &[(&HostMatch, &RouteSource)],
) -> (usize, usize) {
    let known = view.instance(tenant, source);
    let hosts = known.into_iter().flat_map(|it| &it.record.hosts);
    let (mut rules, mut bytes) = (0, 0);
    for host in hosts.filter_map(|host| HostMatch::parse(host).ok()) {
        if routes.iter().any(|(kept, _)| **kept == host) {
            continue;
        }
        let all = view.sources(&host);
        let (own, others): (Vec<_>, Vec<_>) = all
            .iter()
            .filter(|it| *it.tenant == *tenant)
            .partition(|it| *it.name == *source);
        rules += usize::from(!own.is_empty() && others.is_empty());
        bytes += own.iter().map(|it| it.bytes as usize).sum::<usize>();
    }
    (rules, bytes)
}

fn check_endpoints(
    view: &View,
    (tenant, source): (&str, &str),
    host: &HostMatch,
    endpoints: &[SocketAddr],
) -> Result<(), Problem> {
    let (mut before, mut after) = (BTreeSet::new(), BTreeSet::from_iter(endpoints));
    for known in view.sources(host).iter().filter(|it| *it.tenant == *tenant) {
        before.extend(&known.spec.endpoints);
        if *known.name != *source {
            after.extend(&known.spec.endpoints);
        }
    }
    // Fewer than before is fine, however many they are.
    if after.len() <= MAX_ENDPOINTS_TOGETHER || after.is_subset(&before) {
        return Ok(());
    }
    let detail = format!(
        "{host} would have {} endpoints of all instances together, and may have \
         {MAX_ENDPOINTS_TOGETHER}",
        after.len()
    );
    Err(Problem::conflict(reason::TOO_MANY_ENDPOINTS, detail).about(host))
}
