//! From what the files say to a snapshot.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use config::document::Position;
use config::error::InvalidValue;
use config::router::RouterConfig;
use config::{ConfigError, ConfigErrors};

use super::intern::{Ids, InternError, Interned, Interning};
use super::load::{LoadedConfig, LoadedRoutes};
use crate::observe::metrics::SnapshotSize;
use crate::observe::timestamp::date;
use crate::route::{RouteTable, RouteTarget};
use crate::snapshot::{Settings, Snapshot};
use crate::tls::{CertificateStore, SharedTickets, TlsPolicy};
use crate::upstream::Upstream;

/// How long before it expires a certificate is worth a warning.
const EXPIRY_WARNING: Duration = Duration::from_secs(14 * 24 * 3600);

/// A snapshot, what it was made of, and what somebody should look at.
pub struct Built {
    /// The snapshot.
    pub snapshot: Arc<Snapshot>,
    /// The settings it came from.
    pub router: RouterConfig,
    /// One line each: certificates that expire, upstreams without a route.
    pub warnings: Vec<String>,
    pub(super) routes: Vec<LoadedRoutes>,
    pub(super) interned: Interned,
}

/// Loads a configuration once, for a command that looks at it and ends.
///
/// # Errors
/// Everything that is wrong with any file, certificates included.
pub fn build_once(file: &Path, now: SystemTime) -> Result<Built, ConfigErrors> {
    build(super::load::load(file), None, &mut Ids::default(), now)
}

/// Builds a snapshot; takes from `previous` what did not change. The same as `previous` if nothing
/// did. Blocks while it reads and parses certificates.
///
/// # Errors
/// Everything that is wrong with any file, certificates included.
pub(super) fn build(
    loaded: LoadedConfig,
    previous: Option<&Built>,
    ids: &mut Ids,
    now: SystemTime,
) -> Result<Built, ConfigErrors> {
    let LoadedConfig {
        router,
        routes,
        mut errors,
        file,
    } = loaded;
    let Some(router) = router else {
        return Err(ConfigErrors::from_errors(errors).unwrap_or_else(|| {
            ConfigErrors::whole_file(&file, InvalidValue::new("was refused without a reason"))
        }));
    };
    let mut warnings = Vec::new();
    let certificates = certificates(&router, previous, now, &mut warnings, &mut errors);
    let nothing = Interned::default();
    let known = previous.map_or(&nothing, |previous| &previous.interned);
    let mut interning = Interning::new(known, ids);
    let (targets, upstreams) = targets(&routes, &mut interning, &mut warnings, &mut errors);
    let interned = interning.finish();
    // Names with two owners were refused before, with better words; the table only agrees.
    let table = match RouteTable::build(targets) {
        Ok(table) => Some(table),
        Err(duplicate) if errors.is_empty() => {
            errors.push(about(&file, "routes", duplicate.to_string()));
            None
        }
        Err(_) => None,
    };
    if let Some(errors) = ConfigErrors::from_errors(errors) {
        return Err(errors);
    }
    let (Some(certificates), Some(table)) = (certificates, table) else {
        let reason = InvalidValue::new("was refused without a reason");
        return Err(ConfigErrors::whole_file(&file, reason));
    };
    if let Some(previous) = previous
        && previous.router == router
        && previous.routes == routes
        && same_upstreams(&previous.snapshot.upstreams, &upstreams)
        && same_certificates(&previous.snapshot.certificates, &certificates)
    {
        return Ok(Built {
            snapshot: Arc::clone(&previous.snapshot),
            router,
            warnings,
            routes,
            interned,
        });
    }
    if table.is_empty() {
        warnings.push("no route file holds a route: every request is answered with 404".into());
    }
    let generation = previous.map_or(0, |previous| previous.snapshot.generation) + 1;
    let snapshot = Arc::new(Snapshot {
        generation,
        routes: table,
        certificates,
        upstreams,
        settings: settings(&router),
    });
    Ok(Built {
        snapshot,
        router,
        warnings,
        routes,
        interned,
    })
}

impl Built {
    /// What the metrics tell of it.
    pub fn size(&self) -> SnapshotSize {
        let snapshot = &self.snapshot;
        let expiries = snapshot.certificates.iter().map(|it| it.not_after());
        SnapshotSize {
            generation: snapshot.generation,
            routes: snapshot.routes.len() as u64,
            upstreams: snapshot.upstreams.len() as u64,
            certificates: snapshot.certificates.len() as u64,
            soonest_expiry: expiries.min().map(unix_time),
        }
    }

    /// Number of tenants that own a route file.
    pub fn tenants(&self) -> usize {
        let tenants = self.routes.iter().map(|file| &file.content.tenant);
        tenants.collect::<std::collections::HashSet<_>>().len()
    }

