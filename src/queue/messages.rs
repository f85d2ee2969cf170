//! Phase changes of messages. All writes of states, indexes and counts go through here, so that they stay consistent.

use std::time::Duration;

use crate::base::{Failure, Fingerprint, LeaseTime, MessageId, Timestamp};
use crate::store::record::{Body, BodyHead, Counts, MessageState, Owner, Phase, QueueRecord, Suspicion};
use crate::store::{self, Tx};

use super::admission::Room;
use super::redrive::outcomes;
use super::{Death, Observer, RunMessage, Transition, group, unique};

/// A queue and a sequence number: the key of a message.
pub(super) type Key = (u32, u64);

/// Adds a message to its queue, which has `room` for it.
pub(super) fn insert(tx: &mut Tx<'_>, key: Key, state: &MessageState, room: Room) -> Result<(), store::Error> {
    room.take_up();
    link(tx, key, state)?;
    tx.states()?.insert(&key, state)?;
    group::update(tx, key, None, Some(state))?;
    let counts = tx.counts_mut(key.0)?;
    *slot(counts, state.phase) += 1;
    counts.bytes += u64::from(state.size_bytes);
    // Wake the queue's long polls. A delayed message counts too: it may move the moment of their next receive forward.
    if state.phase != Phase::InFlight {
        tx.signal(u64::from(key.0));
    }
    Ok(())
}

/// Removes a message from its queue. Body and history stay, because they move with the message to another queue.
pub(super) fn remove(tx: &mut Tx<'_>, key: Key, state: &MessageState) -> Result<(), store::Error> {
    unlink(tx, key, state)?;
    tx.states()?.remove(&key)?;
    group::update(tx, key, Some(state), None)?;
    let counts = tx.counts_mut(key.0)?;
    let is_covered = uncount(slot(counts, state.phase), 1) && uncount(&mut counts.bytes, u64::from(state.size_bytes));
    if is_covered { Ok(()) } else { Err(not_counted(tx, key)) }
}

/// Replaces a message's state within its queue. `old` must equal the stored state: its index entries are removed by it.
pub(super) fn update(tx: &mut Tx<'_>, key: Key, old: &MessageState, new: &MessageState) -> Result<(), store::Error> {
    // Unlink first: when both states share an index key, the reverse order would delete the new entry.
    unlink(tx, key, old)?;
    link(tx, key, new)?;
    tx.states()?.insert(&key, new)?;
    group::update(tx, key, Some(old), Some(new))?;
    let counts = tx.counts_mut(key.0)?;
    if !uncount(slot(counts, old.phase), 1) {
        return Err(not_counted(tx, key));
    }
    *slot(counts, new.phase) += 1;
    if new.phase != Phase::InFlight {
        tx.signal(u64::from(key.0));
    }
    Ok(())
}

/// Deletes everything of a message: state, body, history and unique key.
pub(super) fn erase(tx: &mut Tx<'_>, key: Key, state: &MessageState) -> Result<(), store::Error> {
    remove(tx, key, state)?;
    tx.bodies()?.remove(&state.body)?;
    if state.attempts > 0 {
        let old = tx.history()?.first((state.body, 0)..=(state.body, u32::MAX), usize::MAX)?;
        for (number, _) in old {
            tx.history()?.remove(&number)?;
        }
    }
    unique::released(tx, key, state)
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
    interrupt(tx, observer, state, now)?;
    notify(tx, observer, state, Transition::Withdrawn(why.name()), now)?;
    match why {
        // A client deletes a message after it has processed it, so a redrive counts that as success.
        Withdrawal::Deleted => outcomes::succeeded(tx, state)?,
        Withdrawal::Purged | Withdrawal::Expired => outcomes::withdrawn(tx, state)?,
    }
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
    outcomes::failed(tx, state)?;
    remove(tx, key, state)?;
    let arrival_seq = tx.fresh_id()?;
    let is_ordered = state.group.is_some_and(|group| group.is_ordered);
    let letter = MessageState {
        source: key.0,
        arrival_seq,
        sent_at: if is_ordered { now } else { state.sent_at },
        redriven_by: None,
        ..unleased(state, Phase::Ready, LeaseTime::ZERO)
    };
    // Sequence numbers are unique across the whole store, so the old one is free in `to`.
    let at = (to.id, if is_ordered { arrival_seq } else { key.1 });
    insert(tx, at, &letter, Room::for_letter())?;
    unique::moved(tx, state, key, at)?;
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
    let failure = last_failure(tx, state)?;
    // No attempt on record means that the process died before it could write one.
    let lost = || Fingerprint::of("crash", "worker", "lost");
    let fingerprint = failure.as_ref().map_or_else(lost, Failure::fingerprint);
    notify(tx, observer, state, Transition::Died(Death { fingerprint, failure: failure.as_ref(), queue }), now)
}

