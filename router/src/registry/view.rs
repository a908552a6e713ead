//! Everything that the store holds, in memory: fed by listings and batches, asked by the API and by
//! whoever publishes routes. Pure.

mod host_key;
mod relist;
mod source;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};
use config::route::HostMatch;

pub use host_key::HostKey;
pub use relist::relist;
pub use source::{Source, resolve};

use super::hex::to_hex;
use super::keys::{self, Key};
use super::origin;
use super::record::{Instance, RouteSource, TicketSecrets, Tls, Token, Trust, Zone};
use super::route::{RegistryRoute, RouteChange};
use super::store::{Batch, Event, KeyValue, LeaseId, Revision};

/// Changes of routes that are remembered, so that a watch resumes.
const REMEMBERED: usize = 16_384;

/// All records, as of one revision.
#[derive(Debug, Default)]
pub struct View {
    revision: Revision,
    routes: BTreeMap<Arc<HostKey>, Vec<Source>>,
    /// Names by tenant: a tenant's list must not cost a walk over everybody's.
    held: BTreeMap<Arc<str>, BTreeSet<Arc<HostKey>>>,
    instances: BTreeMap<(Arc<str>, Arc<str>), InstanceEntry>,
    zones: BTreeMap<(Arc<str>, HostMatch), Zone>,
    tokens: BTreeMap<String, Token>,
    tickets: Option<TicketSecrets>,
    tickets_fresh: bool,
    store_id: Option<String>,
    listed: u64,
    /// Up to here revisions may be of a time that the store has gone back behind.
    void: Revision,
    unreadable: BTreeMap<String, String>,
    recent: VecDeque<(Revision, Arc<str>, HostMatch)>,
    /// Changes up to this revision are no longer remembered.
    forgotten: Revision,
    names: HashSet<Arc<str>>,
    /// With the digests of their authorities.
    tls: HashMap<Arc<Tls>, Option<Arc<str>>>,
    /// How many names and TLS there may be until unused ones are looked for.
    tidy_at: usize,
}

/// A registrar's announcement and its lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceEntry {
    /// What it announced.
    pub record: Instance,
    /// What keeps it.
    pub lease: Option<LeaseId>,
}

/// What a listing or a batch changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Rules whose routes may have changed.
    pub hosts: BTreeSet<HostKey>,
    /// Whether the ticket secrets, or their being fresh, changed.
    pub tickets: bool,
    /// Whether the store's name changed.
    pub store_id: bool,
}

impl View {
    /// Up to where it has followed.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Which store its records are from; `None` if that store did not say.
    pub fn store_id(&self) -> Option<&str> {
        self.store_id.as_deref()
    }

    /// Counts the listings that it was made anew from. Changes since an older one are not known.
    pub fn listings(&self) -> u64 {
        self.listed
    }

    /// Takes what changed.
    pub fn apply(&mut self, batch: Batch) -> Changes {
        let mut changes = Changes::default();
        for event in batch.events {
            match event {
                Event::Put(entry) => self.put(entry, &mut changes),
                Event::Delete(key) => self.delete(&key, batch.revision, &mut changes),
            }
        }
        self.revision = self.revision.max(batch.revision);
        if self.names.len() + self.tls.len() > self.tidy_at {
            self.tidy();
        }
        changes
    }

    /// The route under a rule, if there is one.
    pub fn route(&self, host: &HostMatch) -> Option<RegistryRoute> {
        let sources = self.routes.get(&HostKey(host.clone()))?;
        resolve(host, sources)
    }

    /// What has to be told of a rule that changed.
    pub fn change(&self, host: &HostMatch) -> RouteChange {
        match self.route(host) {
            Some(route) => RouteChange::Set(Arc::new(route)),
            None => RouteChange::Gone(host.clone()),
        }
    }

    /// Every route.
    pub fn routes(&self) -> impl Iterator<Item = RegistryRoute> {
        let all = self.routes.iter();
        all.filter_map(|(host, sources)| resolve(&host.0, sources))
    }

    /// The sources of a rule: none if there is no such route.
    pub fn sources(&self, host: &HostMatch) -> &[Source] {
        let sources = self.routes.get(&HostKey(host.clone()));
        sources.map_or(&[], Vec::as_slice)
    }

