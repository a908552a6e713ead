//! The fields of `router.yaml`: names, defaults, bounds, and what must fit together.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::Duration;

use serde_json::json;

use super::registry::ReadRegistry;
use super::{
    Certificates, HttpListener, HttpsListener, Limits, RedirectStatus, RouterConfig, Timeouts,
    TlsVersion,
};
use crate::error::{InvalidValue, quoted};
use crate::net::kinds::{duration, ip_range, port, size, socket_address};
use crate::reader::kinds::{
    Boolean, FilePath, Integer, List, Placed, PlacedKind, Text, choice, integer, list, mapping,
    number_choice, placed, refuse_twice, text, values,
};
use crate::reader::{Fields, Mapping};

/// When NGINX closes a connection that is not used (its `keepalive_timeout`, by default). Closing
/// first is the only way never to send a request into a connection that is being closed.
const INGRESS_CLOSES_AFTER: Duration = Duration::from_secs(75);

/// Whoever waits longer waits for something that does not come.
const LONGEST_DRAIN_DELAY: Duration = Duration::from_secs(5 * 60);

impl Mapping for RouterConfig {
    fn fields(f: &mut Fields<'_>) -> Option<Self> {
        let http = f.defaulted(
            "http",
            "The plain-HTTP listener: it redirects to https and never forwards.",
            mapping::<ReadHttp>(),
            json!({}),
        );
        let https = f.defaulted(
            "https",
            "The HTTPS listener.",
            mapping::<ReadHttps>(),
            json!({}),
        );
        let certificates = f.required(
            "certificates",
            "Where certificates come from.",
            mapping::<Certificates>(),
        );
        let routes = f.required(
            "routes",
            "Route files: paths, or folders whose *.yaml are all read. May be empty beside a \
             `registry`.",
            list(placed(FilePath)),
        );
        let trusted_proxies = f.defaulted(
            "trusted_proxies",
            "Peers (addresses or ranges) whose X-Forwarded-* and Forwarded fields are kept and \
             appended to.",
            list(placed(ip_range())),
            json!([]),
        );
        let workers = f.optional(
            "workers",
            "Data-plane threads. One per available core when absent.",
            integer(1..=1024),
        );
        let admin = f.optional(
            "admin",
            "Address of the admin page (metrics, health, routes); loopback only. None when absent.",
            placed(socket_address()),
        );
        let timeouts = f.defaulted(
            "timeouts",
            "How long things may take.",
            mapping::<Timeouts>(),
            json!({}),
        );
        let limits = f.defaulted(
            "limits",
            "How large things may be.",
            mapping::<Limits>(),
            json!({}),
        );
        let upgrades = f.defaulted(
            "upgrades",
            "Protocols besides HTTP that a request may switch to.",
            list(placed(upgrade())),
            json!(["websocket", "SPDY/3.1"]),
        );
        let access_log = f.defaulted(
            "access_log",
            "Whether each request is logged.",
            Boolean,
            json!(true),
        );
        let registry = f.optional(
            "registry",
            "The route registry that this router follows, and serves if it has an `api`. Routes \
             come from files alone when absent.",
            mapping::<ReadRegistry>(),
        );

        if let (Some(routes), Some(None)) = (&routes, &registry)
            && routes.is_empty()
        {
            let reason = InvalidValue::new("needs at least 1 item, found 0");
            f.refuse("routes", reason.help("only a `registry` has other routes"));
        }
        if let Some(routes) = &routes {
            refuse_twice(f, routes, "this path", Clone::clone);
        }
        if let Some(upgrades) = &upgrades {
            refuse_twice(f, upgrades, "this protocol", |name| {
                name.to_ascii_lowercase()
            });
        }
        if let Some(ranges) = &trusted_proxies {
            refuse_twice(f, ranges, "this range", |range| *range);
        }
        if let Some(Some(admin)) = &admin
            && !admin.value.ip().is_loopback()
        {
            let message = format!("{} is not a loopback address", admin.value.ip());
            let help = "the admin page has no access control: use 127.0.0.1 or [::1]";
            f.refuse_item(admin, InvalidValue::new(message).help(help));
        }
        let listeners = http
            .iter()
            .flat_map(|http| &http.addresses)
            .chain(https.iter().flat_map(|https| &https.addresses))
            .chain(admin.iter().flatten())
            .chain(registry.iter().flatten().flat_map(|read| &read.listeners));
        refuse_overlaps(f, listeners.collect());

        Some(Self {
            http: http?.into(),
            https: https?.into(),
            certificates: certificates?,
            routes: values(routes?),
            trusted_proxies: values(trusted_proxies?),
            workers: workers?.and_then(|count| NonZeroUsize::new(usize::try_from(count).ok()?)),
            admin: admin?.map(|admin| admin.value),
            timeouts: timeouts?,
            limits: limits?,
            upgrades: values(upgrades?),
            access_log: access_log?,
            registry: registry?.map(|read| read.config),
        })
    }
}