/// Notifies the observer that a worker's attempt is in doubt from now on, because its message is taken from it. When the
/// attempt ends after all, its worker can take that back; when the process dies first, nobody else would know of it.
pub(super) fn interrupt(
    tx: &mut Tx<'_>,
    observer: &dyn Observer,
    state: &MessageState,
    now: Timestamp,
) -> Result<(), store::Error> {
    if state.phase == Phase::InFlight && state.owner == Owner::Worker {
        notify(tx, observer, state, Transition::Interrupted, now)?;
    }
    Ok(())
}

/// Notifies the observer when the message belongs to a run.
pub(super) fn notify(
    tx: &mut Tx<'_>,
    observer: &dyn Observer,
    state: &MessageState,
    transition: Transition<'_>,
    now: Timestamp,
) -> Result<(), store::Error> {
    match tx.bodies()?.head(&state.body)? {
        Some(BodyHead { run, recipient }) if run != 0 => {
            let message = RunMessage { run, recipient, body: state.body, message_id: state.message_id };
            observer.on_transition(tx, message, transition, now)
        }
        _ => Ok(()),
    }
}

/// The message's last failure.
pub(super) fn last_failure(tx: &mut Tx<'_>, state: &MessageState) -> Result<Option<Failure>, store::Error> {
    let last = tx.history()?.last((state.body, 0)..=(state.body, u32::MAX))?;
    Ok(last.and_then(|(_, attempt)| attempt.failure))
}

/// The state of a message without a lease.
pub(super) fn unleased(state: &MessageState, phase: Phase, visible_at: LeaseTime) -> MessageState {
    MessageState { phase, visible_at, owner: Owner::Nobody, lease: 0, suspicion: Suspicion::None, ..state.clone() }
}

/// Whether the queue's retention or the message's own expiry has passed. The expiry does not apply to dead letters:
/// they are evidence of a failure and stay for their queue's retention.
pub(super) fn is_expired(state: &MessageState, queue: &QueueRecord, now: Timestamp) -> bool {
    outlived(state, queue, now) || (state.source == 0 && state.expires_at != Timestamp::ZERO && state.expires_at <= now)
}

/// Whether the queue's retention has passed for this message.
pub(super) fn outlived(state: &MessageState, queue: &QueueRecord, now: Timestamp) -> bool {
    let retention = queue.attributes.retention_ms.map(Duration::from_millis);
    retention.is_some_and(|retention| state.sent_at.after(retention) <= now)
}

/// The state of a message that is sent or redriven; `arrival_seq` is its new sequence number.
pub(super) fn fresh(arrival_seq: u64, body: u64, size_bytes: u32, now: Timestamp) -> MessageState {
    MessageState {
        phase: Phase::Ready,
        owner: Owner::Nobody,
        body,
        message_id: MessageId::fresh(),
        sent_at: now,
        visible_at: LeaseTime::ZERO,
        first_received_at: Timestamp::ZERO,
        received_at: LeaseTime::ZERO,
        deferred_since: LeaseTime::ZERO,
        receive_count: 0,
        attempts_charged: 0,
        attempts: 0,
        lease: 0,
        arrival_seq,
        size_bytes,
        source: 0,
        group: None,
        priority: 0,
        expires_at: Timestamp::ZERO,
        unique: None,
        redriven_by: None,
        suspicion: Suspicion::None,
    }
}

