//! The states of messages: reading them and what belongs to them, the states that begin a stay in a queue, and the keys
//! under which a state stands in the indexes. Writes nothing.

use std::time::Duration;

use crate::base::{Attempt, Failure, LeaseTime, MessageId, Timestamp};
use crate::store::record::{Body, BodyHead, Counts, MessageState, Owner, Phase, QueueRecord, Suspicion};
use crate::store::{self, Tx};

/// A queue and a sequence number: the key of a message.
pub(super) type Key = (u32, u64);

/// The state of a message that stands in an index.
pub(super) fn get(tx: &mut Tx<'_>, key: Key) -> Result<MessageState, store::Error> {
    let state = tx.states()?.get(&key)?;
    state.ok_or_else(|| {
        tx.damaged("states", format!("message {} of queue {} stands in an index but has no state", key.1, key.0))
    })
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

/// The message's last failure.
pub(super) fn last_failure(tx: &mut Tx<'_>, state: &MessageState) -> Result<Option<Failure>, store::Error> {
    Ok(last_attempt(tx, state)?.and_then(|attempt| attempt.failure))
}

/// The message's last attempt on record.
pub(super) fn last_attempt(tx: &mut Tx<'_>, state: &MessageState) -> Result<Option<Attempt>, store::Error> {
    let last = tx.history()?.last((state.body, 0)..=(state.body, u32::MAX))?;
    Ok(last.map(|(_, attempt)| attempt))
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

pub(super) fn slot(counts: &mut Counts, phase: Phase) -> &mut u64 {
    match phase {
        Phase::Ready => &mut counts.ready,
        Phase::Delayed => &mut counts.delayed,
        Phase::InFlight => &mut counts.in_flight,
    }
}
