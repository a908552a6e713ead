//! All certificates of the edge, by server name.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use hashbrown::HashMap;
use rustls::ServerConfig;

use super::certificate::{PairSource, ServedCertificate, is_authority};
use super::directory::{self, PairFiles};
use super::entry::CertEntry;
use super::error::{CertificateError, CertificateErrors, CertificateProblem, Warning, WarningKind};
use super::policy::{Foundation, TlsPolicy};
use super::tickets::SharedTickets;
use crate::route::Host;

/// Fewer pairs than this are parsed faster than a thread starts.
const PAIRS_PER_THREAD: usize = 64;

/// Every certificate of a directory, by the server names they are valid for.
pub struct CertificateStore {
    foundation: Foundation,
    policy: TlsPolicy,
    /// By name of the pair.
    certificates: BTreeMap<Box<str>, Arc<ServedCertificate>>,
    exact: Names,
    /// By what follows `*.`.
    wildcards: Names,
    default: Option<Arc<CertEntry>>,
}

type Names = HashMap<Box<str>, Arc<CertEntry>, foldhash::fast::RandomState>;

impl CertificateStore {
    /// Loads every `NAME.crt` with its `NAME.key` of a directory.
    ///
    /// What did not change since `previous` is taken from there, the keys that encrypt session
    /// tickets included. Blocks while it reads; uses a thread per core when there is much to parse.
    ///
    /// # Errors
    /// Everything that is wrong with any file, in the order of file names. An expired certificate
    /// is a warning: refusing it would stop every other change from being loaded.
    pub fn load(
        directory: &Path,
        default: Option<&str>,
        policy: &TlsPolicy,
        previous: Option<&Self>,
    ) -> Result<(Self, Vec<Warning>), CertificateErrors> {
        let foundation = match previous {
            Some(previous) => previous.foundation.clone(),
            None => Foundation::new().map_err(|error| {
                let problem = CertificateProblem::Crypto(error);
                CertificateErrors(vec![CertificateError {
                    file: directory.into(),
                    problem,
                }])
            })?,
        };
        Self::load_upon(foundation, directory, default, policy, previous)
    }

    /// The same for the first load of a process whose session tickets the whole edge opens. Later
    /// loads take the handle from their `previous`.
    ///
    /// # Errors
    /// Everything that is wrong with any file, as [`CertificateStore::load`] says it.
    pub fn load_sharing(
        directory: &Path,
        default: Option<&str>,
        policy: &TlsPolicy,
        tickets: SharedTickets,
    ) -> Result<(Self, Vec<Warning>), CertificateErrors> {
        let foundation = Foundation::sharing(tickets);
        Self::load_upon(foundation, directory, default, policy, None)
    }

    fn load_upon(
        foundation: Foundation,
        directory: &Path,
        default: Option<&str>,
        policy: &TlsPolicy,
        previous: Option<&Self>,
    ) -> Result<(Self, Vec<Warning>), CertificateErrors> {
        let (pairs, mut errors) =
            directory::pairs(directory).map_err(|error| CertificateErrors(vec![error]))?;
        let mut certificates = BTreeMap::new();
        let mut warnings = Vec::new();
        for loaded in load_pairs(&pairs, &foundation, previous) {
            match loaded {
                Ok(Loaded::Certificate(certificate)) => {
                    certificates.insert(certificate.pair().into(), certificate);
                }
                Ok(Loaded::Nothing(warning)) => warnings.push(warning),
                Err(found) => errors.extend(found),
            }
        }
        if let Some(default) = default
            && !pairs.iter().any(|pair| pair.name == default)
        {
            errors.push(CertificateError {
                file: directory.into(),
                problem: CertificateProblem::NoDefault(default.into()),
            });
        }
        if !errors.is_empty() {
            errors.sort_by(|a, b| a.file.cmp(&b.file));
            return Err(CertificateErrors(errors));
        }

        let now = unix_time();
        warnings.extend(
            certificates
                .values()
                .flat_map(|certificate| certificate.warnings(now)),
        );
        let mut assembly = Assembly {
            template: foundation.template(*policy),
            previous: previous.filter(|previous| previous.policy == *policy),
            entries: HashMap::default(),
        };
        let Choices { exact, wildcards } = Choices::of(&certificates, now, &mut warnings);
        let exact = assembly.names(exact, |store| &store.exact);
        let wildcards = assembly.names(wildcards, |store| &store.wildcards);
        let default = default
            .and_then(|pair| certificates.get(pair))
            .map(|certificate| assembly.default_entry(certificate, &exact, &wildcards));
        let policy = *policy;
        Ok((
            Self {
                foundation,
                policy,
                certificates,
                exact,
                wildcards,
                default,
            },
            warnings,
        ))
    }