/// The body of a message that has a state.
pub(super) fn body(tx: &mut Tx<'_>, state: &MessageState) -> Result<Body, store::Error> {
    let body = tx.bodies()?.get(&state.body)?;
    body.ok_or_else(|| without_body(tx, state))
}

/// Whose message it is, of a message that has a state.
pub(super) fn head(tx: &mut Tx<'_>, state: &MessageState) -> Result<BodyHead, store::Error> {
    let head = tx.bodies()?.head(&state.body)?;
    head.ok_or_else(|| without_body(tx, state))
}

fn without_body(tx: &Tx<'_>, state: &MessageState) -> store::Error {
    tx.damaged("bodies", format!("body {} of message {} is missing", state.body, state.message_id))
}

/// Adds a message to the index of its phase. Ready messages of a group are indexed by [`group::update`] instead.
fn link(tx: &mut Tx<'_>, key: Key, state: &MessageState) -> Result<(), store::Error> {
    match state.phase {
        Phase::Ready if state.suspicion == Suspicion::Suspect => {
            tx.suspects()?.insert(&suspect_key(key, state), &())?;
        }
        Phase::Ready if state.group.is_some() => {}
        Phase::Ready => drop(tx.ready()?.insert(&ready_key(key, state), &())?),
        Phase::Delayed | Phase::InFlight => drop(tx.timed()?.insert(&timed_key(key, state), &())?),
    }
    if expires_while_waiting(state) {
        tx.expiries()?.insert(&(key.0, state.expires_at.as_millis(), key.1), &())?;
    }
    Ok(())
}

fn unlink(tx: &mut Tx<'_>, key: Key, state: &MessageState) -> Result<(), store::Error> {
    let mut was_there = match state.phase {
        Phase::Ready if state.suspicion == Suspicion::Suspect => tx.suspects()?.remove(&suspect_key(key, state))?,
        Phase::Ready if state.group.is_some() => true,
        Phase::Ready => tx.ready()?.remove(&ready_key(key, state))?,
        Phase::Delayed | Phase::InFlight => tx.timed()?.remove(&timed_key(key, state))?,
    };
    if expires_while_waiting(state) {
        was_there &= tx.expiries()?.remove(&(key.0, state.expires_at.as_millis(), key.1))?;
    }
    // A missing entry means that index and state already disagreed: fail before this step makes it worse.
    if was_there {
        return Ok(());
    }
    let reason = format!("message {} of queue {} does not stand in the index of its phase", state.message_id, key.0);
    Err(tx.damaged("states", reason))
}

/// Whether the message is in the `expiries` index: messages in flight and dead letters do not expire.
pub(super) fn expires_while_waiting(state: &MessageState) -> bool {
    state.expires_at != Timestamp::ZERO && state.phase != Phase::InFlight && state.source == 0
}

pub(super) fn ready_key(key: Key, state: &MessageState) -> (u32, u32, u64) {
    (key.0, state.priority, key.1)
}

/// Suspects go by fewest charges, then age.
pub(super) fn suspect_key(key: Key, state: &MessageState) -> (u32, u32, u64) {
    (key.0, state.attempts_charged, key.1)
}

pub(super) fn timed_key(key: Key, state: &MessageState) -> (u32, u64, u64) {
    (key.0, state.visible_at.as_millis(), key.1)
}

/// Subtracts from a count; false when the count is too small. A wrapped count would stay wrong for good.
fn uncount(count: &mut u64, by: u64) -> bool {
    let left = count.checked_sub(by);
    *count = left.unwrap_or(0);
    left.is_some()
}

fn not_counted(tx: &Tx<'_>, key: Key) -> store::Error {
    tx.damaged("counts", format!("the counts of queue {} do not cover message {}", key.0, key.1))
}

pub(super) fn slot(counts: &mut Counts, phase: Phase) -> &mut u64 {
    match phase {
        Phase::Ready => &mut counts.ready,
        Phase::Delayed => &mut counts.delayed,
        Phase::InFlight => &mut counts.in_flight,
    }
}
