//! The store's own checks: redb's pages, and whether every row decodes. Invariants between tables belong to the modules
//! above, which add their findings to the same list.

use redb::ReadableTableMetadata;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::exclusive::ExclusiveStore;
use super::pages::{self, Scope};
use super::table::hex;
use super::table_id::{TABLES, TableId};
use super::{Disk, Error, Options, Snapshot, guard, tx};

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
        self.note(Finding { table: table.into(), key: format!("{key:?}"), what: what.to_string() });
    }

    fn note(&mut self, finding: Finding) {
        self.total += 1;
        if self.shown.len() < FINDINGS_MAX {
            self.shown.push(finding);
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

/// Checks redb's own pages, their checksums before anything else is done with them. Offline: no daemon may hold the
/// store. When redb can repair the file, it does, and the repair is a finding.
///
/// # Errors
/// [`Error::Locked`] names the daemon that holds the store; [`Error::Damaged`] when redb cannot repair the file.
pub fn integrity(options: &Options, findings: &mut Findings) -> Result<(), Error> {
    let mut store = ExclusiveStore::open_verified(options, Scope::All)?;
    let is_sound = guard::file(&options.path, || {
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

/// Decodes every row of every table, finds each once more by its key, and checks that the rows are in the order of their
/// keys and as many as the table says.
///
/// # Errors
/// A storage fault, or the check is to stop.
pub fn records(snapshot: &Snapshot, findings: &mut Findings) -> Result<(), Error> {
    for table in TABLES {
        match guard::table(table, || records_of(table, snapshot, findings)) {
            Err(Error::Record { reason, .. }) => findings.add(table.name, "(table)", reason),
            read => read?,
        }
    }
    Ok(())
}

fn records_of(table: TableId, snapshot: &Snapshot, findings: &mut Findings) -> Result<(), Error> {
    let layers = snapshot.layers();
    let mut rows = layers.all(table)?;
    let (mut found, mut last) = (0, Vec::new());
    while let Some((key, value)) = rows.next()? {
        findings.go_on()?;
        findings.rows += 1;
        if found > 0 && last.as_slice() >= key.stored() {
            findings.add(table.name, "(table)", "its keys are out of order");
        }
        found += 1;
        last.clear();
        last.extend_from_slice(key.stored());
        let wrong = tx::read_row(table, key.stored(), &value).err();
        // A damaged branch page leads a search elsewhere than a walk over all rows.
        let is_there = layers.get(table, key.stored())?.is_some_and(|again| again.stored() == value.stored());
        let lost = (!is_there).then(|| (hex(key.stored()), "a search by its key does not find it".to_owned()));
        for (key, what) in [wrong, lost].into_iter().flatten() {
            findings.note(Finding { table: table.name.to_owned(), key, what });
        }
    }
    match layers.base.table(table).len()? {
        told if told == rows.of_base => {}
        told => findings.add(table.name, "(table)", format!("it has {} rows of {told}", rows.of_base)),
    }
    Ok(())
}
