//! Where a message is: the one place that keeps state, indexes and counts in step.

use std::time::Duration;

use crate::base::{Fingerprint, MessageId, Timestamp};
use crate::store::record::{Body, Counts, MessageState, Owner, Place, QueueRecord};
use crate::store::{self, Tx};

use super::{News, Witness};

/// A queue and a sequence number: the key of a message.
pub(super) type Key = (u32, u64);

/// Adds a message to its queue.
pub(super) fn put(tx: &mut Tx<'_>, key: Key, state: &MessageState) -> Result<(), store::Error> {
    match state.place {
        Place::Ready => tx.ready()?.insert(&key, &())?,
        Place::Delayed | Place::InFlight => tx.timed()?.insert(&timed_key(key, state), &())?,
    };
    tx.states()?.insert(&key, state)?;
    let counts = tx.counts_mut(key.0)?;
    *slot(counts, state.place) += 1;
    counts.bytes += u64::from(state.body_bytes);
    if state.place != Place::InFlight {
        tx.signal(u64::from(key.0));
    }
    Ok(())
}

/// Takes a message out of its queue; body and history stay.
pub(super) fn take(tx: &mut Tx<'_>, key: Key, state: &MessageState) -> Result<(), store::Error> {
    unlink(tx, key, state)?;
    tx.states()?.remove(&key)?;
    let counts = tx.counts_mut(key.0)?;
    let is_covered = uncount(slot(counts, state.place), 1) && uncount(&mut counts.bytes, u64::from(state.body_bytes));
    if is_covered { Ok(()) } else { Err(not_counted(tx, key)) }
}

/// Moves a message within its queue.
pub(super) fn shift(tx: &mut Tx<'_>, key: Key, old: &MessageState, new: &MessageState) -> Result<(), store::Error> {
    unlink(tx, key, old)?;
    match new.place {
        Place::Ready => tx.ready()?.insert(&key, &())?,
        Place::Delayed | Place::InFlight => tx.timed()?.insert(&timed_key(key, new), &())?,
    };
    tx.states()?.insert(&key, new)?;
    let counts = tx.counts_mut(key.0)?;
    if !uncount(slot(counts, old.place), 1) {
        return Err(not_counted(tx, key));
    }
    *slot(counts, new.place) += 1;
    if new.place != Place::InFlight {
        tx.signal(u64::from(key.0));
    }
    Ok(())
}

/// Ends a message for good: state, body and history.
pub(super) fn erase(tx: &mut Tx<'_>, key: Key, state: &MessageState) -> Result<(), store::Error> {
    take(tx, key, state)?;
    tx.bodies()?.remove(&state.body)?;
    let old = tx.history()?.first((state.body, 0)..=(state.body, u32::MAX), usize::MAX)?;
    for (number, _) in old {
        tx.history()?.remove(&number)?;
    }
    Ok(())
}

/// Erases a message that ended without an outcome, and says so to the witness.
pub(super) fn withdraw(
    tx: &mut Tx<'_>,
    witness: &dyn Witness,
    key: Key,
    state: &MessageState,
    why: &str,
    now: Timestamp,
) -> Result<(), store::Error> {
    tell(tx, witness, state, News::Withdrawn(why), now)?;
    erase(tx, key, state)
}

/// Moves a message into the dead-letter queue `to`; it keeps its id, its sent time and its sequence number, so that the
/// order of the queue is the order of sending.
pub(super) fn bury(
    tx: &mut Tx<'_>,
    witness: &dyn Witness,
    key: Key,
    state: &MessageState,
    to: &QueueRecord,
    now: Timestamp,
) -> Result<(), store::Error> {
    let fingerprint = last_fingerprint(tx, state)?.unwrap_or_else(|| Fingerprint::of("crash", "worker", "lost"));
    take(tx, key, state)?;
    let entered = tx.fresh_id()?;
    let letter = MessageState { source: key.0, entered, ..settled(state, Place::Ready, Timestamp::ZERO) };
    put(tx, (to.id, key.1), &letter)?;
    tell(tx, witness, state, News::Died(fingerprint), now)
}

