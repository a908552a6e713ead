//! Puts a file in the place of another at once.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

/// A file that is written beside its place and then put there: whoever reads it meanwhile, or after
/// a loss of power, sees all of the old one or all of the new one. Dropped before that, it leaves no
/// trace.
///
/// One at a time: two that replace the same file would write into each other's.
#[derive(Debug)]
pub struct Replacement {
    place: PathBuf,
    beside: PathBuf,
    file: File,
}

/// Whose the file is to be.
#[derive(Clone, Copy, Debug)]
struct Owner {
    user: u32,
    group: u32,
}

impl Replacement {
    /// Begins a file that is to stand at `place` and have this mode, whatever the process's mask.
    ///
    /// # Errors
    /// The folder is not there or cannot be written to.
    pub fn begin(place: &Path, mode: u32) -> io::Result<Self> {
        let mut name = place
            .file_name()
            .ok_or_else(|| io::Error::other("it is no name of a file"))?
            .to_owned();
        name.push(".new");
        let beside = place.with_file_name(name);
        // Left behind by somebody who was killed. What it was open to others for is not inherited.
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode & 0o600)
            .open(&beside)?;
        let begun = Self {
            place: place.to_owned(),
            beside,
            file,
        };
        begun.file.set_permissions(Permissions::from_mode(mode))?;
        Ok(begun)
    }

    /// Begins a file for its owner alone, as a person does for a program that runs as another user:
    /// it has the owner of the file that it replaces, and its mode unless that lets others in; where
    /// there is none, root gives it the owner of the folder.
    ///
    /// # Errors
    /// As [`Replacement::begin`], or the owner cannot be kept.
    pub fn begin_owners(place: &Path) -> io::Result<Self> {
        let before = match fs::metadata(place) {
            Ok(before) => Some(before),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let mode = before.as_ref().map_or(0o600, |it| it.mode() & 0o700);
        let begun = Self::begin(place, mode)?;
        let own = Owner::of(&begun.file.metadata()?);
        let wanted = match &before {
            Some(before) => Owner::of(before),
            None => Owner::of_new(place, own)?,
        };
        // Before there is anything in it.
        wanted.give(&begun.file, own)?;
        Ok(begun)
    }

    /// Puts it at its place, for good.
    ///
    /// # Errors
    /// The disk does not do it.
    pub fn finish(self) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.beside, &self.place)?;
        // Its name has to survive a loss of power as well.
        File::open(folder_of(&self.place))?.sync_all()
    }

    /// Where it is going to stand.
    #[must_use]
    pub fn place(&self) -> &Path {
        &self.place
    }
}

/// Makes a file that was just created in a folder the folder's owner's, if root made it: what root
/// puts into a service's folder is for the service.
///
/// # Errors
/// The owner cannot be changed.
pub fn give_to_folders_owner(file: &File, place: &Path) -> io::Result<()> {
    let own = Owner::of(&file.metadata()?);
    Owner::of_new(place, own)?.give(file, own)
}

impl Owner {
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            user: metadata.uid(),
            group: metadata.gid(),
        }
    }

    /// Of a file that root (or anybody else: `own`) makes at `place`.
    fn of_new(place: &Path, own: Self) -> io::Result<Self> {
        if own.user != 0 {
            return Ok(own);
        }
        let folder = Self::of(&fs::metadata(folder_of(place))?);
        // A folder of root's says nothing about the group either.
        Ok(if folder.user == 0 { own } else { folder })
    }

    fn give(self, file: &File, own: Self) -> io::Result<()> {
        if (self.user, self.group) == (own.user, own.group) {
            return Ok(());
        }
        fchown(file, Some(self.user), Some(self.group))
    }
}

impl Write for Replacement {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Seek for Replacement {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        // Gone already if it stands at its place.
        let _ = fs::remove_file(&self.beside);
    }
}

