//! From what the files say to what is in force.
//!
//! [`read`] takes from the disk whatever has to be taken from it, [`merge`] brings it into the table
//! of routes. Between the two nothing waits for a disk, so that the registry's changes, which go into
//! the same table, are not held up by a load.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use config::document::{MAX_BYTES, Position};
use config::error::InvalidValue;
use config::route::{self, UpstreamTrust};
use config::router::RouterConfig;
use config::{ConfigError, ConfigErrors};
use daemon::files::read_bounded;

use super::files::FileRules;
use super::intern::{Interner, Wanted};
use super::load::{LoadedConfig, LoadedRoutes};
use crate::observe::metrics::SnapshotSize;
use crate::observe::timestamp::date;
use crate::route::{DuplicateOwner, Origin, RouteTable, RouteTarget};
use crate::snapshot::{Settings, Snapshot};
use crate::tls::{CertificateStore, SharedTickets, TlsPolicy, Trust, UpstreamTlsError};
use crate::upstream::Upstream;

/// How long before it expires a certificate is worth a warning.
const EXPIRY_WARNING: Duration = Duration::from_secs(14 * 24 * 3600);

/// A snapshot of files alone, and what somebody should look at.
pub struct Built {
    /// The snapshot.
    pub snapshot: Arc<Snapshot>,
    /// The settings it came from.
    pub router: RouterConfig,
    /// One line each: certificates that expire, upstreams without a route.
    pub warnings: Vec<String>,
    pub(super) files: FileRules,
    pub(super) interner: Interner,
}

/// What a load took from the disk. What is wrong with it is in there as well, so that everything
/// that is wrong can be told of at once.
pub(super) struct Read {
    pub(super) router: RouterConfig,
    pub(super) warnings: Vec<String>,
    /// The same object as before, if the same certificates are used in the same way.
    certificates: Option<Arc<CertificateStore>>,
    file: PathBuf,
    routes: Vec<LoadedRoutes>,
    authorities: HashMap<PathBuf, Result<Vec<u8>, ConfigErrors>>,
    errors: Vec<ConfigError>,
}

/// What is in force and may stay so: settings and certificates.
pub(super) struct Previous<'a> {
    pub(super) router: &'a RouterConfig,
    pub(super) snapshot: &'a Snapshot,
}

/// A table with the rules of the files that were read in place of those before.
pub(super) struct Merged {
    pub(super) table: RouteTable,
    pub(super) files: FileRules,
    pub(super) certificates: Arc<CertificateStore>,
    /// Rules that the table did not have like this before.
    pub(super) fresh: Vec<Arc<RouteTarget>>,
    /// Whether any rule is new, other than before, or gone.
    pub(super) changed: bool,
}

/// Loads a configuration once, for a command that looks at it and ends.
///
/// # Errors
/// Everything that is wrong with any file, certificates included.
pub fn build_once(file: &Path, now: SystemTime) -> Result<Built, ConfigErrors> {
    first(read(super::load::load(file), None, now)?)
}

/// A snapshot of files where there was none before.
pub(super) fn first(read: Read) -> Result<Built, ConfigErrors> {
    let mut interner = Interner::default();
    let nothing = FileRules::default();
    let merged = merge(&read, RouteTable::default(), &nothing, &mut interner)?;
    let Read {
        router, warnings, ..
    } = read;
    let snapshot = Arc::new(Snapshot {
        generation: 1,
        routes: merged.table,
        certificates: merged.certificates,
        settings: Arc::new(settings(&router)),
    });
    Ok(Built {
        snapshot,
        router,
        warnings,
        files: merged.files,
        interner,
    })
}

/// Reads what the files name: certificates, and the authorities of upstreams. Blocks.
///
/// # Errors
/// Without `router.yaml` there is nothing to go on with. Other errors wait for [`merge`].
pub(super) fn read(
    loaded: LoadedConfig,
    previous: Option<Previous<'_>>,
    now: SystemTime,
) -> Result<Read, ConfigErrors> {
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
    let mut authorities = HashMap::new();
    for upstream in routes.iter().flat_map(|file| &file.content.upstreams) {
        if let Some(tls) = &upstream.tls
            && let UpstreamTrust::Ca(ca) = &tls.trust
            // Many upstreams may name one file.
            && !authorities.contains_key(ca)
        {
            authorities.insert(ca.clone(), read_bounded(ca, MAX_BYTES as u64));
        }
    }
    for LoadedRoutes { file, content } in &routes {
        for unused in content.unused_upstreams() {
            let (file, name) = (file.display(), &unused.name);
            warnings.push(format!("{file}: upstreams.{name}: no route leads to it"));
        }
    }
    let none = routes.iter().all(|file| file.content.routes.is_empty());
    if none && router.registry.is_none() {
        warnings.push("no route file holds a route: every request is answered with 404".into());
    }
    Ok(Read {
        router,
        warnings,
        certificates,
        file,
        routes,
        authorities,
        errors,
    })
}

