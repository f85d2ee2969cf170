//! The store's own checks: redb's pages, and whether every row decodes. Invariants between tables belong to the modules
//! above, which add their findings to the same list.

use redb::ReadableTableMetadata;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::key::Key;
use super::open::{self, ExclusiveStore};
use super::pages::{self, Scope};
use super::table::{TableRef, decode, decode_key, guarded};
use super::{Disk, Error, Options, Record, Snapshot, tx};

/// A check keeps at most this many findings; further ones are only counted.
pub const FINDINGS_MAX: usize = 1000;
/// A check tests `stop` every this many rows.
const STOP_EVERY_ROWS: u64 = 1024;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The table.
    pub table: String,
    /// The row's key: its numbers and texts, or its bytes in hex when they are not a key.
    pub key: String,
    /// What is wrong with it.
    pub what: String,
}

/// The progress and the findings of a check.
#[derive(Debug, Default)]
pub struct Findings {
    /// The first [`FINDINGS_MAX`].
    pub shown: Vec<Finding>,
    /// How many there are.
    pub total: u64,
    /// How many rows were decoded.
    pub rows: u64,
    /// Cancels the check.
    stop: CancellationToken,
    /// Rows until the next test of `stop`.
    looked: u64,
}

impl Findings {
    /// An empty list; `stop` cancels the check.
    pub fn new(stop: CancellationToken) -> Self {
        Self { stop, ..Self::default() }
    }

    /// Adds a finding.
    pub fn add(&mut self, table: &str, key: impl std::fmt::Debug, what: impl std::fmt::Display) {
        self.total += 1;
        if self.shown.len() < FINDINGS_MAX {
            self.shown.push(Finding { table: table.into(), key: format!("{key:?}"), what: what.to_string() });
        }
    }

    /// Call it for each row.
    ///
    /// # Errors
    /// The check was cancelled.
    pub fn go_on(&mut self) -> Result<(), Error> {
        self.looked += 1;
        if self.looked.is_multiple_of(STOP_EVERY_ROWS) && self.stop.is_cancelled() {
            return Err(Error::Stopped("the check was cut off".into()));
        }
        Ok(())
    }
}

/// Checks redb's own pages, their checksums before anything else is done with them. Offline: no daemon may hold the store. When redb can repair the file, it does, and the
/// repair is a finding.
///
/// # Errors
/// [`Error::Locked`] names the daemon that holds the store; [`Error::Damaged`] when redb cannot repair the file.
pub fn integrity(options: &Options, findings: &mut Findings) -> Result<(), Error> {
    let mut store = ExclusiveStore::open_verified(options, Scope::All)?;
    let is_sound = open::guarded(&options.path, || {
        let sound = store.db.check_integrity();
        sound.map_err(|error| Error::Damaged { path: options.path.clone(), reason: error.to_string() })
    })?;
    if !is_sound {
        findings.add("(file)", &options.path, "its pages were not in order, and redb has repaired them");
    }
    store.close(options)
}

/// Verifies the checksums of redb's pages on a disk that holds a store's file, as [`integrity`] does with a file.
///
/// # Errors
/// What is wrong with the first page that is not as it was written.
pub fn pages(disk: &dyn Disk) -> Result<(), String> {
    pages::verify(disk, Scope::All)
}

/// Decodes every row of every table, and checks that the rows are in the order of their keys and as many as the table
/// says.
///
/// # Errors
/// A storage fault, or the check is to stop.
pub fn records(snapshot: &Snapshot, findings: &mut Findings) -> Result<(), Error> {
    for name in tx::NAMES {
        match guarded(name, || records_of(name, snapshot, findings)) {
            Err(Error::Record { reason, .. }) => findings.add(name, "(table)", reason),
            read => read?,
        }
    }
    Ok(())
}

fn records_of(name: &'static str, snapshot: &Snapshot, findings: &mut Findings) -> Result<(), Error> {
    let table = snapshot.open(name)?;
    let (mut found, mut last) = (0, Vec::new());
    for row in table.range::<&[u8]>(..)? {
        let (key, value) = row?;
        findings.go_on()?;
        findings.rows += 1;
        if found > 0 && last.as_slice() >= key.value() {
            findings.add(name, "(table)", "its keys are out of order");
        }
        found += 1;
        last.clear();
        last.extend_from_slice(key.value());
        if let Err((key, what)) = tx::read_row(name, key.value(), value.value()) {
            findings.total += 1;
            if findings.shown.len() < FINDINGS_MAX {
                findings.shown.push(Finding { table: name.to_owned(), key, what });
            }
        }
    }
    match table.len()? {
        told if told == found => {}
        told => findings.add(name, "(table)", format!("it has {found} rows of {told}")),
    }
    Ok(())
}

/// Decodes one row; returns its key as text and what is wrong with it.
pub(super) fn read_row<K: Key + std::fmt::Debug, R: Record>(
    name: &'static str,
    key: &[u8],
    value: &[u8],
) -> Result<(), (String, String)> {
    let Ok(typed) = decode_key::<K>(name, key) else {
        let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        return Err((format!("0x{hex}"), format!("{} bytes that are no key of this table", key.len())));
    };
    match decode::<R>(name, key, value) {
        Ok(_) => Ok(()),
        Err(Error::Record { reason, .. }) => Err((format!("{typed:?}"), format!("does not decode: {reason}"))),
        Err(error) => Err((format!("{typed:?}"), error.to_string())),
    }
}

/// Reads that skip rows that do not decode: [`records`] has reported those.
impl<K: Key, R: Record> TableRef<K, R> {
    /// Calls `visit` with each row that decodes, in key order.
    ///
    /// # Errors
    /// A storage fault, or an error of `visit`.
    pub fn each_sound(&self, mut visit: impl FnMut(K, R) -> Result<(), Error>) -> Result<(), Error> {
        guarded(self.name, || {
            for row in self.raw.range::<&[u8]>(..)? {
                let (key, value) = row?;
                let record = decode(self.name, key.value(), value.value());
                if let (Ok(key), Ok(record)) = (decode_key(self.name, key.value()), record) {
                    visit(key, record)?;
                }
            }
            Ok(())
        })
    }

    /// The keys from `start` on, at most `max`.
    ///
    /// # Errors
    /// A storage fault.
    pub fn keys(&self, start: &K, max: usize) -> Result<Vec<K>, Error> {
        guarded(self.name, || {
            let mut keys = Vec::new();
            for row in self.raw.range::<&[u8]>(start.to_bytes().as_slice()..)?.take(max) {
                keys.extend(decode_key(self.name, row?.0.value()));
            }
            Ok(keys)
        })
    }

    /// Whether the row exists, even if it does not decode.
    ///
    /// # Errors
    /// A storage fault.
    pub fn has(&self, key: &K) -> Result<bool, Error> {
        guarded(self.name, || Ok(self.raw.get(key.to_bytes().as_slice())?.is_some()))
    }

    /// The record under `key`, when it decodes.
    ///
    /// # Errors
    /// A storage fault.
    pub fn sound(&self, key: &K) -> Result<Option<R>, Error> {
        match self.get(key) {
            Err(Error::Record { .. }) => Ok(None),
            other => other,
        }
    }
}
