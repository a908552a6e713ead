//! Which rules could take a host, in the order in which the table tries them.

use config::net::HostName;
use config::route::HostMatch;
use serde::Serialize;

use crate::route::{Host, RouteTable};

/// A rule that could take a host, whether it exists or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Candidate {
    /// `www.example.org` or `*.example.org`.
    pub host: String,
    /// Who owns it, if there is such a rule. The first one wins.
    pub tenant: Option<String>,
}

/// The exact name, then every suffix from the longest to the shortest.
pub(super) fn of(table: &RouteTable, host: &Host) -> Vec<Candidate> {
    if host.is_literal() {
        return Vec::new();
    }
    let name = host.as_str();
    let label = name.find('.').unwrap_or(name.len());
    // What is a host and no host name (with an underscore, say) stands in no exact rule.
    let exact = HostName::parse(name)
        .ok()
        .and_then(|name| table.get(&HostMatch::Exact(name)));
    // The star stands for one character or more and for no dot.
    let suffixes = name
        .char_indices()
        .skip(1)
        .take_while(|(at, _)| *at <= label)
        .filter(|(_, c)| matches!(c, '-' | '.'))
        .map(|(at, _)| (format!("*{}", &name[at..]), table.get_suffix(&name[at..])));
    std::iter::once((name.to_owned(), exact))
        .chain(suffixes)
        .map(|(host, target)| Candidate {
            host,
            tenant: target.map(|target| target.upstream.tenant.to_string()),
        })
        .collect()
}