/// `http:` with the places of its addresses, which the check for overlaps needs.
struct ReadHttp {
    addresses: Vec<Placed<SocketAddr>>,
    redirect: RedirectStatus,
    https_port: u16,
}

impl Mapping for ReadHttp {
    fn fields(f: &mut Fields<'_>) -> Option<Self> {
        let addresses = f.defaulted(
            "addresses",
            "Addresses to listen on; may be empty. IPv4 and IPv6 are listened on apart: [::] \
             takes no IPv4.",
            addresses(0),
            json!(["0.0.0.0:80", "[::]:80"]),
        );
        let redirect = f.defaulted(
            "redirect",
            "Status of the redirect. 308 keeps the method, 301 lets clients turn a POST into a \
             GET.",
            number_choice(&[
                (301, RedirectStatus::MovedPermanently),
                (308, RedirectStatus::PermanentRedirect),
            ]),
            json!(308),
        );
        let https_port = f.defaulted(
            "https_port",
            "Port written into the redirect's target; 443 is left out of it.",
            port(),
            json!(443),
        );
        Some(Self {
            addresses: addresses?,
            redirect: redirect?,
            https_port: u16::try_from(https_port?).ok()?,
        })
    }
}

impl From<ReadHttp> for HttpListener {
    fn from(read: ReadHttp) -> Self {
        Self {
            addresses: values(read.addresses),
            redirect: read.redirect,
            https_port: read.https_port,
        }
    }
}

/// `https:` with the places of its addresses.
struct ReadHttps {
    addresses: Vec<Placed<SocketAddr>>,
    minimum_tls: TlsVersion,
    http2: bool,
}

impl Mapping for ReadHttps {
    fn fields(f: &mut Fields<'_>) -> Option<Self> {
        let addresses = f.defaulted(
            "addresses",
            "Addresses to listen on; at least one. IPv4 and IPv6 are listened on apart: [::] \
             takes no IPv4.",
            addresses(1),
            json!(["0.0.0.0:443", "[::]:443"]),
        );
        let minimum_tls = f.defaulted(
            "minimum_tls",
            "Oldest TLS version accepted.",
            choice(&[("1.2", TlsVersion::V1_2), ("1.3", TlsVersion::V1_3)]),
            json!("1.2"),
        );
        let http2 = f.defaulted(
            "http2",
            "Whether HTTP/2 is offered by ALPN.",
            Boolean,
            json!(true),
        );
        Some(Self {
            addresses: addresses?,
            minimum_tls: minimum_tls?,
            http2: http2?,
        })
    }
}

impl From<ReadHttps> for HttpsListener {
    fn from(read: ReadHttps) -> Self {
        Self {
            addresses: values(read.addresses),
            minimum_tls: read.minimum_tls,
            http2: read.http2,
        }
    }
}

