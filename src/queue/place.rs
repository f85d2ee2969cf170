//! Where a message is: the one place that keeps state, indexes and counts in step.

use std::time::Duration;

use crate::base::{Fingerprint, MessageId, Timestamp};
use crate::store::record::{Body, Counts, MessageState, Owner, Place, QueueRecord};
use crate::store::{self, Tx};

use super::{News, Witness, group, tally, unique};

/// A queue and a sequence number: the key of a message.
pub(super) type Key = (u32, u64);

/// Adds a message to its queue.
pub(super) fn put(tx: &mut Tx<'_>, key: Key, state: &MessageState) -> Result<(), store::Error> {
    link(tx, key, state)?;
    tx.states()?.insert(&key, state)?;
    group::moved(tx, key, None, Some(state))?;
    let counts = tx.counts_mut(key.0)?;
    *slot(counts, state.place) += 1;
    counts.bytes += u64::from(state.size_bytes);
    if state.place != Place::InFlight {
        tx.signal(u64::from(key.0));
    }
    Ok(())
}

/// Takes a message out of its queue; body and history stay.
pub(super) fn take(tx: &mut Tx<'_>, key: Key, state: &MessageState) -> Result<(), store::Error> {
    unlink(tx, key, state)?;
    tx.states()?.remove(&key)?;
    group::moved(tx, key, Some(state), None)?;
    let counts = tx.counts_mut(key.0)?;
    let is_covered = uncount(slot(counts, state.place), 1) && uncount(&mut counts.bytes, u64::from(state.size_bytes));
    if is_covered { Ok(()) } else { Err(not_counted(tx, key)) }
}

/// Moves a message within its queue.
pub(super) fn shift(tx: &mut Tx<'_>, key: Key, old: &MessageState, new: &MessageState) -> Result<(), store::Error> {
    unlink(tx, key, old)?;
    link(tx, key, new)?;
    tx.states()?.insert(&key, new)?;
    group::moved(tx, key, Some(old), Some(new))?;
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

/// Ends a message for good: state, body, history and unique key.
pub(super) fn erase(tx: &mut Tx<'_>, key: Key, state: &MessageState) -> Result<(), store::Error> {
    take(tx, key, state)?;
    tx.bodies()?.remove(&state.body)?;
    if state.attempts > 0 {
        let old = tx.history()?.first((state.body, 0)..=(state.body, u32::MAX), usize::MAX)?;
        for (number, _) in old {
            tx.history()?.remove(&number)?;
        }
    }
    unique::released(tx, key, state)
}

/// Erases a message that ended without an outcome, and says so to the witness.
pub(super) fn withdraw(
    tx: &mut Tx<'_>,
    witness: &dyn Witness,
    key: Key,
    state: &MessageState,
    why: Withdrawal,
    now: Timestamp,
) -> Result<(), store::Error> {
    tell(tx, witness, state, News::Withdrawn(why.name()), now)?;
    match why {
        Withdrawal::Deleted => tally::succeeded(tx, state)?,
        Withdrawal::Purged | Withdrawal::Expired => tally::withdrawn(tx, state)?,
    }
    erase(tx, key, state)
}

/// How a message ends without an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Withdrawal {
    /// Its receiver deleted it.
    Deleted,
    /// Its queue was purged or deleted.
    Purged,
    /// It outlived its retention, or the moment until which it was worth doing.
    Expired,
}

impl Withdrawal {
    const fn name(self) -> &'static str {
        match self {
            Self::Deleted => "deleted",
            Self::Purged => "purged",
            Self::Expired => "expired",
        }
    }
}

