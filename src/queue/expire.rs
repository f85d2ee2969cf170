//! Retention: deletes messages that are past it, even when nobody receives.

use crate::base::{Now, Timestamp};
use crate::store::Tx;
use crate::store::record::QueueRecord;

use super::ending::{self, Withdrawal};
use super::{Error, Observer, dedup, state};

/// One step deletes at most this many messages of each kind.
const STEP_MAX: usize = 500;

/// Deletes messages of `queue` that are past its retention or their own expiry. Returns how many; call it again while
/// that is not zero. Sequence numbers follow the order of sending, so the first message within the retention ends the
/// scan.
///
/// # Errors
/// A storage fault.
pub fn expire(tx: &mut Tx<'_>, observer: &dyn Observer, queue: &QueueRecord, now: Now) -> Result<usize, Error> {
    dedup::remove_expired(tx, queue.id, now.lease, STEP_MAX)?;
    Ok(outlived(tx, observer, queue, now.wall, STEP_MAX)? + too_late(tx, observer, queue, now.wall)?)
}

/// Deletes up to `max` messages that are past the queue's retention, oldest first, those in flight included.
pub(super) fn outlived(
    tx: &mut Tx<'_>,
    observer: &dyn Observer,
    queue: &QueueRecord,
    now: Timestamp,
    max: usize,
) -> Result<usize, Error> {
    if queue.attributes.retention_ms.is_none() {
        return Ok(0);
    }
    // Most often nothing is: then one row is read.
    let all = (queue.id, 0)..=(queue.id, u64::MAX);
    if tx.states()?.first(all.clone(), 1)?.first().is_none_or(|(_, state)| !state::outlived(state, queue, now)) {
        return Ok(0);
    }
    let oldest = tx.states()?.first(all, max)?;
    let mut removed = 0;
    for (key, state) in oldest.into_iter().take_while(|(_, state)| state::outlived(state, queue, now)) {
        ending::withdraw(tx, observer, key, &state, Withdrawal::Expired, now)?;
        removed += 1;
    }
    Ok(removed)
}

fn too_late(tx: &mut Tx<'_>, observer: &dyn Observer, queue: &QueueRecord, now: Timestamp) -> Result<usize, Error> {
    let due = tx.expiries()?.first((queue.id, 0, 0)..=(queue.id, now.as_millis(), u64::MAX), STEP_MAX)?;
    for ((_, _, sequence), ()) in &due {
        let key = (queue.id, *sequence);
        let state = state::get(tx, key)?;
        ending::withdraw(tx, observer, key, &state, Withdrawal::Expired, now)?;
    }
    Ok(due.len())
}
