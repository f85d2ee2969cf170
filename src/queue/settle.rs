//! How workers settle an attempt: done, retry, deferred or dead. Each is one step, fenced by the receipt handle: a
//! worker whose lease has passed to another changes nothing.

use std::time::Duration;

use crate::base::{Attempt, AttemptEnd, Failure, LeaseTime, Now};
use crate::store::record::{BodyHead, MessageState, Owner, Phase, Suspicion};
use crate::store::{self, Tx};

use super::ending::Withdrawal;
use super::state::Key;
use super::{Error, Observer, ReceiptHandle, catalog, ending, letters, messages, redrive_outcomes, state};

/// A message's history keeps only worker attempts among its last this many; older ones are deleted.
pub const HISTORY_MAX: u32 = 100;

/// A finished attempt without success, as its worker reports it.
#[derive(Clone, Debug)]
pub struct Ended {
    /// The function that was called.
    pub function: String,
    /// Why the attempt did not succeed.
    pub why: Failure,
    /// When it ended.
    pub at: Now,
}

/// The message's state after it was settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It is gone: it was processed, or its queue was purged meanwhile.
    Deleted,
    /// It becomes visible again at this moment.
    Waits {
        /// When.
        until: LeaseTime,
    },
    /// It is in the dead-letter queue.
    MovedToDlq,
    /// The lease is stale: it was received again or settled since. Nothing was changed.
    Fenced,
}

/// Deletes a processed message. Returns whose it was, for the run's ledger; `None` when the lease is stale.
///
/// # Errors
/// A storage fault.
pub fn done(tx: &mut Tx<'_>, handle: ReceiptHandle) -> Result<Option<BodyHead>, Error> {
    let Some((key, state)) = held(tx, handle)? else { return Ok(None) };
    let head = state::head(tx, &state)?;
    redrive_outcomes::succeeded(tx, &state)?;
    ending::erase(tx, key, &state)?;
    Ok(Some(head))
}

/// Makes a message visible again after `wait`; when its attempts are used up, it moves to the dead-letter queue
/// instead.
///
/// # Errors
/// A storage fault.
pub fn retry(
    tx: &mut Tx<'_>,
    observer: &dyn Observer,
    handle: ReceiptHandle,
    ended: &Ended,
    wait: Duration,
) -> Result<Settled, Error> {
    let Some((key, state)) = held(tx, handle)? else { return Ok(Settled::Fenced) };
    let queue = catalog::holding(tx, key.0)?;
    let redrive = queue.as_ref().map(|queue| queue.attributes.redrive.as_ref());
    let is_used_up = redrive.is_none_or(|redrive| redrive.is_some_and(|(_, max)| state.attempts_charged >= *max));
    if is_used_up {
        return die(tx, observer, key, &state, ended, wait);
    }
    record_attempt(tx, key, &state, &attempt(&state, ended, AttemptEnd::Retry))?;
    let retried = MessageState { deferred_since: LeaseTime::ZERO, ..state.clone() };
    wait_for(tx, key, &state, &retried, ended.at.lease.after(wait))
}

/// Moves a message that another attempt cannot help to the dead-letter queue. Without one it becomes visible again
/// after `wait`: nothing is ever dropped.
///
/// # Errors
/// A storage fault.
pub fn move_to_dlq(
    tx: &mut Tx<'_>,
    observer: &dyn Observer,
    handle: ReceiptHandle,
    ended: &Ended,
    wait: Duration,
) -> Result<Settled, Error> {
    match held(tx, handle)? {
        Some((key, state)) => die(tx, observer, key, &state, ended, wait),
        None => Ok(Settled::Fenced),
    }
}

/// Defers a message without charging the attempt; once it has been deferred for `at_most`, it moves to the dead-letter
/// queue instead.
///
/// # Errors
/// A storage fault.
pub fn defer(
    tx: &mut Tx<'_>,
    observer: &dyn Observer,
    handle: ReceiptHandle,
    ended: &Ended,
    wait: Duration,
    at_most: Duration,
) -> Result<Settled, Error> {
    let Some((key, state)) = held(tx, handle)? else { return Ok(Settled::Fenced) };
    // The limit counts from the first of a series of deferrals, so an outage of a destination cannot defer for ever.
    let since = if state.deferred_since == LeaseTime::ZERO { state.received_at } else { state.deferred_since };
    if ended.at.lease.since(since) >= at_most {
        return die(tx, observer, key, &state, ended, wait);
    }
    record_attempt(tx, key, &state, &attempt(&state, ended, AttemptEnd::Deferred))?;
    // The receive charged the attempt in advance; a deferral gives it back. SQS's receive count stays.
    let deferred = MessageState {
        attempts_charged: state.attempts_charged.saturating_sub(1),
        deferred_since: since,
        ..state.clone()
    };
    wait_for(tx, key, &state, &deferred, ended.at.lease.after(wait))
}

