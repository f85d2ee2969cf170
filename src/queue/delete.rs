//! DeleteMessage: the receiver says that it is through.

use crate::base::Timestamp;
use crate::store::Tx;

use super::{Error, ReceiptHandle, Witness, place};

/// Deletes the message of that receive. An old handle of a message that was received again, or of one that is gone,
/// deletes nothing and is no error, as on SQS's standard queues. A message of a run is withdrawn by it.
///
/// # Errors
/// A storage fault.
pub fn delete(tx: &mut Tx<'_>, witness: &dyn Witness, handle: ReceiptHandle, now: Timestamp) -> Result<bool, Error> {
    let key = (handle.queue, handle.sequence);
    match tx.states()?.get(&key)? {
        Some(state) if state.lease == handle.lease && handle.lease != 0 => {
            place::withdraw(tx, witness, key, &state, "deleted", now)?;
            Ok(true)
        }
        _ => Ok(false),
    }
}