/// Puts the rules of the files that were read in place of the `previous` files' rules in `table`.
/// What did not change stays the same object. The uses of the previous files' upstreams are left to
/// the caller, who releases them once what replaces them is in force.
///
/// # Errors
/// Everything that is wrong with any file, and names that the table has from the registry; then
/// nothing has changed.
pub(super) fn merge(
    read: &Read,
    mut table: RouteTable,
    previous: &FileRules,
    interner: &mut Interner,
) -> Result<Merged, ConfigErrors> {
    let mut errors = read.errors.clone();
    let mut files = FileRules::default();
    let mut fresh = Vec::new();
    for wanted in targets(read, interner, &mut files, &mut errors) {
        match table.get(&wanted.host) {
            Some(known) if is_same(known, &wanted) => files.targets.push(Arc::clone(known)),
            _ => fresh.push(Arc::new(wanted)),
        }
    }
    let changed = !fresh.is_empty() || files.targets.len() != previous.targets.len();
    if changed {
        let kept: std::collections::HashSet<_> = files.targets.iter().map(Arc::as_ptr).collect();
        for old in &previous.targets {
            if !kept.contains(&Arc::as_ptr(old)) {
                table.remove(&old.host);
            }
        }
    }
    for target in &fresh {
        if let Err(duplicate) = table.insert(Arc::clone(target)) {
            refuse(&duplicate, &read.file, &mut errors);
        }
    }
    files.targets.extend(fresh.iter().cloned());
    match (ConfigErrors::from_errors(errors), &read.certificates) {
        (None, Some(certificates)) => Ok(Merged {
            table,
            files,
            certificates: Arc::clone(certificates),
            fresh,
            changed,
        }),
        (errors, _) => {
            for upstream in &files.upstreams {
                interner.release(upstream);
            }
            Err(errors.unwrap_or_else(|| {
                let reason = InvalidValue::new("was refused without a reason");
                ConfigErrors::whole_file(&read.file, reason)
            }))
        }
    }
}

impl Built {
    /// What the metrics tell of it.
    pub fn size(&self) -> SnapshotSize {
        size(&self.snapshot, &self.files, &self.interner)
    }

    /// Number of upstreams that a route leads to.
    pub fn upstreams(&self) -> usize {
        upstreams(&self.files, &self.interner)
    }

    /// Number of tenants that own a route file.
    pub fn tenants(&self) -> usize {
        self.files.tenants
    }

    /// Number of route files.
    pub fn route_files(&self) -> usize {
        self.files.files
    }
}

/// What the metrics tell of what is in force.
pub(super) fn size(snapshot: &Snapshot, files: &FileRules, interner: &Interner) -> SnapshotSize {
    let expiries = snapshot.certificates.iter().map(|it| it.not_after());
    SnapshotSize {
        generation: snapshot.generation,
        routes: snapshot.routes.len() as u64,
        upstreams: upstreams(files, interner) as u64,
        certificates: snapshot.certificates.len() as u64,
        soonest_expiry: expiries.min().map(unix_time),
    }
}

/// How many upstreams a route leads to.
pub(super) fn upstreams(files: &FileRules, interner: &Interner) -> usize {
    interner.upstreams().saturating_sub(files.unused_upstreams)
}

