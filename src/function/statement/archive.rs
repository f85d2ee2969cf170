//! The archive: each document that may have been mailed, and the data that it was made from, as files that only the
//! daemon's user may read.
//!
//! Owns the names in its directory: `ab/abcd….pdf` and `ab/abcd….json` for the document whose SHA-256 is `abcd…`. What is
//! there is whole and on disk: files are written beside, synced, and then given their names.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::User;
use crate::base::MessageId;

/// The name of its directory, beside the store.
pub const DIRECTORY: &str = "archive";

/// What is kept of a document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Archive {
    /// Nothing.
    None,
    /// Its SHA-256, in the recipient's row.
    #[default]
    Hash,
    /// That, and the document and its data in this directory.
    Files(PathBuf),
}

/// The data that a document was made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The requested account.
    pub account: String,
    /// The requested period.
    pub period: Option<String>,
    /// The account's holder.
    pub user: User,
    /// The account API's answer.
    pub answer: String,
}

/// Keeps a document under its hash; it is on disk when this returns.
///
/// # Errors
/// The directory cannot be written.
pub fn keep(archive: &Path, sha256: &str, pdf: &[u8], source: &Source) -> io::Result<()> {
    let directory = directory(archive, sha256);
    DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
    let source = serde_json::to_vec(source).map_err(io::Error::other)?;
    // The document last: where it stands, its data does too.
    for (ending, bytes) in [("json", &source[..]), ("pdf", pdf)] {
        let path = directory.join(format!("{sha256}.{ending}"));
        if !path.exists() {
            write(&path, bytes)?;
        }
    }
    // The names too, also those of directories that another attempt has made and not synced yet.
    let above = archive.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    [&*directory, archive, above].into_iter().try_for_each(|directory| File::open(directory)?.sync_all())
}

/// The document with this hash; `None` when it is not there.
///
/// # Errors
/// The directory cannot be read.
pub fn document(archive: &Path, sha256: &str) -> io::Result<Option<Vec<u8>>> {
    read(&directory(archive, sha256).join(format!("{sha256}.pdf")))
}

/// The data of the document with this hash; `None` when it is not there.
///
/// # Errors
/// The directory cannot be read, or the file is not such data.
pub fn source(archive: &Path, sha256: &str) -> io::Result<Option<Source>> {
    let bytes = read(&directory(archive, sha256).join(format!("{sha256}.json")))?;
    bytes.map(|bytes| serde_json::from_slice(&bytes).map_err(io::Error::other)).transpose()
}

/// Removes the document with this hash, its data, and what is left of attempts to write them; false when there was none.
///
/// # Errors
/// The directory cannot be changed.
pub fn remove(archive: &Path, sha256: &str) -> io::Result<bool> {
    let directory = directory(archive, sha256);
    let entries = match std::fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let mut was_there = false;
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(sha256) {
            std::fs::remove_file(entry.path())?;
            was_there = true;
        }
    }
    File::open(&directory)?.sync_all()?;
    Ok(was_there)
}

fn directory(archive: &Path, sha256: &str) -> PathBuf {
    archive.join(sha256.get(..2).unwrap_or_default())
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // Another attempt may write the same document at the same time.
    let beside = path.with_extension(format!("{}.tmp", MessageId::fresh()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all()).and_then(|()| std::fs::rename(&beside, path));
    if written.is_err() {
        // A disk that is full must not fill up with what did not fit. Its own failure says nothing more.
        let _ = std::fs::remove_file(&beside);
    }
    written
}

fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn source_of(answer: &str) -> Source {
        let user = User::check(r#"{"id":"1","name":"Ada","email":"ada@example.test"}"#).unwrap();
        Source { account: "a".into(), period: Some("2026-10".into()), user, answer: answer.into() }
    }

    #[test]
    fn a_document_and_its_data_are_read_back_and_only_the_owner_may() {
        let dir = tempfile::tempdir().unwrap();
        let archive = dir.path().join("archive");
        assert_eq!(document(&archive, "abcd").unwrap(), None);
        keep(&archive, "abcd", b"%PDF", &source_of("{}")).unwrap();
        keep(&archive, "abcd", b"%PDF", &source_of("{ }")).unwrap();
        assert_eq!(document(&archive, "abcd").unwrap().as_deref(), Some(&b"%PDF"[..]));
        assert_eq!(source(&archive, "abcd").unwrap(), Some(source_of("{}")), "the first stays");
        let mode = |path: &str| std::fs::metadata(archive.join(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(""), mode("ab"), mode("ab/abcd.pdf"), mode("ab/abcd.json")), (0o700, 0o700, 0o600, 0o600));
        assert_eq!(std::fs::read_dir(archive.join("ab")).unwrap().count(), 2, "nothing half written is left");
    }

    #[test]
    fn what_cannot_be_written_is_an_error_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let archive = dir.path().join("archive");
        std::fs::write(&archive, "a file in its place").unwrap();
        assert!(keep(&archive, "abcd", b"%PDF", &source_of("{}")).is_err());
        assert!(document(&archive, "abcd").is_err());
    }
}
