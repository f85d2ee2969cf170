//! DeleteMessage: the receiver says that it is through.

use crate::base::Timestamp;
use crate::store::Tx;
use crate::store::record::{MessageState, Place};

use super::place::Withdrawal;
use super::{Error, ReceiptHandle, Witness, place};

/// Deletes the message of that receive. An old handle of a message that was received again, or of one that is gone,
/// deletes nothing and is no error, as on SQS's standard queues. A message of a run is withdrawn by it.
///
/// # Errors
/// [`Error::HandleExpired`] on FIFO queues, when the visibility timeout ran out: another receiver may be at it.
pub fn delete(tx: &mut Tx<'_>, witness: &dyn Witness, handle: ReceiptHandle, now: Timestamp) -> Result<bool, Error> {
    let key = (handle.queue, handle.sequence);
    match tx.states()?.get(&key)? {
        Some(state) if state.lease == handle.lease && handle.lease != 0 && has_run_out(&state, now) => {
            Err(Error::HandleExpired(handle.to_string()))
        }
        Some(state) if state.lease == handle.lease && handle.lease != 0 => {
            place::withdraw(tx, witness, key, &state, Withdrawal::Deleted, now)?;
            Ok(true)
        }
        _ => Ok(false),
    }
}

/// Whether a FIFO queue's receive no longer holds the message.
fn has_run_out(state: &MessageState, now: Timestamp) -> bool {
    state.group.is_some_and(|group| group.is_ordered) && (state.place != Place::InFlight || state.visible_at <= now)
}
