//! Retention: deletes messages that are past it, even when nobody receives.

use crate::base::{LeaseTime, Now, Timestamp};
use crate::store::record::QueueRecord;
use crate::store::{self, Tx};

use super::ending::{self, Withdrawal};
use super::{Error, Observer, dedup, state};

/// One step deletes at most this many messages of each kind; each has about five rows.
const STEP_MAX: usize = 50;
/// One step forgets at most this many deduplication entries; each has two rows.
const FORGOTTEN_PER_STEP: usize = 250;

/// What a step of [`expire`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Swept {
    /// How many messages it deleted.
    pub removed: usize,
    /// The sequence number from which the next step goes on; `None` when nothing more is due.
    pub next: Option<u64>,
}

/// Deletes messages of `queue`, from that sequence number on, that are past its retention or their own expiry. Sequence
/// numbers follow the order of sending, so the first messages within the retention end the scan; not so those that a
/// clock sent which was ahead and is set back by now.
///
/// # Errors
/// A storage fault.
pub fn expire(
    tx: &mut Tx<'_>,
    observer: &dyn Observer,
    queue: &QueueRecord,
    from: u64,
    now: Now,
) -> Result<Swept, Error> {
    let late = too_late(tx, observer, queue, now.wall)?;
    let Swept { removed, next } = sweep(tx, observer, queue, (from, STEP_MAX), now.wall)?;
    // Those that expire by themselves are found by an index, wherever they stand.
    let next = next.or((late == STEP_MAX).then_some(u64::MAX));
    Ok(Swept { removed: removed + late, next })
}

/// Deletes deduplication entries of the queue that have expired; returns whether there may be more.
///
/// # Errors
/// A storage fault.
pub fn forget(tx: &mut Tx<'_>, queue: u32, now: LeaseTime) -> Result<bool, store::Error> {
    Ok(dedup::remove_expired(tx, queue, now, FORGOTTEN_PER_STEP)? == FORGOTTEN_PER_STEP)
}

/// Deletes up to `max` messages from the front of the queue that are past its retention, those in flight included. Most
/// often nothing is: then one row is read.
pub(super) fn outlived(
    tx: &mut Tx<'_>,
    observer: &dyn Observer,
    queue: &QueueRecord,
    now: Timestamp,
    max: usize,
) -> Result<(), Error> {
    if queue.attributes.retention_ms.is_some() {
        let first = tx.states()?.first((queue.rows, 0)..=(queue.rows, u64::MAX), 1)?;
        if first.first().is_some_and(|(_, state)| state::outlived(state, queue, now)) {
            sweep(tx, observer, queue, (0, max), now)?;
        }
    }
    Ok(())
}

fn sweep(
    tx: &mut Tx<'_>,
    observer: &dyn Observer,
    queue: &QueueRecord,
    (from, max): (u64, usize),
    now: Timestamp,
) -> Result<Swept, Error> {
    if queue.attributes.retention_ms.is_none() {
        return Ok(Swept { removed: 0, next: None });
    }
    let found = tx.states()?.first((queue.rows, from)..=(queue.rows, u64::MAX), max)?;
    let last = found.last().filter(|_| found.len() == max).map(|(key, state)| (key.1, state.sent_at));
    let mut removed = 0;
    for (key, state) in found.into_iter().filter(|(_, state)| state::outlived(state, queue, now)) {
        ending::withdraw(tx, observer, key, &state, Withdrawal::Expired, now)?;
        removed += 1;
    }
    let next = last.filter(|(_, sent_at)| removed > 0 || *sent_at > now).map(|(sequence, _)| sequence + 1);
    Ok(Swept { removed, next })
}

fn too_late(tx: &mut Tx<'_>, observer: &dyn Observer, queue: &QueueRecord, now: Timestamp) -> Result<usize, Error> {
    let due = tx.expiries()?.first((queue.rows, 0, 0)..=(queue.rows, now.as_millis(), u64::MAX), STEP_MAX)?;
    for ((_, _, sequence), ()) in &due {
        let key = (queue.rows, *sequence);
        let state = state::get(tx, key)?;
        ending::withdraw(tx, observer, key, &state, Withdrawal::Expired, now)?;
    }
    Ok(due.len())
}
