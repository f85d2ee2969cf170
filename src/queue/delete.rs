//! DeleteMessage: a client has processed the message.

use crate::base::Now;
use crate::store::Tx;
use crate::store::record::Phase;

use super::ending::{self, Withdrawal};
use super::{Error, Observer, ReceiptHandle, catalog};

/// Deletes the message of that receive and returns whether it did. A stale handle, of a message that was received again
/// or is gone, deletes nothing and is no error, as on SQS's standard queues. A message of a run counts as withdrawn
/// there.
///
/// # Errors
/// [`Error::HandleExpired`] on FIFO queues when the visibility timeout has run out, or the message was received again:
/// another receiver may hold the message.
pub fn delete(tx: &mut Tx<'_>, observer: &dyn Observer, handle: ReceiptHandle, now: Now) -> Result<bool, Error> {
    let key = (handle.queue, handle.sequence);
    let is_there = handle.lease != 0 && catalog::holding(tx, key.0)?.is_some();
    let Some(state) = tx.states()?.get(&key)?.filter(|_| is_there) else { return Ok(false) };
    let is_latest = state.lease == handle.lease;
    let is_ordered = state.group.is_some_and(|group| group.is_ordered);
    let has_run_out = state.phase != Phase::InFlight || state.visible_at <= now.lease;
    if is_ordered && (has_run_out || !is_latest) {
        return Err(Error::HandleExpired(handle.to_string()));
    }
    if is_latest {
        ending::withdraw(tx, observer, key, &state, Withdrawal::Deleted, now.wall)?;
    }
    Ok(is_latest)
}
