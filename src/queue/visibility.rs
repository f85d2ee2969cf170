//! ChangeMessageVisibility: extends a receive's visibility timeout, or ends it.

use std::time::Duration;

use crate::base::{LeaseTime, Now};
use crate::store::Tx;
use crate::store::record::{MessageState, Owner, Phase};

use super::receive::VISIBILITY_MAX;
use super::{Error, ReceiptHandle, catalog, messages};

/// Makes the message visible `timeout` from now; zero makes it ready at once. A receive can hold a message for 12 hours
/// in total, as in SQS. As there, it also works after the timeout ran out, while nobody received the message since, and
/// on standard queues with the handle of an older receive; not so on messages that our own workers hold.
///
/// # Errors
/// [`Error::NotThere`] when the message was deleted or purged, [`Error::NotInFlight`] when it is not in flight or a worker holds
/// it, [`Error::HandleExpired`] for an older handle on a FIFO queue.
pub fn change(tx: &mut Tx<'_>, handle: ReceiptHandle, timeout: Duration, now: Now) -> Result<(), Error> {
    let key = (handle.queue, handle.sequence);
    let is_there = catalog::holding(tx, key.0)?.is_some();
    let state = tx.states()?.get(&key)?.filter(|_| is_there).ok_or_else(|| Error::NotThere(handle.to_string()))?;
    check(&state, handle)?;
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
        MessageState { phase: Phase::InFlight, visible_at: now.lease.after(timeout), ..state.clone() }
    };
    if changed.visible_at < state.visible_at {
        // Long polls sleep until the old moment; wake them so that they see the earlier one.
        messages::wake(tx, key)?;
    }
    Ok(messages::update(tx, key, &state, &changed)?)
}

/// Whether the handle may change the visibility of the message.
fn check(state: &MessageState, handle: ReceiptHandle) -> Result<(), Error> {
    let is_latest = state.lease == handle.lease && handle.lease != 0;
    let is_ordered = state.group.is_some_and(|group| group.is_ordered);
    match (state.phase, state.owner) {
        // Our own workers are fenced: nobody else changes what they hold.
        (Phase::InFlight, Owner::Worker) if is_latest => Ok(()),
        // Ready and a client's: its timeout ran out, and nobody received it since.
        (Phase::InFlight | Phase::Ready, Owner::Client) if is_latest => Ok(()),
        (Phase::InFlight | Phase::Ready, Owner::Client) if is_ordered => Err(Error::HandleExpired(handle.to_string())),
        (Phase::InFlight | Phase::Ready, Owner::Client) if (1..state.lease).contains(&handle.lease) => Ok(()),
        _ => Err(Error::NotInFlight),
    }
}
