//! The rules of a snapshot as a list, for the admin page and `router routes`.

use std::cmp::Reverse;
use std::net::SocketAddr;
use std::path::PathBuf;

use config::route::{HostMatch, UpstreamProtocol};
use serde::Serialize;

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
    /// The route file.
    pub file: PathBuf,
    /// Line in it, from 1.
    pub line: usize,
}

/// Every rule in the order of matching: exact names, then suffixes, the longest first; by name
/// where that leaves a choice.
pub fn routes(snapshot: &Snapshot) -> Vec<ListedRoute> {
    let mut targets: Vec<_> = snapshot.routes.iter().collect();
    targets.sort_by_cached_key(|target| match &target.host {
        HostMatch::Exact(name) => (Reverse(usize::MAX), name.as_str().to_owned()),
        HostMatch::Suffix(suffix) => (Reverse(suffix.len()), suffix.clone()),
    });
    targets
        .into_iter()
        .map(|target| ListedRoute {
            host: target.host.to_string(),
            tenant: target.upstream.tenant.to_string(),
            upstream: target.upstream.name.to_string(),
            protocol: match target.upstream.protocol {
                UpstreamProtocol::Http1 => "http1",
                UpstreamProtocol::Http2 => "http2",
            },
            tls: target.upstream.is_tls(),
            endpoints: target
                .upstream
                .endpoints
                .iter()
                .map(|it| it.address)
                .collect(),
            file: target.file.to_path_buf(),
            line: target.position.line,
        })
        .collect()
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
