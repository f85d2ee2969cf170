//! How messages end: erased after an outcome, withdrawn without one, or moved to a dead-letter queue.

use crate::base::{Failure, Fingerprint, LeaseTime, Timestamp};
use crate::store::record::{MessageState, Phase, QueueRecord};
use crate::store::{self, Tx};

use super::room::Room;
use super::state::{self, Key};
use super::{ABANDONED, Death, Observer, Transition, holder, messages, observer, redrive_outcomes};

/// Deletes everything of a message: state, body, history and unique key.
pub(super) fn erase(tx: &mut Tx<'_>, key: Key, state: &MessageState) -> Result<(), store::Error> {
    messages::remove(tx, key, state)?;
    tx.bodies()?.remove(&state.body)?;
    if state.attempts > 0 {
        let old = tx.history()?.first((state.body, 0)..=(state.body, u32::MAX), usize::MAX)?;
        for (number, _) in old {
            tx.history()?.remove(&number)?;
        }
    }
    holder::released(tx, key, state)
}

/// Erases a message that ended without an outcome, and notifies the observer.
pub(super) fn withdraw(
    tx: &mut Tx<'_>,
    observer: &dyn Observer,
    key: Key,
    state: &MessageState,
    why: Withdrawal,
    now: Timestamp,
) -> Result<(), store::Error> {
    // Before `erase`: `notify` reads the body.
    observer::notify(tx, observer, state, Transition::Withdrawn(why.name()), now)?;
    match why {
        // A client deletes a message after it has processed it, so a redrive counts that as success.
        Withdrawal::Deleted => redrive_outcomes::succeeded(tx, state)?,
        Withdrawal::Purged | Withdrawal::Expired | Withdrawal::Abandoned | Withdrawal::Erased => {
            redrive_outcomes::withdrawn(tx, state)?
        }
    }
    erase(tx, key, state)
}

/// Erases a message that is made again later, and notifies the observer.
pub(super) fn take_back(
    tx: &mut Tx<'_>,
    observer: &dyn Observer,
    key: Key,
    state: &MessageState,
    now: Timestamp,
) -> Result<(), store::Error> {
    observer::notify(tx, observer, state, Transition::TakenBack, now)?;
    // The redrive that brought it back must not wait for it: its canary counts outcomes.
    redrive_outcomes::withdrawn(tx, state)?;
    erase(tx, key, state)
}

/// Why a message was removed without an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Withdrawal {
    /// Its receiver deleted it.
    Deleted,
    /// Its queue was purged or deleted.
    Purged,
    /// Its retention or its own expiry passed.
    Expired,
    /// Its run was abandoned.
    Abandoned,
    /// Its recipient is erased.
    Erased,
}

impl Withdrawal {
    const fn name(self) -> &'static str {
        match self {
            Self::Deleted => "deleted",
            Self::Purged => "purged",
            Self::Expired => "expired",
            Self::Abandoned => ABANDONED,
            Self::Erased => "erased",
        }
    }
}

/// Moves a message to the dead-letter queue `to` and keeps its id. On standard queues it also keeps its sent time and
/// sequence number, so that the queue's order is the order of sending. On FIFO queues both are new, as in SQS.
pub(super) fn move_to_dlq(
    tx: &mut Tx<'_>,
    observer: &dyn Observer,
    key: Key,
    state: &MessageState,
    to: &QueueRecord,
    now: Timestamp,
) -> Result<(), store::Error> {
    // While `redriven_by` is still set: the letter below clears it.
    redrive_outcomes::failed(tx, state)?;
    messages::remove(tx, key, state)?;
    let (arrival_seq, source) = (tx.fresh_id()?, tx.queue_of_rows(key.0)?);
    let is_ordered = state.group.is_some_and(|group| group.is_ordered);
    let letter = MessageState {
        source,
        arrival_seq,
        sent_at: if is_ordered { now } else { state.sent_at },
        redriven_by: None,
        // Each queue charges what it handed out itself.
        attempts_charged: 0,
        ..state::unleased(state, Phase::Ready, LeaseTime::ZERO)
    };
    // Sequence numbers are unique across the whole store, so the old one is free in `to`.
    let at = (to.rows, if is_ordered { arrival_seq } else { key.1 });
    messages::insert(tx, at, &letter, Room::for_letter())?;
    holder::moved(tx, state, key, at)?;
    notify_death(tx, observer, state, &to.name, now)
}

/// Notifies the observer that the message is a letter of that dead-letter queue now.
pub(super) fn notify_death(
    tx: &mut Tx<'_>,
    observer: &dyn Observer,
    state: &MessageState,
    queue: &str,
    now: Timestamp,
) -> Result<(), store::Error> {
    let failure = state::last_failure(tx, state)?;
    // No attempt on record means that the process died before it could write one.
    let lost = || Fingerprint::of("crash", "worker", "lost");
    let fingerprint = failure.as_ref().map_or_else(lost, Failure::fingerprint);
    observer::notify(
        tx,
        observer,
        state,
        Transition::Died(Death { fingerprint, failure: failure.as_ref(), queue }),
        now,
    )
}
