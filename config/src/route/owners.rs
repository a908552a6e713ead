//! One name, one owner: the check over all route files at once.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::Path;

use super::{HostMatch, Route, RouteFile};
use crate::error::{ConfigError, ConfigErrors};

/// Refuses names with two owners.
///
/// A rule may stand once among all files. A name, or a narrower suffix, that lies within another
/// tenant's suffix is refused unless that suffix says `shared: true`: longest match wins, so it
/// would take traffic away from its owner.
///
/// Costs one look-up per hyphen of a name's first label, however many routes there are.
///
/// # Errors
/// Every conflict, at the later of two equal rules or at the narrower rule; each names both
/// places.
pub fn owners<'a>(
    files: impl IntoIterator<Item = (&'a Path, &'a RouteFile)>,
) -> Result<(), ConfigErrors> {
    let files: Vec<(&Path, &RouteFile)> = files.into_iter().collect();
    let total = files.iter().map(|(_, file)| file.routes.len()).sum();
    let mut exact: HashMap<&str, Claim<'_>> = HashMap::with_capacity(total);
    let mut suffixes: HashMap<&str, Claim<'_>> = HashMap::with_capacity(total);
    let mut claims = Vec::with_capacity(total);
    let mut errors = Vec::new();
    for (file, routes) in files {
        for (index, route) in routes.routes.iter().enumerate() {
            let claim = Claim {
                file,
                tenant: &routes.tenant,
                route,
                index,
            };
            let place = match &route.host {
                HostMatch::Exact(name) => exact.entry(name.as_str()),
                HostMatch::Suffix(suffix) => suffixes.entry(suffix),
            };
            match place {
                Entry::Occupied(first) => errors.push(claim.conflict(format!(
                    "{} is already owned by {}",
                    route.host,
                    first.get().place()
                ))),
                Entry::Vacant(free) => {
                    free.insert(claim);
                    claims.push(claim);
                }
            }
        }
    }
    for claim in claims {
        for suffix in claim.route.host.wider_suffixes() {
            let Some(wider) = suffixes.get(suffix) else {
                continue;
            };
            if wider.tenant != claim.tenant && !wider.route.shared {
                let message = format!(
                    "{} lies within {}, owned by {}",
                    claim.route.host,
                    wider.route.host,
                    wider.place()
                );
                errors.push(ConfigError {
                    help: Some(format!(
                        "the owner of {} can allow it with `shared: true`",
                        wider.route.host
                    )),
                    ..claim.conflict(message)
                });
            }
        }
    }
    ConfigErrors::from_errors(errors).map_or(Ok(()), Err)
}

#[derive(Clone, Copy)]
struct Claim<'a> {
    file: &'a Path,
    tenant: &'a str,
    route: &'a Route,
    index: usize,
}

impl Claim<'_> {
    fn place(&self) -> String {
        format!(
            "tenant {} ({}:{})",
            self.tenant,
            self.file.display(),
            self.route.position.line
        )
    }

    fn conflict(&self, message: String) -> ConfigError {
        ConfigError {
            file: self.file.to_owned(),
            position: self.route.position,
            field: format!("routes[{}].host", self.index),
            message: format!("{message}; this is tenant {}", self.tenant),
            help: None,
            source_line: None,
        }
    }
}