    /// What a client is answered with that asks for a server name: the certificates of that very
    /// name, or of a wildcard, or the default. `None` is a refusal.
    pub fn select(&self, sni: Option<&str>) -> Option<Arc<CertEntry>> {
        sni.and_then(|name| Host::parse(name).ok())
            .filter(|host| !host.is_literal())
            .and_then(|host| {
                find(&self.exact, host.as_bytes()).or_else(|| find(&self.wildcards, host.parent()))
            })
            .or(self.default.as_ref())
            .cloned()
    }

    /// Every certificate, in the order of pair names.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<ServedCertificate>> {
        self.certificates.values()
    }

    /// Number of certificates.
    pub fn len(&self) -> usize {
        self.certificates.len()
    }

    /// Whether there is no certificate at all.
    pub fn is_empty(&self) -> bool {
        self.certificates.is_empty()
    }

    /// The keys of session tickets, if the whole edge has the same.
    pub fn shared_tickets(&self) -> Option<&SharedTickets> {
        self.foundation.shared_tickets()
    }

    /// What the handshakes were configured with.
    pub fn policy(&self) -> TlsPolicy {
        self.policy
    }
}

fn find<'a>(names: &'a Names, name: &[u8]) -> Option<&'a Arc<CertEntry>> {
    let name = std::str::from_utf8(name).ok()?;
    names.get(name)
}

enum Loaded {
    Certificate(Arc<ServedCertificate>),
    /// A file that is no pair and may be there.
    Nothing(Warning),
}

type LoadResult = Result<Loaded, Vec<CertificateError>>;

/// One result per pair, in their order.
fn load_pairs(
    pairs: &[PairFiles],
    foundation: &Foundation,
    previous: Option<&CertificateStore>,
) -> Vec<LoadResult> {
    let load_all = |pairs: &[PairFiles]| -> Vec<LoadResult> {
        pairs
            .iter()
            .map(|pair| load_pair(pair, foundation, previous))
            .collect()
    };
    let threads = thread::available_parallelism()
        .map_or(1, usize::from)
        .min(pairs.len().div_ceil(PAIRS_PER_THREAD));
    if threads < 2 {
        return load_all(pairs);
    }
    let load_all = &load_all;
    thread::scope(|scope| {
        let workers: Vec<_> = pairs
            .chunks(pairs.len().div_ceil(threads))
            .map(|chunk| scope.spawn(move || load_all(chunk)))
            .collect();
        workers
            .into_iter()
            .flat_map(|worker| worker.join().expect("loading a pair does not panic"))
            .collect()
    })
}

fn load_pair(
    pair: &PairFiles,
    foundation: &Foundation,
    previous: Option<&CertificateStore>,
) -> LoadResult {
    let blame = |file: &Path, problem| CertificateError {
        file: file.into(),
        problem,
    };
    let chain = directory::read_chain(&pair.chain).map_err(|problem| blame(&pair.chain, problem));
    let Some(key_file) = &pair.key else {
        let problem = match chain.map(|chain| is_authority(&chain)) {
            Ok(Ok(true)) => {
                let kind = WarningKind::AuthorityIgnored;
                return Ok(Loaded::Nothing(Warning {
                    file: pair.chain.clone(),
                    kind,
                }));
            }
            Ok(Ok(false)) => CertificateProblem::NoKey(pair.chain.with_extension("key")),
            Ok(Err(problem)) => problem,
            Err(error) => return Err(vec![error]),
        };
        return Err(vec![blame(&pair.chain, problem)]);
    };
    let key = directory::read_key(key_file).map_err(|problem| blame(key_file, problem));
    let (chain, key) = match (chain, key) {
        (Ok(chain), Ok(key)) => (chain, key),
        (chain, key) => return Err(chain.err().into_iter().chain(key.err()).collect()),
    };
    let source = PairSource {
        pair: &pair.name,
        chain_file: &pair.chain,
        chain: &chain,
        key_file,
        key: &key,
    };
    let unchanged = previous
        .and_then(|previous| previous.certificates.get(pair.name.as_str()))
        .filter(|known| known.file() == pair.chain && *known.digest() == source.digest());
    match unchanged {
        Some(known) => Ok(Loaded::Certificate(Arc::clone(known))),
        None => ServedCertificate::parse(&source, &foundation.provider)
            .map(|certificate| Loaded::Certificate(Arc::new(certificate))),
    }
}

/// The certificates of each name, at most one per algorithm, preferred first.
#[derive(Default)]
struct Choices<'a> {
    exact: ByName<'a>,
    wildcards: ByName<'a>,
}

type ByName<'a> = HashMap<&'a str, Vec<&'a Arc<ServedCertificate>>, foldhash::fast::RandomState>;

