//! Reads configuration files: never more than a limit of them, and nothing but regular files.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use config::ConfigErrors;
use config::document::{self, MAX_BYTES};
use config::error::InvalidValue;

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

/// Reads a regular file, one byte more than `limit` at most; the reader then sees that it is too
/// long.
///
/// # Errors
/// The file cannot be read, or is no regular file.
pub fn read_bounded(file: &Path, limit: u64) -> Result<Vec<u8>, ConfigErrors> {
    let attempt = || {
        // Asked before opening, since opening a pipe would wait for a writer.
        if !fs::metadata(file)?.is_file() {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        File::open(file)?.take(limit + 1).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    };
    attempt()
        .map_err(|error| ConfigErrors::unreadable(file, &error))?
        .ok_or_else(|| ConfigErrors::whole_file(file, InvalidValue::new("is not a regular file")))
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
    use std::os::unix::net::UnixListener;

    #[test]
    fn no_more_is_read_than_shows_that_a_file_is_too_long() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("long");
        fs::write(&file, [b'a'; 100]).unwrap();
        assert_eq!(read_bounded(&file, 10).unwrap().len(), 11);
        assert_eq!(read_bounded(&file, 100).unwrap().len(), 100);
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
