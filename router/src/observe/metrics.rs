//! Every metric of the router, by name.
//!
//! A worker counts in a [`Shard`] of its own. A shard has one writer, so that counting is a plain
//! load and store: no locked instruction, no cache line that two cores fight for. [`Registry`] sums
//! the shards when somebody asks, in the Prometheus text format (version 0.0.4).

mod control;
mod registry;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use control::{ControlMetrics, RegistrySize, SnapshotSize};
pub use registry::{ApiMetrics, EtcdMetrics, FollowMetrics};

pub use super::counters::{Counter, Gauge, Histogram, Reasons};
use super::counters::{HISTOGRAM_BUCKETS, HISTOGRAM_LOW};
use daemon::prometheus::{Kind, Page};

/// A closed set of label values, usable as an index into an array of counters.
macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $label:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant,)+ }

        impl $name {
            /// Every value, in the order of the index.
            pub const ALL: [Self; [$($label),+].len()] = [$(Self::$variant),+];

            /// The label's value as metrics and logs write it.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)+ }
            }
        }
    };
}

labels! {
    /// Which listener took a connection.
    Listener {
        /// The plain-HTTP listener that only redirects.
        Http = "http",
        /// The HTTPS listener.
        Https = "https",
    }
}

labels! {
    /// How a TLS handshake with a client ended.
    Handshake {
        /// Completed.
        Ok = "ok",
        /// Not done within `timeouts.handshake`.
        Timeout = "timeout",
        /// No certificate for the name, and no default.
        UnknownName = "unknown_name",
        /// The first bytes are not TLS, plain HTTP for instance.
        NotTls = "not_tls",
        /// No common version or cipher, a bad message, an alert.
        Failed = "failed",
        /// The connection broke.
        Io = "io",
    }
}

labels! {
    /// The HTTP version a client speaks.
    ClientProtocol {
        /// HTTP/1.0 or HTTP/1.1.
        Http1 = "h1",
        /// HTTP/2.
        Http2 = "h2",
    }
}

labels! {
    /// How an attempt to connect to an endpoint ended.
    Connect {
        /// Connected, TLS included.
        Ok = "ok",
        /// Refused, unreachable, or TLS failed.
        Failed = "failed",
        /// Not done within `timeouts.connect`.
        Timeout = "timeout",
    }
}

labels! {
    /// Which connection carried a request upstream.
    UpstreamConnection {
        /// A connection made for it.
        New = "new",
        /// A connection out of the pool.
        Reused = "reused",
    }
}

/// What one worker counts. Its worker is the only writer.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Shard {
    /// Client connections accepted; see [`Shard::connection`].
    connections: [Counter; Listener::ALL.len()],
    connections_open: [Gauge; Listener::ALL.len()],
    /// Connections closed at once because `limits.connections` was reached.
    pub connections_over_limit: Counter,
    /// Errors of accept(2), running out of descriptors for instance.
    pub accept_errors: Counter,
    handshakes: [Counter; Handshake::ALL.len()],
    /// Completed handshakes that resumed a session.
    pub handshakes_resumed: Counter,
    /// By protocol, then by status class; index 0 is a status outside of 100 to 599.
    requests: [[Counter; 6]; ClientProtocol::ALL.len()],
    /// From a request's first byte to its answer's last.
    pub request_duration: Histogram,
    /// Requests being answered now.
    pub requests_open: Gauge,
    /// Answers of the plain-HTTP listener that sent the client to https.
    pub redirects: Counter,
    /// Requests refused before anything was forwarded, by reason.
    pub refusals: Reasons,
    upstream_connects: [Counter; Connect::ALL.len()],
    /// Upstream connections open now, in use or in the pool.
    pub upstream_connections_open: Gauge,
    upstream_requests: [Counter; UpstreamConnection::ALL.len()],
    /// Requests sent once more because a connection out of the pool died without an answer.
    pub retries: Counter,
    /// Times an endpoint was put to rest because it could not be connected to.
    pub endpoint_rests: Counter,
    /// Answers 502, 503 or 504 of the router's own making, by reason.
    pub upstream_faults: Reasons,
    /// Payload bytes received from clients, after TLS.
    pub bytes_from_clients: Counter,
    /// Payload bytes sent to clients, before TLS.
    pub bytes_to_clients: Counter,
    /// Connections and streams that switched protocols (WebSocket, SPDY).
    pub upgrades: Counter,
    /// Those still open.
    pub upgrades_open: Gauge,
    /// HTTP/2 streams reset, by either side.
    pub h2_streams_reset: Counter,
    /// Access log records that were dropped because the log thread could not keep up.
    pub access_log_dropped: Counter,
}

impl Shard {
    /// A connection was accepted. Call [`Shard::connection_closed`] once for it.
    #[inline]
    pub fn connection(&self, listener: Listener) {
        self.connections[listener as usize].increment();
        self.connections_open[listener as usize].increment();
    }

