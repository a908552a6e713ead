//! What is counted and logged of one request. Without an access log nothing is copied.

use std::net::SocketAddr;
use std::time::{Instant, SystemTime};

use super::client::Client;
use super::failure::Failure;
use super::respond::Answer;
use crate::observe::access_log::{Record, RequestLine};
use crate::observe::metrics::{ClientProtocol, UpstreamConnection};
use crate::route::RouteTarget;
use crate::worker::Worker;

/// One request, from its head's last byte to its answer's.
pub(crate) struct Transaction {
    started: Instant,
    protocol: ClientProtocol,
    record: Option<Box<Record>>,
    status: u16,
    reason: Option<&'static str>,
    request_bytes: u64,
    response_bytes: u64,
}

impl Transaction {
    /// A request's head is there.
    pub(crate) fn begin(protocol: ClientProtocol) -> Self {
        Self {
            started: Instant::now(),
            protocol,
            record: None,
            status: 0,
            reason: None,
            request_bytes: 0,
            response_bytes: 0,
        }
    }

    /// What the client asked for, if requests are logged.
    pub(crate) fn asked(&mut self, client: &Client, line: RequestLine<'_>) {
        let record = Record::new(
            SystemTime::now(),
            client.peer,
            self.protocol,
            Some(client.tls),
            line,
        );
        self.record = Some(Box::new(record));
    }

    /// Whether it will be logged.
    pub(crate) fn is_recorded(&self) -> bool {
        self.record.is_some()
    }

    /// Where the request goes.
    pub(crate) fn routed(&mut self, target: &RouteTarget) {
        if let Some(record) = &mut self.record {
            record.routed(&target.upstream.tenant, &target.upstream.name);
        }
    }

    /// A connection for it has been found.
    pub(crate) fn attempted(&mut self, worker: &Worker, endpoint: SocketAddr, reused: bool) {
        worker.metrics.upstream_request(if reused {
            UpstreamConnection::Reused
        } else {
            UpstreamConnection::New
        });
        if let Some(record) = &mut self.record {
            record.endpoint = Some(endpoint);
            record.reused = reused;
        }
    }

    /// It is sent once more.
    pub(crate) fn retried(&mut self, worker: &Worker) {
        worker.metrics.retries.increment();
        if let Some(record) = &mut self.record {
            record.retries += 1;
        }
    }

    /// An attempt has ended, well or not: its answer's status if one was passed on, and the bytes
    /// of both bodies.
    pub(crate) fn transferred(&mut self, status: Option<u16>, request: u64, response: u64) {
        self.status = status.unwrap_or(self.status);
        self.request_bytes += request;
        self.response_bytes += response;
    }

    /// An attempt has failed.
    pub(crate) fn failed(&mut self, failure: &Failure) {
        self.reason = Some(failure.answer().reason);
        if self.status == 0 && matches!(failure, Failure::ClientGone) {
            self.status = failure.answer().status;
        }
    }

    /// The router answers itself.
    pub(crate) fn answered(&mut self, worker: &Worker, answer: Answer, bytes: usize) {
        if answer.status >= 500 {
            worker.metrics.upstream_faults.increment(answer.reason);
        } else {
            worker.metrics.refusals.increment(answer.reason);
        }
        self.status = answer.status;
        self.reason = Some(answer.reason);
        self.response_bytes += bytes as u64;
    }

    /// The answer is complete, or given up.
    pub(crate) fn end(self, worker: &Worker) {
        let duration = self.started.elapsed();
        let metrics = &worker.metrics;
        metrics.request(self.protocol, self.status, duration);
        metrics.bytes_from_clients.add(self.request_bytes);
        metrics.bytes_to_clients.add(self.response_bytes);
        if let Some(mut record) = self.record {
            record.status = self.status;
            record.reason = self.reason;
            record.request_bytes = self.request_bytes;
            record.response_bytes = self.response_bytes;
            record.duration = duration;
            worker.log.borrow_mut().push(*record);
        }
    }
}
