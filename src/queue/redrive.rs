//! Redrive: moves letters from a dead-letter queue back to their source, in bounded steps that survive a crash.
//!
//! A redrive moves the letters that match its selection and were in the queue at one moment: the preview's, or its own
//! start. Later letters stay. As in SQS, a redriven letter gets a new message id and a new sent time, and its attempts
//! start at zero. Its body, its history and its row in the run's ledger stay. An undo moves back the letters that were
//! not received yet.

mod counting;
mod plan;
pub mod retention;
mod select;
mod step;
mod token;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::Timestamp;
use crate::store::record::{Canary, QueueRecord, RedriveRecord, RedriveState, RedriveTotals, Selection};
use crate::store::{self, Snapshot, Tx};

use super::{Error, catalog};

pub use counting::{LOOKED_AT_MAX, SAMPLE_MAX};
pub use plan::{Plan, Preview, plan};
pub use step::step;

/// The topic that is signalled when a redrive starts or ends.
pub const TOPIC: u64 = 0;
/// One step examines at most this many letters.
pub const SCAN_MAX: usize = 500;
/// And moves at most this many; each has about ten rows.
pub const MOVED_MAX: usize = 50;
/// One redrive may name this many messages.
pub const IDS_MAX: usize = 10_000;
/// The highest rate, in letters per second.
pub const RATE_MAX: u32 = 100_000;

/// Parameters of a redrive: which letters, where to, and how fast.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redrive {
    /// The dead-letter queue.
    pub from: String,
    /// The destination; each letter's own source when `None`.
    pub to: Option<String>,
    /// Which letters; all when empty.
    #[serde(flatten)]
    pub selection: Selection,
    /// At most this many letters per second, 1 to [`RATE_MAX`].
    pub per_second: Option<u32>,
    /// Of the selected letters, only those that died longer ago than this.
    #[serde(default)]
    pub older: Option<Duration>,
    /// Of the selected letters, only those that died within this time.
    #[serde(default)]
    pub newer: Option<Duration>,
    /// The `as_of` of a preview of the same queue and selection: only letters that were in the queue then, and ages
    /// count from then. The moment of the start when `None`.
    #[serde(default)]
    pub as_of: Option<String>,
    /// Moves the letters in growing steps and checks the outcomes of each before the next; all at once when `None`.
    #[serde(default)]
    pub canary: Option<CanaryOptions>,
}

/// Options of a canary redrive: the first step moves a small share, each further step ten times as many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanaryOptions {
    /// The share of the first step in thousandths, 1 to 1000; one letter at least.
    pub first_permille: u32,
    /// The redrive stops when more than this share of the finished letters died again, in thousandths, 0 to 1000.
    pub failed_permille_max: u32,
}

/// Starts a redrive of the letters that `plan` counted and returns its number; [`step()`] does the moving.
///
/// # Errors
/// A queue does not exist or is of another kind, the source is not a dead-letter queue, the destination is the source,
/// or another redrive of the source is running.
pub fn start(tx: &mut Tx<'_>, redrive: &Redrive, plan: &Plan, now: Timestamp) -> Result<u64, Error> {
    check(redrive)?;
    let from = catalog::find(tx, &redrive.from)?;
    let to = redrive.to.as_deref().map(|name| catalog::find(tx, name)).transpose()?;
    if let Some(to) = to.as_ref().filter(|to| to.attributes.fifo.is_some() != from.attributes.fifo.is_some()) {
        return Err(Error::Kinds { from: from.name.clone(), to: to.name.clone() });
    }
    if tx.dead_letter_sources()?.first(catalog::sources_of(&redrive.from), 1)?.is_empty() {
        return Err(Error::NotDeadLetterQueue(redrive.from.clone()));
    }
    // Bounds the scan. On standard queues a letter that arrives later may still sort below it; `as_of` excludes those.
    let last = tx.states()?.last((from.rows, 0)..=(from.rows, u64::MAX))?.map_or(0, |((_, sequence), _)| sequence);
    begin(tx, &from, |id| RedriveRecord {
        id,
        from: from.id,
        to: to.map(|queue| queue.id),
        selection: plan.selection.clone(),
        as_of: plan.as_of.unwrap_or(id).min(id),
        matching: plan.preview.matching,
        per_second: redrive.per_second,
        canary: redrive.canary.map(|caution| Canary {
            first_permille: caution.first_permille,
            failed_permille_max: caution.failed_permille_max,
            allowed: (plan.preview.matching * u64::from(caution.first_permille)).div_ceil(1000).max(1),
        }),
        undoes: None,
        last,
        at_queue: from.id,
        done: 0,
        moved: 0,
        started_at: now,
        state: RedriveState::Running,
    })
}