    /// A connection that was counted by [`Shard::connection`] is gone.
    #[inline]
    pub fn connection_closed(&self, listener: Listener) {
        self.connections_open[listener as usize].decrement();
    }

    /// Client connections open now, over both listeners.
    #[inline]
    pub fn open_connections(&self) -> u64 {
        self.connections_open.iter().map(Gauge::value).sum()
    }

    /// A handshake ended.
    #[inline]
    pub fn handshake(&self, outcome: Handshake) {
        self.handshakes[outcome as usize].increment();
    }

    /// A request was answered with `status`, by an upstream or by the router.
    #[inline]
    pub fn request(&self, protocol: ClientProtocol, status: u16, duration: Duration) {
        let class = match status / 100 {
            class @ 1..=5 => usize::from(class),
            _ => 0,
        };
        self.requests[protocol as usize][class].increment();
        self.request_duration.record(duration);
    }

    /// An attempt to connect to an endpoint ended.
    #[inline]
    pub fn upstream_connect(&self, outcome: Connect) {
        self.upstream_connects[outcome as usize].increment();
    }

    /// A request was sent upstream.
    #[inline]
    pub fn upstream_request(&self, connection: UpstreamConnection) {
        self.upstream_requests[connection as usize].increment();
    }
}

fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// All shards of the process, and the control plane's own numbers.
#[derive(Debug)]
pub struct Registry {
    shards: Mutex<Vec<Arc<Shard>>>,
    /// The control plane's numbers.
    pub control: ControlMetrics,
    /// The numbers of the registry's API.
    pub api: ApiMetrics,
    /// How well the registry is followed.
    pub follow: FollowMetrics,
    /// What the registry's etcd says of itself.
    pub etcd: EtcdMetrics,
    started: SystemTime,
}

impl Registry {
    /// An empty registry of a process that started at `started`.
    pub fn new(started: SystemTime) -> Self {
        Self {
            shards: Mutex::default(),
            control: ControlMetrics::default(),
            api: ApiMetrics::default(),
            follow: FollowMetrics::default(),
            etcd: EtcdMetrics::default(),
            started,
        }
    }

