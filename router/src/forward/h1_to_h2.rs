//! A request of a client of HTTP/1 and its answer from an endpoint of HTTP/2.

use std::cell::Cell;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;
use http::request::Parts;
use http_body_util::BodyExt;
use hyper::body::Body;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use super::failure::Failure;
use super::flow::{MOST_BYTES, READ_BYTES};
use super::h1_to_h1::Request as Facts;
use super::h2_request::fields;
use super::http2_upstream;
use super::log::Transaction;
use super::respond::Answer;
use crate::http1::body::{self, BodyDecoder, Decoded, Event};
use crate::http1::head::{Framing, Version};
use crate::http1::response::RequestKind;
use crate::http1::rewrite::{self, FieldSink};
use crate::route::RouteTarget;
use crate::snapshot::Settings;
use crate::upstream::{OutBody, OutFrame};
use crate::worker::Worker;
use crate::worker::timers::Timer;

/// A client of HTTP/1 whose request goes to an endpoint of HTTP/2.
pub(crate) struct FromHttp1<'a, C> {
    pub(crate) io: &'a mut C,
    pub(crate) input: &'a mut BytesMut,
    pub(crate) timer: &'a Timer,
    pub(crate) settings: &'a Settings,
    pub(crate) framing: Framing,
    pub(crate) facts: Facts,
}

impl<C: AsyncRead + AsyncWrite + Unpin> FromHttp1<'_, C> {
    /// Runs the exchange. `Ok` says whether the client's connection may carry another request.
    pub(crate) async fn run(
        self,
        worker: &Worker,
        target: &RouteTarget,
        parts: &Parts,
        log: &mut Transaction,
    ) -> Result<bool, FromHttp1Error> {
        let (mut reader, mut writer) = tokio::io::split(self.io);
        let (sender, receiver) = mpsc::channel(1);
        let bodyless = matches!(self.framing, Framing::None);
        let body = (!bodyless).then_some(OutBody::Channel(receiver));
        let idle = self.settings.timeouts.body_idle;
        let mut received = 0;
        let complete = Cell::new(false);
        let pump = pump(
            &mut reader,
            self.input,
            self.framing,
            sender,
            (&mut received, &complete),
            idle,
        );
        let mut pump = Box::pin(pump);
        let sent = http2_upstream::send(worker, target, self.settings, parts, body, log);
        let mut sent = Box::pin(sent);
        let (response, _active) = tokio::select! {
            biased;
            failure = &mut pump => return Err(FromHttp1Error::unanswered(failure)),
            answer = &mut sent => answer.map_err(FromHttp1Error::Answer)?,
        };
        drop(sent);
        let version = self.facts.version;
        let (head, mut answer) = response.into_parts();
        let has_no_body = self.facts.kind == RequestKind::Head || answer.is_end_stream();
        let length = head.headers.contains_key(http::header::CONTENT_LENGTH);
        let chunked = !has_no_body && !length && version == Version::Http11;
        let to_close = !has_no_body && !length && version == Version::Http10;
        let persistent =
            self.facts.persistent && complete.get() && !to_close && !worker.is_draining();
        let mut out = worker.buffers.take();
        write_head(&head, chunked, persistent, &mut out);
        log.transferred(Some(head.status.as_u16()), 0, 0);
        let mut sent_bytes = 0;
        let result = loop {
            let written = send(&mut writer, &out, self.timer, idle).await;
            out.clear();
            if !written {
                break Err(Failure::ClientGone);
            }
            self.timer.set(self.settings.timeouts.response_idle);
            let frame = tokio::select! {
                biased;
                frame = answer.frame() => frame,
                failure = &mut pump => break Err(failure),
                () = self.timer.expired() => break Err(Failure::UpstreamStalled),
            };
            match frame {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if has_no_body || data.is_empty() => {}
                    Ok(data) => {
                        sent_bytes += data.len() as u64;
                        if chunked {
                            body::write_chunk(&data, &mut out);
                        } else {
                            out.extend_from_slice(&data);
                        }
                    }
                    Err(frame) => {
                        if let (true, Ok(trailers)) = (chunked, frame.into_trailers()) {
                            let fields = fields(&trailers)
                                .filter(|(name, _)| !crate::http1::is_forbidden_in_trailers(name));
                            body::write_last_chunk(fields, &mut out);
                            break send(&mut writer, &out, self.timer, idle)
                                .await
                                .then_some(persistent)
                                .ok_or(Failure::ClientGone);
                        }
                    }
                },
                None => {
                    if chunked {
                        body::write_last_chunk(std::iter::empty(), &mut out);
                    }
                    break send(&mut writer, &out, self.timer, idle)
                        .await
                        .then_some(persistent)
                        .ok_or(Failure::ClientGone);
                }
                Some(Err(_)) => break Err(Failure::UpstreamGone),
            }
        };
        drop(pump);
        log.transferred(None, received, sent_bytes);
        worker.buffers.give(out);
        result.map_err(FromHttp1Error::Begun)
    }
}