fn folder_of(place: &Path) -> &Path {
    match place.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(file: &Path) -> u32 {
        fs::metadata(file).unwrap().mode() & 0o7777
    }

    #[test]
    fn a_file_stands_at_its_place_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("file");
        fs::write(&place, "old").unwrap();
        let mut dropped = Replacement::begin(&place, 0o600).unwrap();
        dropped.write_all(b"half").unwrap();
        drop(dropped);
        assert_eq!(fs::read(&place).unwrap(), b"old");
        let mut new = Replacement::begin(&place, 0o640).unwrap();
        new.write_all(b"new").unwrap();
        assert_eq!(fs::read(&place).unwrap(), b"old");
        new.finish().unwrap();
        assert_eq!(fs::read(&place).unwrap(), b"new");
        assert_eq!(mode(&place), 0o640);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_somebody_left_who_was_killed_is_in_nobodys_way() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("file");
        let left = folder.path().join("file.new");
        fs::write(&left, "half").unwrap();
        fs::set_permissions(&left, Permissions::from_mode(0o666)).unwrap();
        let mut new = Replacement::begin(&place, 0o600).unwrap();
        new.write_all(b"new").unwrap();
        new.finish().unwrap();
        assert_eq!(fs::read(&place).unwrap(), b"new");
        assert_eq!(mode(&place), 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_link_that_somebody_put_there_is_not_written_through() {
        let folder = tempfile::tempdir().unwrap();
        let (place, other) = (folder.path().join("file"), folder.path().join("other"));
        fs::write(&other, "theirs").unwrap();
        std::os::unix::fs::symlink(&other, folder.path().join("file.new")).unwrap();
        let mut new = Replacement::begin(&place, 0o600).unwrap();
        new.write_all(b"new").unwrap();
        new.finish().unwrap();
        assert_eq!(fs::read(&other).unwrap(), b"theirs");
        assert_eq!(fs::read(&place).unwrap(), b"new");
    }

    #[test]
    fn the_mode_of_the_file_before_is_kept_without_others_rights() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("file");
        for (before, after) in [(None, 0o600), (Some(0o400), 0o400), (Some(0o644), 0o600)] {
            if let Some(before) = before {
                fs::set_permissions(&place, Permissions::from_mode(before)).unwrap();
            }
            let mut new = Replacement::begin_owners(&place).unwrap();
            new.write_all(b"new").unwrap();
            new.finish().unwrap();
            assert_eq!(mode(&place), after);
        }
    }

    #[test]
    fn root_makes_files_for_whom_the_folder_is() {
        let ours = Owner { user: 0, group: 0 };
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("file");
        let here = Owner::of(&fs::metadata(folder.path()).unwrap());
        let of_new = |own: Owner| {
            let owner = Owner::of_new(&place, own).unwrap();
            (owner.user, owner.group)
        };
        assert_eq!(of_new(Owner { user: 7, group: 8 }), (7, 8));
        match here.user {
            0 => assert_eq!(of_new(ours), (0, 0)),
            user => assert_eq!(of_new(ours), (user, here.group)),
        }
        if here.user != 0 {
            return;
        }
        // As root only: nobody else may give a file away.
        std::os::unix::fs::chown(folder.path(), Some(65_534), Some(65_533)).unwrap();
        let owner = |place: &Path| {
            let metadata = fs::metadata(place).unwrap();
            (metadata.uid(), metadata.gid())
        };
        Replacement::begin_owners(&place).unwrap().finish().unwrap();
        assert_eq!(owner(&place), (65_534, 65_533));
        std::os::unix::fs::chown(&place, Some(65_531), Some(65_532)).unwrap();
        Replacement::begin_owners(&place).unwrap().finish().unwrap();
        assert_eq!(owner(&place), (65_531, 65_532));
        let appended = File::create(folder.path().join("other")).unwrap();
        give_to_folders_owner(&appended, &folder.path().join("other")).unwrap();
        assert_eq!(owner(&folder.path().join("other")), (65_534, 65_533));
    }

    #[test]
    fn a_place_that_cannot_be_written_is_told_at_once() {
        Replacement::begin(Path::new("/nowhere/file"), 0o600).unwrap_err();
        Replacement::begin(Path::new("/"), 0o600).unwrap_err();
        Replacement::begin_owners(Path::new("/nowhere/file")).unwrap_err();
    }
}
