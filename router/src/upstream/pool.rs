//! What one worker knows of the endpoints: requests under way, unused connections, who rests.
//!
//! Nothing here is shared between workers, so nothing is locked. Unused connections are taken last
//! in, first out: the others age and are closed before the ingress closes them (its default is
//! 75 s), which is what makes a request on a dying connection rare.

#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use hashbrown::HashMap;
use hyper::client::conn::http2::SendRequest;
use tokio::io::{AsyncRead, ReadBuf};

use super::balance::{Balance, LeastOfTwo, Load};
use super::connect::{ConnectError, Wanted, connect};
use super::endpoint::{Endpoint, Upstream};
use super::http2::{Http2Pool, OutBody};
use super::stream::Stream;
use crate::observe::metrics::{Connect, Shard};
use crate::snapshot::Settings;
use crate::worker::timers::Timers;

/// All endpoints of one worker.
pub(crate) struct Pools {
    timers: Rc<Timers>,
    metrics: Arc<Shard>,
    random: Cell<u64>,
    /// By id, as are `endpoints`. Both hold what is in use or was lately, and nothing else, so that
    /// walking over them costs what the traffic is and not what there are routes.
    upstreams: RefCell<HashMap<u64, UpstreamState>>,
    endpoints: RefCell<HashMap<u64, Rc<EndpointState>>>,
}

struct UpstreamState {
    upstream: Arc<Upstream>,
    endpoints: Rc<[Rc<EndpointState>]>,
}

/// What one worker knows of one endpoint.
pub(crate) struct EndpointState {
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) http2: Http2Pool,
    active: Cell<usize>,
    rests_until: Cell<u64>,
    idle: RefCell<Vec<Idle>>,
}

struct Idle {
    stream: Stream,
    /// When it is closed, on the worker's coarse clock.
    expires: u64,
}

/// One request's claim on an endpoint: counted as active until dropped.
pub(crate) struct Lease {
    pub(crate) endpoint: Rc<EndpointState>,
    /// The connection; taken by whoever hands it back or keeps it.
    pub(crate) stream: Stream,
    /// Whether the connection had carried a request before.
    pub(crate) reused: bool,
    _active: Active,
}

/// One request's claim on a connection of HTTP/2.
pub(crate) struct Http2Lease {
    pub(crate) endpoint: Rc<EndpointState>,
    pub(crate) sender: SendRequest<OutBody>,
    /// Whether the connection had carried a request before.
    pub(crate) reused: bool,
    pub(crate) active: Active,
}

/// Counts a request as active on its endpoint for as long as it lives.
pub(crate) struct Active(Rc<EndpointState>);

/// The endpoints that one request has tried.
#[derive(Default)]
pub(crate) struct Tried(Vec<u64>);

/// No endpoint could be connected to.
#[derive(Debug)]
pub(crate) struct NoEndpoint {
    /// What the last one said; `None` when all had been tried already.
    pub(crate) last: Option<ConnectError>,
}

impl Pools {
    pub(crate) fn new(timers: Rc<Timers>, metrics: Arc<Shard>, seed: u64) -> Self {
        Self {
            timers,
            metrics,
            random: Cell::new(seed | 1),
            upstreams: RefCell::default(),
            endpoints: RefCell::default(),
        }
    }

    /// A connection of HTTP/1.1 to the best endpoint of `upstream` that `tried` does not name.
    /// Endpoints that cannot be connected to are passed over and rest. `fresh` asks for a
    /// connection that has carried nothing yet.
    pub(crate) async fn http1(
        &self,
        upstream: &Arc<Upstream>,
        settings: &Settings,
        tried: &mut Tried,
        fresh: bool,
    ) -> Result<Lease, NoEndpoint> {
        let mut last = None;
        loop {
            let Some(state) = self.choose(upstream, tried) else {
                return Err(NoEndpoint { last });
            };
            let active = state.active();
            if !fresh && let Some(stream) = state.take_idle() {
                return Ok(Lease {
                    endpoint: state,
                    stream,
                    reused: true,
                    _active: active,
                });
            }
            // Boxed: rare beside reuse, and a handshake's state is large in every request's future.
            let connecting = connect(&state.endpoint, Wanted::Http1, settings.timeouts.connect);
            match Box::pin(connecting).await {
                Ok(stream) => {
                    self.connected(&state);
                    return Ok(Lease {
                        endpoint: state,
                        stream,
                        reused: false,
                        _active: active,
                    });
                }
                Err(error) => {
                    self.failed(&state, &error, settings.timeouts.endpoint_rest);
                    tried.add(&state);
                    last = Some(error);
                }
            }
        }
    }

