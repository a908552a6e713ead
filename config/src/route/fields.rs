//! The fields of a route file, and what must fit together in it.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::json;

use super::{HostMatch, Route, RouteFile, Upstream, UpstreamProtocol, UpstreamTls, UpstreamTrust};
use crate::document::Position;
use crate::error::{InvalidValue, quoted};
use crate::net::HostName;
use crate::net::kinds::{LABEL_PATTERN, check_label, host_name, label, socket_address};
use crate::reader::kinds::{
    Boolean, Choice, FilePath, Placed, Text, choice, list, mapping, named, placed, refuse_twice,
    text, values,
};
use crate::reader::{Fields, Mapping};

impl Mapping for RouteFile {
    fn fields(f: &mut Fields<'_>) -> Option<Self> {
        let tenant = f.required(
            "tenant",
            "Who owns the names in this file. Lower-case letters, digits and hyphens.",
            label(),
        );
        let upstreams = f.required(
            "upstreams",
            "Groups of interchangeable endpoints, by a name that routes refer to.",
            named(LABEL_PATTERN, check_label, mapping::<ReadUpstream>()),
        );
        let routes = f.required(
            "routes",
            "Host rules, and the upstream that each leads to.",
            list(mapping::<ReadRoute>()),
        );

        if let (Some(upstreams), Some(routes)) = (&upstreams, &routes) {
            refuse_unknown_upstreams(f, upstreams, routes);
        }
        if let Some(routes) = &routes {
            refuse_repeated_hosts(f, routes);
        }
        let upstreams = upstreams?.into_iter().map(|(name, read)| Upstream {
            name,
            protocol: read.protocol,
            tls: read.tls,
            endpoints: read.endpoints,
        });
        let routes = routes?.into_iter().map(|read| Route {
            position: read.host.position,
            host: read.host.value,
            upstream: read.upstream.value,
            shared: read.shared,
        });
        Some(Self {
            tenant: tenant?,
            upstreams: upstreams.collect(),
            routes: routes.collect(),
        })
    }
}

impl HostMatch {
    /// A field that holds a host rule.
    pub(crate) fn kind() -> Text<Self> {
        text("a host rule", Some(Self::PATTERN), Self::parse)
    }
}

impl UpstreamProtocol {
    /// A field that holds a protocol towards upstreams.
    pub(crate) fn kind() -> Choice<Self> {
        choice(&[("http1", Self::Http1), ("http2", Self::Http2)])
    }
}

/// An upstream before it has its name, which is the key it stands under.
struct ReadUpstream {
    protocol: UpstreamProtocol,
    tls: Option<UpstreamTls>,
    endpoints: Vec<SocketAddr>,
}

impl Mapping for ReadUpstream {
    fn fields(f: &mut Fields<'_>) -> Option<Self> {
        let protocol = f.defaulted(
            "protocol",
            "The HTTP version spoken towards the endpoints. Upgrades always use http1.",
            UpstreamProtocol::kind(),
            json!("http1"),
        );
        let endpoints = f.required(
            "endpoints",
            "Addresses with ports that requests go to; at least one.",
            list(placed(socket_address())).of_length(1..=usize::MAX),
        );
        let tls = f.optional(
            "tls",
            "TLS towards the endpoints; plain text when absent.",
            mapping::<UpstreamTls>(),
        );
        if let Some(endpoints) = &endpoints {
            refuse_twice(f, endpoints, "this endpoint", |address| *address);
        }
        Some(Self {
            protocol: protocol?,
            tls: tls?,
            endpoints: values(endpoints?),
        })
    }
}

impl Mapping for UpstreamTls {
    fn fields(f: &mut Fields<'_>) -> Option<Self> {
        let server_name = f.required(
            "server_name",
            "Name sent as SNI and checked against the certificate.",
            host_name(),
        );
        let ca: Option<Option<PathBuf>> = f.optional(
            "ca",
            "PEM file of the authorities that may sign for this upstream. The system's when \
             absent.",
            FilePath,
        );
        let verify = f.optional(
            "verify",
            "Turns the check of the certificate off. The value says what that means.",
            choice(&[("insecure-accept-any-certificate", ())]),
        );
        if let (Some(Some(_)), Some(Some(()))) = (&ca, &verify) {
            let reason = InvalidValue::new("contradicts `ca`: either it is checked or it is not");
            f.refuse("verify", reason.help("remove one of the two"));
        }
        let trust = match (ca?, verify?) {
            (Some(ca), _) => UpstreamTrust::Ca(ca),
            (None, Some(())) => UpstreamTrust::InsecureAcceptAny,
            (None, None) => UpstreamTrust::System,
        };
        let server_name: HostName = server_name?;
        Some(Self {
            server_name: server_name.as_str().to_owned(),
            trust,
        })
    }
}

/// A route with the place of its upstream's name, which can only be checked beside the others.
struct ReadRoute {
    host: Placed<HostMatch>,
    upstream: Placed<String>,
    shared: bool,
}

impl Mapping for ReadRoute {
    fn fields(f: &mut Fields<'_>) -> Option<Self> {
        let host = f.required(
            "host",
            "A host name, or a star followed by `-` or `.` and at least two labels. The star \
             stands for at least one character and never for a dot.",
            placed(HostMatch::kind()),
        );
        let upstream = f.required(
            "upstream",
            "Name of an upstream in this file.",
            placed(label()),
        );
        let shared = f.defaulted(
            "shared",
            "Whether other tenants may own narrower names beneath this suffix.",
            Boolean,
            json!(false),
        );
        if let (Some(host), Some(true)) = (&host, shared)
            && matches!(host.value, HostMatch::Exact(_))
        {
            let reason = InvalidValue::new("an exact name has nothing beneath it to share");
            f.refuse(
                "shared",
                reason.help("remove the field, or write a suffix rule"),
            );
        }
        Some(Self {
            host: host?,
            upstream: upstream?,
            shared: shared?,
        })
    }
}

fn refuse_unknown_upstreams(
    f: &mut Fields<'_>,
    upstreams: &[(String, ReadUpstream)],
    routes: &[ReadRoute],
) {
    let names: Vec<&str> = upstreams.iter().map(|(name, _)| name.as_str()).collect();
    let known: HashSet<&str> = names.iter().copied().collect();
    for route in routes {
        let wanted = route.upstream.value.as_str();
        if !known.contains(wanted) {
            let message = format!("unknown upstream {}", quoted(wanted));
            let reason = crate::reader::with_nearest(message, wanted, &names);
            f.refuse_item(&route.upstream, reason);
        }
    }
}

fn refuse_repeated_hosts(f: &mut Fields<'_>, routes: &[ReadRoute]) {
    let mut seen: HashMap<&HostMatch, Position> = HashMap::new();
    for route in routes {
        let position = route.host.position;
        let first = *seen.entry(&route.host.value).or_insert(position);
        if first != position {
            let line = first.line;
            let message = format!("{} stands twice; first in line {line}", route.host.value);
            f.refuse_item(&route.host, InvalidValue::new(message));
        }
    }
}
