//! How our own workers end an attempt: done, again later, put off, or dead. Each is one step, fenced by the receipt
//! handle: a worker that lost its message to another changes nothing.

use std::time::Duration;

use crate::base::{Attempt, AttemptEnd, Failure, Timestamp};
use crate::store::record::{Body, MessageState, Place};
use crate::store::{self, Tx};

use super::{Error, News, ReceiptHandle, Witness, catalog, place, tally};

/// The history of one message keeps its worker attempts among the last this many; older ones go.
pub const HISTORY_MAX: u32 = 100;

/// An attempt as its worker saw it end.
#[derive(Clone, Debug)]
pub struct Ended {
    /// The function that was called.
    pub function: String,
    /// Why the message was not done.
    pub why: Failure,
    /// When it ended.
    pub at: Timestamp,
}

/// What became of the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It is gone: done.
    Deleted,
    /// It comes back at this moment.
    Waits {
        /// When.
        until: Timestamp,
    },
    /// It is in the dead-letter queue.
    Buried,
    /// Somebody else received it since; nothing was changed.
    Fenced,
}

/// Deletes a message whose work is done. Answers its body's head for whoever keeps books; `None` when it was fenced.
///
/// # Errors
/// A storage fault.
pub fn done(tx: &mut Tx<'_>, handle: ReceiptHandle) -> Result<Option<Body>, Error> {
    let Some((key, state)) = held(tx, handle)? else { return Ok(None) };
    let body = place::body(tx, &state)?;
    tally::succeeded(tx, &state)?;
    place::erase(tx, key, &state)?;
    Ok(Some(body))
}

/// Puts a message back for another attempt after `wait`; when its attempts are used up it dies instead.
///
/// # Errors
/// A storage fault.
pub fn retry(
    tx: &mut Tx<'_>,
    witness: &dyn Witness,
    handle: ReceiptHandle,
    ended: &Ended,
    wait: Duration,
) -> Result<Settled, Error> {
    let Some((key, state)) = held(tx, handle)? else { return Ok(Settled::Fenced) };
    let queue = catalog::by_id(tx, key.0)?;
    let is_used_up = queue.attributes.redrive.as_ref().is_some_and(|(_, max)| state.charged >= *max);
    if is_used_up {
        return die(tx, witness, key, &state, ended, wait);
    }
    remember(tx, &state, &attempt(&state, ended, AttemptEnd::Retry))?;
    let charged = MessageState { deferred_since: Timestamp::ZERO, ..state.clone() };
    wait_for(tx, key, &state, &charged, ended.at.after(wait))
}

/// Buries a message that another attempt cannot help. Without a dead-letter queue it comes back after `wait`: nothing
/// is ever dropped.
///
/// # Errors
/// A storage fault.
pub fn bury(
    tx: &mut Tx<'_>,
    witness: &dyn Witness,
    handle: ReceiptHandle,
    ended: &Ended,
    wait: Duration,
) -> Result<Settled, Error> {
    match held(tx, handle)? {
        Some((key, state)) => die(tx, witness, key, &state, ended, wait),
        None => Ok(Settled::Fenced),
    }
}

/// Puts a message off without charging the attempt; when it was put off for `at_most` it dies instead.
///
/// # Errors
/// A storage fault.
pub fn defer(
    tx: &mut Tx<'_>,
    witness: &dyn Witness,
    handle: ReceiptHandle,
    ended: &Ended,
    wait: Duration,
    at_most: Duration,
) -> Result<Settled, Error> {
    let Some((key, state)) = held(tx, handle)? else { return Ok(Settled::Fenced) };
    let since = if state.deferred_since == Timestamp::ZERO { state.received_at } else { state.deferred_since };
    if ended.at.since(since) >= at_most {
        return die(tx, witness, key, &state, ended, wait);
    }
    remember(tx, &state, &attempt(&state, ended, AttemptEnd::Deferred))?;
    let put_off = MessageState { charged: state.charged.saturating_sub(1), deferred_since: since, ..state.clone() };
    wait_for(tx, key, &state, &put_off, ended.at.after(wait))
}

