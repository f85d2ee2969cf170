//! Notices that a file of the running store was moved, replaced, removed or cut off. Its writes would go into the void,
//! and be acknowledged.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::Error;

/// The files of an open store.
#[derive(Debug, Default)]
pub(super) struct Present {
    files: Vec<Known>,
}

/// A file as it was last seen.
#[derive(Debug)]
struct Known {
    path: PathBuf,
    device: u64,
    inode: u64,
    /// Only the store itself changes it.
    bytes: u64,
}

impl Present {
    /// These files, as they are now. Without any, nothing is checked.
    ///
    /// # Errors
    /// One of them cannot be looked at.
    pub(super) fn of(paths: impl IntoIterator<Item = PathBuf>) -> Result<Self, Error> {
        let files = paths.into_iter().map(|path| Known::of(&path)).collect::<Result<_, _>>()?;
        Ok(Self { files })
    }

    /// Whether all of them are there, and none is shorter.
    ///
    /// # Errors
    /// Which one is not, and what to do.
    pub(super) fn check(&self) -> Result<(), Error> {
        self.files.iter().try_for_each(|known| known.check().map(drop))
    }

    /// The same, after redb has changed the length of its file.
    ///
    /// # Errors
    /// As [`Present::check`].
    pub(super) fn check_after_commit(&mut self) -> Result<(), Error> {
        if let Some(store) = self.files.first_mut() {
            store.bytes = 0;
            store.bytes = store.check()?;
        }
        self.check()
    }
}

impl Known {
    fn of(path: &Path) -> Result<Self, Error> {
        let found = std::fs::metadata(path).map_err(|error| Error::of_open(path, &error))?;
        Ok(Self { path: path.to_owned(), device: found.dev(), inode: found.ino(), bytes: found.len() })
    }

    /// The file's length.
    fn check(&self) -> Result<u64, Error> {
        let gone = |what: String| {
            let path = self.path.display();
            Err(Error::Storage(format!("{path} {what} while the store was open: nothing written since is safe")))
        };
        match Self::of(&self.path) {
            Ok(found) if (found.device, found.inode) != (self.device, self.inode) => gone("was replaced".into()),
            Ok(found) if found.bytes < self.bytes => {
                gone(format!("was cut off (it has {} bytes and had {})", found.bytes, self.bytes))
            }
            Ok(found) => Ok(found.bytes),
            Err(error) => gone(format!("was moved or removed ({error})")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_removed_replaced_or_cut_off_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let (store, log) = (dir.path().join("store"), dir.path().join("log"));
        for path in [&store, &log] {
            std::fs::write(path, "1234").unwrap();
        }
        let mut present = Present::of([store.clone(), log.clone()]).unwrap();
        present.check().unwrap();
        // Redb's own doing.
        std::fs::write(&store, "12").unwrap();
        assert!(present.check().unwrap_err().to_string().contains("store was cut off (it has 2 bytes and had 4)"));
        present.check_after_commit().unwrap();
        present.check().unwrap();

        std::fs::rename(&log, dir.path().join("elsewhere")).unwrap();
        assert!(present.check().unwrap_err().to_string().contains("log was moved or removed"));
        std::fs::write(&log, "1234").unwrap();
        assert!(present.check().unwrap_err().to_string().contains("log was replaced"));
    }
}
