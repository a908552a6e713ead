//! One request and its answer between a client of HTTP/1 and an endpoint of HTTP/1: two flows that
//! run at the same time, driven by one poll function.
//!
//! ```text
//! client --inbox--> [request flow]  --> endpoint
//! client <--------- [response flow] <--inbox-- endpoint
//!
//! response: Head -(1xx)-> Head -> Body -> Sent
//!                            \-> Switched (101)
//! ```

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncBufRead, AsyncWrite};

use super::deadline::{Awaited, Deadline};
use super::failure::Failure;
use super::flow::{Announced, Flow};
use crate::http1::FieldSlots;
use crate::http1::body::BodyDecoder;
use crate::http1::head::Version;
use crate::http1::response::{RequestKind, ResponseFraming, parse_response};
use crate::http1::rewrite::{self, ClientPersistence};
use crate::snapshot::Settings;
use crate::upstream::{self, Stream};
use crate::worker::timers::Timer;

/// Informational answers that one request may bring before they are taken for a flood.
const MOST_INFORMATIONAL: u8 = 16;

/// What the exchange has to know of the request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    /// Version of the client.
    pub(crate) version: Version,
    /// Decides whether a body follows the answer's head.
    pub(crate) kind: RequestKind,
    /// Whether the client may send another request afterwards.
    pub(crate) persistent: bool,
    /// Whether an upgrade was passed on, so that 101 is an answer.
    pub(crate) upgrade: bool,
}

/// An exchange under way.
pub(crate) struct Exchange<'a, C> {
    pub(crate) client: &'a mut C,
    pub(crate) stream: &'a mut Stream,
    pub(crate) timer: &'a Timer,
    pub(crate) settings: &'a Settings,
    pub(crate) request: Flow,
    pub(crate) response: Flow,
    facts: Request,
    draining: &'a dyn Fn() -> bool,
    phase: Phase,
    /// The endpoint takes no more of the request; it may have answered all the same.
    request_broken: bool,
    /// A final head has been written for the client.
    pub(crate) status: Option<u16>,
    /// Bytes of the answer have arrived.
    pub(crate) heard: bool,
    informational: u8,
    /// Whether the timer has been set for this exchange.
    timed: bool,
    deadline: Deadline,
    client_persistent: bool,
    upstream_persistent: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Head,
    Body,
    Switched,
}

/// How an exchange ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct End {
    /// The connection now belongs to another protocol.
    pub(crate) switched: bool,
    /// The client's connection may carry another request.
    pub(crate) client_persistent: bool,
    /// The endpoint's connection may carry another request.
    pub(crate) upstream_persistent: bool,
}

impl<'a, C: AsyncBufRead + AsyncWrite + Unpin> Exchange<'a, C> {
    pub(crate) fn new(
        (client, stream): (&'a mut C, &'a mut Stream),
        (request, response): (Flow, Flow),
        facts: Request,
        timer: &'a Timer,
        settings: &'a Settings,
        draining: &'a dyn Fn() -> bool,
    ) -> Self {
        Self {
            client,
            stream,
            timer,
            settings,
            request,
            response,
            facts,
            draining,
            phase: Phase::Head,
            request_broken: false,
            status: None,
            heard: false,
            informational: 0,
            timed: false,
            deadline: Deadline::default(),
            client_persistent: false,
            upstream_persistent: false,
        }
    }

