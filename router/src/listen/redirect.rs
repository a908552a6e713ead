//! The plain-HTTP listener: every request is sent to https, none is forwarded, for whatever host
//! or path (ACME's included).

use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Poll;
use std::time::SystemTime;

use bytes::{Buf, BytesMut};
use config::router::RedirectStatus;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::forward::{Answer, LINGER, LINGER_BYTES, request_line};
use crate::http1::FieldSlots;
use crate::http1::head::{Framing, parse_request};
use crate::http1::scan::HeadScanner;
use crate::observe::access_log::Record;
use crate::observe::metrics::ClientProtocol;
use crate::snapshot::Settings;
use crate::worker::Worker;
use crate::worker::timers::Timer;

/// Serves one connection: redirects one request after another.
pub(crate) async fn serve(tcp: TcpStream, peer: SocketAddr, worker: Rc<Worker>) {
    let timer = worker.timers.timer();
    let mut redirect = Redirect {
        tcp,
        peer,
        timer,
        input: BytesMut::new(),
        output: BytesMut::new(),
        worker,
    };
    while redirect.batch().await {}
}

struct Redirect {
    tcp: TcpStream,
    peer: SocketAddr,
    timer: Timer,
    input: BytesMut,
    output: BytesMut,
    worker: Rc<Worker>,
}

impl Redirect {
    /// Reads until there is a request and answers all that are there. False: the end.
    async fn batch(&mut self) -> bool {
        let mut scanner = HeadScanner::default();
        let (timeouts, limits) = {
            let snapshot = self.worker.snapshot();
            (
                snapshot.settings.timeouts.clone(),
                snapshot.settings.head_limits(),
            )
        };
        self.timer.set(if self.input.is_empty() {
            timeouts.client_idle
        } else {
            timeouts.request_head
        });
        let mut goes_on = true;
        let mut seen = 0;
        while self.output.is_empty() {
            if self.input.len() > seen && scanner.ready(&self.input, &limits) {
                goes_on = self.answer();
                seen = self.input.len();
                continue;
            }
            if self.input.capacity() == 0 {
                // An idle connection holds no buffer.
                let readable = self.tcp.readable();
                tokio::select! {
                    ready = readable => if ready.is_err() { return false },
                    () = self.overdue() => return false,
                }
                self.input = self.worker.buffers.take();
                self.timer.set(timeouts.request_head);
            }
            self.input.reserve(1024);
            tokio::select! {
                biased;
                read = self.tcp.read_buf(&mut self.input) => match read {
                    Ok(0) | Err(_) => return false,
                    Ok(_) => {}
                },
                () = self.timer.expired() => return false,
            }
        }
        self.timer.set(timeouts.body_idle);
        let sent = tokio::select! {
            biased;
            sent = self.tcp.write_all(&self.output) => sent.is_ok(),
            () = self.timer.expired() => false,
        };
        self.output.clear();
        self.worker.buffers.give(std::mem::take(&mut self.output));
        if self.input.is_empty() {
            self.worker.buffers.give(std::mem::take(&mut self.input));
        }
        if sent && !goes_on {
            let _ = self.tcp.shutdown().await;
            self.linger().await;
        }
        sent && goes_on
    }

    /// Between requests: waits for the deadline or for a drain.
    async fn overdue(&self) {
        poll_fn(|cx| {
            if self.worker.is_draining() {
                return Poll::Ready(());
            }
            self.timer.poll_expired(cx)
        })
        .await;
    }

    /// Answers every whole request in the input. False: the last answer closes.
    fn answer(&mut self) -> bool {
        let snapshot = self.worker.snapshot();
        let settings = &snapshot.settings;
        let limits = settings.head_limits();
        if self.output.capacity() == 0 {
            self.output = self.worker.buffers.take();
        }
        let date = self.worker.date();
        loop {
            let mut slots = FieldSlots::new();
            let request = match parse_request(&self.input, &mut slots, &limits) {
                Ok(Some(request)) => request,
                Ok(None) => return true,
                Err(refusal) => {
                    self.worker.metrics.refusals.increment(refusal.reason());
                    let answer = Answer::new(refusal.status(), refusal.reason());
                    answer.write_http1(&date, false, true, &mut self.output);
                    return false;
                }
            };
            // A body is not read: the connection ends instead.
            let close = !request.persistent
                || !matches!(request.framing, Framing::None)
                || self.worker.is_draining();
            write(
                settings,
                request.host.name,
                request.path,
                &date,
                close,
                &mut self.output,
            );
            self.worker.metrics.redirects.increment();
            if settings.access_log {
                let line = request_line(&request);
                let mut record = Record::new(
                    SystemTime::now(),
                    self.peer,
                    ClientProtocol::Http1,
                    None,
                    line,
                );
                record.status = settings.redirect.code();
                self.worker.log.borrow_mut().push(record);
            }
            let length = request.len;
            self.input.advance(length);
            if close {
                return false;
            }
        }
    }

    /// Reads on for a moment, so that the answer is not lost to a reset.
    async fn linger(&mut self) {
        self.timer.set(LINGER);
        let mut sink = BytesMut::with_capacity(4096);
        let mut left = LINGER_BYTES;
        loop {
            sink.clear();
            tokio::select! {
                read = self.tcp.read_buf(&mut sink) => match read {
                    Ok(n) if n > 0 && n <= left => left -= n,
                    _ => return,
                },
                () = self.timer.expired() => return,
            }
        }
    }
}

/// Writes a redirect to the same host, path and query under https. `host` and `path` have passed
/// the parser: no byte in them can end a line.
fn write(settings: &Settings, host: &str, path: &str, date: &str, close: bool, out: &mut BytesMut) {
    out.extend_from_slice(match settings.redirect {
        RedirectStatus::MovedPermanently => b"HTTP/1.1 301 Moved Permanently\r\nlocation: https://",
        RedirectStatus::PermanentRedirect => {
            b"HTTP/1.1 308 Permanent Redirect\r\nlocation: https://"
        }
    });
    out.extend_from_slice(host.as_bytes());
    if settings.https_port != 443 {
        out.extend_from_slice(b":");
        out.extend_from_slice(itoa::Buffer::new().format(settings.https_port).as_bytes());
    }
    // `OPTIONS *` has no path of its own.
    out.extend_from_slice(if path == "*" { b"/" } else { path.as_bytes() });
    out.extend_from_slice(b"\r\ndate: ");
    out.extend_from_slice(date.as_bytes());
    out.extend_from_slice(if close {
        b"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    } else {
        b"\r\ncontent-length: 0\r\n\r\n"
    });
}