impl<'a> Choices<'a> {
    fn of(
        certificates: &'a BTreeMap<Box<str>, Arc<ServedCertificate>>,
        now: i64,
        warnings: &mut Vec<Warning>,
    ) -> Self {
        let mut choices = Self::default();
        for certificate in certificates.values() {
            for name in certificate.exact() {
                let rivals = choices.exact.entry(name).or_default();
                add(rivals, certificate, now, &|| name.to_string(), warnings);
            }
            for parent in certificate.wildcards() {
                let rivals = choices.wildcards.entry(parent).or_default();
                add(
                    rivals,
                    certificate,
                    now,
                    &|| format!("*.{parent}"),
                    warnings,
                );
            }
        }
        choices
    }
}

/// Adds a certificate to those of a name, or lets the better one of the same algorithm stay: the
/// one that is valid now, then the one that expires last, then the last in the order of pairs.
fn add<'a>(
    rivals: &mut Vec<&'a Arc<ServedCertificate>>,
    certificate: &'a Arc<ServedCertificate>,
    now: i64,
    name: &dyn Fn() -> String,
    warnings: &mut Vec<Warning>,
) {
    let algorithm = certificate.algorithm();
    match rivals.binary_search_by_key(&algorithm, |rival| rival.algorithm()) {
        Err(at) => rivals.insert(at, certificate),
        Ok(at) => {
            let rank = |it: &ServedCertificate| (it.is_valid_at(now), it.not_after());
            let (winner, loser) = if rank(certificate) >= rank(rivals[at]) {
                (certificate, rivals[at])
            } else {
                (rivals[at], certificate)
            };
            rivals[at] = winner;
            let kind = WarningKind::Superseded {
                name: name(),
                winner: winner.file().into(),
            };
            warnings.push(Warning {
                file: loser.file().into(),
                kind,
            });
        }
    }
}

/// Makes each entry once, however many names it serves, and takes unchanged ones from before.
struct Assembly<'a> {
    template: ServerConfig,
    /// Only if its policy is the same.
    previous: Option<&'a CertificateStore>,
    /// By the addresses of the certificates, which all live as long as this.
    entries: HashMap<Vec<usize>, Arc<CertEntry>, foldhash::fast::RandomState>,
}

impl Assembly<'_> {
    fn names(
        &mut self,
        choices: ByName<'_>,
        names_of: impl Fn(&CertificateStore) -> &Names,
    ) -> Names {
        let mut names = Names::with_capacity_and_hasher(choices.len(), Default::default());
        for (name, certificates) in choices {
            let before = self
                .previous
                .and_then(|previous| names_of(previous).get(name));
            names.insert(name.into(), self.entry(&certificates, before));
        }
        names
    }

    fn entry(
        &mut self,
        certificates: &[&Arc<ServedCertificate>],
        before: Option<&Arc<CertEntry>>,
    ) -> Arc<CertEntry> {
        let key = certificates
            .iter()
            .map(|it| Arc::as_ptr(it) as usize)
            .collect();
        let Self {
            template, entries, ..
        } = self;
        let entry = entries.entry(key).or_insert_with(|| {
            before
                .filter(|entry| is_made_of(entry, certificates))
                .cloned()
                .unwrap_or_else(|| {
                    let certificates = certificates.iter().map(|&it| Arc::clone(it)).collect();
                    Arc::new(CertEntry::new(template, certificates))
                })
        });
        Arc::clone(entry)
    }

    /// The entry of the default certificate's own first name, so that its sibling with another kind
    /// of key serves those who need it; alone, if that name is served by other certificates.
    fn default_entry(
        &mut self,
        certificate: &Arc<ServedCertificate>,
        exact: &Names,
        wildcards: &Names,
    ) -> Arc<CertEntry> {
        let first = |own: &[Box<str>], names: &Names| {
            own.first().and_then(|name| names.get(name)).map(Arc::clone)
        };
        first(certificate.exact(), exact)
            .or_else(|| first(certificate.wildcards(), wildcards))
            .filter(|entry| {
                entry
                    .certificates()
                    .iter()
                    .any(|it| Arc::ptr_eq(it, certificate))
            })
            .unwrap_or_else(|| {
                let before = self.previous.and_then(|previous| previous.default.as_ref());
                self.entry(&[certificate], before)
            })
    }
}

fn is_made_of(entry: &CertEntry, certificates: &[&Arc<ServedCertificate>]) -> bool {
    entry.certificates().len() == certificates.len()
        && entry
            .certificates()
            .iter()
            .zip(certificates)
            .all(|(a, b)| Arc::ptr_eq(a, b))
}

fn unix_time() -> i64 {
    let seconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |past| past.as_secs());
    i64::try_from(seconds).unwrap_or(i64::MAX)
}