    /// Runs to the end.
    pub(crate) async fn run(&mut self) -> Result<End, Failure> {
        poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<End, Failure>> {
        let mut progress = false;
        loop {
            let mut moved = self.poll_request(cx)?;
            moved |= self.poll_response(cx)?;
            if self.phase != Phase::Head && !self.response.is_sending() {
                let sent = self.request.is_decoded() && !self.request.is_sending();
                if self.phase == Phase::Switched || self.response.is_decoded() {
                    return Poll::Ready(Ok(self.end(sent)));
                }
            }
            if !moved {
                break;
            }
            progress = true;
        }
        let awaited = self.awaits();
        let moved = progress || !self.timed;
        self.timed = true;
        let look = upstream::patience(self.settings.timeouts.connect);
        self.deadline
            .poll(awaited, moved, (self.stream, look), self.timer, cx)
            .map(Err)
    }

    fn end(&self, request_sent: bool) -> End {
        let whole = request_sent && !self.request_broken;
        End {
            switched: self.phase == Phase::Switched,
            client_persistent: self.client_persistent && whole,
            upstream_persistent: self.upstream_persistent
                && whole
                && self.response.inbox.is_empty(),
        }
    }

    fn awaits(&self) -> Awaited {
        let timeouts = &self.settings.timeouts;
        let mut answer = false;
        let (patience, failure) = if self.response.is_sending() {
            (Some(timeouts.body_idle), Failure::ClientStalled)
        } else if self.request.is_sending() && !self.request_broken {
            (Some(timeouts.body_idle), Failure::UpstreamStalled)
        } else if !self.request.is_decoded() && self.phase == Phase::Head {
            (Some(timeouts.body_idle), Failure::ClientStalled)
        } else if self.phase == Phase::Head {
            answer = true;
            let patience = timeouts.response_head;
            (
                (!patience.is_zero()).then_some(patience),
                Failure::UpstreamStalled,
            )
        } else {
            // A watch may say nothing for long; that is no stall.
            (Some(timeouts.response_idle), Failure::UpstreamStalled)
        };
        Awaited {
            patience,
            failure,
            answer,
        }
    }

    fn poll_request(&mut self, cx: &mut Context<'_>) -> Result<bool, Failure> {
        let mut moved = false;
        if !self.request_broken {
            moved |= self.request.decode().map_err(Failure::ClientBody)?;
            match self.request.poll_send(self.stream, cx) {
                Poll::Ready(Ok(sent)) => moved |= sent,
                // It may have answered before it closed: read on, send no more.
                Poll::Ready(Err(_)) => self.request_broken = true,
                Poll::Pending => {}
            }
        }
        let wanted = self.request.wants_input() && !self.request_broken;
        if !wanted && !self.request.is_decoded() {
            return Ok(moved);
        }
        // Also when the request is complete: that is how a client's leaving is noticed.
        match Pin::new(&mut *self.client).poll_fill_buf(cx) {
            Poll::Ready(Ok([])) | Poll::Ready(Err(_)) => return Err(Failure::ClientGone),
            Poll::Ready(Ok(data)) if wanted => {
                let taken = data.len();
                self.request.inbox.extend_from_slice(data);
                Pin::new(&mut *self.client).consume(taken);
                moved = true;
            }
            Poll::Ready(Ok(_)) | Poll::Pending => {}
        }
        Ok(moved)
    }

    fn poll_response(&mut self, cx: &mut Context<'_>) -> Result<bool, Failure> {
        let mut moved = false;
        loop {
            if self.phase == Phase::Body {
                moved |= self.response.decode().map_err(Failure::UpstreamBody)?;
            }
            if self.response.is_sending() {
                match self.response.poll_send(self.client, cx) {
                    Poll::Ready(Ok(sent)) => moved |= sent,
                    Poll::Ready(Err(_)) => return Err(Failure::ClientGone),
                    Poll::Pending => {}
                }
            }
            let reading = match self.phase {
                Phase::Head => !self.response.is_sending(),
                Phase::Body => self.response.wants_input(),
                Phase::Switched => false,
            };
            if !reading {
                return Ok(moved);
            }
            match self.response.poll_read(self.stream, cx) {
                Poll::Ready(Ok(0)) => self.end_of_answer()?,
                Poll::Ready(Ok(_)) => self.heard = true,
                Poll::Ready(Err(error)) => return Err(Failure::of_upstream(&error)),
                Poll::Pending => return Ok(moved),
            }
            moved = true;
            while self.phase == Phase::Head && self.head()? {}
        }
    }

    fn end_of_answer(&mut self) -> Result<(), Failure> {
        self.upstream_persistent = false;
        match self.phase {
            Phase::Head => Err(Failure::UpstreamGone),
            Phase::Body | Phase::Switched => {
                self.response.end_of_input().map_err(Failure::UpstreamBody)
            }
        }
    }

    /// Takes a head out of the response's inbox, if a whole one is there.
    fn head(&mut self) -> Result<bool, Failure> {
        let limits = self.settings.head_limits();
        let mut slots = FieldSlots::new();
        let head = parse_response(&self.response.inbox, &mut slots, &limits, self.facts.kind)
            .map_err(Failure::UpstreamHead)?;
        let Some(head) = head else {
            return Ok(false);
        };
        let version = self.facts.version;
        let length = head.len;
        if head.status < 200 {
            if head.is_interim() {
                self.informational += 1;
                if self.informational > MOST_INFORMATIONAL {
                    return Err(Failure::UpstreamProtocol("upstream-informational-flood"));
                }
            } else {
                if !self.facts.upgrade || head.upgrade.is_none() {
                    return Err(Failure::UpstreamProtocol("upstream-unexpected-switch"));
                }
                self.phase = Phase::Switched;
                self.status = Some(101);
            }
            // RFC 9110, section 15.2: never to a client of HTTP/1.0.
            if version == Version::Http11 {
                rewrite::response_head(
                    &head,
                    version,
                    ResponseFraming::None,
                    ClientPersistence::KeepAlive,
                    &mut self.response.outbox,
                );
            }
            self.response.inbox.advance(length);
            return Ok(true);
        }
        let framing = rewrite::client_framing(head.framing, version);
        let announced = match (head.framing, framing) {
            (ResponseFraming::Chunked, ResponseFraming::Chunked) => Announced::Chunked,
            (ResponseFraming::Chunked, _) => Announced::Unchunked,
            (_, ResponseFraming::Chunked) => Announced::NewlyChunked,
            _ => Announced::Plain,
        };
        // An answer ahead of the request's end: the rest of the request is not waited for.
        self.client_persistent = self.facts.persistent
            && framing != ResponseFraming::UntilClose
            && self.request.is_decoded()
            && !(self.draining)();
        self.upstream_persistent = head.persistent;
        let persistence = if self.client_persistent {
            ClientPersistence::KeepAlive
        } else {
            ClientPersistence::Close
        };
        let outbox = &mut self.response.outbox;
        rewrite::response_head(&head, version, framing, persistence, outbox);
        let decoder = BodyDecoder::response(head.framing);
        self.status = Some(head.status);
        self.phase = Phase::Body;
        self.response.inbox.advance(length);
        self.response.begin(decoder, announced);
        Ok(true)
    }

    /// Gives the flows back, for what follows an exchange.
    pub(crate) fn into_flows(self) -> (Flow, Flow) {
        (self.request, self.response)
    }
}

/// An empty pair of flows over the buffers given.
pub(crate) fn flows(input: BytesMut, scratch: [BytesMut; 3]) -> (Flow, Flow) {
    let [to_upstream, from_upstream, to_client] = scratch;
    (
        Flow::new(input, to_upstream),
        Flow::new(from_upstream, to_client),
    )
}
