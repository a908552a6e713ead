//! The registry's routes in force: what it announces goes into the same table as the files' rules,
//! change by change.
//!
//! How the two go together says [`super::files`]. A route that files leave no room for is left out
//! until they do; whatever is left out is told of. Which of two tenants holds a name in the registry
//! is the registry's own matter, decided before a route gets here.

use std::collections::HashSet;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use config::route::HostMatch;
use hashbrown::HashMap;

use super::files::{FileConflict, FileRules};
use super::intern::{Interner, Wanted};
use crate::registry::record;
use crate::registry::route::{RegistryEndpoint, RegistryRoute, RouteChange};
use crate::route::{Origin, RouteTable, RouteTarget};
use crate::tls::{Trust, UpstreamTlsError};
use crate::upstream::Upstream;
use crate::upstream::health::{CheckedRoute, HealthUpdate, Unhealthy};

/// What the registry says.
#[derive(Clone, Debug)]
pub enum RegistryUpdate {
    /// Everything: what is not among these is gone.
    Reset(Vec<Arc<RegistryRoute>>),
    /// What changed since the last update. Of several changes of one name the last one counts.
    Changes(Vec<RouteChange>),
}

/// A route, or some endpoints of one, that the registry announces and that is not in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// The route's rule.
    pub host: HostMatch,
    /// Who announces it.
    pub tenant: Arc<str>,
    /// Why it is not in force.
    pub why: LeftOutReason,
}

/// Why something that the registry announces is not in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeftOutReason {
    /// A rule of a file leaves no room for the route.
    File(FileConflict),
    /// None of the route's endpoints can be used.
    NoEndpoint(Vec<UnusableEndpoint>),
    /// The route is in force, without these.
    Endpoints(Vec<UnusableEndpoint>),
}

/// An endpoint that cannot be used, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnusableEndpoint {
    /// Where it is.
    pub address: SocketAddr,
    /// What is wrong with its TLS settings.
    pub reason: String,
}

/// What is known of the registry's routes beside the table that has those in force.
pub(super) struct RegistryRules {
    /// What upstreams of registry routes are called in logs and explanations.
    upstream_name: Arc<str>,
    in_force: usize,
    left_out: HashMap<HostMatch, Kept>,
    /// Routes in force without some of their endpoints.
    partial: HashMap<HostMatch, LeftOut>,
}

/// A route that is left out.
struct Kept {
    told: LeftOut,
    /// Ready to go in force, its upstream used, unless it has no endpoint to lead to.
    target: Option<Arc<RouteTarget>>,
}

/// A change on its way: a working copy of the table, and what has come of it so far.
pub(super) struct Edit<'a> {
    pub(super) table: RouteTable,
    pub(super) files: &'a FileRules,
    pub(super) interner: &'a mut Interner,
    pub(super) outcome: EditOutcome,
}

/// What an [`Edit`] leads to.
#[derive(Default)]
pub(super) struct EditOutcome {
    /// Whether the table is another.
    pub(super) changed: bool,
    /// Routes that came, changed or went, those that are left out among them.
    pub(super) changes: u64,
    /// To be released when the new table is in force.
    pub(super) released: Vec<Arc<Upstream>>,
    /// What is newly left out, or for another reason than before.
    pub(super) left_out: Vec<LeftOut>,
    /// Routes that were left out and are in force now.
    pub(super) back: Vec<HostMatch>,
    /// What is to be checked from now on, or no longer. Routes that a file leaves no room for are
    /// checked all the same: their state is known when there is room.
    pub(super) health: Vec<HealthUpdate>,
}

impl RegistryRules {
    /// How many routes are in force.
    pub(super) fn in_force(&self) -> usize {
        self.in_force
    }

    /// How many routes are left out.
    pub(super) fn left_out(&self) -> usize {
        self.left_out.len()
    }

    /// What is left out, by name, at most so many.
    pub(super) fn told(&self, most: usize) -> Vec<LeftOut> {
        let routes = self.left_out.values().map(|kept| &kept.told);
        let mut told: Vec<_> = routes.chain(self.partial.values()).collect();
        told.sort_unstable_by(|a, b| a.host.cmp(&b.host));
        told.into_iter().take(most).cloned().collect()
    }

