//! ChangeMessageVisibility: the receiver wants more time, or gives the message back.

use std::time::Duration;

use crate::base::Timestamp;
use crate::store::Tx;
use crate::store::record::{MessageState, Owner, Place};

use super::receive::VISIBILITY_MAX;
use super::{Error, ReceiptHandle, place};

/// Makes the message visible `timeout` from now; zero makes it ready at once. All receives of one message together
/// hold it for no more than 12 hours from its receive, as in SQS.
///
/// # Errors
/// [`Error::NotInFlight`] when the handle's receive no longer holds the message.
pub fn change(tx: &mut Tx<'_>, handle: ReceiptHandle, timeout: Duration, now: Timestamp) -> Result<(), Error> {
    let key = (handle.queue, handle.sequence);
    let state = tx
        .states()?
        .get(&key)?
        .filter(|state| state.place == Place::InFlight && state.lease == handle.lease && state.visible_at > now);
    let state = state.ok_or(Error::NotInFlight)?;
    let max = VISIBILITY_MAX.saturating_sub(now.since(state.received_at));
    if timeout > max {
        let (max, got) = (max.as_secs(), timeout.as_secs());
        return Err(Error::OutOfRange { what: "VisibilityTimeout", min: 0, max, got });
    }
    // The lease stays, as when the timeout runs out by itself: until the next receive the handle still deletes.
    let changed = if timeout.is_zero() {
        MessageState { place: Place::Ready, owner: Owner::Nobody, visible_at: Timestamp::ZERO, ..state.clone() }
    } else {
        MessageState { visible_at: now.after(timeout), ..state.clone() }
    };
    if changed.visible_at < state.visible_at {
        // Whoever waits for this message must not sleep until its old moment.
        tx.signal(u64::from(key.0));
    }
    Ok(place::shift(tx, key, &state, &changed)?)
}
