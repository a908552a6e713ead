//! Reads files, never more than a limit of them and nothing but regular ones, and replaces files so
//! that whoever reads one meanwhile sees all of the old or all of the new.

mod replacement;

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use config::ConfigErrors;
use config::document::{self, MAX_BYTES};
use config::error::InvalidValue;
pub use replacement::{Replacement, give_to_folders_owner};

/// Why a file is not read.
#[derive(Debug, thiserror::Error)]
pub enum ReadProblem {
    /// The system refuses.
    #[error("cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    /// A folder, a pipe or the like.
    #[error("is not a regular file")]
    NotAFile,
    /// It has more bytes than it may.
    #[error("is longer than {} bytes", .0)]
    TooLong(u64),
    /// It is for its owner alone, and others have rights to it.
    #[error("can be used by others than its owner (mode {mode:04o}): chmod go= it")]
    OpenToOthers {
        /// The permission bits.
        mode: u32,
    },
}

impl ReadProblem {
    /// The same, with the file's name.
    #[must_use]
    pub fn of(&self, file: &Path) -> ConfigErrors {
        ConfigErrors::whole_file(file, InvalidValue::new(self.to_string()))
    }
}

/// Reads a file and hands it to a parser of `config`, such as `RouterConfig::parse`.
///
/// # Errors
/// The file cannot be read, is too long or no text, or the parser refuses it.
pub fn parse<T>(
    file: &Path,
    parse: impl FnOnce(&str, &Path) -> Result<T, ConfigErrors>,
) -> Result<T, ConfigErrors> {
    let bytes = read_bounded(file, MAX_BYTES as u64)?;
    parse(document::text_of(&bytes, file)?, file)
}

/// Reads a regular file of at most `limit` bytes.
///
/// # Errors
/// The file cannot be read, is longer, or is no regular file.
pub fn read_bounded(file: &Path, limit: u64) -> Result<Vec<u8>, ConfigErrors> {
    match read_with_mode(file, limit) {
        Ok((bytes, _)) => Ok(bytes),
        Err(problem) => Err(problem.of(file)),
    }
}

/// Like [`read_bounded`], but refuses what others than the owner have any rights to.
///
/// # Errors
/// As [`read_bounded`], or if others have rights to it.
pub fn read_owners(file: &Path, limit: u64) -> Result<Vec<u8>, ReadProblem> {
    let (bytes, mode) = read_with_mode(file, limit)?;
    match mode & 0o077 {
        0 => Ok(bytes),
        _ => Err(ReadProblem::OpenToOthers { mode }),
    }
}

/// The content of a regular file of at most `limit` bytes, and the permission bits of the same open
/// file.
///
/// # Errors
/// The file cannot be read, is longer, or is no regular file. Not [`ReadProblem::OpenToOthers`]:
/// which bits matter is the caller's to say.
pub fn read_with_mode(file: &Path, limit: u64) -> Result<(Vec<u8>, u32), ReadProblem> {
    // Asked before opening, since opening a pipe would wait for a writer.
    if !fs::metadata(file)?.is_file() {
        return Err(ReadProblem::NotAFile);
    }
    let open = File::open(file)?;
    let metadata = open.metadata()?;
    if !metadata.is_file() {
        return Err(ReadProblem::NotAFile);
    }
    let mut bytes = Vec::with_capacity(metadata.len().min(limit) as usize);
    open.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(ReadProblem::TooLong(limit));
    }
    Ok((bytes, metadata.mode() & 0o7777))
}

/// The `*.yaml` of a folder, by name. Names that begin with a dot are skipped: editors' copies, and
/// the `..data` of a Kubernetes mount, which the files beside it point through.
///
/// # Errors
/// The folder cannot be read.
pub fn yaml_files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let file = entry?.path();
        let hidden = file
            .file_name()
            .is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && file.extension().is_some_and(|ending| ending == "yaml") {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixListener;

    #[test]
    fn what_is_too_long_is_refused_and_not_cut() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("long");
        fs::write(&file, [b'a'; 100]).unwrap();
        assert_eq!(read_bounded(&file, 100).unwrap().len(), 100);
        for limit in [99, 10, 0] {
            let errors = read_bounded(&file, limit).unwrap_err().to_string();
            let says = format!("is longer than {limit} bytes");
            assert!(errors.contains(&says), "{errors}");
        }
    }

    #[test]
    fn what_others_have_rights_to_is_no_secret() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        fs::write(&file, "s").unwrap();
        for mode in [0o600, 0o400, 0o700] {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(read_owners(&file, 10).unwrap(), b"s");
            assert_eq!(read_with_mode(&file, 10).unwrap(), (b"s".to_vec(), mode));
        }
        for mode in [0o640, 0o604, 0o620, 0o601] {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            let errors = read_owners(&file, 10).unwrap_err().to_string();
            assert!(errors.contains(&format!("mode {mode:04o}")), "{errors}");
        }
    }

    #[test]
    fn what_is_no_regular_file_is_refused_without_opening_it() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        let _listener = UnixListener::bind(&socket).unwrap();
        for path in [folder.path(), &socket, Path::new("/dev/zero")] {
            let errors = read_bounded(path, 10).unwrap_err().to_string();
            assert!(errors.contains("is not a regular file"), "{errors}");
        }
    }

    #[test]
    fn the_files_of_a_folder_come_by_name_without_hidden_ones_and_others() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.yaml", "a.yaml", ".c.yaml", "README", "d.yml"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let files = yaml_files(folder.path()).unwrap();
        assert_eq!(
            files,
            ["a.yaml", "b.yaml"].map(|name| folder.path().join(name))
        );
    }
}
