//! `router explain`: what the router does with a URL, and why.
//!
//! Pure: a snapshot and a question go in, the answer comes out. It calls the functions that the
//! request path calls (the certificate store, the request parser, the decision, the rewriting of
//! fields), so it cannot tell another story than the running router.

mod candidates;
mod question;
#[cfg(test)]
mod tests;
mod text;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::BytesMut;
use config::route::UpstreamProtocol;
use config::router::RedirectStatus;
use serde::Serialize;

pub use candidates::Candidate;
pub use question::{InvalidQuestion, Question};

use crate::forward::{allowed_upgrade, decide};
use crate::http1::FieldSlots;
use crate::http1::head::{RequestHead, parse_request};
use crate::http1::rewrite::{Forwarding, request_head};
use crate::observe::timestamp::date;
use crate::route::{Host, Origin, RouteTarget};
use crate::snapshot::Snapshot;
use crate::tls::CertEntry;

/// What happens to a request, step by step; steps that are not reached are `None` or empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The URL that was asked about, in full.
    pub url: String,
    /// How it ends.
    pub outcome: Outcome,
    /// The certificates that the client is shown one of.
    pub certificate: Option<CertificateChoice>,
    /// The rules that could take the host, in the order they are tried.
    pub candidates: Vec<Candidate>,
    /// The rule that took it.
    pub rule: Option<Rule>,
    /// Where requests go.
    pub upstream: Option<UpstreamChoice>,
    /// What is changed in the request's fields on the way.
    pub fields: Option<FieldChanges>,
}

/// How a request ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Outcome {
    /// Sent to an endpoint.
    Forwarded {
        /// The protocol that the connection may switch to.
        upgrade: Option<String>,
    },
    /// Sent to https by the plain-HTTP listener.
    Redirected {
        /// 301 or 308.
        status: u16,
        /// Where to.
        location: String,
    },
    /// Answered by the router.
    Refused {
        /// The answer's status.
        status: u16,
        /// As logs and metrics have it.
        reason: String,
        /// The same for people.
        why: String,
    },
    /// The TLS handshake fails: there is no certificate to show.
    HandshakeRefused {
        /// For people.
        why: String,
    },
}

/// The certificates for a server name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CertificateChoice {
    /// The server name the client sends; `None` if it sends none.
    pub sni: Option<String>,
    /// Why these.
    pub why: String,
    /// Preferred first; the client's signature algorithms decide.
    pub shown: Vec<ShownCertificate>,
}

/// One certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ShownCertificate {
    /// The file of the chain.
    pub file: PathBuf,
    /// ecdsa, ed25519 or rsa.
    pub key: String,
    /// The names it holds.
    pub names: Vec<String>,
    /// Last day of its validity.
    pub expires: String,
    /// Whether that is over.
    pub expired: bool,
}

/// A host rule and where it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rule {
    /// `www.example.org` or `*.example.org`.
    pub host: String,
    /// Who owns it.
    pub tenant: String,
    /// file or registry.
    pub source: &'static str,
    /// The route file, if it comes from one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// Line in it, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
}

/// An upstream and its endpoints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UpstreamChoice {
    /// Its name in the route file.
    pub name: String,
    /// http1 or http2.
    pub protocol: &'static str,
    /// Name sent as SNI and checked, if TLS is spoken.
    pub tls_server_name: Option<String>,
    /// The addresses, one of which is chosen for each request.
    pub endpoints: Vec<SocketAddr>,
}

/// What becomes of the request's fields; `name: value` each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FieldChanges {
    /// Whether the client's forwarding fields are believed and kept.
    pub client_is_trusted: bool,
    /// What the upstream gets and the client did not send.
    pub added: Vec<String>,
    /// What the client sent and the upstream does not get.
    pub removed: Vec<String>,
}

/// Explains what happens to a request under a snapshot. `now` tells which certificates are expired.
pub fn explain(snapshot: &Snapshot, question: &Question, now: SystemTime) -> Explanation {
    let mut explanation = Explanation {
        url: question.url(),
        outcome: Outcome::Forwarded { upgrade: None },
        certificate: None,
        candidates: Vec::new(),
        rule: None,
        upstream: None,
        fields: None,
    };
    explanation.outcome = explanation.steps(snapshot, question, now);
    explanation
}

impl Explanation {
    /// The life of a request, as `forward` has it.
    fn steps(&mut self, snapshot: &Snapshot, question: &Question, now: SystemTime) -> Outcome {
        let settings = &snapshot.settings;
        let limits = settings.head_limits();
        let bytes = question.request();
        let mut slots = FieldSlots::new();
        let parsed = parse_request(&bytes, &mut slots, &limits);

        let entry = if question.https {
            let sni = question.sni.as_deref();
            let Some(entry) = snapshot.certificates.select(sni) else {
                let why = no_certificate(sni);
                return Outcome::HandshakeRefused { why };
            };
            self.certificate = Some(certificate(&entry, sni, now));
            Some(entry)
        } else {
            None
        };
        let request = match parsed {
            Ok(Some(request)) => request,
            Ok(None) => {
                let why = "the request's head is not complete".to_owned();
                return refused(400, "incomplete-head", why);
            }
            Err(refusal) => {
                let why = format!("HTTP/1.1 refuses it: {refusal}");
                return refused(refusal.status(), refusal.reason(), why);
            }
        };
        let Some(entry) = entry else {
            return redirected(snapshot, &request);
        };
        if let Ok(host) = Host::parse(request.host.name) {
            self.candidates = candidates::of(&snapshot.routes, &host);
        }
        let target = match decide(snapshot, &entry, request.host.name) {
            Ok(target) => target,
            Err(answer) => {
                let why = why_refused(answer.status, request.host.name);
                return refused(answer.status, answer.reason, why);
            }
        };
        self.rule = Some(rule(target));
        self.upstream = Some(upstream(target));
        let upgrade = allowed_upgrade(&request, &settings.upgrades);
        let forwarding = Forwarding {
            client: question.client,
            host: request.host.text,
            port: question.port,
            trusted: settings.trusts(question.client),
        };
        let mut head = BytesMut::new();
        request_head(&request, &forwarding, upgrade, &mut head);
        self.fields = Some(changes(&bytes, &head, forwarding.trusted));
        Outcome::Forwarded {
            upgrade: upgrade.map(str::to_owned),
        }
    }
}

