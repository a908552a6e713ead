//! The fields of `registry:` in `router.yaml`.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::super::fields::addresses;
use super::{EtcdStore, RegistryApi, RegistryConfig, RegistryStore};
use crate::document::{Node, Value};
use crate::error::{InvalidValue, quoted};
use crate::net::kinds::{MAX_DURATION, duration, size};
use crate::net::url::https_url;
use crate::reader::kinds::{
    Choice, FilePath, MappingKind, Placed, Text, choice, integer, list, mapping, placed,
    refuse_twice, text, values,
};
use crate::reader::{Fields, Kind, Mapping, Reader};

const LONGEST_BATCH: Duration = Duration::from_secs(5);
const SHORTEST_ROTATION: Duration = Duration::from_secs(60);
/// A router that was cut off for as long resumes without listing anew.
const SHORTEST_COMPACTION: Duration = Duration::from_secs(60);
/// Longest prefix of keys, in characters. It stands in front of every key of every transaction.
const MAX_PREFIX: usize = 128;

/// `registry:` with the places of its addresses, which the check for overlaps needs.
pub(in crate::router) struct ReadRegistry {
    pub config: RegistryConfig,
    pub listeners: Vec<Placed<SocketAddr>>,
}

impl Mapping for ReadRegistry {
    fn fields(f: &mut Fields<'_>) -> Option<Self> {
        let api = f.optional(
            "api",
            "The registry's API. This router only follows the registry when absent.",
            mapping::<ReadApi>(),
        );
        let store = f.defaulted(
            "store",
            "Where routes, zones and tokens are kept: `embedded` (a file in `state`, for a single \
             router) or `etcd`.",
            StoreKind::default(),
            json!("embedded"),
        );
        let state = f.defaulted(
            "state",
            "Folder for what outlives a restart: the embedded store, or the last known routes.",
            FilePath,
            json!("/var/lib/gatehouse/router"),
        );
        let batch = f.defaulted(
            "batch",
            "How long changes are gathered after one was published; the first is published at \
             once. At most 5s; 0 gathers nothing.",
            duration()
                .within(Duration::from_millis(1), LONGEST_BATCH)
                .or_zero(),
            json!("50ms"),
        );
        let ticket_rotation = f.defaulted(
            "ticket_rotation",
            "How long a key for session tickets is used, 1m to 24h; sessions are resumed for at \
             least as long.",
            duration().within(SHORTEST_ROTATION, MAX_DURATION),
            json!("6h"),
        );
        if let (Some(Some(api)), Some(RegistryStore::Embedded)) = (&api, &store)
            && api.config.client_ca.is_none()
            && api.config.operators.is_none()
        {
            let reason = InvalidValue::new("lets no operator in").help(
                "give `client_ca`, `operators` or both: nobody else could issue the first token",
            );
            f.refuse("api", reason);
        }
        let (api, listeners) = match api? {
            Some(api) => (Some(api.config), api.listeners),
            None => (None, Vec::new()),
        };
        Some(Self {
            config: RegistryConfig {
                api,
                store: store?,
                state: state?,
                batch: batch?,
                ticket_rotation: ticket_rotation?,
            },
            listeners,
        })
    }
}

/// `registry.api` with the places of its addresses.
struct ReadApi {
    config: RegistryApi,
    listeners: Vec<Placed<SocketAddr>>,
}

impl Mapping for ReadApi {
    fn fields(f: &mut Fields<'_>) -> Option<Self> {
        let listeners = f.required(
            "addresses",
            "Addresses to listen on; at least one.",
            addresses(1),
        );
        let certificate = f.required(
            "certificate",
            "PEM file of the API's own certificate chain.",
            FilePath,
        );
        let key = f.required("key", "PEM file of its private key.", FilePath);
        let client_ca = f.optional(
            "client_ca",
            "PEM file of the authorities that sign client certificates. Only tokens count when \
             absent.",
            FilePath,
        );
        let client_crl = f.optional(
            "client_crl",
            "PEM file of revocation lists that these authorities signed: client certificates in one \
             are refused.",
            FilePath,
        );
        if let (Some(None), Some(Some(_))) = (&client_ca, &client_crl) {
            let reason = InvalidValue::new("revokes nothing without `client_ca`");
            f.refuse(
                "client_crl",
                reason.help("name the authorities that signed it, or leave it out"),
            );
        }
        let operators = f.optional(
            "operators",
            "File of the operators' hashed tokens, readable by the router's user alone.",
            FilePath,
        );
        let audit_log = f.optional(
            "audit_log",
            "File that gets the audit log, one JSON object per line, besides the process's log.",
            FilePath,
        );
        let requests_per_second = f.defaulted(
            "requests_per_second",
            "Requests per second that one credential may make, on average.",
            integer(1..=100_000),
            json!(50),
        );
        let routes_per_tenant = f.defaulted(
            "routes_per_tenant",
            "Routes that one tenant may hold.",
            integer(1..=1_000_000),
            json!(1_000),
        );
        let instances_per_tenant = f.defaulted(
            "instances_per_tenant",
            "Instances of one tenant that may announce.",
            integer(1..=1_000_000),
            json!(1_000),
        );
        let bytes_per_tenant = f.defaulted(
            "bytes_per_tenant",
            "Size of all that the registry keeps of one tenant's routes and instances, 1MiB to \
             1GiB.",
            size(1 << 20, 1 << 30),
            json!("64MiB"),
        );
        let listeners = listeners?;
        Some(Self {
            config: RegistryApi {
                addresses: values(listeners.clone()),
                certificate: certificate?,
                key: key?,
                client_ca: client_ca?,
                client_crl: client_crl?,
                operators: operators?,
                audit_log: audit_log?,
                requests_per_second: u32::try_from(requests_per_second?).ok()?,
                routes_per_tenant: u32::try_from(routes_per_tenant?).ok()?,
                instances_per_tenant: u32::try_from(instances_per_tenant?).ok()?,
                bytes_per_tenant: bytes_per_tenant?,
            },
            listeners,
        })
    }
}

