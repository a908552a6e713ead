//! Keeps upstreams and endpoints the same objects for as long as something uses them.
//!
//! Workers know pools, rests and counts by the ids of these objects. What did not change keeps its
//! id, and with it its warm connections; what did change gets a new one, so that no request rides on
//! a connection that was made under other rules.
//!
//! Files and the registry share one [`Interner`]. It counts who uses an object, so that a change
//! costs what it touches and nothing else; the last one to let go retires it.

use std::hash::BuildHasher;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use config::route::UpstreamProtocol;
use foldhash::fast::RandomState;
use hashbrown::HashTable;

use crate::tls::{ClientConfigs, Trust, UpstreamTlsError};
use crate::upstream::{Endpoint, Retired, Upstream, UpstreamTls};

/// Upstreams, endpoints and TLS configurations by everything that they are made of. The tenant is
/// part of it: tenants share no connection, even to the same address.
#[derive(Default)]
pub(super) struct Interner {
    /// Numbers that are never used twice in the life of the process.
    last_id: u64,
    upstreams: HashTable<Used<Arc<Upstream>>>,
    endpoints: HashTable<Used<InternedEndpoint>>,
    tls: HashTable<Used<InternedTls>>,
    configs: ClientConfigs,
    hasher: RandomState,
}

/// An endpoint as it is asked for.
pub(super) struct Wanted {
    pub(super) address: SocketAddr,
    pub(super) tls: Option<TlsHandle>,
}

/// A TLS configuration that [`Interner::tls`] has found or made.
#[derive(Clone)]
pub(super) struct TlsHandle {
    made: Arc<UpstreamTls>,
    /// Where its table has it.
    hash: u64,
}

struct Used<T> {
    value: T,
    uses: u32,
}

struct InternedEndpoint {
    endpoint: Arc<Endpoint>,
    /// Hash of its TLS configuration, if it has one.
    tls_hash: u64,
}

struct InternedTls {
    tenant: Arc<str>,
    server_name: Box<str>,
    trust: OwnedTrust,
    made: Arc<UpstreamTls>,
}

/// [`Trust`], kept.
enum OwnedTrust {
    Authorities(Box<[u8]>),
    System,
    InsecureAcceptAny,
}

impl Interner {
    /// How many upstreams are in use.
    pub(super) fn upstreams(&self) -> usize {
        self.upstreams.len()
    }

    /// How many upstreams, endpoints and TLS configurations are in use.
    #[cfg(test)]
    pub(super) fn sizes(&self) -> [usize; 3] {
        [self.upstreams.len(), self.endpoints.len(), self.tls.len()]
    }

    /// From now on system authorities are read anew when they are needed.
    pub(super) fn forget_system_authorities(&mut self) {
        self.configs = ClientConfigs::new();
    }

    /// TLS towards a tenant's endpoints, the same configuration as before if there is one. To be
    /// handed to [`Interner::upstream`], which counts its use.
    pub(super) fn tls(
        &mut self,
        tenant: &Arc<str>,
        server_name: &str,
        trust: Trust<'_>,
    ) -> Result<TlsHandle, UpstreamTlsError> {
        let hash = self.hasher.hash_one((&**tenant, server_name, trust));
        let known = self.tls.find(hash, |Used { value, .. }| {
            *value.server_name == *server_name
                && value.trust.borrowed() == trust
                && value.tenant == *tenant
        });
        let made = match known {
            Some(known) => Arc::clone(&known.value.made),
            None => {
                let made = Arc::new(self.configs.for_upstream(server_name, trust)?);
                let value = InternedTls {
                    tenant: Arc::clone(tenant),
                    server_name: server_name.into(),
                    trust: trust.into(),
                    made: Arc::clone(&made),
                };
                let hasher = &self.hasher;
                self.tls
                    .insert_unique(hash, Used { value, uses: 0 }, |Used { value, .. }| {
                        hasher.hash_one((
                            &*value.tenant,
                            &*value.server_name,
                            value.trust.borrowed(),
                        ))
                    });
                made
            }
        };
        Ok(TlsHandle { made, hash })
    }

    /// An upstream, the same object as before if there is one that is made of the same. Counts as a
    /// use, to be given back by [`Interner::release`].
    pub(super) fn upstream(
        &mut self,
        tenant: &Arc<str>,
        name: &Arc<str>,
        protocol: UpstreamProtocol,
        wanted: &[Wanted],
    ) -> Arc<Upstream> {
        let endpoints: Vec<_> = wanted
            .iter()
            .map(|wanted| self.endpoint(tenant, protocol, wanted))
            .collect();
        let hash = hash_upstream(&self.hasher, tenant, name, &endpoints);
        let known = self.upstreams.find_mut(hash, |Used { value, .. }| {
            value.name == *name
                && value.tenant == *tenant
                && value.protocol == protocol
                && value.endpoints.len() == endpoints.len()
                && value.endpoints.iter().zip(&endpoints).all(same)
        });
        if let Some(known) = known {
            known.uses += 1;
            return Arc::clone(&known.value);
        }
        for endpoint in &endpoints {
            self.use_endpoint(endpoint);
        }
        let value = Arc::new(Upstream {
            id: self.next_id(),
            tenant: Arc::clone(tenant),
            name: Arc::clone(name),
            protocol,
            endpoints,
            unhealthy: OnceLock::new(),
            retired: Retired::default(),
        });
        let made = Arc::clone(&value);
        let hasher = &self.hasher;
        self.upstreams
            .insert_unique(hash, Used { value, uses: 1 }, |Used { value, .. }| {
                hash_upstream(hasher, &value.tenant, &value.name, &value.endpoints)
            });
        made
    }

