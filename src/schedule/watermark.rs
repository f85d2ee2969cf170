//! How far the ticks of a schedule are decided, and what becomes of decisions that were made by a clock that was ahead.
//!
//! The watermark is the newest decided tick by a clock that was not ahead. A row above it was decided by a clock that
//! was ahead and does not count, unless a run came of it: a tick with a run never fires again.

use crate::base::Timestamp;
use crate::store::record::{TickRecord, TickVerdict};
use crate::store::{self, Snapshot, Tx};

/// One step examines at most this many ticks.
pub const STEP_MAX: usize = 500;

/// The key in `meta` of a schedule's watermark.
fn row(schedule: &str) -> String {
    format!("decided {schedule}")
}

/// The newest tick that counts as decided; `None` when the schedule has none, so that it starts now.
pub(super) fn find(tx: &mut Tx<'_>, schedule: &str, now: Timestamp) -> Result<Option<Timestamp>, store::Error> {
    let kept = match tx.meta()?.get(&row(schedule))? {
        Some(at) => Some(at),
        // A store of an earlier version has no watermark yet.
        None => tx.ticks()?.last(range(schedule, 0, u64::MAX))?.map(|((_, at), _)| at),
    };
    match kept.map(Timestamp::from_millis) {
        Some(watermark) if watermark > now => newest_sound(tx, schedule, now),
        watermark => Ok(watermark),
    }
}

/// The newest tick up to `now` that was also decided by now. A decision from the future was made by a clock that was
/// ahead.
fn newest_sound(tx: &mut Tx<'_>, schedule: &str, now: Timestamp) -> Result<Option<Timestamp>, store::Error> {
    let mut end = now.as_millis();
    for _ in 0..STEP_MAX {
        let Some(((_, at), tick)) = tx.ticks()?.last(range(schedule, 0, end))? else { return Ok(None) };
        if tick.decided_at <= now {
            return Ok(Some(Timestamp::from_millis(at)));
        }
        let Some(earlier) = at.checked_sub(1) else { return Ok(None) };
        end = earlier;
    }
    // Older decisions of that clock stay as they are: undoing them too would make this step unbounded.
    Ok(Some(Timestamp::from_millis(end)))
}

/// Moves the watermark. Rows between it and the old one that were neither decided now nor have a run are removed: the
/// decision was a wrong clock's, of a moment that is decided without it.
pub(super) fn set(
    tx: &mut Tx<'_>,
    schedule: &str,
    from: Option<Timestamp>,
    to: Timestamp,
    decided_at: Timestamp,
) -> Result<(), store::Error> {
    if let Some(above) = from.filter(|from| *from < to) {
        let passed = tx.ticks()?.first(range(schedule, above.as_millis() + 1, to.as_millis()), STEP_MAX)?;
        for (key, tick) in passed {
            if tick.decided_at != decided_at && !has_run(&tick) {
                tx.ticks()?.remove(&key)?;
            }
        }
    }
    let key = row(schedule);
    if tx.meta()?.get(&key)? != Some(to.as_millis()) {
        tx.meta()?.insert(&key, &to.as_millis())?;
    }
    Ok(())
}

/// Whether a run came of the tick.
pub const fn has_run(tick: &TickRecord) -> bool {
    matches!(tick.verdict, TickVerdict::Fired { .. })
}

fn range(schedule: &str, from: u64, to: u64) -> std::ops::RangeInclusive<(String, u64)> {
    (schedule.to_owned(), from)..=(schedule.to_owned(), to)
}

/// Up to `max` ticks that lie in the future, oldest first: a clock that was ahead decided them.
///
/// # Errors
/// A storage fault.
pub fn ahead(
    snapshot: &Snapshot,
    schedule: &str,
    now: Timestamp,
    max: usize,
) -> Result<Vec<(Timestamp, TickRecord)>, store::Error> {
    let Some(after) = now.as_millis().checked_add(1) else { return Ok(Vec::new()) };
    let rows = snapshot.ticks()?.first(range(schedule, after, u64::MAX), max)?;
    Ok(rows.into_iter().map(|((_, at), tick)| (Timestamp::from_millis(at), tick)).collect())
}

/// The newest tick in the future that has a row.
pub(super) fn newest_ahead(tx: &mut Tx<'_>, schedule: &str, now: Timestamp) -> Result<Option<Timestamp>, store::Error> {
    let Some(after) = now.as_millis().checked_add(1) else { return Ok(None) };
    let last = tx.ticks()?.last(range(schedule, after, u64::MAX))?;
    Ok(last.map(|((_, at), _)| Timestamp::from_millis(at)))
}

/// What one step of [`forget`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// Rows removed.
    pub removed: u64,
    /// Ticks with a run; they stay.
    pub with_run: u64,
    /// The last tick examined, when there may be more after it.
    pub upto: Option<Timestamp>,
}

/// Removes the decisions after `after` that lie in the future and have no run, at most [`STEP_MAX`] in one step.
///
/// # Errors
/// A storage fault.
pub fn forget(tx: &mut Tx<'_>, schedule: &str, after: Timestamp) -> Result<Forgotten, store::Error> {
    let mut forgotten = Forgotten::default();
    let Some(from) = after.as_millis().checked_add(1) else { return Ok(forgotten) };
    let rows = tx.ticks()?.first(range(schedule, from, u64::MAX), STEP_MAX)?;
    forgotten.upto = rows.last().filter(|_| rows.len() == STEP_MAX).map(|((_, at), _)| Timestamp::from_millis(*at));
    for (key, tick) in rows {
        if has_run(&tick) {
            forgotten.with_run += 1;
        } else {
            tx.ticks()?.remove(&key)?;
            forgotten.removed += 1;
        }
    }
    Ok(forgotten)
}

/// Removes the decision about one tick in the future.
///
/// # Errors
/// It was never decided, it lies in the past, or a run came of it.
pub fn forget_one(tx: &mut Tx<'_>, schedule: &str, tick: Timestamp, now: Timestamp) -> Result<(), ForgetError> {
    let key = (schedule.to_owned(), tick.as_millis());
    match tx.ticks()?.get(&key)?.map(|row| row.verdict) {
        None => Err(ForgetError::NotDecided { schedule: schedule.to_owned(), tick }),
        Some(TickVerdict::Fired { run }) => Err(ForgetError::HasRun { tick, run }),
        Some(_) if tick <= now => Err(ForgetError::Past { tick }),
        Some(_) => {
            tx.ticks()?.remove(&key)?;
            Ok(())
        }
    }
}

/// Why a decision is not forgotten.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ForgetError {
    /// The tick has no row.
    #[error("schedule {schedule:?} has no decision for {tick} (`nightmail schedules` shows those ahead of the clock)")]
    NotDecided {
        /// The schedule.
        schedule: String,
        /// The tick.
        tick: Timestamp,
    },
    /// A run came of it.
    #[error("tick {tick} started run {run}, so it stays: it never fires a second time")]
    HasRun {
        /// The tick.
        tick: Timestamp,
        /// The run.
        run: u64,
    },
    /// Only decisions ahead of the clock are forgotten.
    #[error(
        "tick {tick} is in the past, and its decision stands (a run is started by hand with `nightmail run start`)"
    )]
    Past {
        /// The tick.
        tick: Timestamp,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
}
