//! PurgeQueue: all messages that are in the queue when it begins, those in flight too.

use crate::base::Timestamp;
use crate::store::Tx;

use super::{Error, Witness, place};

/// One step deletes this many messages.
pub const STEP_MAX: usize = 1000;

/// The sequence number of the newest message of the queue; a purge takes those up to it.
///
/// # Errors
/// A storage fault.
pub fn newest(tx: &mut Tx<'_>, queue: u32) -> Result<u64, Error> {
    let last = tx.states()?.last((queue, 0)..=(queue, u64::MAX))?;
    Ok(last.map_or(0, |((_, sequence), _)| sequence))
}

/// Deletes up to [`STEP_MAX`] messages with sequence numbers up to `newest`. Answers how many; less than
/// [`STEP_MAX`] means that it is through.
///
/// # Errors
/// A storage fault.
pub fn purge(tx: &mut Tx<'_>, witness: &dyn Witness, queue: u32, newest: u64, now: Timestamp) -> Result<usize, Error> {
    let found = tx.states()?.first((queue, 0)..=(queue, newest), STEP_MAX)?;
    let removed = found.len();
    for (key, state) in found {
        place::withdraw(tx, witness, key, &state, "purged", now)?;
    }
    Ok(removed)
}