    /// Number of route files.
    pub fn route_files(&self) -> usize {
        self.routes.len()
    }
}

fn settings(router: &RouterConfig) -> Settings {
    Settings {
        redirect: router.http.redirect,
        https_port: router.http.https_port,
        http2: router.https.http2,
        trusted_proxies: router.trusted_proxies.clone(),
        upgrades: router
            .upgrades
            .iter()
            .map(|protocol| protocol.to_ascii_lowercase())
            .collect(),
        timeouts: router.timeouts.clone(),
        limits: router.limits.clone(),
        access_log: router.access_log,
    }
}

fn certificates(
    router: &RouterConfig,
    previous: Option<&Built>,
    now: SystemTime,
    warnings: &mut Vec<String>,
    errors: &mut Vec<ConfigError>,
) -> Option<CertificateStore> {
    let policy = TlsPolicy {
        minimum: router.https.minimum_tls,
        http2: router.https.http2,
    };
    let directory = &router.certificates.directory;
    let default = router.certificates.default.as_deref();
    let previous = previous.map(|previous| &previous.snapshot.certificates);
    let loaded = match (previous, &router.registry) {
        (None, Some(registry)) => {
            let tickets = SharedTickets::new(registry.ticket_rotation);
            CertificateStore::load_sharing(directory, default, &policy, tickets)
        }
        _ => CertificateStore::load(directory, default, &policy, previous),
    };
    match loaded {
        Ok((store, found)) => {
            warnings.extend(found.iter().map(ToString::to_string));
            if store.is_empty() {
                let directory = router.certificates.directory.display();
                warnings.push(format!(
                    "{directory}: holds no certificate: every handshake is refused"
                ));
            }
            for certificate in store.iter() {
                let end = unix_time(certificate.not_after());
                if end > now && end <= now + EXPIRY_WARNING {
                    let file = certificate.file().display();
                    warnings.push(format!("{file}: expires on {}", date(end)));
                }
            }
            Some(store)
        }
        Err(found) => {
            errors.extend(
                found
                    .0
                    .into_iter()
                    .map(|error| about(&error.file, "", error.problem.to_string())),
            );
            None
        }
    }
}

fn targets(
    files: &[LoadedRoutes],
    interning: &mut Interning<'_>,
    warnings: &mut Vec<String>,
    errors: &mut Vec<ConfigError>,
) -> (Vec<RouteTarget>, Vec<Arc<Upstream>>) {
    let mut targets = Vec::new();
    let mut upstreams: Vec<Arc<Upstream>> = Vec::new();
    let mut listed = std::collections::HashSet::new();
    for LoadedRoutes { file, content } in files {
        let tenant: Arc<str> = content.tenant.as_str().into();
        for unused in content.unused_upstreams() {
            let name = &unused.name;
            warnings.push(format!(
                "{}: upstreams.{name}: no route leads to it",
                file.display()
            ));
        }
        let mut by_name = HashMap::new();
        for upstream in &content.upstreams {
            match interning.upstream(&tenant, upstream) {
                Ok(made) => drop(by_name.insert(upstream.name.as_str(), made)),
                Err(InternError::Authorities(found)) => {
                    let field = format!("upstreams.{}.tls.ca", upstream.name);
                    // Two places are to be told: what cannot be read, and who wants it.
                    errors.extend(found.errors().iter().map(|error| {
                        let path = error.file.display();
                        about(file, &field, format!("{path} {}", error.message))
                    }));
                }
                Err(InternError::Tls(error)) => {
                    let field = format!("upstreams.{}.tls", upstream.name);
                    errors.push(about(file, &field, error.to_string()));
                }
            }
        }
        for route in &content.routes {
            // The parser has refused routes to nowhere; what is missing here has its error above.
            let Some(upstream) = by_name.get(route.upstream.as_str()) else {
                continue;
            };
            if listed.insert(upstream.id) {
                upstreams.push(Arc::clone(upstream));
            }
            targets.push(RouteTarget {
                host: route.host.clone(),
                upstream: Arc::clone(upstream),
                position: route.position,
                file: Arc::clone(file),
            });
        }
    }
    (targets, upstreams)
}

fn same_upstreams(a: &[Arc<Upstream>], b: &[Arc<Upstream>]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| Arc::ptr_eq(a, b))
}

fn same_certificates(a: &CertificateStore, b: &CertificateStore) -> bool {
    a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| Arc::ptr_eq(a, b))
}

/// An error that is not at a place of the text.
fn about(file: &Path, field: &str, message: String) -> ConfigError {
    ConfigError {
        file: file.to_owned(),
        position: Position::START,
        field: field.to_owned(),
        message,
        help: None,
        source_line: None,
    }
}

fn unix_time(seconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}
