//! Which rules could take a host, in the order in which the table tries them.

use std::collections::HashMap;

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

/// The exact name, then every suffix from the longest to the shortest. Costs one pass over the
/// table, which a lookup does not.
pub(super) fn of(table: &RouteTable, host: &Host) -> Vec<Candidate> {
    if host.is_literal() {
        return Vec::new();
    }
    let rules: HashMap<String, &str> = table
        .iter()
        .map(|target| (target.host.to_string(), &*target.upstream.tenant))
        .collect();
    let name = host.as_str();
    let label = name.find('.').unwrap_or(name.len());
    // The star stands for one character or more and for no dot.
    let suffixes = name
        .char_indices()
        .skip(1)
        .take_while(|(at, _)| *at <= label)
        .filter(|(_, c)| matches!(c, '-' | '.'))
        .map(|(at, _)| format!("*{}", &name[at..]));
    std::iter::once(name.to_owned())
        .chain(suffixes)
        .map(|host| {
            let tenant = rules.get(&host).map(ToString::to_string);
            Candidate { host, tenant }
        })
        .collect()
}