/// The word `embedded`, or a mapping with `etcd`.
struct StoreKind {
    word: Choice<RegistryStore>,
    mapping: MappingKind<ReadStore>,
}

impl Default for StoreKind {
    fn default() -> Self {
        Self {
            word: choice(&[("embedded", RegistryStore::Embedded)]),
            mapping: mapping(),
        }
    }
}

impl Kind for StoreKind {
    type Value = RegistryStore;

    fn read(&self, node: &Node, reader: &mut Reader) -> Option<RegistryStore> {
        match &node.value {
            Value::Text(word) if word == "etcd" => {
                let reason = InvalidValue::new("`etcd` needs its endpoints and certificates")
                    .help("write `store: {etcd: {endpoints: [...], ca, certificate, key}}`");
                reader.refuse(node.position, reason);
                None
            }
            Value::Text(_) => self.word.read(node, reader),
            Value::Mapping(_) => self.mapping.read(node, reader).map(|read| read.0),
            _ => {
                reader.refuse_type(node, "`embedded` or a mapping with `etcd`");
                None
            }
        }
    }

    fn schema(&self) -> Json {
        json!({ "anyOf": [self.word.schema(), self.mapping.schema()] })
    }
}

/// `registry.store` as a mapping.
struct ReadStore(RegistryStore);

impl Mapping for ReadStore {
    fn fields(f: &mut Fields<'_>) -> Option<Self> {
        let etcd = f.required(
            "etcd",
            "An etcd cluster, over mutual TLS.",
            mapping::<EtcdStore>(),
        );
        Some(Self(RegistryStore::Etcd(etcd?)))
    }
}

impl Mapping for EtcdStore {
    fn fields(f: &mut Fields<'_>) -> Option<Self> {
        let endpoints = f.required(
            "endpoints",
            "https:// addresses of the cluster's members.",
            list(placed(https_url())).of_length(1..=16),
        );
        let ca = f.required(
            "ca",
            "PEM file of the authorities that sign the members' certificates.",
            FilePath,
        );
        let certificate = f.required(
            "certificate",
            "PEM file of this router's client certificate.",
            FilePath,
        );
        let key = f.required("key", "PEM file of its private key.", FilePath);
        let prefix = f.defaulted(
            "prefix",
            "What all keys begin with.",
            key_prefix(),
            json!("/gatehouse/"),
        );
        let compaction = f.defaulted(
            "compaction",
            "How often one of the routers compacts the cluster, up to where it was the time \
             before; 1m to 24h. 0 if others do.",
            duration()
                .within(SHORTEST_COMPACTION, MAX_DURATION)
                .or_zero(),
            json!("10m"),
        );
        if let Some(endpoints) = &endpoints {
            refuse_twice(f, endpoints, "this endpoint", |url| {
                url.to_ascii_lowercase()
            });
        }
        Some(Self {
            endpoints: values(endpoints?),
            ca: ca?,
            certificate: certificate?,
            key: key?,
            prefix: prefix?,
            compaction: compaction?,
        })
    }
}

fn key_prefix() -> Text<String> {
    text(
        "a prefix of keys",
        Some("^/([A-Za-z0-9._-]+/)+$"),
        |value| {
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
            let inner = value
                .strip_prefix('/')
                .and_then(|rest| rest.strip_suffix('/'));
            let right = inner.is_some_and(|inner| {
                inner
                    .split('/')
                    .all(|part| !part.is_empty() && part.bytes().all(allowed))
            });
            if !right || value.len() > MAX_PREFIX {
                let help = "write for example `/gatehouse/`: letters, digits, `.`, `_` and `-` \
                            between slashes, a slash at both ends, at most 128 characters";
                let message = format!("{} is not a prefix of keys", quoted(value));
                return Err(InvalidValue::new(message).help(help));
            }
            Ok(value.to_owned())
        },
    )
}
