//! ReceiveMessage: up to ten messages become invisible to others, and each receive is counted before anyone sees it.

use std::time::Duration;

use bytes::Bytes;

use crate::base::{Attempt, AttemptEnd, Failure, MessageId, Timestamp};
use crate::store::record::{MessageState, Owner, Place, QueueRecord};
use crate::store::{self, Tx};

use super::{Error, ReceiptHandle, Witness, catalog, place, recover, settle};

/// The longest visibility timeout, as in SQS.
pub const VISIBILITY_MAX: Duration = Duration::from_secs(43_200);
/// One receive looks at no more than this many messages that became visible, expired or died.
const LOOK_MAX: usize = 256;

/// What to receive.
#[derive(Clone, Copy, Debug)]
pub struct Receive {
    /// At most this many messages; the API takes 1 to 10, our own workers more.
    pub max: usize,
    /// How long they stay invisible, 0 s to 12 h; the queue's timeout when `None`.
    pub visibility: Option<Duration>,
    /// Who receives.
    pub owner: Owner,
}

/// A message that was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Deletes it, or changes its visibility.
    pub handle: ReceiptHandle,
    /// Its id.
    pub message_id: MessageId,
    /// Its text.
    pub body: Bytes,
    /// The run that it belongs to; zero when none.
    pub run: u64,
    /// The key of its recipient's row; zeros when none.
    pub recipient: [u8; 16],
    /// When it was sent.
    pub sent_at: Timestamp,
    /// When it was first received.
    pub first_received_at: Timestamp,
    /// When this receive was.
    pub received_at: Timestamp,
    /// SQS's receive count, this receive included.
    pub receive_count: u32,
    /// Attempts charged, this one included.
    pub charged: u32,
    /// The queue that it died from, when it is a dead letter; zero otherwise.
    pub source: u32,
}

/// What a receive found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receiving {
    /// The messages.
    pub messages: Vec<Received>,
    /// When to look again: the moment at which the next message becomes visible by itself, or the past or present when
    /// this step left some for the next one. A receive that found none waits until then.
    pub next_visible_at: Option<Timestamp>,
}

/// Receives messages in about the order of sending. A message that was received `max_receive_count` times goes to
/// the dead-letter queue instead, one that outlived its retention is deleted.
///
/// # Errors
/// The visibility timeout is out of its limits.
pub fn receive(
    tx: &mut Tx<'_>,
    witness: &dyn Witness,
    queue: &QueueRecord,
    what: Receive,
    now: Timestamp,
) -> Result<Receiving, Error> {
    let visibility = what.visibility.unwrap_or(Duration::from_millis(queue.attributes.visibility_timeout_ms));
    if visibility > VISIBILITY_MAX {
        let max = VISIBILITY_MAX.as_secs();
        return Err(Error::OutOfRange { what: "VisibilityTimeout", min: 0, max, got: visibility.as_secs() });
    }
    show_due(tx, witness, queue, now)?;
    let mut messages = Vec::new();
    let mut looked = 0;
    while messages.len() < what.max && looked < LOOK_MAX.max(what.max) {
        let wanted = what.max - messages.len();
        let found = tx.ready()?.first((queue.id, 0)..=(queue.id, u64::MAX), wanted)?;
        if found.is_empty() {
            break;
        }
        looked += found.len();
        for (key, ()) in found {
            let state = state_of(tx, key)?;
            if !leaves(tx, witness, queue, key, &state, now)? {
                messages.push(hand_out(tx, key, &state, what.owner, visibility, now)?);
            }
        }
    }
    // The step may end at its limit before the queue does: then whoever wants more looks again at once.
    let left_some =
        messages.len() < what.max && !tx.ready()?.first((queue.id, 0)..=(queue.id, u64::MAX), 1)?.is_empty();
    let next = tx.timed()?.first((queue.id, 0, 0)..=(queue.id, u64::MAX, u64::MAX), 1)?;
    let next_visible_at = next.first().map(|((_, at, _), ())| Timestamp::from_millis(*at));
    Ok(Receiving { messages, next_visible_at: if left_some { Some(now) } else { next_visible_at } })
}

