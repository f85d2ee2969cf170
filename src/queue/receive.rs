//! ReceiveMessage: up to ten messages become invisible to others, and each receive is counted before anyone sees it.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::time::Duration;

use bytes::Bytes;

use crate::base::{Attempt, AttemptEnd, Failure, MessageId, Timestamp};
use crate::store::record::{Body, Envelope, Group, MessageState, Owner, Place, QueueRecord, Recent, RecentRecord};
use crate::store::{self, Tx};

use super::place::Withdrawal;
use super::{Error, ReceiptHandle, Witness, catalog, group, place, recent, recover, settle};

/// The longest visibility timeout, as in SQS.
pub const VISIBILITY_MAX: Duration = Duration::from_secs(43_200);
/// At most this many messages of a queue are in flight, as in SQS.
pub const IN_FLIGHT_MAX: u64 = 120_000;
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
    /// What the sender said beside the text.
    pub envelope: Envelope,
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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Receiving {
    /// The messages.
    pub messages: Vec<Received>,
    /// When to look again: the moment at which the next message becomes visible by itself, or the past or present when
    /// this step left some for the next one. A receive that found none waits until then.
    pub next_visible_at: Option<Timestamp>,
    /// Nothing is handed out because [`IN_FLIGHT_MAX`] messages are in flight.
    pub is_over_limit: bool,
}

/// Receives messages: those of a lower priority first, within one in about the order of sending; of a FIFO queue's group
/// strictly in that order. A message that was received `max_receive_count` times goes to the dead-letter queue instead,
/// one that outlived its time is deleted. A paused queue gives nothing.
///
/// # Errors
/// The visibility timeout is out of its limits, or the queue was deleted.
pub fn receive(
    tx: &mut Tx<'_>,
    witness: &dyn Witness,
    queue: &QueueRecord,
    what: Receive,
    now: Timestamp,
) -> Result<Receiving, Error> {
    let visibility = visibility(queue, what)?;
    if queue.deleted_at.is_some() {
        return Err(Error::Gone(queue.id));
    }
    if queue.paused.is_some() {
        return Ok(Receiving::default());
    }
    show_due(tx, witness, queue, now)?;
    let in_flight = tx.counts_of(queue.id)?.in_flight;
    let room = usize::try_from(IN_FLIGHT_MAX.saturating_sub(in_flight)).unwrap_or(usize::MAX);
    let what = Receive { max: what.max.min(room), ..what };
    let mut taking = Taking { tx, witness, queue, what, visibility, now, messages: Vec::new(), looked: 0 };
    taking.run()?;
    let messages = taking.messages;
    // The step may end at its limit before the queue does: then whoever wants more looks again at once.
    let left_some = messages.len() < what.max && !tx.ready()?.first(all(queue), 1)?.is_empty();
    let next = tx.timed()?.first((queue.id, 0, 0)..=(queue.id, u64::MAX, u64::MAX), 1)?;
    let next_visible_at = next.first().map(|((_, at, _), ())| Timestamp::from_millis(*at));
    let next_visible_at = if left_some { Some(now) } else { next_visible_at };
    Ok(Receiving { messages, next_visible_at, is_over_limit: room == 0 })
}

/// Receives from a FIFO queue as one attempt of that id: another one with the same id within five minutes gets the same
/// messages, held anew, as long as all of them are still held.
///
/// # Errors
/// As [`receive`].
pub fn receive_attempt(
    tx: &mut Tx<'_>,
    witness: &dyn Witness,
    queue: &QueueRecord,
    what: Receive,
    attempt: &str,
    now: Timestamp,
) -> Result<Receiving, Error> {
    if queue.attributes.fifo.is_none() {
        return Err(Error::OnlyOnFifo { queue: queue.name.clone(), what: "ReceiveRequestAttemptId" });
    }
    let visibility = visibility(queue, what)?;
    let digest = recent::digest(&["attempt", attempt]);
    if let Some(Recent::Received { leases }) = recent::recall(tx, queue.id, digest, now)?
        && let Some(held) = still_held(tx, queue, &leases, now)?
    {
        let messages = held.into_iter().map(|(key, state)| hold_on(tx, key, &state, visibility, now));
        let messages = messages.collect::<Result<_, store::Error>>()?;
        return Ok(Receiving { messages, ..Receiving::default() });
    }
    let receiving = receive(tx, witness, queue, what, now)?;
    if !receiving.messages.is_empty() {
        let leases = receiving.messages.iter().map(|message| (message.handle.sequence, message.handle.lease)).collect();
        let record = RecentRecord { until: now.after(recent::REMEMBERED), what: Recent::Received { leases } };
        recent::remember(tx, queue.id, digest, &record, now)?;
    }
    Ok(receiving)
}

fn visibility(queue: &QueueRecord, what: Receive) -> Result<Duration, Error> {
    let visibility = what.visibility.unwrap_or(Duration::from_millis(queue.attributes.visibility_timeout_ms));
    if visibility > VISIBILITY_MAX {
        let max = VISIBILITY_MAX.as_secs();
        return Err(Error::OutOfRange { what: "VisibilityTimeout", min: 0, max, got: visibility.as_secs() });
    }
    Ok(visibility)
}