/// What the request path reads of `router.yaml`.
pub(super) fn settings(router: &RouterConfig) -> Settings {
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
    previous: Option<Previous<'_>>,
    now: SystemTime,
    warnings: &mut Vec<String>,
    errors: &mut Vec<ConfigError>,
) -> Option<Arc<CertificateStore>> {
    let policy = TlsPolicy {
        minimum: router.https.minimum_tls,
        http2: router.https.http2,
    };
    let directory = &router.certificates.directory;
    let default = router.certificates.default.as_deref();
    let known = previous.as_ref().map(|it| &*it.snapshot.certificates);
    let loaded = match (known, &router.registry) {
        (None, Some(registry)) => {
            let tickets = SharedTickets::new(registry.ticket_rotation);
            CertificateStore::load_sharing(directory, default, &policy, tickets)
        }
        _ => CertificateStore::load(directory, default, &policy, known),
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
            Some(match previous {
                Some(Previous {
                    router: before,
                    snapshot,
                }) if before == router && same_certificates(&snapshot.certificates, &store) => {
                    Arc::clone(&snapshot.certificates)
                }
                _ => Arc::new(store),
            })
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

/// The rules of all files; what they lead to goes into `into`.
fn targets(
    read: &Read,
    interner: &mut Interner,
    into: &mut FileRules,
    errors: &mut Vec<ConfigError>,
) -> Vec<RouteTarget> {
    let mut targets = Vec::new();
    let mut tenants = std::collections::HashSet::new();
    let mut used = std::collections::HashSet::new();
    let mut all = std::collections::HashSet::new();
    interner.forget_system_authorities();
    for LoadedRoutes { file, content } in &read.routes {
        let tenant: Arc<str> = content.tenant.as_str().into();
        tenants.insert(content.tenant.as_str());
        let mut by_name = HashMap::new();
        for upstream in &content.upstreams {
            match intern(read, &tenant, upstream, interner) {
                Ok(made) => {
                    all.insert(made.id);
                    into.upstreams.push(Arc::clone(&made));
                    by_name.insert(upstream.name.as_str(), made);
                }
                Err(found) => {
                    let (field, messages) = found.told(&upstream.name);
                    errors.extend(messages.into_iter().map(|it| about(file, &field, it)));
                }
            }
        }
        for route in &content.routes {
            // The parser has refused routes to nowhere; what is missing here has its error above.
            let Some(upstream) = by_name.get(route.upstream.as_str()) else {
                continue;
            };
            used.insert(upstream.id);
            targets.push(RouteTarget {
                host: route.host.clone(),
                upstream: Arc::clone(upstream),
                shared: route.shared,
                origin: Origin::File {
                    file: Arc::clone(file),
                    position: route.position,
                },
            });
        }
    }
    into.files = read.routes.len();
    into.tenants = tenants.len();
    into.unused_upstreams = all.len() - used.len();
    targets
}

/// Why an upstream of a file cannot be had.
enum Unusable<'a> {
    Authorities(&'a ConfigErrors),
    Tls(Option<&'a Path>, UpstreamTlsError),
}

fn intern<'a>(
    read: &'a Read,
    tenant: &Arc<str>,
    upstream: &'a route::Upstream,
    interner: &mut Interner,
) -> Result<Arc<Upstream>, Unusable<'a>> {
    let tls = match &upstream.tls {
        None => None,
        Some(tls) => {
            let (ca, trust) = match &tls.trust {
                UpstreamTrust::Ca(ca) => match &read.authorities[ca] {
                    Ok(pem) => (Some(ca.as_path()), Trust::Authorities(pem)),
                    Err(errors) => return Err(Unusable::Authorities(errors)),
                },
                UpstreamTrust::System => (None, Trust::System),
                UpstreamTrust::InsecureAcceptAny => (None, Trust::InsecureAcceptAny),
            };
            let made = interner.tls(tenant, &tls.server_name, trust);
            Some(made.map_err(|error| Unusable::Tls(ca, error))?)
        }
    };
    let wanted: Vec<_> = upstream
        .endpoints
        .iter()
        .map(|&address| Wanted {
            address,
            tls: tls.clone(),
        })
        .collect();
    let name = upstream.name.as_str().into();
    Ok(interner.upstream(tenant, &name, upstream.protocol, &wanted))
}

impl Unusable<'_> {
    /// The field, and what is wrong with it.
    fn told(&self, upstream: &str) -> (String, Vec<String>) {
        match self {
            // Two places are to be told: what cannot be read, and who wants it.
            Self::Authorities(errors) => {
                let told =
                    |error: &ConfigError| format!("{} {}", error.file.display(), error.message);
                let messages = errors.errors().iter().map(told).collect();
                (format!("upstreams.{upstream}.tls.ca"), messages)
            }
            Self::Tls(ca, error) => {
                let message = match (ca, error) {
                    (Some(ca), UpstreamTlsError::InvalidAuthorities(reason)) => {
                        format!("{}: {reason}", ca.display())
                    }
                    _ => error.to_string(),
                };
                (format!("upstreams.{upstream}.tls"), vec![message])
            }
        }
    }
}

fn is_same(known: &RouteTarget, wanted: &RouteTarget) -> bool {
    Arc::ptr_eq(&known.upstream, &wanted.upstream)
        && known.shared == wanted.shared
        && known.origin == wanted.origin
}

/// Tells of a rule that the table has already.
fn refuse(duplicate: &DuplicateOwner, file: &Path, errors: &mut Vec<ConfigError>) {
    let DuplicateOwner { first, second } = duplicate;
    match (&first.origin, &second.origin) {
        (Origin::Registry, Origin::File { file, position }) => {
            let (host, tenant) = (&second.host, &first.upstream.tenant);
            errors.push(ConfigError {
                position: *position,
                help: Some("withdraw it there first, or leave it out of the files".to_owned()),
                ..about(
                    file,
                    "routes",
                    format!("{host} stands in the registry, announced by tenant {tenant}"),
                )
            });
        }
        // Names with two owners were refused before, with better words; the table only agrees.
        _ if errors.is_empty() => errors.push(about(file, "routes", duplicate.to_string())),
        _ => {}
    }
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