/// Gives a message back whose work was not begun (a drain): it is ready at once and nothing is charged.
///
/// # Errors
/// A storage fault.
pub fn release(tx: &mut Tx<'_>, handle: ReceiptHandle) -> Result<Settled, Error> {
    let Some((key, state)) = held(tx, handle)? else { return Ok(Settled::Fenced) };
    let back = MessageState {
        charged: state.charged.saturating_sub(1),
        attempts: state.attempts.saturating_sub(1),
        ..place::settled(&state, Place::Ready, Timestamp::ZERO)
    };
    place::shift(tx, key, &state, &back)?;
    Ok(Settled::Waits { until: Timestamp::ZERO })
}

/// Writes down that the attempt in hand makes progress, in the transaction that makes it: earlier attempts are no longer
/// charged, so that a long work that goes on over many restarts does not die of them.
///
/// # Errors
/// A storage fault.
pub fn progress(tx: &mut Tx<'_>, handle: ReceiptHandle) -> Result<(), Error> {
    match held(tx, handle)? {
        Some((key, state)) if state.charged > 1 => {
            Ok(place::shift(tx, key, &state, &MessageState { charged: 1, ..state.clone() })?)
        }
        _ => Ok(()),
    }
}

/// Tells the witness that the attempt in hand may have had its effect, though nobody knows: it was cut short, ran out
/// of time, or lost its connection at the wrong moment. To be called in the transaction that settles the message,
/// before it is settled.
///
/// # Errors
/// A storage fault.
pub fn doubt(tx: &mut Tx<'_>, witness: &dyn Witness, handle: ReceiptHandle, now: Timestamp) -> Result<(), Error> {
    match held(tx, handle)? {
        Some((_, state)) => Ok(place::tell(tx, witness, &state, News::Interrupted, now)?),
        None => Ok(()),
    }
}

fn wait_for(
    tx: &mut Tx<'_>,
    key: place::Key,
    old: &MessageState,
    new: &MessageState,
    until: Timestamp,
) -> Result<Settled, Error> {
    place::shift(tx, key, old, &place::settled(new, Place::Delayed, until))?;
    Ok(Settled::Waits { until })
}

fn die(
    tx: &mut Tx<'_>,
    witness: &dyn Witness,
    key: place::Key,
    state: &MessageState,
    ended: &Ended,
    wait: Duration,
) -> Result<Settled, Error> {
    let queue = catalog::by_id(tx, key.0)?;
    let ending = MessageState { deferred_since: Timestamp::ZERO, ..state.clone() };
    let Some(dead_letter_queue) = catalog::dead_letter_queue(tx, &queue)? else {
        remember(tx, state, &attempt(state, ended, AttemptEnd::Retry))?;
        return wait_for(tx, key, state, &ending, ended.at.after(wait));
    };
    remember(tx, state, &attempt(state, ended, AttemptEnd::Dead))?;
    place::bury(tx, witness, key, &ending, &dead_letter_queue, ended.at)?;
    Ok(Settled::Buried)
}

/// The message that the handle's receive still holds.
fn held(tx: &mut Tx<'_>, handle: ReceiptHandle) -> Result<Option<(place::Key, MessageState)>, store::Error> {
    let key = (handle.queue, handle.sequence);
    let state = tx.states()?.get(&key)?;
    Ok(state.filter(|state| state.lease == handle.lease && handle.lease != 0).map(|state| (key, state)))
}

pub(super) fn attempt(state: &MessageState, ended: &Ended, end: AttemptEnd) -> Attempt {
    Attempt {
        number: state.attempts,
        function: ended.function.clone(),
        // A letter that was never received (a malformed user record) has an end and no start.
        started_at: if state.received_at == Timestamp::ZERO { ended.at } else { state.received_at },
        ended_at: ended.at,
        end,
        failure: Some(ended.why.clone()),
    }
}

/// Adds an attempt to the history and lets go of the oldest beyond [`HISTORY_MAX`].
pub(super) fn remember(tx: &mut Tx<'_>, state: &MessageState, attempt: &Attempt) -> Result<(), store::Error> {
    tx.history()?.insert(&(state.body, attempt.number), attempt)?;
    // Clients' receives take numbers too and leave no entry, so more than one may have fallen behind.
    if let Some(old) = attempt.number.checked_sub(HISTORY_MAX) {
        for (key, _) in tx.history()?.first((state.body, 0)..=(state.body, old), HISTORY_MAX as usize)? {
            tx.history()?.remove(&key)?;
        }
    }
    Ok(())
}