/// Defers a message that waits for a destination that is away or for room in a queue, without charging the attempt and
/// for as long as it takes: this ends the series of deferrals that [`defer`] limits.
///
/// # Errors
/// A storage fault.
pub fn wait(tx: &mut Tx<'_>, handle: ReceiptHandle, ended: &Ended, wait: Duration) -> Result<Settled, Error> {
    let Some((key, state)) = held(tx, handle)? else { return Ok(Settled::Fenced) };
    record_attempt(tx, key, &state, &attempt(&state, ended, AttemptEnd::Deferred))?;
    let waiting = MessageState {
        attempts_charged: state.attempts_charged.saturating_sub(1),
        deferred_since: LeaseTime::ZERO,
        ..state.clone()
    };
    wait_for(tx, key, &state, &waiting, ended.at.lease.after(wait))
}

/// Returns a message whose work has not begun (a drain): it is ready at once and nothing is charged.
///
/// # Errors
/// A storage fault.
pub fn release(tx: &mut Tx<'_>, handle: ReceiptHandle) -> Result<Settled, Error> {
    let Some((key, state)) = held(tx, handle)? else { return Ok(Settled::Fenced) };
    let back = MessageState {
        attempts_charged: state.attempts_charged.saturating_sub(1),
        // No history entry exists, so the attempt's number is free again.
        attempts: state.attempts.saturating_sub(1),
        ..state::unleased(&state, Phase::Ready, LeaseTime::ZERO)
    };
    messages::update(tx, key, &state, &back)?;
    Ok(Settled::Waits { until: LeaseTime::ZERO })
}

/// Puts a message back whose work has not begun, until its turn: nothing is charged and nothing recorded, and a series of
/// deferrals goes on.
///
/// # Errors
/// A storage fault.
pub fn put_back(tx: &mut Tx<'_>, handle: ReceiptHandle, until: LeaseTime) -> Result<Settled, Error> {
    let Some((key, state)) = held(tx, handle)? else { return Ok(Settled::Fenced) };
    let back = MessageState {
        attempts_charged: state.attempts_charged.saturating_sub(1),
        // No history entry exists, so the attempt's number is free again.
        attempts: state.attempts.saturating_sub(1),
        ..state.clone()
    };
    wait_for(tx, key, &state, &back, until)
}

/// Records that the current attempt made progress, in the transaction of that progress. Earlier attempts are no longer
/// charged, so that long work that spans many restarts does not use up its attempts; a crash does not make the message a
/// suspect; and a series of deferrals ends.
///
/// # Errors
/// A storage fault.
pub fn progress(tx: &mut Tx<'_>, handle: ReceiptHandle) -> Result<(), Error> {
    let Some((key, state)) = held(tx, handle)? else { return Ok(()) };
    let new = MessageState {
        attempts_charged: state.attempts_charged.min(1),
        deferred_since: LeaseTime::ZERO,
        suspicion: Suspicion::Progressed,
        ..state.clone()
    };
    if new != state {
        messages::update(tx, key, &state, &new)?;
    }
    Ok(())
}

/// The inner id of the message that the receive of this handle still holds; `None` when it was settled, taken from it,
/// purged, or received again.
///
/// # Errors
/// A storage fault.
pub fn held_body(tx: &mut Tx<'_>, handle: ReceiptHandle) -> Result<Option<u64>, store::Error> {
    let Some((_, state)) = held(tx, handle)? else { return Ok(None) };
    Ok(catalog::holding(tx, handle.queue)?.map(|_| state.body))
}