    /// Takes what the registry says into the table.
    pub(super) fn apply(&mut self, update: &RegistryUpdate, edit: &mut Edit<'_>) {
        match update {
            RegistryUpdate::Reset(routes) => {
                for host in self.absent(routes, &edit.table) {
                    self.gone(&host, edit);
                }
                for route in routes {
                    self.set(route, edit);
                }
            }
            RegistryUpdate::Changes(changes) => {
                for change in changes {
                    match change {
                        RouteChange::Set(route) => self.set(route, edit),
                        RouteChange::Gone(host) => self.gone(host, edit),
                    }
                }
            }
        }
    }

    /// Looks again at the routes that a change of the files concerns; `edit` has the new files, and
    /// `fresh` are their new rules.
    pub(super) fn files_changed(&mut self, fresh: &[Arc<RouteTarget>], edit: &mut Edit<'_>) {
        for target in self.concerned(fresh, &edit.table) {
            if let Some(conflict) = edit.conflict(&target) {
                edit.remove(&target.host);
                self.in_force -= 1;
                self.leave_out(target, conflict, edit);
            }
        }
        let waiting = self
            .left_out
            .values()
            .filter_map(|kept| kept.target.clone());
        for target in waiting.collect::<Vec<_>>() {
            match edit.conflict(&target) {
                Some(conflict) => self.leave_out(target, conflict, edit),
                None => {
                    self.left_out.remove(&target.host);
                    edit.outcome.back.push(target.host.clone());
                    edit.insert(target);
                    self.in_force += 1;
                }
            }
        }
    }

    /// Names that are known and not among `routes`.
    fn absent(&self, routes: &[Arc<RegistryRoute>], table: &RouteTable) -> Vec<HostMatch> {
        if self.in_force + self.left_out.len() == 0 {
            return Vec::new();
        }
        let announced: HashSet<&HostMatch> = routes.iter().map(|route| &route.host).collect();
        let in_force = table.iter().filter(|it| it.origin == Origin::Registry);
        in_force
            .map(|target| &target.host)
            .chain(self.left_out.keys())
            .filter(|host| !announced.contains(host))
            .cloned()
            .collect()
    }

    /// Routes in force that new rules of files may leave no room for.
    fn concerned(&self, fresh: &[Arc<RouteTarget>], table: &RouteTable) -> Vec<Arc<RouteTarget>> {
        let ours = |target: &&Arc<RouteTarget>| target.origin == Origin::Registry;
        let mut concerned: HashMap<&HostMatch, &Arc<RouteTarget>> = HashMap::new();
        let above = fresh.iter().flat_map(|it| it.host.wider_suffixes());
        for target in above.filter_map(|suffix| table.get_suffix(suffix)) {
            if ours(&target) {
                concerned.insert(&target.host, target);
            }
        }
        let suffixes: HashSet<&str> = fresh
            .iter()
            .filter(|it| !it.shared)
            .filter_map(|it| match &it.host {
                HostMatch::Suffix(suffix) => Some(suffix.as_str()),
                HostMatch::Exact(_) => None,
            })
            .collect();
        if !suffixes.is_empty() && self.in_force > 0 {
            // The one walk over everything, away from the workers and only for a new suffix.
            for target in table.iter().filter(ours) {
                if target.host.wider_suffixes().any(|it| suffixes.contains(it)) {
                    concerned.insert(&target.host, target);
                }
            }
        }
        concerned.into_values().cloned().collect()
    }

