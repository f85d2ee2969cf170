//! What the store alone can tell about its own soundness: pages, and whether every row decodes. The rules between
//! tables belong to the rooms above, which add their findings to the same list.

use redb::ReadableTableMetadata;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::key::Key;
use super::table::{TableRef, decode, decode_key, guarded};
use super::open::{self, Alone};
use super::{Error, Options, Record, Snapshot, tx};

/// A check keeps this many findings; further ones are counted.
pub const FINDINGS_MAX: usize = 1000;
/// How often, in rows, a check looks whether it is to stop.
const STOP_EVERY_ROWS: u64 = 1024;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The table.
    pub table: String,
    /// The row's key: its numbers and texts, or its bytes in hex when they are no key.
    pub key: String,
    /// What is wrong with it.
    pub what: String,
}

/// What a check has seen and found so far.
#[derive(Debug, Default)]
pub struct Findings {
    /// The first [`FINDINGS_MAX`].
    pub shown: Vec<Finding>,
    /// How many there are.
    pub total: u64,
    /// How many rows were decoded.
    pub rows: u64,
    /// Cuts the check off.
    stop: CancellationToken,
    /// Counts down to the next look at `stop`.
    looked: u64,
}

impl Findings {
    /// None so far; `stop` cuts the check off.
    pub fn new(stop: CancellationToken) -> Self {
        Self { stop, ..Self::default() }
    }

    /// Adds one.
    pub fn add(&mut self, table: &str, key: impl std::fmt::Debug, what: impl std::fmt::Display) {
        self.total += 1;
        if self.shown.len() < FINDINGS_MAX {
            self.shown.push(Finding { table: table.into(), key: format!("{key:?}"), what: what.to_string() });
        }
    }

    /// To be called for each row.
    ///
    /// # Errors
    /// The check is to stop.
    pub fn go_on(&mut self) -> Result<(), Error> {
        self.looked += 1;
        if self.looked.is_multiple_of(STOP_EVERY_ROWS) && self.stop.is_cancelled() {
            return Err(Error::Stopped("the check was cut off".into()));
        }
        Ok(())
    }
}

/// Whether redb finds its own pages in order. Offline: no daemon may hold the store. A file that redb can put in order
/// is put in order, and that is a finding.
///
/// # Errors
/// [`Error::Locked`] names the daemon that holds the store; [`Error::Damaged`] when redb cannot put it in order.
pub fn integrity(options: &Options, findings: &mut Findings) -> Result<(), Error> {
    let mut store = Alone::open(options)?;
    let is_sound = open::guarded(&options.path, || {
        let sound = store.db.check_integrity();
        sound.map_err(|error| Error::Damaged { path: options.path.clone(), reason: error.to_string() })
    })?;
    if !is_sound {
        findings.add("(file)", &options.path, "its pages were not in order, and redb has repaired them");
    }
    store.close(options)
}

/// Decodes every row of every table, and counts them: there are as many as the table says, in the order of their keys.
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

/// Decodes one row; answers its key as text and what is wrong with it.
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

/// Reading that goes on where a record does not decode: [`records`] has named it.
impl<K: Key, R: Record> TableRef<K, R> {
    /// Calls `visit` with each row that decodes, in key order.
    ///
    /// # Errors
    /// A storage fault, or what `visit` answers.
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

    /// Whether there is such a row, be it sound or not.
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
