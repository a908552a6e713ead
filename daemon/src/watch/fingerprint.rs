//! What tells whether files changed.

use std::fs::{self, Metadata};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Stands for everything that would be read: names, places, sizes and times of files.
///
/// Inode and change time are part of it, because a file can be replaced by one of the same size and
/// modification time (`cp -p`, `rsync -t`). Links are followed, so a swapped link counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint(u64);

impl Fingerprint {
    pub(super) fn of(sources: &[PathBuf]) -> Self {
        let mut sum = 0_u64;
        for source in sources {
            match fs::metadata(source) {
                Ok(metadata) if metadata.is_dir() => {
                    // Not the folder's own times: they change with every temporary file in it.
                    sum = sum.wrapping_add(hash(source, &(metadata.dev(), metadata.ino())));
                    sum = sum.wrapping_add(entries(source));
                }
                found => sum = sum.wrapping_add(file(source, found)),
            }
        }
        Self(sum)
    }
}

/// The sum over the files of a folder that somebody would read, in whatever order they come.
fn entries(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else {
        return hash(folder, &"unreadable");
    };
    entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            let ending = path.extension().and_then(|ending| ending.to_str());
            let name = path.file_name().unwrap_or_default().as_encoded_bytes();
            matches!(ending, Some("yaml" | "crt" | "key")) && !name.starts_with(b".")
        })
        .fold(0, |sum, path| {
            sum.wrapping_add(file(&path, fs::metadata(&path)))
        })
}

fn file(path: &Path, metadata: io::Result<Metadata>) -> u64 {
    match metadata {
        Ok(it) => {
            let place = (it.dev(), it.ino(), it.size(), it.mode());
            let times = (it.mtime(), it.mtime_nsec(), it.ctime(), it.ctime_nsec());
            hash(path, &(place, times))
        }
        Err(error) => hash(path, &error.raw_os_error()),
    }
}

fn hash(path: &Path, value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_fingerprint_changes_with_what_is_read_and_with_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let sources = [folder.path().to_owned(), folder.path().join("x/ca.pem")];
        let look = || Fingerprint::of(&sources);
        let file = folder.path().join("a.yaml");
        let empty = look();
        fs::write(&file, "a").unwrap();
        let written = look();
        assert_ne!(empty, written, "a new file");
        fs::write(folder.path().join(".a.yaml.swp"), "").unwrap();
        fs::write(folder.path().join("4913"), "").unwrap();
        fs::read(&file).unwrap();
        assert_eq!(written, look(), "an editor's files, and reading");
        let new = folder.path().join("new");
        fs::write(&new, "b").unwrap();
        let times =
            fs::FileTimes::new().set_modified(fs::metadata(&file).unwrap().modified().unwrap());
        fs::File::options()
            .write(true)
            .open(&new)
            .unwrap()
            .set_times(times)
            .unwrap();
        fs::rename(&new, &file).unwrap();
        assert_ne!(written, look(), "replaced by one of the same size and time");
        let replaced = look();
        fs::create_dir(folder.path().join("x")).unwrap();
        fs::write(folder.path().join("x/ca.pem"), "").unwrap();
        assert_ne!(replaced, look(), "a file that was missing");
    }

    #[test]
    fn a_swapped_link_is_a_change() {
        let folder = tempfile::tempdir().unwrap();
        for version in ["v1", "v2"] {
            fs::create_dir(folder.path().join(version)).unwrap();
            fs::write(folder.path().join(version).join("a.yaml"), "same").unwrap();
        }
        let data = folder.path().join("..data");
        symlink("v1", &data).unwrap();
        symlink("..data/a.yaml", folder.path().join("a.yaml")).unwrap();
        let sources = [folder.path().to_owned()];
        let before = Fingerprint::of(&sources);
        let swap = folder.path().join("..data_tmp");
        symlink("v2", &swap).unwrap();
        fs::rename(&swap, &data).unwrap();
        assert_ne!(before, Fingerprint::of(&sources));
    }
}