    fn set(&mut self, route: &RegistryRoute, edit: &mut Edit<'_>) {
        let host = &route.host;
        let in_force = edit.in_force(host);
        let kept = self.left_out.get(host);
        let before = in_force
            .clone()
            .or_else(|| kept.and_then(|it| it.target.clone()));
        let (endpoints, unusable) = edit.endpoints(route);
        if endpoints.is_empty() {
            if in_force.is_some() {
                edit.remove(host);
                self.in_force -= 1;
            }
            edit.outcome.check_no_longer(before.as_deref());
            edit.outcome.released.extend(before.map(released));
            self.partial.remove(host);
            let told = LeftOut {
                host: host.clone(),
                tenant: Arc::clone(&route.tenant),
                why: LeftOutReason::NoEndpoint(unusable),
            };
            return self.keep(told, None, edit);
        }
        let target = edit.target(route, &endpoints, &self.upstream_name, before.as_ref());
        match &route.check {
            Some(check) => edit.outcome.check(&target, check),
            None => edit.outcome.check_no_longer(before.as_deref()),
        }
        let same = |it: &Arc<RouteTarget>| Arc::ptr_eq(it, &target);
        if let Some(before) = before.as_ref().filter(|it| !same(it)) {
            edit.outcome.released.push(Arc::clone(&before.upstream));
        }
        self.note_unusable(route, unusable, edit);
        let conflict = edit.conflict(&target);
        let stays = conflict.is_none() && in_force.as_ref().is_some_and(same);
        if in_force.is_some() && !stays {
            edit.remove(host);
            self.in_force -= 1;
        }
        match conflict {
            Some(conflict) => self.leave_out(target, conflict, edit),
            None if stays => {}
            None => {
                self.left_out.remove(host);
                edit.outcome.changes += 1;
                edit.insert(target);
                self.in_force += 1;
            }
        }
    }

    fn gone(&mut self, host: &HostMatch, edit: &mut Edit<'_>) {
        self.partial.remove(host);
        let in_force = edit.in_force(host);
        if in_force.is_some() {
            edit.remove(host);
            self.in_force -= 1;
        }
        let kept = self.left_out.remove(host);
        edit.outcome.changes += u64::from(in_force.is_some() || kept.is_some());
        let target = in_force.or_else(|| kept.and_then(|it| it.target));
        edit.outcome.check_no_longer(target.as_deref());
        edit.outcome.released.extend(target.map(released));
    }

    fn leave_out(&mut self, target: Arc<RouteTarget>, conflict: FileConflict, edit: &mut Edit<'_>) {
        let told = LeftOut {
            host: target.host.clone(),
            tenant: Arc::clone(&target.upstream.tenant),
            why: LeftOutReason::File(conflict),
        };
        self.keep(told, Some(target), edit);
    }

    fn keep(&mut self, told: LeftOut, target: Option<Arc<RouteTarget>>, edit: &mut Edit<'_>) {
        let known = self.left_out.get(&told.host);
        let as_before = known.is_some_and(|it| it.told == told);
        let same_target = known.is_some_and(|it| {
            it.target.as_ref().map(Arc::as_ptr) == target.as_ref().map(Arc::as_ptr)
        });
        edit.outcome.changes += u64::from(!as_before || !same_target);
        if !as_before {
            edit.outcome.left_out.push(told.clone());
        }
        self.left_out
            .insert(told.host.clone(), Kept { told, target });
    }

    fn note_unusable(
        &mut self,
        route: &RegistryRoute,
        unusable: Vec<UnusableEndpoint>,
        edit: &mut Edit<'_>,
    ) {
        if unusable.is_empty() {
            self.partial.remove(&route.host);
            return;
        }
        let told = LeftOut {
            host: route.host.clone(),
            tenant: Arc::clone(&route.tenant),
            why: LeftOutReason::Endpoints(unusable),
        };
        if self.partial.get(&route.host) != Some(&told) {
            edit.outcome.left_out.push(told.clone());
            self.partial.insert(route.host.clone(), told);
        }
    }
}

impl Default for RegistryRules {
    fn default() -> Self {
        Self {
            upstream_name: "registry".into(),
            in_force: 0,
            left_out: HashMap::new(),
            partial: HashMap::new(),
        }
    }
}

impl EditOutcome {
    fn check(&mut self, target: &RouteTarget, check: &record::Check) {
        let upstream = &target.upstream;
        let count = upstream.endpoints.len();
        let unhealthy = upstream
            .unhealthy
            .get_or_init(|| Arc::new(Unhealthy::new(count)));
        self.health.push(HealthUpdate::Set(CheckedRoute {
            host: target.host.clone(),
            endpoints: upstream.endpoints.clone(),
            unhealthy: Arc::clone(unhealthy),
            check: check.clone(),
        }));
    }