/// How an exchange from HTTP/1 to HTTP/2 failed.
pub(crate) enum FromHttp1Error {
    /// Nothing has been answered: this is the answer.
    Answer(Answer),
    /// The client has seen a part of the answer, or is gone.
    Begun(Failure),
}

impl FromHttp1Error {
    fn unanswered(failure: Failure) -> Self {
        match failure {
            Failure::ClientGone => Self::Begun(failure),
            failure => Self::Answer(failure.answer()),
        }
    }
}

/// Reads the client's body and hands it over, piece by piece; when it is `complete`, watches whether
/// the client stays. Ends only with a failure.
async fn pump(
    reader: &mut (impl AsyncRead + Unpin),
    input: &mut BytesMut,
    framing: Framing,
    sender: mpsc::Sender<OutFrame>,
    (received, complete): (&mut u64, &Cell<bool>),
    idle: Duration,
) -> Failure {
    let mut decoder = BodyDecoder::request(framing);
    let mut trailers = None;
    loop {
        let Decoded { consumed, event } = match decoder.decode(input) {
            Ok(decoded) => decoded,
            Err(fault) => return Failure::ClientBody(fault),
        };
        match event {
            Event::Data(length) => {
                input.advance(consumed - length);
                let data: Bytes = input.split_to(length).freeze();
                *received += length as u64;
                if sender.send(OutFrame::Data(data)).await.is_err() {
                    // The endpoint takes no more; its answer says why.
                    return std::future::pending().await;
                }
                continue;
            }
            Event::End => {
                let _ = sender.send(OutFrame::End(trailers)).await;
                complete.set(true);
                break;
            }
            Event::Trailers => {
                let mut map = HeaderMap::new();
                for (name, value) in decoder.trailers() {
                    map.field(name, value);
                }
                trailers = Some(map);
                input.advance(consumed);
            }
            Event::NeedMore => {
                input.advance(consumed);
                input.reserve(READ_BYTES);
                match tokio::time::timeout(idle, reader.read_buf(input)).await {
                    Ok(Ok(1..)) => {}
                    Ok(_) => return Failure::ClientGone,
                    Err(_) => return Failure::ClientStalled,
                }
            }
            Event::ChunkStart(_) | Event::ChunkEnd => input.advance(consumed),
        }
    }
    // Requests that come early wait in the input, as far as there is room.
    while input.len() < MOST_BYTES {
        input.reserve(READ_BYTES);
        if !matches!(reader.read_buf(input).await, Ok(1..)) {
            return Failure::ClientGone;
        }
    }
    std::future::pending().await
}

fn write_head(head: &http::response::Parts, chunked: bool, persistent: bool, out: &mut BytesMut) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(head.status.as_str().as_bytes());
    out.extend_from_slice(b" ");
    out.extend_from_slice(
        head.status
            .canonical_reason()
            .unwrap_or_default()
            .as_bytes(),
    );
    out.extend_from_slice(b"\r\n");
    rewrite::response_fields(fields(&head.headers), out);
    if chunked {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    }
    if !persistent {
        out.extend_from_slice(b"Connection: close\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// Sends `out` to a client that has `idle` to take it. False: it did not.
async fn send(
    writer: &mut (impl AsyncWrite + Unpin),
    out: &[u8],
    timer: &Timer,
    idle: Duration,
) -> bool {
    timer.set(idle);
    tokio::select! {
        written = async {
            writer.write_all(out).await?;
            writer.flush().await
        } => written.is_ok(),
        () = timer.expired() => false,
    }
}