/// The messages of an earlier receive, when every one of them is still held by it.
fn still_held(
    tx: &mut Tx<'_>,
    queue: &QueueRecord,
    leases: &[(u64, u64)],
    now: Timestamp,
) -> Result<Option<Vec<(place::Key, MessageState)>>, store::Error> {
    let mut held = Vec::new();
    for (sequence, lease) in leases {
        let key = (queue.id, *sequence);
        match tx.states()?.get(&key)? {
            Some(state) if state.lease == *lease && state.place == Place::InFlight && state.visible_at > now => {
                held.push((key, state));
            }
            _ => return Ok(None),
        }
    }
    Ok(Some(held))
}

/// Hands a held message out once more; it counts as the same receive.
fn hold_on(
    tx: &mut Tx<'_>,
    key: place::Key,
    state: &MessageState,
    visibility: Duration,
    now: Timestamp,
) -> Result<Received, store::Error> {
    let held = MessageState { visible_at: now.after(visibility), ..state.clone() };
    place::shift(tx, key, state, &held)?;
    let body = place::body(tx, state)?;
    Ok(received(key, &held, body))
}

/// All of the queue in the ready index.
fn all(queue: &QueueRecord) -> RangeInclusive<(u32, u32, u64)> {
    (queue.id, 0, 0)..=(queue.id, u32::MAX, u64::MAX)
}

/// One receive under way.
struct Taking<'a, 't> {
    tx: &'a mut Tx<'t>,
    witness: &'a dyn Witness,
    queue: &'a QueueRecord,
    what: Receive,
    visibility: Duration,
    now: Timestamp,
    /// What is handed out so far.
    messages: Vec<Received>,
    /// How many messages were looked at.
    looked: usize,
}

impl Taking<'_, '_> {
    fn run(&mut self) -> Result<(), Error> {
        // Groups that hold too much of what is in flight: fewer than ten, since each has more than a tenth.
        let mut yielding = BTreeSet::new();
        while self.goes_on() {
            let wanted = self.wanted() + yielding.len();
            let mut found = self.tx.ready()?.first(all(self.queue), wanted)?;
            found.retain(|(key, ())| !yielding.contains(key));
            found.truncate(self.wanted());
            if found.is_empty() {
                break;
            }
            for (key, ()) in found {
                let state = state_of(self.tx, (key.0, key.2))?;
                match state.group {
                    None => self.offer((key.0, key.2), &state)?,
                    Some(group) if !group.is_ordered && group::is_noisy(self.tx, key.0, group.id)? => {
                        yielding.insert(key);
                    }
                    Some(group) => {
                        self.offer_group((key.0, key.2), &state, group)?;
                        // The group's next message stands in the index now.
                        break;
                    }
                }
            }
        }
        while self.goes_on() {
            let Some(((queue, _, sequence), ())) = self.tx.ready()?.first(all(self.queue), 1)?.pop() else { break };
            let state = state_of(self.tx, (queue, sequence))?;
            self.offer((queue, sequence), &state)?;
        }
        Ok(())
    }

    fn wanted(&self) -> usize {
        self.what.max - self.messages.len()
    }

    fn goes_on(&self) -> bool {
        self.wanted() > 0 && self.looked < LOOK_MAX.max(self.what.max)
    }

    /// Hands the message out, unless its time or its attempts are over.
    fn offer(&mut self, key: place::Key, state: &MessageState) -> Result<(), Error> {
        self.looked += 1;
        if !leaves(self.tx, self.witness, self.queue, key, state, self.now)? {
            let message = hand_out(self.tx, key, state, self.what.owner, self.visibility, self.now)?;
            self.messages.push(message);
        }
        Ok(())
    }

    /// Hands out the first message of a group. Of a FIFO queue a client gets those behind it too, as many as it wants; our
    /// own workers, which work side by side, get one.
    fn offer_group(&mut self, key: place::Key, state: &MessageState, group: Group) -> Result<(), Error> {
        if !group.is_ordered || self.what.owner == Owner::Worker {
            return self.offer(key, state);
        }
        for sequence in group::waiting(self.tx, key.0, group.id, self.wanted())? {
            let state = state_of(self.tx, (key.0, sequence))?;
            if state.place != Place::Ready {
                break;
            }
            self.offer((key.0, sequence), &state)?;
        }
        Ok(())
    }
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
        place::withdraw(tx, witness, key, state, Withdrawal::Expired, now)?;
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
    Ok(received(key, &held, body))
}

fn received(key: place::Key, held: &MessageState, body: Body) -> Received {
    Received {
        handle: ReceiptHandle { queue: key.0, sequence: key.1, lease: held.lease },
        message_id: held.message_id,
        body: body.bytes,
        envelope: body.envelope,
        run: body.run,
        recipient: body.recipient,
        sent_at: held.sent_at,
        first_received_at: held.first_received_at,
        received_at: held.received_at,
        receive_count: held.receive_count,
        charged: held.charged,
        source: held.source,
    }
}

pub(super) fn state_of(tx: &mut Tx<'_>, key: place::Key) -> Result<MessageState, store::Error> {
    let state = tx.states()?.get(&key)?;
    state.ok_or_else(|| {
        tx.damaged("states", format!("message {} of queue {} stands in an index but has no state", key.1, key.0))
    })
}
