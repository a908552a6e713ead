//! `registry:` in `router.yaml`: the route registry that this router follows and, if it listens,
//! serves.

mod fields;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub(super) use fields::ReadRegistry;

/// `registry:`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryConfig {
    /// The API's listener; absent: this router follows the registry and serves no API.
    pub api: Option<RegistryApi>,
    /// Where routes, zones and tokens are kept.
    pub store: RegistryStore,
    /// Folder for what outlives a restart: the embedded store, or the last known routes.
    /// `/var/lib/gatehouse/router`.
    pub state: PathBuf,
    /// How long changes are gathered after one was published; the first is published at once.
    /// Up to 5 s; 0 gathers nothing. 50 ms.
    pub batch: Duration,
    /// How long a key for session tickets is used before the next takes its place; clients resume
    /// their sessions at every router for at least as long. 1 min to 24 h. 6 h.
    pub ticket_rotation: Duration,
}

/// `registry.api`: the HTTP API over TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryApi {
    /// Addresses to listen on; at least one. None is shared with another listener.
    pub addresses: Vec<SocketAddr>,
    /// PEM file of the API's own certificate chain.
    pub certificate: PathBuf,
    /// PEM file of its private key.
    pub key: PathBuf,
    /// PEM file of the authorities that sign client certificates; without it only tokens count.
    /// Beside the embedded store either this or `operators` is there: nobody else could issue the
    /// first token.
    pub client_ca: Option<PathBuf>,
    /// PEM file of revocation lists that those authorities signed: client certificates that stand in
    /// one are refused. With `client_ca` only.
    pub client_crl: Option<PathBuf>,
    /// File of the operators' hashed tokens, as `router registry token create --operator` writes
    /// it.
    pub operators: Option<PathBuf>,
    /// File that gets the audit log, one JSON object per line, besides the process's log.
    pub audit_log: Option<PathBuf>,
    /// Requests per second that one credential may make, on average over a second. 50.
    pub requests_per_second: u32,
    /// Routes that one tenant may hold. 1,000.
    pub routes_per_tenant: u32,
    /// Instances of one tenant that may announce. 1,000.
    pub instances_per_tenant: u32,
    /// Bytes of all records of one tenant's routes and instances. 64 MiB.
    pub bytes_per_tenant: u64,
}

/// `registry.store`: where the registry's data is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistryStore {
    /// `store: embedded`, the default: in a file in `state`, for a single router.
    Embedded,
    /// `store: {etcd: ...}`: in an etcd cluster, for several routers.
    Etcd(EtcdStore),
}

/// `registry.store.etcd`: an etcd cluster, over mutual TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdStore {
    /// `https://` addresses of its members, 1 to 16, without a path.
    pub endpoints: Vec<String>,
    /// PEM file of the authorities that sign the members' certificates.
    pub ca: PathBuf,
    /// PEM file of this router's client certificate.
    pub certificate: PathBuf,
    /// PEM file of its private key.
    pub key: PathBuf,
    /// What all keys begin with: begins and ends with a slash, so that no other prefix begins with
    /// it by chance. `/gatehouse/`.
    pub prefix: String,
    /// How much of etcd's history is kept: one of the routers compacts it this often, up to where
    /// it was the time before. The whole cluster's, whoever else uses it. 1 min to 24 h; 0: none of
    /// them does. 10 min.
    pub compaction: Duration,
}
