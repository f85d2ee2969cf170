//! DeleteMessage: a client has processed the message.

use crate::base::Now;
use crate::store::Tx;
use crate::store::record::{MessageState, Phase};

use super::ending::{self, Withdrawal};
use super::{Error, Observer, ReceiptHandle};

/// Deletes the message of that receive and returns whether it did. A stale handle, of a message that was received again
/// or is gone, deletes nothing and is no error, as on SQS's standard queues. A message of a run counts as withdrawn
/// there.
///
/// # Errors
/// [`Error::HandleExpired`] on FIFO queues when the visibility timeout has run out: another receiver may hold the
/// message.
pub fn delete(tx: &mut Tx<'_>, observer: &dyn Observer, handle: ReceiptHandle, now: Now) -> Result<bool, Error> {
    let key = (handle.queue, handle.sequence);
    match tx.states()?.get(&key)? {
        Some(state) if state.lease == handle.lease && handle.lease != 0 && has_run_out(&state, now) => {
            Err(Error::HandleExpired(handle.to_string()))
        }
        Some(state) if state.lease == handle.lease && handle.lease != 0 => {
            ending::withdraw(tx, observer, key, &state, Withdrawal::Deleted, now.wall)?;
            Ok(true)
        }
        _ => Ok(false),
    }
}

/// Whether a FIFO queue's receive no longer holds the message.
fn has_run_out(state: &MessageState, now: Now) -> bool {
    state.group.is_some_and(|group| group.is_ordered)
        && (state.phase != Phase::InFlight || state.visible_at <= now.lease)
}
