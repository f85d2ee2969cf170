//! ChangeMessageVisibility: extends a receive's visibility timeout, or ends it.

use std::time::Duration;

use crate::base::{LeaseTime, Now};
use crate::store::Tx;
use crate::store::record::{MessageState, Owner, Phase};

use super::receive::VISIBILITY_MAX;
use super::{Error, ReceiptHandle, messages};

/// Makes the message visible `timeout` from now; zero makes it ready at once. A receive can hold a message for 12 hours
/// in total, as in SQS.
///
/// # Errors
/// [`Error::NotInFlight`] when the handle's receive no longer holds the message.
pub fn change(tx: &mut Tx<'_>, handle: ReceiptHandle, timeout: Duration, now: Now) -> Result<(), Error> {
    let key = (handle.queue, handle.sequence);
    let state = tx
        .states()?
        .get(&key)?
        .filter(|state| state.phase == Phase::InFlight && state.lease == handle.lease && state.visible_at > now.lease);
    let state = state.ok_or(Error::NotInFlight)?;
    let max = VISIBILITY_MAX.saturating_sub(now.lease.since(state.received_at));
    if timeout > max {
        let (max, got) = (max.as_secs(), timeout.as_secs());
        return Err(Error::OutOfRange { what: "VisibilityTimeout", min: 0, max, got });
    }
    // The lease stays, as when the timeout runs out by itself: the handle can still delete the message until the next
    // receive.
    let changed = if timeout.is_zero() {
        MessageState { phase: Phase::Ready, owner: Owner::Nobody, visible_at: LeaseTime::ZERO, ..state.clone() }
    } else {
        MessageState { visible_at: now.lease.after(timeout), ..state.clone() }
    };
    if changed.visible_at < state.visible_at {
        // Long polls sleep until the old moment; wake them so that they see the earlier one.
        tx.signal(u64::from(key.0));
    }
    Ok(messages::update(tx, key, &state, &changed)?)
}