    /// Gives one use of an upstream back. With the last one it is retired, and so are the endpoints
    /// that only it had: to be called when what is in force no longer leads to it.
    pub(super) fn release(&mut self, upstream: &Arc<Upstream>) {
        let hash = hash_upstream(
            &self.hasher,
            &upstream.tenant,
            &upstream.name,
            &upstream.endpoints,
        );
        let is_it = |used: &Used<Arc<Upstream>>| Arc::ptr_eq(&used.value, upstream);
        if !let_go(&mut self.upstreams, hash, is_it) {
            return;
        }
        upstream.retired.set();
        for endpoint in &upstream.endpoints {
            self.release_endpoint(endpoint);
        }
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    fn endpoint(
        &mut self,
        tenant: &Arc<str>,
        protocol: UpstreamProtocol,
        wanted: &Wanted,
    ) -> Arc<Endpoint> {
        let (address, tls) = (wanted.address, wanted.tls.as_ref());
        let made = tls.map(|tls| &tls.made);
        let hash = hash_endpoint(&self.hasher, tenant, address, made);
        let known = self.endpoints.find(hash, |Used { value, .. }| {
            let known = &value.endpoint;
            known.address == address
                && known.protocol == protocol
                && known.tenant == *tenant
                && known.tls.as_ref().map(Arc::as_ptr) == made.map(Arc::as_ptr)
        });
        if let Some(known) = known {
            return Arc::clone(&known.value.endpoint);
        }
        let endpoint = Arc::new(Endpoint {
            id: self.next_id(),
            tenant: Arc::clone(tenant),
            address,
            protocol,
            tls: made.cloned(),
            retired: Retired::default(),
        });
        let value = InternedEndpoint {
            endpoint: Arc::clone(&endpoint),
            tls_hash: tls.map_or(0, |tls| tls.hash),
        };
        if let Some(tls) = tls {
            let is_it = |used: &Used<InternedTls>| Arc::ptr_eq(&used.value.made, &tls.made);
            if let Some(used) = self.tls.find_mut(tls.hash, is_it) {
                used.uses += 1;
            }
        }
        let hasher = &self.hasher;
        self.endpoints
            .insert_unique(hash, Used { value, uses: 0 }, |Used { value, .. }| {
                let it = &value.endpoint;
                hash_endpoint(hasher, &it.tenant, it.address, it.tls.as_ref())
            });
        endpoint
    }

    fn use_endpoint(&mut self, endpoint: &Arc<Endpoint>) {
        let hash = self.hash_of(endpoint);
        let is_it = |used: &Used<InternedEndpoint>| Arc::ptr_eq(&used.value.endpoint, endpoint);
        if let Some(used) = self.endpoints.find_mut(hash, is_it) {
            used.uses += 1;
        }
    }

    fn release_endpoint(&mut self, endpoint: &Arc<Endpoint>) {
        let hash = self.hash_of(endpoint);
        let is_it = |used: &Used<InternedEndpoint>| Arc::ptr_eq(&used.value.endpoint, endpoint);
        let tls_hash = self
            .endpoints
            .find(hash, is_it)
            .map(|used| used.value.tls_hash);
        if !let_go(&mut self.endpoints, hash, is_it) {
            return;
        }
        endpoint.retired.set();
        if let (Some(tls), Some(tls_hash)) = (&endpoint.tls, tls_hash) {
            let_go(&mut self.tls, tls_hash, |used| {
                Arc::ptr_eq(&used.value.made, tls)
            });
        }
    }

    fn hash_of(&self, endpoint: &Endpoint) -> u64 {
        let tls = endpoint.tls.as_ref();
        hash_endpoint(&self.hasher, &endpoint.tenant, endpoint.address, tls)
    }
}

/// Takes one use away. True: that was the last one, and the table no longer has it.
fn let_go<T>(table: &mut HashTable<Used<T>>, hash: u64, is_it: impl Fn(&Used<T>) -> bool) -> bool {
    let Ok(mut entry) = table.find_entry(hash, is_it) else {
        return false;
    };
    entry.get_mut().uses -= 1;
    let last = entry.get().uses == 0;
    if last {
        entry.remove();
    }
    last
}

fn same((a, b): (&Arc<Endpoint>, &Arc<Endpoint>)) -> bool {
    Arc::ptr_eq(a, b)
}

fn hash_upstream(
    hasher: &RandomState,
    tenant: &str,
    name: &str,
    endpoints: &[Arc<Endpoint>],
) -> u64 {
    // The endpoints' ids stand for protocol and TLS as well.
    let mut hash = hasher.hash_one((tenant, name));
    for endpoint in endpoints {
        hash = hasher.hash_one((hash, endpoint.id));
    }
    hash
}

fn hash_endpoint(
    hasher: &RandomState,
    tenant: &str,
    address: SocketAddr,
    tls: Option<&Arc<UpstreamTls>>,
) -> u64 {
    hasher.hash_one((tenant, address, tls.map(Arc::as_ptr)))
}

impl OwnedTrust {
    fn borrowed(&self) -> Trust<'_> {
        match self {
            Self::Authorities(pem) => Trust::Authorities(pem),
            Self::System => Trust::System,
            Self::InsecureAcceptAny => Trust::InsecureAcceptAny,
        }
    }
}

impl From<Trust<'_>> for OwnedTrust {
    fn from(trust: Trust<'_>) -> Self {
        match trust {
            Trust::Authorities(pem) => Self::Authorities(pem.into()),
            Trust::System => Self::System,
            Trust::InsecureAcceptAny => Self::InsecureAcceptAny,
        }
    }
}