/// Tells the witness, when the message belongs to a run.
pub(super) fn tell(
    tx: &mut Tx<'_>,
    witness: &dyn Witness,
    state: &MessageState,
    news: News<'_>,
    now: Timestamp,
) -> Result<(), store::Error> {
    match tx.bodies()?.get(&state.body)? {
        Some(body) if body.run != 0 => witness.hear(tx, &body, news, now),
        _ => Ok(()),
    }
}

/// The fingerprint of the message's last failure.
pub(super) fn last_fingerprint(tx: &mut Tx<'_>, state: &MessageState) -> Result<Option<Fingerprint>, store::Error> {
    let last = tx.history()?.last((state.body, 0)..=(state.body, u32::MAX))?;
    Ok(last.and_then(|(_, attempt)| attempt.fingerprint()))
}

/// A message that nobody holds any more.
pub(super) fn settled(state: &MessageState, place: Place, visible_at: Timestamp) -> MessageState {
    MessageState { place, visible_at, owner: Owner::Nobody, lease: 0, ..state.clone() }
}

/// Whether the message outlived its queue's retention.
pub(super) fn is_expired(state: &MessageState, queue: &QueueRecord, now: Timestamp) -> bool {
    let retention = queue.attributes.retention_ms.map(Duration::from_millis);
    retention.is_some_and(|retention| state.sent_at.after(retention) <= now)
}

/// A message as it is when it is sent, or sent again; `entered` is its new sequence number.
pub(super) fn fresh(entered: u64, body: u64, body_bytes: u32, now: Timestamp) -> MessageState {
    MessageState {
        place: Place::Ready,
        owner: Owner::Nobody,
        body,
        message_id: MessageId::fresh(),
        sent_at: now,
        visible_at: Timestamp::ZERO,
        first_received_at: Timestamp::ZERO,
        received_at: Timestamp::ZERO,
        deferred_since: Timestamp::ZERO,
        receive_count: 0,
        charged: 0,
        attempts: 0,
        lease: 0,
        entered,
        body_bytes,
        source: 0,
    }
}

/// The body of a message that has a state.
pub(super) fn body(tx: &mut Tx<'_>, state: &MessageState) -> Result<Body, store::Error> {
    let body = tx.bodies()?.get(&state.body)?;
    body.ok_or_else(|| tx.damaged("bodies", format!("body {} of message {} is missing", state.body, state.message_id)))
}

fn unlink(tx: &mut Tx<'_>, key: Key, state: &MessageState) -> Result<(), store::Error> {
    let was_there = match state.place {
        Place::Ready => tx.ready()?.remove(&key)?,
        Place::Delayed | Place::InFlight => tx.timed()?.remove(&timed_key(key, state))?,
    };
    if was_there {
        return Ok(());
    }
    let reason = format!("message {} of queue {} does not stand in the index of its place", state.message_id, key.0);
    Err(tx.damaged("states", reason))
}

pub(super) fn timed_key(key: Key, state: &MessageState) -> (u32, u64, u64) {
    (key.0, state.visible_at.as_millis(), key.1)
}

/// Takes from a count; false when it does not cover what is taken, and a wrapped count would be served for ever.
fn uncount(count: &mut u64, by: u64) -> bool {
    let left = count.checked_sub(by);
    *count = left.unwrap_or(0);
    left.is_some()
}

fn not_counted(tx: &Tx<'_>, key: Key) -> store::Error {
    tx.damaged("counts", format!("the counts of queue {} do not cover message {}", key.0, key.1))
}

pub(super) fn slot(counts: &mut Counts, place: Place) -> &mut u64 {
    match place {
        Place::Ready => &mut counts.ready,
        Place::Delayed => &mut counts.delayed,
        Place::InFlight => &mut counts.in_flight,
    }
}