    /// A new shard for a worker that begins. It is counted from now on, also after the worker ends.
    pub fn add_shard(&self) -> Arc<Shard> {
        let shard = Arc::new(Shard::default());
        self.lock().push(Arc::clone(&shard));
        shard
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Shard>>> {
        // A Vec of Arcs is whole at every moment, so a panic elsewhere cannot have torn it.
        self.shards.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything in the Prometheus text format.
    pub fn render(&self) -> String {
        let shards = self.lock().clone();
        let mut page = Page::default();
        render_clients(&mut page, &shards);
        render_upstreams(&mut page, &shards);
        control::render(&mut page, &self.control);
        registry::render_api(&mut page, &self.api);
        registry::render_follow(&mut page, &self.follow, SystemTime::now());
        registry::render_etcd(&mut page, &self.etcd);
        page.family(
            "router_workers",
            Kind::Gauge,
            "Data-plane threads that were started.",
        );
        page.sample(&[], shards.len() as u64);
        page.family(
            "router_build_info",
            Kind::Gauge,
            "The program's version; always 1.",
        );
        page.sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
        page.family(
            "process_start_time_seconds",
            Kind::Gauge,
            "When the process started, in Unix seconds.",
        );
        page.sample(&[], unix_seconds(self.started));
        page.finish()
    }
}

/// One value, summed over the shards.
fn sum(shards: &[Arc<Shard>], value: impl Fn(&Shard) -> u64) -> u64 {
    shards
        .iter()
        .fold(0, |sum, shard| sum.wrapping_add(value(shard)))
}

fn render_clients(page: &mut Page, shards: &[Arc<Shard>]) {
    let total = |value: fn(&Shard) -> &Counter| sum(shards, |shard| value(shard).value());

    page.family(
        "router_connections_total",
        Kind::Counter,
        "Client connections accepted.",
    );
    for l in Listener::ALL {
        let n = sum(shards, |s| s.connections[l as usize].value());
        page.sample(&[("listener", l.label())], n);
    }
    page.family(
        "router_connections_open",
        Kind::Gauge,
        "Client connections open now.",
    );
    for l in Listener::ALL {
        let n = sum(shards, |s| s.connections_open[l as usize].value());
        page.sample(&[("listener", l.label())], n);
    }
    page.counter(
        "router_connections_over_limit_total",
        "Connections closed at once because limits.connections was reached.",
        total(|s| &s.connections_over_limit),
    );
    page.counter(
        "router_accept_errors_total",
        "Connections that could not be accepted.",
        total(|s| &s.accept_errors),
    );
    page.family(
        "router_tls_handshakes_total",
        Kind::Counter,
        "TLS handshakes with clients, by outcome.",
    );
    for h in Handshake::ALL {
        let n = sum(shards, |s| s.handshakes[h as usize].value());
        page.sample(&[("outcome", h.label())], n);
    }
    page.counter(
        "router_tls_handshakes_resumed_total",
        "Completed TLS handshakes that resumed a session.",
        total(|s| &s.handshakes_resumed),
    );
    page.family(
        "router_requests_total",
        Kind::Counter,
        "Requests answered, by the client's protocol and class of status.",
    );
    for p in ClientProtocol::ALL {
        for (class, label) in ["other", "1xx", "2xx", "3xx", "4xx", "5xx"]
            .into_iter()
            .enumerate()
        {
            let n = sum(shards, |s| s.requests[p as usize][class].value());
            if class != 0 || n != 0 {
                page.sample(&[("protocol", p.label()), ("status", label)], n);
            }
        }
    }
    page.gauge(
        "router_requests_open",
        "Requests being answered now.",
        sum(shards, |s| s.requests_open.value()),
    );
    page.family(
        "router_request_duration_seconds",
        Kind::Histogram,
        "From a request's first byte to its answer's last.",
    );
    render_histogram(page, shards, |s| &s.request_duration);
    page.counter(
        "router_redirects_total",
        "Answers of the plain-HTTP listener that lead to https.",
        total(|s| &s.redirects),
    );
    page.family(
        "router_refusals_total",
        Kind::Counter,
        "Requests refused before anything was forwarded, by reason.",
    );
    render_reasons(page, shards, |s| &s.refusals);
    page.counter(
        "router_client_bytes_received_total",
        "Payload bytes from clients, after TLS.",
        total(|s| &s.bytes_from_clients),
    );
    page.counter(
        "router_client_bytes_sent_total",
        "Payload bytes to clients, before TLS.",
        total(|s| &s.bytes_to_clients),
    );
    page.counter(
        "router_upgrades_total",
        "Connections that switched protocols.",
        total(|s| &s.upgrades),
    );
    page.gauge(
        "router_upgrades_open",
        "Connections that switched protocols and are open now.",
        sum(shards, |s| s.upgrades_open.value()),
    );
    page.counter(
        "router_h2_streams_reset_total",
        "HTTP/2 streams reset by either side.",
        total(|s| &s.h2_streams_reset),
    );
    page.counter(
        "router_access_log_dropped_total",
        "Access log records dropped because the log could not keep up.",
        total(|s| &s.access_log_dropped),
    );
}

fn render_upstreams(page: &mut Page, shards: &[Arc<Shard>]) {
    let total = |value: fn(&Shard) -> &Counter| sum(shards, |shard| value(shard).value());

    page.family(
        "router_upstream_connects_total",
        Kind::Counter,
        "Attempts to connect to an endpoint, by outcome.",
    );
    for c in Connect::ALL {
        let n = sum(shards, |s| s.upstream_connects[c as usize].value());
        page.sample(&[("outcome", c.label())], n);
    }
    page.gauge(
        "router_upstream_connections_open",
        "Upstream connections open now, in use or pooled.",
        sum(shards, |s| s.upstream_connections_open.value()),
    );
    page.family(
        "router_upstream_requests_total",
        Kind::Counter,
        "Requests sent upstream, by whether the connection was reused.",
    );
    for u in UpstreamConnection::ALL {
        let n = sum(shards, |s| s.upstream_requests[u as usize].value());
        page.sample(&[("connection", u.label())], n);
    }
    page.counter(
        "router_upstream_retries_total",
        "Requests sent once more because a pooled connection died without an answer.",
        total(|s| &s.retries),
    );
    page.counter(
        "router_upstream_endpoint_rests_total",
        "Times an endpoint was passed over for a while because it could not be connected to.",
        total(|s| &s.endpoint_rests),
    );
    page.family(
        "router_upstream_faults_total",
        Kind::Counter,
        "Answers 502, 503 and 504 of the router's own making, by reason.",
    );
    render_reasons(page, shards, |s| &s.upstream_faults);
}

fn render_reasons(page: &mut Page, shards: &[Arc<Shard>], of: fn(&Shard) -> &Reasons) {
    let mut sums = std::collections::BTreeMap::<&str, u64>::new();
    for (reason, count) in shards.iter().flat_map(|shard| of(shard).values()) {
        *sums.entry(reason).or_default() += count;
    }
    for (reason, count) in sums {
        page.sample(&[("reason", reason)], count);
    }
}

fn render_histogram(page: &mut Page, shards: &[Arc<Shard>], of: fn(&Shard) -> &Histogram) {
    let mut below = 0;
    for index in 0..HISTOGRAM_BUCKETS {
        below += sum(shards, |s| of(s).buckets[index].value());
        page.bucket(1_u64 << (HISTOGRAM_LOW + index as u32), below);
    }
    let count = below + sum(shards, |s| of(s).buckets[HISTOGRAM_BUCKETS].value());
    let sum_microseconds = sum(shards, |s| of(s).sum_microseconds.value());
    page.histogram_end(count, sum_microseconds);
}