    fn check_no_longer(&mut self, before: Option<&RouteTarget>) {
        if let Some(before) = before.filter(|it| it.upstream.unhealthy.get().is_some()) {
            self.health.push(HealthUpdate::Gone(before.host.clone()));
        }
    }
}

impl Edit<'_> {
    /// The registry's route in the table under a rule.
    fn in_force(&self, host: &HostMatch) -> Option<Arc<RouteTarget>> {
        let target = self.table.get(host)?;
        (target.origin == Origin::Registry).then(|| Arc::clone(target))
    }

    fn conflict(&self, target: &RouteTarget) -> Option<FileConflict> {
        let tenant = &target.upstream.tenant;
        self.files
            .conflict(&self.table, &target.host, tenant, target.shared)
    }

    fn insert(&mut self, target: Arc<RouteTarget>) {
        self.outcome.changed = true;
        self.table
            .insert(target)
            .expect("neither a file nor the registry has the rule: both were asked");
    }

    fn remove(&mut self, host: &HostMatch) {
        self.outcome.changed = true;
        self.table.remove(host);
    }

    /// The endpoints of a route, and those of them that cannot be used.
    fn endpoints(&mut self, route: &RegistryRoute) -> (Vec<Wanted>, Vec<UnusableEndpoint>) {
        let mut wanted = Vec::with_capacity(route.endpoints.len());
        let mut unusable = Vec::new();
        for RegistryEndpoint { address, tls } in &route.endpoints {
            let address = *address;
            let made = tls.as_deref().map(|tls| {
                let trust = trust(&tls.trust);
                self.interner.tls(&route.tenant, &tls.server_name, trust)
            });
            match made.transpose() {
                Ok(tls) => wanted.push(Wanted { address, tls }),
                Err(error) => unusable.push(UnusableEndpoint::new(address, &error)),
            }
        }
        (wanted, unusable)
    }

    /// What a route leads to, the same object as before if nothing about it is new.
    fn target(
        &mut self,
        route: &RegistryRoute,
        endpoints: &[Wanted],
        name: &Arc<str>,
        before: Option<&Arc<RouteTarget>>,
    ) -> Arc<RouteTarget> {
        // What the checks of one route say is not said of another's, so it has its own upstream.
        let own = route.check.as_ref().map(|_| registry_upstream(&route.host));
        let name = own.as_ref().unwrap_or(name);
        let upstream = self
            .interner
            .upstream(&route.tenant, name, route.protocol, endpoints);
        if let Some(before) = before
            && Arc::ptr_eq(&before.upstream, &upstream)
            && before.shared == route.shared
        {
            // It has its use already.
            self.interner.release(&upstream);
            return Arc::clone(before);
        }
        Arc::new(RouteTarget {
            host: route.host.clone(),
            upstream,
            shared: route.shared,
            origin: Origin::Registry,
        })
    }
}

impl UnusableEndpoint {
    fn new(address: SocketAddr, error: &UpstreamTlsError) -> Self {
        let reason = error.to_string();
        Self { address, reason }
    }
}

impl fmt::Display for LeftOutReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, endpoints) = match self {
            Self::File(conflict) => return conflict.fmt(f),
            Self::NoEndpoint(endpoints) => ("no endpoint can be used", endpoints),
            Self::Endpoints(endpoints) => ("endpoints that cannot be used", endpoints),
        };
        f.write_str(what)?;
        for (at, UnusableEndpoint { address, reason }) in endpoints.iter().enumerate() {
            let separator = if at == 0 { ": " } else { "; " };
            write!(f, "{separator}{address}: {reason}")?;
        }
        Ok(())
    }
}

/// What the upstream of a route is called that routers check.
fn registry_upstream(host: &HostMatch) -> Arc<str> {
    format!("registry:{host}").into()
}

fn released(target: Arc<RouteTarget>) -> Arc<Upstream> {
    Arc::clone(&target.upstream)
}

fn trust(trust: &record::Trust) -> Trust<'_> {
    match trust {
        record::Trust::CaPem(pem) => Trust::Authorities(pem.as_bytes()),
        record::Trust::System => Trust::System,
        record::Trust::InsecureAcceptAnyCertificate => Trust::InsecureAcceptAny,
    }
}