    /// A handle that takes a request of HTTP/2 to the best endpoint that `tried` does not name.
    pub(crate) async fn http2(
        &self,
        upstream: &Arc<Upstream>,
        settings: &Settings,
        tried: &mut Tried,
    ) -> Result<Http2Lease, NoEndpoint> {
        let mut last = None;
        loop {
            let Some(endpoint) = self.choose(upstream, tried) else {
                return Err(NoEndpoint { last });
            };
            let active = endpoint.active();
            match Box::pin(endpoint.http2.sender(&endpoint.endpoint, settings)).await {
                Ok((sender, reused)) => {
                    if !reused {
                        self.connected(&endpoint);
                    }
                    return Ok(Http2Lease {
                        endpoint,
                        sender,
                        reused,
                        active,
                    });
                }
                Err(error) => {
                    self.failed(&endpoint, &error, settings.timeouts.endpoint_rest);
                    tried.add(&endpoint);
                    last = Some(error);
                }
            }
        }
    }

    /// Keeps a connection whose last exchange ended cleanly.
    pub(crate) fn put(&self, lease: Lease, settings: &Settings) {
        let mut idle = lease.endpoint.idle.borrow_mut();
        if idle.len() < settings.limits.idle_per_endpoint {
            idle.push(Idle {
                stream: lease.stream,
                expires: self.timers.later(settings.timeouts.upstream_idle),
            });
        }
    }

    /// The endpoint for the next attempt. One that rests is used only if all others are out:
    /// a guess that it is back beats a sure failure.
    pub(crate) fn choose(
        &self,
        upstream: &Arc<Upstream>,
        tried: &Tried,
    ) -> Option<Rc<EndpointState>> {
        let states = self.states(upstream);
        let now = self.timers.now();
        let random = self.next_random();
        let load = |i: usize, resting: bool| Load {
            active: states[i].active.get(),
            excluded: tried.has(&states[i])
                || (!resting && (states[i].rests_until.get() > now || upstream.is_unhealthy(i))),
        };
        LeastOfTwo
            .choose(states.len(), |i| load(i, false), random)
            .or_else(|| LeastOfTwo.choose(states.len(), |i| load(i, true), random))
            .map(|i| Rc::clone(&states[i]))
    }

    pub(crate) fn connected(&self, state: &EndpointState) {
        self.metrics.upstream_connect(Connect::Ok);
        state.rests_until.set(0);
    }

    /// Notes that `state` could not be connected to: it rests.
    pub(crate) fn failed(&self, state: &EndpointState, error: &ConnectError, rest: Duration) {
        self.metrics.upstream_connect(match error {
            ConnectError::Timeout => Connect::Timeout,
            ConnectError::Tcp(_) | ConnectError::Tls(_) => Connect::Failed,
        });
        if self.begins_to_rest(state) {
            tracing::warn!(
                endpoint = %state.endpoint.address,
                %error,
                rest_ms = rest.as_millis() as u64,
                "endpoint cannot be connected to and is passed over"
            );
        }
        self.rest(state, rest);
    }

    /// Notes that the host of `state` has left a connection without acknowledging anything: it
    /// rests.
    pub(crate) fn lost(&self, state: &EndpointState, rest: Duration) {
        if self.begins_to_rest(state) {
            tracing::warn!(
                endpoint = %state.endpoint.address,
                rest_ms = rest.as_millis() as u64,
                "endpoint's host acknowledges nothing and is passed over"
            );
        }
        self.rest(state, rest);
    }

    fn begins_to_rest(&self, state: &EndpointState) -> bool {
        let begins = state.rests_until.get() <= self.timers.now();
        if begins {
            self.metrics.endpoint_rests.increment();
        }
        begins
    }

    /// Passes it over for a while, and closes its unused connections, which very likely are as
    /// dead.
    fn rest(&self, state: &EndpointState, rest: Duration) {
        state.rests_until.set(self.timers.later(rest));
        state.idle.borrow_mut().clear();
    }

    /// Closes unused connections that are too old or that the endpoint has closed, and forgets what
    /// is retired, or at rest in every way. What a request still holds lives on with it.
    pub(crate) fn sweep(&self) {
        let now = self.timers.now();
        let mut endpoints = self.endpoints.borrow_mut();
        for state in endpoints.values() {
            state
                .idle
                .borrow_mut()
                .retain_mut(|idle| idle.expires > now && is_quiet(&mut idle.stream));
        }
        self.upstreams.borrow_mut().retain(|_, known| {
            !known.upstream.retired.get() && known.endpoints.iter().any(|it| it.is_awake(now))
        });
        endpoints.retain(|_, state| {
            let retired = state.endpoint.retired.get();
            if retired {
                state.close_unused();
            }
            // An endpoint at rest stays beside one of its upstream that is not.
            !retired && (Rc::strong_count(state) > 1 || state.is_awake(now))
        });
    }

