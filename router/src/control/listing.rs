//! The rules of a snapshot as a list, for the admin page and `router routes`.

use std::cmp::Reverse;
use std::net::SocketAddr;
use std::path::PathBuf;

use config::route::{HostMatch, UpstreamProtocol};
use serde::Serialize;

use crate::route::{Origin, RouteTarget};
use crate::snapshot::Snapshot;

/// One rule and where it leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ListedRoute {
    /// `www.example.org` or `*.example.org`.
    pub host: String,
    /// Who owns it.
    pub tenant: String,
    /// Name of the upstream.
    pub upstream: String,
    /// http1 or http2.
    pub protocol: &'static str,
    /// Whether TLS is spoken to the endpoints.
    pub tls: bool,
    /// The endpoints.
    pub endpoints: Vec<SocketAddr>,
    /// file or registry.
    pub source: &'static str,
    /// The route file, if it comes from one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// Line in it, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
}

/// Every rule in the order of matching: exact names, then suffixes, the longest first; by name
/// where that leaves a choice.
pub fn routes(snapshot: &Snapshot) -> Vec<ListedRoute> {
    first_routes(snapshot, usize::MAX)
}

/// The first of them, at most so many: a list of a million helps nobody, and takes long to make.
pub fn first_routes(snapshot: &Snapshot, most: usize) -> Vec<ListedRoute> {
    let mut targets: Vec<_> = snapshot.routes.iter().collect();
    if most < targets.len() {
        targets.select_nth_unstable_by_key(most, |target| order(target));
        targets.truncate(most);
    }
    targets.sort_unstable_by_key(|target| order(target));
    targets.into_iter().map(|target| listed(target)).collect()
}

/// Exact names come before suffixes, which have at most 253 characters.
fn order(target: &RouteTarget) -> (Reverse<usize>, &str) {
    match &target.host {
        HostMatch::Exact(name) => (Reverse(usize::MAX), name.as_str()),
        HostMatch::Suffix(suffix) => (Reverse(suffix.len()), suffix),
    }
}

fn listed(target: &RouteTarget) -> ListedRoute {
    let upstream = &target.upstream;
    let (source, file, line) = match &target.origin {
        Origin::File { file, position } => ("file", Some(file.to_path_buf()), Some(position.line)),
        Origin::Registry => ("registry", None, None),
    };
    ListedRoute {
        host: target.host.to_string(),
        tenant: upstream.tenant.to_string(),
        upstream: upstream.name.to_string(),
        protocol: match upstream.protocol {
            UpstreamProtocol::Http1 => "http1",
            UpstreamProtocol::Http2 => "http2",
        },
        tls: upstream.is_tls(),
        endpoints: upstream.endpoints.iter().map(|it| it.address).collect(),
        source,
        file,
        line,
    }
}

#[cfg(test)]
mod tests {
    use super::routes;
    use crate::control::build::build_once;
    use crate::control::tests::{Files, routes as route_file};

    #[test]
    fn rules_are_listed_as_they_are_tried() {
        let files = Files::new();
        for (tenant, host) in [
            ("a", "*.example.net"),
            ("b", "*-apps.cluster.example.net"),
            ("c", "zzz.example.net"),
        ] {
            let shared = if host == "*.example.net" {
                "    shared: true\n"
            } else {
                ""
            };
            let text = route_file(tenant, host, "127.0.0.1:1") + shared;
            files.write(&format!("routes.d/{tenant}.yaml"), &text);
        }
        let built = build_once(&files.config(), std::time::SystemTime::now()).unwrap();
        let hosts: Vec<_> = routes(&built.snapshot)
            .into_iter()
            .map(|it| it.host)
            .collect();
        let expected = [
            "www.example.org",
            "zzz.example.net",
            "*-apps.cluster.example.net",
            "*.example.net",
        ];
        assert_eq!(hosts, expected);
    }
}
