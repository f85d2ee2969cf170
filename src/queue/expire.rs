//! Retention: messages that outlived it are deleted, also when nobody receives.

use crate::base::Timestamp;
use crate::store::Tx;
use crate::store::record::QueueRecord;

use super::{Error, Witness, place};

/// One step looks at this many messages.
const STEP_MAX: usize = 500;

/// Deletes the oldest messages of `queue` that outlived its retention. Answers how many; call again while it is not
/// zero. The order of sequence numbers is the order of sending, so the first one that stays ends the step.
///
/// # Errors
/// A storage fault.
pub fn expire(tx: &mut Tx<'_>, witness: &dyn Witness, queue: &QueueRecord, now: Timestamp) -> Result<usize, Error> {
    if queue.attributes.retention_ms.is_none() {
        return Ok(0);
    }
    let oldest = tx.states()?.first((queue.id, 0)..=(queue.id, u64::MAX), STEP_MAX)?;
    let mut removed = 0;
    for (key, state) in oldest.into_iter().take_while(|(_, state)| place::is_expired(state, queue, now)) {
        place::withdraw(tx, witness, key, &state, "expired", now)?;
        removed += 1;
    }
    Ok(removed)
}