/// Starts an undo of a finished redrive and returns the undo's number: letters that were not received yet return to the
/// dead-letter queue as they were. [`step()`] does the moving.
///
/// # Errors
/// [`Error::RedriveNotFound`] when there is none with this number, [`Error::RedriveRunning`] while it or another
/// redrive of the queue is running.
pub fn undo(tx: &mut Tx<'_>, id: u64, now: Timestamp) -> Result<u64, Error> {
    let undone = tx.redrives()?.get(&id)?.filter(|record| record.undoes.is_none()).ok_or(Error::RedriveNotFound(id))?;
    let from = catalog::by_id(tx, undone.from)?;
    let totals = tx.redrive_totals()?.get(&id)?.unwrap_or_default();
    begin(tx, &from, |number| RedriveRecord {
        id: number,
        to: None,
        selection: Selection::default(),
        as_of: number,
        matching: undone.moved.saturating_sub(totals.ended()),
        canary: None,
        undoes: Some(id),
        last: number,
        at_queue: 0,
        done: id,
        moved: 0,
        started_at: now,
        state: RedriveState::Running,
        ..undone
    })
}

fn begin(tx: &mut Tx<'_>, from: &QueueRecord, record: impl FnOnce(u64) -> RedriveRecord) -> Result<u64, Error> {
    if let Some(id) = running(tx, from.id)? {
        return Err(Error::RedriveRunning { id, queue: from.name.clone() });
    }
    let id = tx.fresh_id()?;
    tx.redrives()?.insert(&id, &record(id))?;
    tx.redrive_totals()?.insert(&id, &RedriveTotals::default())?;
    tx.meta()?.insert(&running_row(from.id), &id)?;
    tx.signal(TOPIC);
    Ok(id)
}

/// The row of `meta` that names the running redrive of a dead-letter queue.
fn running_row(queue: u32) -> String {
    format!("redriving {queue}")
}

/// The running redrive of the queue.
fn running(tx: &mut Tx<'_>, queue: u32) -> Result<Option<u64>, store::Error> {
    let Some(id) = tx.meta()?.get(&running_row(queue))? else { return Ok(None) };
    let record = tx.redrives()?.get(&id)?;
    Ok(record.filter(|record| record.state == RedriveState::Running).map(|record| record.id))
}

/// Writes a redrive back, and the row that names it as running.
fn save(tx: &mut Tx<'_>, record: &RedriveRecord) -> Result<(), store::Error> {
    tx.redrives()?.insert(&record.id, record)?;
    let row = running_row(record.from);
    let named = tx.meta()?.get(&row)?;
    if record.state != RedriveState::Running {
        if named == Some(record.id) {
            tx.meta()?.remove(&row)?;
        }
        tx.signal(TOPIC);
    } else if named.is_none() {
        // It was started by an earlier version, which had no such row.
        tx.meta()?.insert(&row, &record.id)?;
    }
    Ok(())
}

/// Stops a running redrive and returns how many letters it has moved; those stay moved.
///
/// # Errors
/// [`Error::RedriveNotFound`] when it is not running.
pub fn cancel(tx: &mut Tx<'_>, id: u64, now: Timestamp) -> Result<u64, Error> {
    let record = tx.redrives()?.get(&id)?.filter(|record| record.state == RedriveState::Running);
    let mut record = record.ok_or(Error::RedriveNotFound(id))?;
    record.state = RedriveState::Cancelled { at: now };
    save(tx, &record)?;
    Ok(record.moved)
}

/// Running redrives and the finished ones that are still on record, newest first.
///
/// # Errors
/// A storage fault.
pub fn list(snapshot: &Snapshot) -> Result<Vec<RedriveRecord>, Error> {
    let redrives = snapshot.redrives()?.first(0..=u64::MAX, usize::MAX)?;
    Ok(redrives.into_iter().rev().map(|(_, redrive)| redrive).collect())
}

/// The redrives of [`list`], each with the outcomes of its letters.
///
/// # Errors
/// A storage fault.
pub fn list_with_outcomes(snapshot: &Snapshot) -> Result<Vec<(RedriveRecord, RedriveTotals)>, Error> {
    let totals = snapshot.redrive_totals()?;
    let with = |record: RedriveRecord| Ok((totals.get(&record.id)?.unwrap_or_default(), record));
    list(snapshot)?.into_iter().map(with).map(|found| found.map(|(totals, record)| (record, totals))).collect()
}

/// The selection with sorted, unique ids, as [`select::matches`] expects it.
fn sorted(selection: &Selection) -> Selection {
    let mut selection = selection.clone();
    selection.ids.sort_unstable();
    selection.ids.dedup();
    selection
}

fn check(redrive: &Redrive) -> Result<(), Error> {
    let range = |what, max, got| Error::OutOfRange { what, min: 1, max, got };
    match redrive.per_second {
        Some(rate) if rate == 0 || rate > RATE_MAX => {
            return Err(range("rate", u64::from(RATE_MAX), u64::from(rate)));
        }
        _ => {}
    }
    if let Some(caution) = redrive.canary {
        let (first, failed) = (caution.first_permille, caution.failed_permille_max);
        if !(1..=1000).contains(&first) {
            return Err(range("first step of a canary in thousandths", 1000, u64::from(first)));
        }
        if failed > 1000 {
            return Err(range("limit of a canary's failures in thousandths", 1000, u64::from(failed)));
        }
    }
    if redrive.to.as_ref() == Some(&redrive.from) {
        return Err(Error::RedriveToItself(redrive.from.clone()));
    }
    if redrive.selection.ids.len() > IDS_MAX {
        return Err(range("ids", IDS_MAX as u64, redrive.selection.ids.len() as u64));
    }
    Ok(())
}
