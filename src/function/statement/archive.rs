//! The archive: each document that may have been mailed, and the data that it was made from, as files that only the
//! daemon's user may read.
//!
//! Owns the names in its directory: `RUN/ab/abcd…/HASH.pdf` and `HASH.json` for the document whose SHA-256 is `HASH`, in a
//! folder of its person, whose name is a hash of the user's id. So everything of a person is found without a look at any
//! book, whatever became of the mail. What is there is whole and on disk: files are written beside, synced, and then given
//! their names.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::User;
use super::pdf::sha256;
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

impl Source {
    /// Whether it is of the same account, period and holder; the answers may differ in what no document shows.
    fn is_of_the_same(&self, other: &Self) -> bool {
        (&self.account, &self.period, &self.user) == (&other.account, &other.period, &other.user)
    }
}

/// The folder of one person in one run; run 0 is for mails outside of runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder {
    archive: PathBuf,
    path: PathBuf,
}

impl Folder {
    /// The folder of the user with this id.
    pub fn of(archive: &Path, run: u64, user: &str) -> Self {
        let person = &sha256(user.as_bytes())[..32];
        Self { archive: archive.to_owned(), path: archive.join(run.to_string()).join(&person[..2]).join(person) }
    }

    /// Keeps a document under its hash; it is on disk when this returns. What is there and damaged is written anew.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn keep(&self, sha256: &str, pdf: &[u8], source: &Source) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.path)?;
        // The document last: where it stands, its data does too.
        if !self.source(sha256)?.is_some_and(|there| there.is_of_the_same(source)) {
            let source = serde_json::to_vec(source).map_err(io::Error::other)?;
            write(&self.file(sha256, "json"), &source)?;
        }
        if self.document(sha256)?.is_none_or(|there| there != pdf) {
            write(&self.file(sha256, "pdf"), pdf)?;
        }
        // The names too, up to the archive's own, also those of directories that another attempt has made and not synced yet.
        let above = self.archive.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let inside = self.path.ancestors().take_while(|directory| directory.starts_with(&self.archive));
        inside.chain([above]).try_for_each(|directory| File::open(directory)?.sync_all())
    }

    /// The document with this hash; `None` when it is not there.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn document(&self, sha256: &str) -> io::Result<Option<Vec<u8>>> {
        read(&self.file(sha256, "pdf"))
    }

    /// The data of the document with this hash; `None` when it is not there, or is damaged.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn source(&self, sha256: &str) -> io::Result<Option<Source>> {
        let bytes = read(&self.file(sha256, "json"))?;
        Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
    }

    fn file(&self, sha256: &str, ending: &str) -> PathBuf {
        self.path.join(format!("{sha256}.{ending}"))
    }

    /// Removes the folder with all that is in it, and says how many documents there were.
    ///
    /// # Errors
    /// The directory cannot be changed.
    pub fn remove(&self) -> io::Result<u64> {
        let entries = match std::fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(error),
        };
        let mut documents = 0;
        for entry in entries {
            let path = entry?.path();
            documents += u64::from(path.extension().is_some_and(|ending| ending == "pdf"));
            std::fs::remove_file(path)?;
        }
        std::fs::remove_dir(&self.path)?;
        self.path.parent().map_or(Ok(()), |above| File::open(above)?.sync_all())?;
        Ok(documents)
    }
}

/// The folders of the user with this id in all runs that the archive knows.
///
/// # Errors
/// The directory cannot be read.
pub fn folders(archive: &Path, user: &str) -> io::Result<Vec<Folder>> {
    let entries = match std::fs::read_dir(archive) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut folders = Vec::new();
    for entry in entries {
        let run = entry?.file_name().to_str().and_then(|name| name.parse().ok());
        folders.extend(run.map(|run| Folder::of(archive, run, user)));
    }
    Ok(folders)
}

/// Whether anything is left of a run.
pub fn has_run(archive: &Path, run: u64) -> bool {
    archive.join(run.to_string()).exists()
}

/// Removes all that is left of a run.
///
/// # Errors
/// The directory cannot be changed.
pub fn remove_run(archive: &Path, run: u64) -> io::Result<()> {
    match std::fs::remove_dir_all(archive.join(run.to_string())) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A SHA-256 in hex, as documents are named.
pub fn to_hex(sha256: &[u8; 32]) -> String {
    use std::fmt::Write as _;
    sha256.iter().fold(String::with_capacity(64), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// A SHA-256 from hex; `None` when it is none.
pub(super) fn from_hex(hex: &str) -> Option<[u8; 32]> {
    let mut sha256 = [0; 32];
    if hex.len() != 64 || !hex.is_ascii() {
        return None;
    }
    for (byte, at) in sha256.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&hex[at..at + 2], 16).ok()?;
    }
    Some(sha256)
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
        let folder = Folder::of(&archive, 7, "1");
        assert_eq!(folder.document("abcd").unwrap(), None);
        folder.keep("abcd", b"%PDF", &source_of("{}")).unwrap();
        folder.keep("abcd", b"%PDF", &source_of("{ }")).unwrap();
        assert_eq!(folder.document("abcd").unwrap().as_deref(), Some(&b"%PDF"[..]));
        assert_eq!(folder.source("abcd").unwrap(), Some(source_of("{}")), "the first stays");
        for ending in ["json", "pdf"] {
            std::fs::write(folder.file("abcd", ending), "{ damaged").unwrap();
        }
        assert_eq!(folder.source("abcd").unwrap(), None, "what is damaged counts as not there");
        folder.keep("abcd", b"%PDF", &source_of("{}")).unwrap();
        assert_eq!(folder.document("abcd").unwrap().as_deref(), Some(&b"%PDF"[..]));
        assert_eq!(folder.source("abcd").unwrap(), Some(source_of("{}")), "and is written anew");
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        for directory in folder.path.ancestors().take_while(|path| path.starts_with(&archive)) {
            assert_eq!(mode(directory), 0o700, "{directory:?}");
        }
        let files: Vec<_> = std::fs::read_dir(&folder.path).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(files.len(), 2, "nothing half written is left");
        assert!(files.iter().all(|file| mode(file) == 0o600));
    }

    #[test]
    fn the_same_document_of_two_people_or_runs_is_kept_for_each_and_removed_for_one() {
        let dir = tempfile::tempdir().unwrap();
        let folders = [(7, "1"), (7, "2"), (8, "1")].map(|(run, user)| Folder::of(dir.path(), run, user));
        for folder in &folders {
            folder.keep("abcd", b"%PDF", &source_of("{}")).unwrap();
        }
        folders[0].keep("ef01", b"%PDF 2", &source_of("{}")).unwrap();
        assert_eq!((folders[0].remove().unwrap(), folders[0].remove().unwrap()), (2, 0));
        assert_eq!(folders[0].document("abcd").unwrap(), None);
        remove_run(dir.path(), 8).unwrap();
        remove_run(dir.path(), 8).unwrap();
        assert_eq!(folders[2].document("abcd").unwrap(), None);
        assert!(folders[1].document("abcd").unwrap().is_some() && folders[1].source("abcd").unwrap().is_some());
    }

    #[test]
    fn what_cannot_be_written_is_an_error_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let archive = dir.path().join("archive");
        std::fs::write(&archive, "a file in its place").unwrap();
        let folder = Folder::of(&archive, 7, "1");
        assert!(folder.keep("abcd", b"%PDF", &source_of("{}")).is_err());
        assert!(folder.document("abcd").is_err());
    }
}