impl Mapping for Certificates {
    fn fields(f: &mut Fields<'_>) -> Option<Self> {
        let directory = f.required(
            "directory",
            "Folder that holds NAME.crt (chain) and NAME.key (private key) pairs.",
            FilePath,
        );
        let default = f.optional(
            "default",
            "Pair (NAME, without ending) that is served for an unknown or absent server name. \
             Such handshakes are refused when absent.",
            text("the name of a pair", Some("^[^/]+$"), pair_name),
        );
        Some(Self {
            directory: directory?,
            default: default?,
        })
    }
}

impl Mapping for Timeouts {
    fn fields(f: &mut Fields<'_>) -> Option<Self> {
        let handshake = f.defaulted("handshake", "A TLS handshake.", duration(), json!("10s"));
        let request_head = f.defaulted(
            "request_head",
            "From the first byte of a request head to its last.",
            duration(),
            json!("10s"),
        );
        let client_idle = f.defaulted(
            "client_idle",
            "A client connection without a request.",
            duration(),
            json!("60s"),
        );
        let body_idle = f.defaulted(
            "body_idle",
            "A body, in either direction, without progress.",
            duration(),
            json!("60s"),
        );
        let response_head = f.defaulted(
            "response_head",
            "From the request's end to the answer's head. 0 is none; long polls need that.",
            duration().or_zero(),
            json!(0),
        );
        let connect = f.defaulted(
            "connect",
            "A connection attempt to an endpoint, TLS included. Also how long its host may leave a \
             request unacknowledged (1 s at least) before it is given up and, where that is safe, \
             sent to another endpoint.",
            duration(),
            json!("3s"),
        );
        let upstream_idle = f.defaulted(
            "upstream_idle",
            "An unused upstream connection. Must stay below the ingress' own limit (75 s).",
            duration(),
            json!("55s"),
        );
        let response_idle = f.defaulted(
            "response_idle",
            "An answer's body without a byte from the upstream. Long, since a watch may be silent.",
            duration(),
            json!("1h"),
        );
        let upgraded_idle = f.defaulted(
            "upgraded_idle",
            "An upgraded connection without a byte.",
            duration(),
            json!("1h"),
        );
        let endpoint_rest = f.defaulted(
            "endpoint_rest",
            "How long an endpoint that refused a connection, or whose host fell silent, is passed \
             over.",
            duration(),
            json!("5s"),
        );
        let drain_delay = f.defaulted(
            "drain_delay",
            "How long the router goes on as before when it is told to end, and says that it is not \
             ready, before the drain begins: as long as health checks take to send clients \
             elsewhere. At most 5m.",
            duration()
                .within(Duration::from_millis(1), LONGEST_DRAIN_DELAY)
                .or_zero(),
            json!(0),
        );
        let drain = f.defaulted(
            "drain",
            "How long a drain may take.",
            duration(),
            json!("30s"),
        );

        if upstream_idle.is_some_and(|idle| idle >= INGRESS_CLOSES_AFTER) {
            let reason = InvalidValue::new("must be below 75s").help(
                "the ingress closes an unused connection after 75s, and a request sent into a \
                 closing connection is lost",
            );
            f.refuse("upstream_idle", reason);
        }
        Some(Self {
            handshake: handshake?,
            request_head: request_head?,
            client_idle: client_idle?,
            body_idle: body_idle?,
            response_head: response_head?,
            connect: connect?,
            upstream_idle: upstream_idle?,
            response_idle: response_idle?,
            upgraded_idle: upgraded_idle?,
            endpoint_rest: endpoint_rest?,
            drain_delay: drain_delay?,
            drain: drain?,
        })
    }
}