fn refused(status: u16, reason: &str, why: String) -> Outcome {
    Outcome::Refused {
        status,
        reason: reason.to_owned(),
        why,
    }
}

fn why_refused(status: u16, host: &str) -> String {
    match status {
        421 => format!(
            "the certificate that was shown does not hold {host}: the client is to open another \
             connection, with that name as SNI"
        ),
        404 => format!("no rule takes {host}"),
        _ => format!("{host} is not a host name"),
    }
}

fn redirected(snapshot: &Snapshot, request: &RequestHead<'_, '_>) -> Outcome {
    let settings = &snapshot.settings;
    let port = match settings.https_port {
        443 => String::new(),
        port => format!(":{port}"),
    };
    let path = if request.path == "*" {
        "/"
    } else {
        request.path
    };
    Outcome::Redirected {
        status: match settings.redirect {
            RedirectStatus::MovedPermanently => 301,
            RedirectStatus::PermanentRedirect => 308,
        },
        location: format!("https://{}{port}{path}", request.host.name),
    }
}

fn no_certificate(sni: Option<&str>) -> String {
    match sni {
        Some(sni) => format!(
            "no certificate holds {sni}, and `certificates.default` names none for unknown names"
        ),
        None => "the client names no server (SNI), and `certificates.default` names no \
                 certificate for that"
            .to_owned(),
    }
}

fn certificate(entry: &CertEntry, sni: Option<&str>, now: SystemTime) -> CertificateChoice {
    let host = sni.and_then(|sni| Host::parse(sni).ok());
    let why = match (sni, host) {
        (Some(sni), Some(host)) if entry.covers(&host) => {
            let exact = |name: String| name == host.as_str();
            if entry.certificates().iter().any(|it| it.names().any(exact)) {
                format!("holds the name {sni}")
            } else {
                format!("holds a wildcard for {sni}")
            }
        }
        (Some(sni), _) => format!("the default: no certificate holds {sni}"),
        (None, _) => "the default: the client names no server (SNI)".to_owned(),
    };
    let shown = entry
        .certificates()
        .iter()
        .map(|it| {
            let end = UNIX_EPOCH + Duration::from_secs(u64::try_from(it.not_after()).unwrap_or(0));
            ShownCertificate {
                file: it.file().to_owned(),
                key: format!("{:?}", it.algorithm()).to_ascii_lowercase(),
                names: it.names().collect(),
                expires: date(end),
                expired: end < now,
            }
        })
        .collect();
    CertificateChoice {
        sni: sni.map(str::to_owned),
        why,
        shown,
    }
}

fn rule(target: &RouteTarget) -> Rule {
    let (source, file, line) = match &target.origin {
        Origin::File { file, position } => ("file", Some(file.to_path_buf()), Some(position.line)),
        Origin::Registry => ("registry", None, None),
    };
    Rule {
        host: target.host.to_string(),
        tenant: target.upstream.tenant.to_string(),
        source,
        file,
        line,
    }
}

fn upstream(target: &RouteTarget) -> UpstreamChoice {
    let upstream = &target.upstream;
    let tls = upstream
        .endpoints
        .iter()
        .find_map(|endpoint| endpoint.tls.as_ref());
    UpstreamChoice {
        name: upstream.name.to_string(),
        protocol: match upstream.protocol {
            UpstreamProtocol::Http1 => "http1",
            UpstreamProtocol::Http2 => "http2",
        },
        tls_server_name: tls.map(|tls| tls.server_name.to_str().into_owned()),
        endpoints: upstream.endpoints.iter().map(|it| it.address).collect(),
    }
}

/// Compares the fields of two heads, each as often as it occurs.
fn changes(before: &[u8], after: &[u8], client_is_trusted: bool) -> FieldChanges {
    let lines = |head: &[u8]| -> Vec<String> {
        let text = String::from_utf8_lossy(head);
        let fields = text.split("\r\n").skip(1).filter(|line| !line.is_empty());
        fields.map(str::to_owned).collect()
    };
    let mut removed = lines(before);
    let mut added = Vec::new();
    for line in lines(after) {
        let same = |other: &String| other.eq_ignore_ascii_case(&line);
        match removed.iter().position(same) {
            Some(at) => drop(removed.remove(at)),
            None => added.push(line),
        }
    }
    FieldChanges {
        client_is_trusted,
        added,
        removed,
    }
}