    /// Closes all unused connections.
    pub(crate) fn close_idle(&self) {
        for state in self.endpoints.borrow().values() {
            state.idle.borrow_mut().clear();
        }
    }

    fn states(&self, upstream: &Arc<Upstream>) -> Rc<[Rc<EndpointState>]> {
        if let Some(known) = self.upstreams.borrow().get(&upstream.id) {
            return Rc::clone(&known.endpoints);
        }
        let mut endpoints = self.endpoints.borrow_mut();
        let states: Rc<[Rc<EndpointState>]> = upstream
            .endpoints
            .iter()
            .map(|endpoint| {
                Rc::clone(endpoints.entry(endpoint.id).or_insert_with(|| {
                    Rc::new(EndpointState {
                        endpoint: Arc::clone(endpoint),
                        http2: Http2Pool::default(),
                        active: Cell::new(0),
                        rests_until: Cell::new(0),
                        idle: RefCell::default(),
                    })
                }))
            })
            .collect();
        let known = UpstreamState {
            upstream: Arc::clone(upstream),
            endpoints: Rc::clone(&states),
        };
        self.upstreams.borrow_mut().insert(upstream.id, known);
        states
    }

    /// How many upstreams and endpoints are remembered.
    #[cfg(test)]
    fn known(&self) -> (usize, usize) {
        (self.upstreams.borrow().len(), self.endpoints.borrow().len())
    }

    /// Which endpoints of an upstream rest.
    #[cfg(test)]
    fn rests(&self, upstream: &Arc<Upstream>) -> Vec<bool> {
        let states = self.states(upstream);
        let rests = states
            .iter()
            .map(|it| it.rests_until.get() > self.timers.now());
        rests.collect()
    }

    /// xorshift64 (Marsaglia, 2003): spreads load; nothing secret hangs on it.
    fn next_random(&self) -> u64 {
        let mut x = self.random.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.random.set(x);
        x
    }
}

impl EndpointState {
    /// Counts a request as active until the value is dropped.
    pub(crate) fn active(self: &Rc<Self>) -> Active {
        self.active.set(self.active.get() + 1);
        Active(Rc::clone(self))
    }

    /// Closes unused connections, since one of their kind has just been found dead.
    pub(crate) fn distrust_idle(&self) {
        self.idle
            .borrow_mut()
            .retain_mut(|idle| is_quiet(&mut idle.stream));
    }

    /// Whether there is anything to remember about it.
    fn is_awake(&self, now: u64) -> bool {
        self.active.get() > 0
            || self.rests_until.get() > now
            || !self.idle.borrow().is_empty()
            || self.http2.is_open()
    }

    /// Lets go of connections that no request uses.
    fn close_unused(&self) {
        self.idle.borrow_mut().clear();
        self.http2.close();
    }

    fn take_idle(&self) -> Option<Stream> {
        loop {
            let mut idle = self.idle.borrow_mut().pop()?;
            if is_quiet(&mut idle.stream) {
                return Some(idle.stream);
            }
        }
    }
}

impl Lease {
    /// Where the connection leads.
    pub(crate) fn address(&self) -> SocketAddr {
        self.endpoint.endpoint.address
    }
}

impl NoEndpoint {
    /// Why, as a stable token.
    pub(crate) fn reason(&self) -> &'static str {
        match self.last {
            Some(ConnectError::Timeout) => "upstream-connect-timeout",
            Some(ConnectError::Tcp(_)) => "upstream-connect-failed",
            Some(ConnectError::Tls(_)) => "upstream-tls-failed",
            None => "upstream-no-endpoint",
        }
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.active.set(self.0.active.get() - 1);
    }
}

impl Tried {
    /// Rules `state` out for the rest of this request.
    pub(crate) fn add(&mut self, state: &EndpointState) {
        self.0.push(state.endpoint.id);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn has(&self, state: &EndpointState) -> bool {
        self.0.contains(&state.endpoint.id)
    }
}

/// Whether an unused connection may carry a request: the endpoint has neither closed it nor sent
/// anything. Unasked-for bytes would be taken for the next answer, so they end the connection.
/// Costs no system call unless the kernel has reported the socket readable.
fn is_quiet(stream: &mut Stream) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    let mut byte = [0; 1];
    let mut buf = ReadBuf::new(&mut byte);
    matches!(Pin::new(stream).poll_read(&mut cx, &mut buf), Poll::Pending)
}