/// Makes due messages ready: delays that passed, and leases that ran out.
fn show_due(tx: &mut Tx<'_>, witness: &dyn Witness, queue: &QueueRecord, now: Timestamp) -> Result<(), Error> {
    let due = tx.timed()?.first((queue.id, 0, 0)..=(queue.id, now.as_millis(), u64::MAX), LOOK_MAX)?;
    for ((_, _, sequence), ()) in due {
        let key = (queue.id, sequence);
        let state = state_of(tx, key)?;
        if state.place == Place::InFlight && state.owner == Owner::Worker {
            recover::lose(tx, witness, key, &state, now)?;
        } else {
            let shown = MessageState {
                place: Place::Ready,
                owner: Owner::Nobody,
                visible_at: Timestamp::ZERO,
                ..state.clone()
            };
            place::shift(tx, key, &state, &shown)?;
        }
    }
    Ok(())
}

/// Whether the message leaves the queue instead of being handed out.
fn leaves(
    tx: &mut Tx<'_>,
    witness: &dyn Witness,
    queue: &QueueRecord,
    key: place::Key,
    state: &MessageState,
    now: Timestamp,
) -> Result<bool, Error> {
    if place::is_expired(state, queue, now) {
        place::withdraw(tx, witness, key, state, "expired", now)?;
        return Ok(true);
    }
    let max = queue.attributes.redrive.as_ref().map(|(_, max)| *max);
    let Some(max) = max.filter(|max| state.charged >= *max) else { return Ok(false) };
    let Some(dead_letter_queue) = catalog::dead_letter_queue(tx, queue)? else { return Ok(false) };
    if place::last_fingerprint(tx, state)?.is_none() {
        settle::remember(tx, state, &never_deleted(state, max, now))?;
    }
    place::bury(tx, witness, key, state, &dead_letter_queue, now)?;
    Ok(true)
}

/// The last attempt of a message whose receivers never said what went wrong, so that its letter has a class too.
fn never_deleted(state: &MessageState, max: u32, now: Timestamp) -> Attempt {
    let text = format!("received {} times and never deleted (max_receive_count is {max})", state.charged);
    Attempt {
        number: state.attempts,
        function: String::new(),
        started_at: state.received_at,
        ended_at: now,
        end: AttemptEnd::Dead,
        failure: Some(Failure::new("receive", "client", "max-receive-count", text)),
    }
}

fn hand_out(
    tx: &mut Tx<'_>,
    key: place::Key,
    state: &MessageState,
    owner: Owner,
    visibility: Duration,
    now: Timestamp,
) -> Result<Received, Error> {
    let body = place::body(tx, state)?;
    let first = state.receive_count == 0;
    let held = MessageState {
        place: Place::InFlight,
        owner,
        visible_at: now.after(visibility),
        first_received_at: if first { now } else { state.first_received_at },
        received_at: now,
        receive_count: state.receive_count.saturating_add(1),
        charged: state.charged.saturating_add(1),
        attempts: state.attempts.saturating_add(1),
        lease: tx.fresh_id()?,
        ..state.clone()
    };
    place::shift(tx, key, state, &held)?;
    Ok(Received {
        handle: ReceiptHandle { queue: key.0, sequence: key.1, lease: held.lease },
        message_id: held.message_id,
        body: body.bytes,
        run: body.run,
        recipient: body.recipient,
        sent_at: held.sent_at,
        first_received_at: held.first_received_at,
        received_at: now,
        receive_count: held.receive_count,
        charged: held.charged,
        source: held.source,
    })
}

pub(super) fn state_of(tx: &mut Tx<'_>, key: place::Key) -> Result<MessageState, store::Error> {
    let state = tx.states()?.get(&key)?;
    state.ok_or_else(|| {
        tx.damaged("states", format!("message {} of queue {} stands in an index but has no state", key.1, key.0))
    })
}