/// Deletes a message of whose effect nobody knows whether it happened; whoever calls this keeps the doubt. A redrive
/// counts it as withdrawn, since it neither succeeded nor failed.
///
/// # Errors
/// A storage fault.
pub fn hold(tx: &mut Tx<'_>, handle: ReceiptHandle) -> Result<Settled, Error> {
    let Some((key, state)) = held(tx, handle)? else { return Ok(Settled::Fenced) };
    redrive_outcomes::withdrawn(tx, &state)?;
    ending::erase(tx, key, &state)?;
    Ok(Settled::Deleted)
}

/// Removes the mark that an attempt is alone in the process, because others are about to come in: a crash from now on is
/// not charged to it.
///
/// # Errors
/// A storage fault.
pub fn end_alone(tx: &mut Tx<'_>, handle: ReceiptHandle) -> Result<(), Error> {
    match held(tx, handle)? {
        Some((key, state)) if state.suspicion == Suspicion::Alone => {
            let among_others = MessageState { suspicion: Suspicion::Progressed, ..state.clone() };
            Ok(messages::update(tx, key, &state, &among_others)?)
        }
        _ => Ok(()),
    }
}

fn wait_for(
    tx: &mut Tx<'_>,
    key: Key,
    old: &MessageState,
    new: &MessageState,
    until: LeaseTime,
) -> Result<Settled, Error> {
    messages::update(tx, key, old, &state::unleased(new, Phase::Delayed, until))?;
    Ok(Settled::Waits { until })
}

fn die(
    tx: &mut Tx<'_>,
    observer: &dyn Observer,
    key: Key,
    state: &MessageState,
    ended: &Ended,
    wait: Duration,
) -> Result<Settled, Error> {
    let Some(queue) = catalog::holding(tx, key.0)? else {
        // It was purged: nothing is left for it. Its attempt has ended, so nobody holds it.
        let purged = MessageState { owner: Owner::Nobody, ..state.clone() };
        ending::withdraw(tx, observer, key, &purged, Withdrawal::Purged, ended.at.wall)?;
        return Ok(Settled::Deleted);
    };
    // Both ways out end the series of deferrals.
    let ending = MessageState { deferred_since: LeaseTime::ZERO, ..state.clone() };
    let Some(dead_letter_queue) = catalog::dead_letter_queue(tx, &queue)? else {
        record_attempt(tx, key, state, &attempt(state, ended, AttemptEnd::Retry))?;
        return wait_for(tx, key, state, &ending, ended.at.lease.after(wait));
    };
    record_attempt(tx, key, state, &attempt(state, ended, AttemptEnd::Dead))?;
    ending::move_to_dlq(tx, observer, key, &ending, &dead_letter_queue, ended.at.wall)?;
    Ok(Settled::MovedToDlq)
}

/// The message, when the handle's lease is still its current one. A settled message has lease 0, which no receive gives
/// out.
fn held(tx: &mut Tx<'_>, handle: ReceiptHandle) -> Result<Option<(Key, MessageState)>, store::Error> {
    let key = (handle.queue, handle.sequence);
    let state = tx.states()?.get(&key)?;
    Ok(state.filter(|state| state.lease == handle.lease && handle.lease != 0).map(|state| (key, state)))
}

pub(super) fn attempt(state: &MessageState, ended: &Ended, end: AttemptEnd) -> Attempt {
    Attempt {
        number: state.attempts,
        function: ended.function.clone(),
        // A letter that was never received (a malformed user record) has an end but no start.
        started_at: if state.received_at == LeaseTime::ZERO {
            ended.at.wall
        } else {
            ended.at.wall_of(state.received_at)
        },
        ended_at: ended.at.wall,
        end,
        failure: Some(ended.why.clone()),
    }
}

/// Adds an attempt to the history and deletes those older than [`HISTORY_MAX`] attempts.
pub(super) fn record_attempt(
    tx: &mut Tx<'_>,
    key: Key,
    state: &MessageState,
    attempt: &Attempt,
) -> Result<(), store::Error> {
    letters::attempted(tx, key, state, attempt)?;
    tx.history()?.insert(&(state.body, attempt.number), attempt)?;
    // Clients' receives use up numbers without an entry, so one step may have to delete none or several.
    if let Some(old) = attempt.number.checked_sub(HISTORY_MAX) {
        for (key, _) in tx.history()?.first((state.body, 0)..=(state.body, old), HISTORY_MAX as usize)? {
            tx.history()?.remove(&key)?;
        }
    }
    Ok(())
}