    /// Rules in order after `after`, of one tenant or of all.
    pub fn hosts_after<'a>(
        &'a self,
        tenant: Option<&str>,
        after: Option<&HostMatch>,
    ) -> Box<dyn Iterator<Item = &'a HostMatch> + 'a> {
        let after = after.map(|host| Arc::new(HostKey(host.clone())));
        let from = (
            after.map_or(Bound::Unbounded, Bound::Excluded),
            Bound::Unbounded,
        );
        match tenant {
            None => Box::new(self.routes.range(from).map(|(host, _)| &host.0)),
            Some(tenant) => match self.held.get(tenant) {
                None => Box::new(std::iter::empty()),
                Some(held) => Box::new(held.range(from).map(|host| &host.0)),
            },
        }
    }

    /// How many rules a tenant holds.
    pub fn held_by(&self, tenant: &str) -> usize {
        self.held.get(tenant).map_or(0, BTreeSet::len)
    }

    /// How many rules there are.
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// Whether there is no rule.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// An instance's announcement.
    pub fn instance(&self, tenant: &str, instance: &str) -> Option<&InstanceEntry> {
        self.instances.get(&(tenant.into(), instance.into()))
    }

    /// Announcements in order after (tenant, instance).
    pub fn instances_after(
        &self,
        after: Option<(&str, &str)>,
    ) -> impl Iterator<Item = (&str, &str, &InstanceEntry)> {
        let from = after.map_or(Bound::Unbounded, |(tenant, instance)| {
            Bound::Excluded((tenant.into(), instance.into()))
        });
        let found = self.instances.range((from, Bound::Unbounded));
        found.map(|((tenant, instance), entry)| (&**tenant, &**instance, entry))
    }

    /// Every zone.
    pub fn zones(&self) -> impl Iterator<Item = (&str, &HostMatch, &Zone)> {
        let all = self.zones.iter();
        all.map(|((tenant, pattern), zone)| (&**tenant, pattern, zone))
    }

    /// Every token.
    pub fn tokens(&self) -> impl Iterator<Item = (&str, &Token)> {
        self.tokens.iter().map(|(id, token)| (id.as_str(), token))
    }

    /// One token.
    pub fn token(&self, id: &str) -> Option<&Token> {
        self.tokens.get(id)
    }

    /// The secrets of session tickets, and whether the newest is still young.
    pub fn tickets(&self) -> (Option<&TicketSecrets>, bool) {
        (self.tickets.as_ref(), self.tickets_fresh)
    }

    /// Keys that could not be read, with the reason.
    pub fn unreadable(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        let all = self.unreadable.iter();
        all.map(|(key, reason)| (key.as_str(), reason.as_str()))
    }

    /// Rules that changed after a revision, each once and with whose they are or were; `None` if
    /// that is no longer known.
    pub fn changed_since(&self, after: Revision) -> Option<Vec<(Arc<str>, HostMatch)>> {
        if after < self.forgotten || after > self.revision {
            return None;
        }
        let newer = self.recent.iter().rev();
        let mut seen = HashSet::new();
        let mut found: Vec<_> = newer
            .take_while(|(revision, ..)| *revision > after)
            .filter(|(_, tenant, host)| seen.insert((tenant, host)))
            .map(|(_, tenant, host)| (Arc::clone(tenant), host.clone()))
            .collect();
        found.reverse();
        Some(found)
    }

    /// Whether somebody who kept a revision may go on from there: it is of no past that the store
    /// has gone back behind, as one restored from a backup has.
    pub fn can_resume(&self, after: Revision) -> bool {
        self.void == Revision::default() || after > self.void
    }

    /// Records of the next `most` rules after `after`, and the last of these rules: with
    /// [`View::kept_tickets`], what a router needs to serve on without the store.
    pub fn kept_routes(
        &self,
        after: Option<&HostMatch>,
        most: usize,
    ) -> (Vec<KeyValue>, Option<HostMatch>) {
        let after = after.map(|host| HostKey(host.clone()));
        let from = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let next = self.routes.range::<HostKey, _>((from, Bound::Unbounded));
        let (mut records, mut last) = (Vec::new(), None);
        for (key, sources) in next.take(most) {
            let host = &key.0;
            last = Some(host);
            records.extend(sources.iter().map(|source| {
                let mut spec = source.spec.clone();
                spec.tls = source.tls.as_deref().cloned();
                KeyValue {
                    key: keys::route(host, &source.tenant, &source.name),
                    value: serde_json::to_vec(&spec).expect("a route is JSON").into(),
                    created: source.created,
                    modified: source.modified,
                    lease: None,
                }
            }));
        }
        (records, last.cloned())
    }

    /// See [`View::kept_routes`].
    pub fn kept_tickets(&self) -> Option<KeyValue> {
        self.tickets.as_ref().map(|secrets| KeyValue {
            key: keys::TICKET_SECRETS.to_owned(),
            value: serde_json::to_vec(secrets).expect("they are JSON").into(),
            created: self.revision,
            modified: self.revision,
            lease: None,
        })
    }

    fn put(&mut self, entry: KeyValue, changes: &mut Changes) {
        self.unreadable.remove(&entry.key);
        let result = match Key::parse(&entry.key) {
            None => Err("is no key of this version".to_owned()),
            Some(Key::Route {
                host,
                tenant,
                source,
            }) => self.put_source(host, tenant, source, &entry, changes),
            Some(Key::Instance { tenant, instance }) => parse(&entry).map(|record| {
                let lease = entry.lease;
                let key = (self.name(tenant), self.name(instance));
                self.instances.insert(key, InstanceEntry { record, lease });
            }),
            Some(Key::Zone { tenant, pattern }) => parse(&entry).map(|zone| {
                let tenant = self.name(tenant);
                self.zones.insert((tenant, pattern), zone);
            }),
            Some(Key::Token(id)) => parse(&entry).map(|token| {
                self.tokens.insert(id.to_owned(), token);
            }),
            Some(Key::TicketSecrets) => parse(&entry).map(|secrets| {
                changes.tickets = true;
                self.tickets = Some(secrets);
            }),
            Some(Key::TicketFresh) => {
                changes.tickets = true;
                self.tickets_fresh = true;
                Ok(())
            }
            Some(Key::StoreId) => match origin::parse(&entry.value) {
                Some(id) => {
                    changes.store_id = true;
                    self.store_id = Some(id.to_owned());
                    Ok(())
                }
                None => Err("is no name of a store".to_owned()),
            },
        };
        if let Err(reason) = result {
            // What it said before no longer holds either.
            self.delete(&entry.key, entry.modified, changes);
            self.unreadable.insert(entry.key, reason);
        }
    }

    fn put_source(
        &mut self,
        host: HostMatch,
        tenant: &str,
        name: &str,
        entry: &KeyValue,
        changes: &mut Changes,
    ) -> Result<(), String> {
        let mut spec: Box<RouteSource> = parse(entry)?;
        if spec.endpoints.is_empty() {
            return Err("has no endpoint".to_owned());
        }
        let (tls, ca) = spec.tls.take().map(|tls| self.shared_tls(tls)).unzip();
        let source = Source {
            tenant: self.name(tenant),
            name: self.name(name),
            spec,
            tls,
            ca: ca.flatten(),
            created: entry.created,
            modified: entry.modified,
            lease: entry.lease,
        };
        let tenant = Arc::clone(&source.tenant);
        let key = match self.routes.get_key_value(&HostKey(host.clone())) {
            Some((key, _)) => Arc::clone(key),
            None => Arc::new(HostKey(host)),
        };
        let sources = self.routes.entry(Arc::clone(&key)).or_default();
        let same = |it: &Source| (&it.tenant, &it.name) == (&source.tenant, &source.name);
        match sources.iter().position(same) {
            Some(place) => sources[place] = source,
            None => {
                sources.push(source);
                sources.shrink_to_fit();
            }
        }
        let held = self.held.entry(Arc::clone(&tenant)).or_default();
        held.insert(Arc::clone(&key));
        self.remember(entry.modified, tenant, &key, changes);
        Ok(())
    }

    fn delete(&mut self, key: &str, revision: Revision, changes: &mut Changes) {
        self.unreadable.remove(key);
        match Key::parse(key) {
            None => {}
            Some(Key::Route {
                host,
                tenant,
                source,
            }) => self.delete_source(host, tenant, source, revision, changes),
            Some(Key::Instance { tenant, instance }) => {
                self.instances.remove(&(tenant.into(), instance.into()));
            }
            Some(Key::Zone { tenant, pattern }) => {
                self.zones.remove(&(tenant.into(), pattern));
            }
            Some(Key::Token(id)) => {
                self.tokens.remove(id);
            }
            Some(Key::TicketSecrets) => {
                changes.tickets = true;
                self.tickets = None;
            }
            Some(Key::TicketFresh) => {
                changes.tickets = true;
                self.tickets_fresh = false;
            }
            Some(Key::StoreId) => {
                changes.store_id = true;
                self.store_id = None;
            }
        }
    }

    fn delete_source(
        &mut self,
        host: HostMatch,
        tenant: &str,
        source: &str,
        revision: Revision,
        changes: &mut Changes,
    ) {
        let key = HostKey(host);
        let Some(sources) = self.routes.get_mut(&key) else {
            return;
        };
        let theirs = |it: &Source| *it.tenant == *tenant;
        let Some(place) = sources
            .iter()
            .position(|it| theirs(it) && *it.name == *source)
        else {
            return;
        };
        let tenant = sources.remove(place).tenant;
        if !sources.iter().any(theirs)
            && let Some(held) = self.held.get_mut(&tenant)
        {
            held.remove(&key);
            if held.is_empty() {
                self.held.remove(&tenant);
            }
        }
        if sources.is_empty() {
            self.routes.remove(&key);
        }
        self.remember(revision, tenant, &key, changes);
    }

    fn remember(
        &mut self,
        revision: Revision,
        tenant: Arc<str>,
        host: &HostKey,
        changes: &mut Changes,
    ) {
        if self.recent.len() == REMEMBERED
            && let Some((revision, ..)) = self.recent.pop_front()
        {
            self.forgotten = self.forgotten.max(revision);
        }
        self.recent.push_back((revision, tenant, host.0.clone()));
        changes.hosts.insert(host.clone());
    }

    /// One object for all that have the same name: a hundred thousand routes have few tenants.
    fn name(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.names.get(name) {
            return Arc::clone(known);
        }
        let name: Arc<str> = name.into();
        self.names.insert(Arc::clone(&name));
        name
    }

    /// The same for TLS, which may hold whole certificates.
    fn shared_tls(&mut self, tls: Tls) -> (Arc<Tls>, Option<Arc<str>>) {
        if let Some((known, ca)) = self.tls.get_key_value(&tls) {
            return (Arc::clone(known), ca.clone());
        }
        let ca = match &tls.trust {
            Trust::CaPem(pem) => Some(
                to_hex(digest(&SHA256, pem.as_bytes()).as_ref())
                    .as_str()
                    .into(),
            ),
            Trust::System | Trust::InsecureAcceptAnyCertificate => None,
        };
        let tls = Arc::new(tls);
        self.tls.insert(Arc::clone(&tls), Option::clone(&ca));
        (tls, ca)
    }

    /// Lets go of names and TLS that nothing has any more.
    fn tidy(&mut self) {
        self.names.retain(|name| Arc::strong_count(name) > 1);
        self.tls.retain(|tls, _| Arc::strong_count(tls) > 1);
        self.tidy_at = 2 * (self.names.len() + self.tls.len()) + 1024;
    }
}

/// A panic while it was changed may have left out a change; the next listing mends that.
pub(super) fn lock(view: &Mutex<View>) -> MutexGuard<'_, View> {
    view.lock().unwrap_or_else(PoisonError::into_inner)
}

fn parse<T: serde::de::DeserializeOwned>(entry: &KeyValue) -> Result<T, String> {
    // serde's message may quote the value, and a value may hold a secret: the place is enough.
    serde_json::from_slice(&entry.value)
        .map_err(|error| format!("cannot be read, at column {}", error.column()))
}

#[cfg(test)]
mod tests;
