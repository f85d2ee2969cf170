//! Retention: messages that outlived it are deleted, also when nobody receives.

use crate::base::Timestamp;
use crate::store::Tx;
use crate::store::record::QueueRecord;

use super::place::Withdrawal;
use super::{Error, Witness, place, receive, recent};

/// One step looks at this many messages.
const STEP_MAX: usize = 500;

/// Deletes the oldest messages of `queue` that outlived its retention, and those that are not worth doing any more.
/// Answers how many; call again while it is not zero. The order of sequence numbers is the order of sending, so the first
/// one that stays ends the step.
///
/// # Errors
/// A storage fault.
pub fn expire(tx: &mut Tx<'_>, witness: &dyn Witness, queue: &QueueRecord, now: Timestamp) -> Result<usize, Error> {
    recent::forget(tx, queue.id, now, STEP_MAX)?;
    Ok(outlived(tx, witness, queue, now)? + too_late(tx, witness, queue, now)?)
}

fn outlived(tx: &mut Tx<'_>, witness: &dyn Witness, queue: &QueueRecord, now: Timestamp) -> Result<usize, Error> {
    if queue.attributes.retention_ms.is_none() {
        return Ok(0);
    }
    let oldest = tx.states()?.first((queue.id, 0)..=(queue.id, u64::MAX), STEP_MAX)?;
    let mut removed = 0;
    for (key, state) in oldest.into_iter().take_while(|(_, state)| place::outlived(state, queue, now)) {
        place::withdraw(tx, witness, key, &state, Withdrawal::Expired, now)?;
        removed += 1;
    }
    Ok(removed)
}

fn too_late(tx: &mut Tx<'_>, witness: &dyn Witness, queue: &QueueRecord, now: Timestamp) -> Result<usize, Error> {
    let due = tx.expiries()?.first((queue.id, 0, 0)..=(queue.id, now.as_millis(), u64::MAX), STEP_MAX)?;
    for ((_, _, sequence), ()) in &due {
        let key = (queue.id, *sequence);
        let state = receive::state_of(tx, key)?;
        place::withdraw(tx, witness, key, &state, Withdrawal::Expired, now)?;
    }
    Ok(due.len())
}