/// Moves a message into the dead-letter queue `to`. It keeps its id. On standard queues it keeps its sent time and
/// sequence number too, so that the order of the queue is the order of sending; on FIFO queues both start anew, as in SQS.
pub(super) fn bury(
    tx: &mut Tx<'_>,
    witness: &dyn Witness,
    key: Key,
    state: &MessageState,
    to: &QueueRecord,
    now: Timestamp,
) -> Result<(), store::Error> {
    let fingerprint = last_fingerprint(tx, state)?.unwrap_or_else(|| Fingerprint::of("crash", "worker", "lost"));
    tally::failed(tx, state)?;
    take(tx, key, state)?;
    let entered = tx.fresh_id()?;
    let is_ordered = state.group.is_some_and(|group| group.is_ordered);
    let letter = MessageState {
        source: key.0,
        entered,
        sent_at: if is_ordered { now } else { state.sent_at },
        returned: None,
        ..settled(state, Place::Ready, Timestamp::ZERO)
    };
    let to = (to.id, if is_ordered { entered } else { key.1 });
    put(tx, to, &letter)?;
    unique::moved(tx, state, key, to)?;
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

/// Whether the message outlived its queue's retention, or the moment until which it was worth doing. A dead letter stays
/// for its queue's retention: it is the proof of a failure.
pub(super) fn is_expired(state: &MessageState, queue: &QueueRecord, now: Timestamp) -> bool {
    outlived(state, queue, now) || (state.source == 0 && state.expires_at != Timestamp::ZERO && state.expires_at <= now)
}

/// Whether the message outlived its queue's retention.
pub(super) fn outlived(state: &MessageState, queue: &QueueRecord, now: Timestamp) -> bool {
    let retention = queue.attributes.retention_ms.map(Duration::from_millis);
    retention.is_some_and(|retention| state.sent_at.after(retention) <= now)
}

/// A message as it is when it is sent, or sent again; `entered` is its new sequence number.
pub(super) fn fresh(entered: u64, body: u64, size_bytes: u32, now: Timestamp) -> MessageState {
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
        size_bytes,
        source: 0,
        group: None,
        priority: 0,
        expires_at: Timestamp::ZERO,
        unique: None,
        returned: None,
    }
}

/// The body of a message that has a state.
pub(super) fn body(tx: &mut Tx<'_>, state: &MessageState) -> Result<Body, store::Error> {
    let body = tx.bodies()?.get(&state.body)?;
    body.ok_or_else(|| tx.damaged("bodies", format!("body {} of message {} is missing", state.body, state.message_id)))
}

/// Enters a message in the index of its place. Ready messages of a group stand in the group's own index.
fn link(tx: &mut Tx<'_>, key: Key, state: &MessageState) -> Result<(), store::Error> {
    match state.place {
        Place::Ready if state.group.is_some() => {}
        Place::Ready => drop(tx.ready()?.insert(&ready_key(key, state), &())?),
        Place::Delayed | Place::InFlight => drop(tx.timed()?.insert(&timed_key(key, state), &())?),
    }
    if expires_while_waiting(state) {
        tx.expiries()?.insert(&(key.0, state.expires_at.as_millis(), key.1), &())?;
    }
    Ok(())
}

fn unlink(tx: &mut Tx<'_>, key: Key, state: &MessageState) -> Result<(), store::Error> {
    let mut was_there = match state.place {
        Place::Ready if state.group.is_some() => true,
        Place::Ready => tx.ready()?.remove(&ready_key(key, state))?,
        Place::Delayed | Place::InFlight => tx.timed()?.remove(&timed_key(key, state))?,
    };
    if expires_while_waiting(state) {
        was_there &= tx.expiries()?.remove(&(key.0, state.expires_at.as_millis(), key.1))?;
    }
    if was_there {
        return Ok(());
    }
    let reason = format!("message {} of queue {} does not stand in the index of its place", state.message_id, key.0);
    Err(tx.damaged("states", reason))
}

/// Whether the message stands in the index of expiries: what is in work or dead does not expire.
pub(super) fn expires_while_waiting(state: &MessageState) -> bool {
    state.expires_at != Timestamp::ZERO && state.place != Place::InFlight && state.source == 0
}

pub(super) fn ready_key(key: Key, state: &MessageState) -> (u32, u32, u64) {
    (key.0, state.priority, key.1)
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
