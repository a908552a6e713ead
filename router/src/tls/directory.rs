//! Reads a directory of `NAME.crt` and `NAME.key`; the only I/O of the certificate store.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use daemon::files::{ReadProblem, read_with_mode};

use super::error::{CertificateError, CertificateProblem};

/// More than any chain; keeps a wrong path from filling the memory.
pub(crate) const MAX_FILE: u64 = 1 << 20;

/// A chain and, if it is there, its key.
pub(super) struct PairFiles {
    /// The name without ending.
    pub(super) name: String,
    pub(super) chain: PathBuf,
    pub(super) key: Option<PathBuf>,
}

/// Finds the pairs of a directory, in the order of their names.
///
/// Entries that start with a dot are skipped: in a Kubernetes secret mount `..data` is the link
/// that is swapped, and the files beside it point through it. Other endings are left alone.
///
/// Returns the errors of single files beside the pairs that can still be looked at.
///
/// # Errors
/// When the directory cannot be read.
pub(super) fn pairs(
    directory: &Path,
) -> Result<(Vec<PairFiles>, Vec<CertificateError>), CertificateError> {
    #[derive(Default)]
    struct Found {
        chain: Option<PathBuf>,
        key: Option<PathBuf>,
    }

    let unreadable = |error| CertificateError {
        file: directory.into(),
        problem: CertificateProblem::Unreadable(error),
    };
    let mut found: BTreeMap<String, Found> = BTreeMap::new();
    for entry in fs::read_dir(directory).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let (Some(stem), Some(ending)) = (path.file_stem(), path.extension()) else {
            continue;
        };
        let stem = stem.to_string_lossy().into_owned();
        if stem.starts_with('.') {
            continue;
        }
        match ending.to_str() {
            Some("crt") => found.entry(stem).or_default().chain = Some(path),
            Some("key") => found.entry(stem).or_default().key = Some(path),
            _ => {}
        }
    }

    let mut pairs = Vec::with_capacity(found.len());
    let mut errors = Vec::new();
    for (name, files) in found {
        match files {
            Found {
                chain: Some(chain),
                key,
            } => pairs.push(PairFiles { name, chain, key }),
            Found {
                chain: None,
                key: Some(key),
            } => errors.push(CertificateError {
                problem: CertificateProblem::NoChain(key.with_extension("crt")),
                file: key,
            }),
            Found {
                chain: None,
                key: None,
            } => {}
        }
    }
    Ok((pairs, errors))
}

pub(crate) fn read_chain(path: &Path) -> Result<Vec<u8>, CertificateProblem> {
    read_up_to(path, MAX_FILE)
}

/// Like [`read_chain`], for what may be longer or shorter than a chain.
pub(crate) fn read_up_to(path: &Path, most: u64) -> Result<Vec<u8>, CertificateProblem> {
    read(path, most).map(|(bytes, _)| bytes)
}

/// Like [`read_chain`], but refuses a key that every user of the machine can read.
pub(crate) fn read_key(path: &Path) -> Result<Vec<u8>, CertificateProblem> {
    let (bytes, mode) = read(path, MAX_FILE)?;
    if mode & 0o007 != 0 {
        return Err(CertificateProblem::KeyOpenToOthers { mode });
    }
    Ok(bytes)
}

fn read(path: &Path, most: u64) -> Result<(Vec<u8>, u32), CertificateProblem> {
    read_with_mode(path, most).map_err(|problem| match problem {
        ReadProblem::Unreadable(error) => CertificateProblem::Unreadable(error),
        ReadProblem::TooLong(most) => CertificateProblem::TooLong { most },
        _ => CertificateProblem::NotAFile,
    })
}