impl Mapping for Limits {
    fn fields(f: &mut Fields<'_>) -> Option<Self> {
        let head_bytes = f.defaulted(
            "head_bytes",
            "Bytes of a request or response head, 4KiB to 1MiB.",
            size(4 << 10, 1 << 20),
            json!("32KiB"),
        );
        let head_fields = f.defaulted("head_fields", "Fields in a head.", count(256), json!(100));
        let connections = f.defaulted(
            "connections",
            "Client connections per worker.",
            count(1_000_000),
            json!(20_000),
        );
        let idle_per_endpoint = f.defaulted(
            "idle_per_endpoint",
            "Unused upstream connections kept per worker and endpoint; 0 keeps none.",
            integer(0..=10_000),
            json!(256),
        );
        let h2_streams = f.defaulted(
            "h2_streams",
            "Streams a client may have open on one HTTP/2 connection.",
            count(10_000),
            json!(128),
        );
        Some(Self {
            head_bytes: usize::try_from(head_bytes?).ok()?,
            head_fields: usize::try_from(head_fields?).ok()?,
            connections: usize::try_from(connections?).ok()?,
            idle_per_endpoint: usize::try_from(idle_per_endpoint?).ok()?,
            h2_streams: u32::try_from(h2_streams?).ok()?,
        })
    }
}

/// Addresses that a listener is given: so many at least.
pub(super) fn addresses(least: usize) -> List<PlacedKind<Text<SocketAddr>>> {
    list(placed(socket_address())).of_length(least..=64)
}

fn count(most: u64) -> Integer {
    integer(1..=most)
}

/// Two listeners cannot share a port on one address, and a wildcard takes all of its family.
fn refuse_overlaps(f: &mut Fields<'_>, listeners: Vec<&Placed<SocketAddr>>) {
    let mut faults = Vec::new();
    for (index, later) in listeners.iter().enumerate() {
        let earlier = listeners[..index]
            .iter()
            .find(|earlier| overlap(earlier.value, later.value));
        if let Some(earlier) = earlier {
            let message = format!(
                "{} overlaps {} ({} in line {})",
                later.value, earlier.value, earlier.field, earlier.position.line
            );
            faults.push((*later, InvalidValue::new(message)));
        }
    }
    for (item, reason) in faults {
        f.refuse_item(item, reason);
    }
}

fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    a.port() == b.port()
        && a.is_ipv4() == b.is_ipv4()
        && (a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified())
}

fn pair_name(name: &str) -> Result<String, InvalidValue> {
    if name.is_empty() || name.contains('/') {
        return Err(
            InvalidValue::new(format!("{} is not the name of a pair", quoted(name)))
                .help("write the file's name without folder and ending"),
        );
    }
    if let Some(stem) = name
        .strip_suffix(".crt")
        .or_else(|| name.strip_suffix(".key"))
    {
        return Err(InvalidValue::new(format!("{} has an ending", quoted(name)))
            .help(format!("write {}", quoted(stem))));
    }
    Ok(name.to_owned())
}

/// A protocol name with an optional version, both tokens (RFC 9110, section 7.8).
fn upgrade() -> Text<String> {
    const TOKEN: &str = "^[A-Za-z0-9!#$%&'*+.^_`|~-]+(/[A-Za-z0-9!#$%&'*+.^_`|~-]+)?$";
    text("a protocol name", Some(TOKEN), |value| {
        let (name, version) = match value.split_once('/') {
            Some((name, version)) => (name, Some(version)),
            None => (value, None),
        };
        let token = |part: &str| {
            let allowed = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
            !part.is_empty() && part.bytes().all(allowed)
        };
        if !token(name) || !version.is_none_or(token) {
            return Err(
                InvalidValue::new(format!("{} is not a protocol name", quoted(value)))
                    .help("write for example `websocket` or `SPDY/3.1`"),
            );
        }
        if ["h2c", "h2", "http"]
            .iter()
            .any(|refused| name.eq_ignore_ascii_case(refused))
        {
            return Err(
                InvalidValue::new(format!("an upgrade to {} is refused", quoted(value))).help(
                    "requests inside such a connection would reach the upstream unchecked; for \
                     HTTP/2 to an upstream set `protocol: http2` in its route file",
                ),
            );
        }
        Ok(value.to_owned())
    })
}
