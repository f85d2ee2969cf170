//! How long the decided ticks of a schedule are kept.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::time::Duration;

use crate::base::Timestamp;
use crate::store::{self, Snapshot, Tx};

/// A tick is kept for this long.
pub const KEPT_FOR: Duration = Duration::from_secs(400 * 86_400);
/// At most this many ticks of a schedule are kept.
pub const KEPT_MAX: usize = 10_000;
/// One step removes at most this many.
pub const STEP_MAX: usize = 500;

/// The schedules that have outdated ticks, each with the newest one that is to go. The newest tick of a schedule stays,
/// and so do ticks in the future: one with a run must never fire again.
///
/// # Errors
/// A storage fault.
pub fn outdated(snapshot: &Snapshot, now: Timestamp) -> Result<Vec<(String, Timestamp)>, store::Error> {
    let ticks = snapshot.ticks()?;
    let mut outdated = Vec::new();
    let mut from = String::new();
    let last = (char::MAX.to_string(), u64::MAX);
    while let Some(((schedule, _), _)) = ticks.first((from, 0)..=last.clone(), 1)?.pop() {
        // The newest ticks up to now, as many as may stay, and the one before them.
        let mut newest = VecDeque::with_capacity(KEPT_MAX + 1);
        ticks.scan((schedule.clone(), 0)..=(schedule.clone(), now.as_millis()), |(_, at), _| {
            if newest.len() > KEPT_MAX {
                newest.pop_front();
            }
            newest.push_back(at);
            ControlFlow::Continue(())
        })?;
        let too_many = newest.front().filter(|_| newest.len() > KEPT_MAX).copied();
        let kept_from = now.as_millis().saturating_sub(u64::try_from(KEPT_FOR.as_millis()).unwrap_or(u64::MAX));
        newest.pop_back();
        let too_old = newest.iter().rev().find(|at| **at < kept_from).copied();
        if let Some(upto) = too_many.max(too_old) {
            outdated.push((schedule.clone(), Timestamp::from_millis(upto)));
        }
        // The least text above it: no schedule's name contains a control character.
        from = format!("{schedule}\u{1}");
    }
    Ok(outdated)
}

/// Removes up to [`STEP_MAX`] of the schedule's ticks up to `upto`. Returns how many; call it again while that is
/// [`STEP_MAX`].
///
/// # Errors
/// A storage fault.
pub fn remove(tx: &mut Tx<'_>, schedule: &str, upto: Timestamp) -> Result<usize, store::Error> {
    let range = (schedule.to_owned(), 0)..=(schedule.to_owned(), upto.as_millis());
    let rows = tx.ticks()?.first(range, STEP_MAX)?;
    for (key, _) in &rows {
        tx.ticks()?.remove(key)?;
    }
    Ok(rows.len())
}
