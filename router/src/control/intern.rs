//! Keeps upstreams and endpoints the same objects across reloads.
//!
//! Workers know pools, rests and counts by the ids of these objects. What did not change keeps its
//! id, and with it its warm connections; what did change gets a new one, so that no request rides on
//! a connection that was made under other rules.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use config::ConfigErrors;
use config::document::MAX_BYTES;
use config::route::{self, UpstreamProtocol, UpstreamTrust};
use daemon::files::read_bounded;

use crate::tls::{ClientConfigs, UpstreamTlsError};
use crate::upstream::{Endpoint, Upstream, UpstreamTls};

/// Numbers that are never used twice in the life of the process.
#[derive(Debug, Default)]
pub(super) struct Ids(u64);

impl Ids {
    fn next(&mut self) -> u64 {
        self.0 += 1;
        self.0
    }
}

/// Upstreams and endpoints by everything that they are made of.
#[derive(Debug, Default)]
pub(super) struct Interned {
    upstreams: HashMap<UpstreamKey, Arc<Upstream>>,
    endpoints: HashMap<EndpointKey, Arc<Endpoint>>,
    tls: HashMap<(Arc<str>, TlsKey), UpstreamTls>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct UpstreamKey {
    tenant: Arc<str>,
    name: Arc<str>,
    protocol: UpstreamKind,
    tls: Option<TlsKey>,
    endpoints: Vec<SocketAddr>,
}

/// The tenant is part of it: tenants share no connection, even to the same address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct EndpointKey {
    tenant: Arc<str>,
    address: SocketAddr,
    protocol: UpstreamKind,
    tls: Option<TlsKey>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct TlsKey {
    server_name: String,
    trust: TrustKey,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum TrustKey {
    /// SHA-256 of the file, so that new authorities in the same place count as a change.
    Ca([u8; 32]),
    System,
    InsecureAcceptAny,
}

/// [`UpstreamProtocol`], which has no `Hash`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum UpstreamKind {
    Http1,
    Http2,
}

/// Why an upstream cannot be built.
pub(super) enum InternError {
    Tls(UpstreamTlsError),
    Authorities(ConfigErrors),
}

/// One load: takes what is unchanged from before, makes the rest.
pub(super) struct Interning<'a> {
    previous: &'a Interned,
    ids: &'a mut Ids,
    configs: ClientConfigs,
    authorities: HashMap<PathBuf, [u8; 32]>,
    now: Interned,
}

impl<'a> Interning<'a> {
    pub(super) fn new(previous: &'a Interned, ids: &'a mut Ids) -> Self {
        Self {
            previous,
            ids,
            configs: ClientConfigs::new(),
            authorities: HashMap::new(),
            now: Interned::default(),
        }
    }

    /// The upstream of a route file, the same object as before if nothing about it changed.
    pub(super) fn upstream(
        &mut self,
        tenant: &Arc<str>,
        upstream: &route::Upstream,
    ) -> Result<Arc<Upstream>, InternError> {
        let tls = match &upstream.tls {
            None => None,
            Some(tls) => {
                let key = self.tls_key(tls)?;
                let configs = self.tls(tenant, &key, tls)?;
                Some((key, configs))
            }
        };
        let key = UpstreamKey {
            tenant: Arc::clone(tenant),
            name: upstream.name.as_str().into(),
            protocol: upstream.protocol.into(),
            tls: tls.as_ref().map(|(key, _)| key.clone()),
            endpoints: upstream.endpoints.clone(),
        };
        let known = self.now.upstreams.get(&key);
        if let Some(known) = known.or_else(|| self.previous.upstreams.get(&key)) {
            let known = Arc::clone(known);
            for endpoint in &known.endpoints {
                let key = key.endpoint(endpoint.address);
                self.now.endpoints.insert(key, Arc::clone(endpoint));
            }
            self.now.upstreams.insert(key, Arc::clone(&known));
            return Ok(known);
        }
        let endpoints = upstream
            .endpoints
            .iter()
            .map(|&address| self.endpoint(key.endpoint(address), upstream.protocol, tls.as_ref()))
            .collect();
        let made = Arc::new(Upstream {
            id: self.ids.next(),
            tenant: Arc::clone(tenant),
            name: Arc::clone(&key.name),
            protocol: upstream.protocol,
            endpoints,
        });
        self.now.upstreams.insert(key, Arc::clone(&made));
        Ok(made)
    }

    /// What this load is made of, for the next one.
    pub(super) fn finish(self) -> Interned {
        self.now
    }

    fn endpoint(
        &mut self,
        key: EndpointKey,
        protocol: UpstreamProtocol,
        tls: Option<&(TlsKey, UpstreamTls)>,
    ) -> Arc<Endpoint> {
        let known = self.now.endpoints.get(&key);
        let endpoint = match known.or_else(|| self.previous.endpoints.get(&key)) {
            Some(known) => Arc::clone(known),
            None => Arc::new(Endpoint {
                id: self.ids.next(),
                address: key.address,
                protocol,
                tls: tls.map(|(_, configs)| configs.clone()),
            }),
        };
        self.now.endpoints.insert(key, Arc::clone(&endpoint));
        endpoint
    }

    fn tls(
        &mut self,
        tenant: &Arc<str>,
        key: &TlsKey,
        tls: &route::UpstreamTls,
    ) -> Result<UpstreamTls, InternError> {
        let key = (Arc::clone(tenant), key.clone());
        let known = self.now.tls.get(&key);
        let configs = match known.or_else(|| self.previous.tls.get(&key)) {
            Some(known) => known.clone(),
            None => self.configs.for_upstream(tls).map_err(InternError::Tls)?,
        };
        self.now.tls.insert(key, configs.clone());
        Ok(configs)
    }

    fn tls_key(&mut self, tls: &route::UpstreamTls) -> Result<TlsKey, InternError> {
        let trust = match &tls.trust {
            UpstreamTrust::Ca(file) => TrustKey::Ca(self.authorities(file)?),
            UpstreamTrust::System => TrustKey::System,
            UpstreamTrust::InsecureAcceptAny => TrustKey::InsecureAcceptAny,
        };
        let server_name = tls.server_name.clone();
        Ok(TlsKey { server_name, trust })
    }

    /// Digest of a file that many upstreams may name.
    fn authorities(&mut self, file: &Path) -> Result<[u8; 32], InternError> {
        if let Some(known) = self.authorities.get(file) {
            return Ok(*known);
        }
        let bytes = read_bounded(file, MAX_BYTES as u64).map_err(InternError::Authorities)?;
        let digest = <[u8; 32]>::try_from(digest(&SHA256, &bytes).as_ref())
            .expect("SHA-256 is 32 bytes long");
        self.authorities.insert(file.to_owned(), digest);
        Ok(digest)
    }
}

impl UpstreamKey {
    fn endpoint(&self, address: SocketAddr) -> EndpointKey {
        EndpointKey {
            tenant: Arc::clone(&self.tenant),
            address,
            protocol: self.protocol,
            tls: self.tls.clone(),
        }
    }
}

impl From<UpstreamProtocol> for UpstreamKind {
    fn from(protocol: UpstreamProtocol) -> Self {
        match protocol {
            UpstreamProtocol::Http1 => Self::Http1,
            UpstreamProtocol::Http2 => Self::Http2,
        }
    }
}
