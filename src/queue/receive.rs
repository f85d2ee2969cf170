//! ReceiveMessage: hides up to ten messages from other receivers and commits each receive count before the messages are
//! returned.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::time::Duration;

use bytes::Bytes;

use crate::base::{Attempt, AttemptEnd, Failure, LeaseTime, MessageId, Now, Timestamp};
use crate::store::record::{
    Body, BodyHead, DedupEntry, DedupRecord, Envelope, Group, MessageState, Owner, Phase, QueueRecord, Shown, Suspicion,
};
use crate::store::{self, Tx};

use super::ending::{self, Withdrawal};
use super::state::Key;
use super::undo::Undo;
use super::{
    Error, Observer, ReceiptHandle, catalog, dedup, expire, group, messages, observer, recall, recover, settle, state,
    valid,
};

/// The longest visibility timeout, as in SQS.
pub const VISIBILITY_MAX: Duration = Duration::from_secs(43_200);
pub use super::messages::IN_FLIGHT_MAX;
/// One receive examines at most this many messages that became visible, expired or died, which bounds the length of a
/// step.
const SCAN_MAX: usize = 100;

/// A receive reads this many rows of the ready index at a time.
const LOOKED_AHEAD: usize = 10;

/// Parameters of a receive.
#[derive(Clone, Copy, Debug)]
pub struct Receive {
    /// At most this many messages; the API takes 1 to 10, our own workers more.
    pub max: usize,
    /// Visibility timeout, 0 s to 12 h; the queue's own when `None`.
    pub visibility: Option<Duration>,
    /// Who receives: a client or a worker.
    pub owner: Owner,
}

/// A message that was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Names this receive; needed to delete the message or to change its visibility.
    pub handle: ReceiptHandle,
    /// Its id.
    pub message_id: MessageId,
    /// Its text.
    pub body: Bytes,
    /// The sender's metadata: attributes, group and the like.
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
    pub received_at: LeaseTime,
    /// SQS's receive count, this receive included.
    pub receive_count: u32,
    /// Attempts charged, this one included.
    pub attempts_charged: u32,
    /// The queue that it died from, when it is a dead letter; zero otherwise.
    pub source: u32,
    /// Its priority; lower ones go first.
    pub priority: u32,
    /// When the first of the present series of deferrals was received; zero outside one.
    pub deferred_since: LeaseTime,
}

impl Received {
    /// Where it stood in the queue; see [`receive_after`].
    pub const fn position(&self) -> Position {
        (self.priority, self.handle.sequence)
    }
}

/// Priority and sequence number: the order in which a queue gives its messages.
pub type Position = (u32, u64);

/// What a receive found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Receiving {
    /// The messages.
    pub messages: Vec<Received>,
    /// When to receive again: the moment at which the next message becomes visible, or now when this step reached its
    /// scan limit and left ready messages behind. A long poll that found nothing waits until then.
    pub next_visible_at: Option<LeaseTime>,
    /// Set when nothing was returned because [`IN_FLIGHT_MAX`] messages are in flight.
    pub is_over_limit: bool,
    /// Set when another receive would find messages now.
    pub has_more: bool,
    /// How to undo the receive of each message.
    pub undo: Vec<Undo>,
}

/// Receives messages: lower priority values first, and equal priorities in roughly the order of sending; a FIFO queue's
/// groups in exactly that order. A message that was already received `max_receive_count` times moves to the dead-letter
/// queue instead; an expired one is deleted, and one whose run may not go on is held back. A paused queue returns nothing.
///
/// # Errors
/// The visibility timeout is out of its limits, or the queue was deleted.
pub fn receive(
    tx: &mut Tx<'_>,
    observer: &dyn Observer,
    queue: &QueueRecord,
    what: Receive,
    now: Now,
) -> Result<Receiving, Error> {
    receive_from(tx, observer, queue, what, None, now)
}

/// Receives as [`receive`] does, but begins behind `after` and goes on from the front of the queue, so that the callers
/// that name the position of the last message get every message in turn.
///
/// # Errors
/// As [`receive`].
pub fn receive_after(
    tx: &mut Tx<'_>,
    observer: &dyn Observer,
    queue: &QueueRecord,
    what: Receive,
    after: Position,
    now: Now,
) -> Result<Receiving, Error> {
    receive_from(tx, observer, queue, what, Some(after), now)
}

fn receive_from(
    tx: &mut Tx<'_>,
    observer: &dyn Observer,
    queue: &QueueRecord,
    what: Receive,
    after: Option<Position>,
    now: Now,
) -> Result<Receiving, Error> {
    let visibility = visibility(queue, what)?;
    if queue.deleted_at.is_some() {
        return Err(Error::Gone(queue.id));
    }
    if queue.paused.is_some() {
        return Ok(Receiving::default());
    }
    // Make due messages ready first: this returns expired leases to the queue and lowers the in-flight count below.
    show_due(tx, queue, now)?;
    if queue.attributes.fifo.is_some() {
        // Those that others hold would block their groups until the next sweep.
        expire::outlived(tx, observer, queue, now.wall, SCAN_MAX)?;
    }
    let in_flight = tx.counts_of(queue.rows)?.in_flight;
    let capacity = usize::try_from(IN_FLIGHT_MAX.saturating_sub(in_flight)).unwrap_or(usize::MAX);
    let what = Receive { max: what.max.min(capacity), ..what };
    let mut step =
        ReceiveStep { tx, observer, queue, what, visibility, now, messages: Vec::new(), undo: Vec::new(), scanned: 0 };
    match after {
        None => step.run()?,
        Some(after) => step.run_after(after)?,
    }
    let ReceiveStep { messages, undo, .. } = step;
    let has_more = capacity > 0 && !tx.ready()?.first(all(queue), 1)?.is_empty();
    // The step may stop at `SCAN_MAX` with ready messages left. Callers that want more must then receive again at once.
    let left_some = messages.len() < what.max && has_more;
    // `timed` is sorted by time, so its first entry is the next message to become visible.
    let next = tx.timed()?.first((queue.rows, 0, 0)..=(queue.rows, u64::MAX, u64::MAX), 1)?;
    let next_visible_at = next.first().map(|((_, at, _), ())| LeaseTime::from_millis(*at));
    let next_visible_at = if left_some { Some(now.lease) } else { next_visible_at };
    Ok(Receiving { messages, next_visible_at, is_over_limit: capacity == 0, has_more, undo })
}

/// Receives the next suspect of the queue for a worker: the one charged least, then the oldest. It is marked with
/// `suspicion`: as alone in the process, when it is. Suspects whose attempts are used up die, and expired ones go, as in
/// [`receive`]. A paused queue gives none.
///
/// # Errors
/// A storage fault.
pub fn receive_suspect(
    tx: &mut Tx<'_>,
    observer: &dyn Observer,
    queue: &QueueRecord,
    (visibility, suspicion): (Duration, Suspicion),
    now: Now,
) -> Result<Option<Received>, Error> {
    if queue.paused.is_some() || queue.deleted_at.is_some() {
        return Ok(None);
    }
    let suspects = tx.suspects()?.first((queue.rows, 0, 0)..=(queue.rows, u32::MAX, u64::MAX), SCAN_MAX)?;
    for ((queue_id, _, sequence), ()) in suspects {
        let key = (queue_id, sequence);
        let state = state::get(tx, key)?;
        if remove_if_ended(tx, observer, queue, key, &state, now)? {
            continue;
        }
        let body = state::body(tx, &state)?;
        if !is_held_back(tx, observer, (key, &state), &body, now)? {
            let hold = Hold { owner: Owner::Worker, visibility, suspicion };
            return Ok(Some(hand_out(tx, (key, &state), body, hold, now)?));
        }
    }
    Ok(None)
}

/// Receives from a FIFO queue with SQS's ReceiveRequestAttemptId. A repeated call with the same id within five minutes
/// returns the same messages with a new visibility timeout, as long as all of them are still in flight under the first
/// receive and the visibility of none was changed. After that the id is void, and the call is a receive like any other.
///
/// # Errors
/// As [`receive`]; the id does not have 1 to 128 characters.
pub fn receive_attempt(
    tx: &mut Tx<'_>,
    observer: &dyn Observer,
    queue: &QueueRecord,
    what: Receive,
    attempt: &str,
    now: Now,
) -> Result<Receiving, Error> {
    if queue.attributes.fifo.is_none() {
        return Err(Error::OnlyOnFifo { queue: queue.name.clone(), what: "ReceiveRequestAttemptId" });
    }
    valid::identifier("ReceiveRequestAttemptId", Some(attempt))?;
    let visibility = visibility(queue, what)?;
    let digest = dedup::digest(&["attempt", attempt]);
    let visible_at = now.lease.after(visibility);
    if let Some(DedupRecord { until, what: DedupEntry::Attempt { leases, visible_at: expected } }) =
        dedup::get_record(tx, queue.rows, digest, now.lease)?
        && let Some(held) = still_held(tx, queue, &leases, expected, now)?
    {
        let messages = held.into_iter().map(|(key, state)| renew(tx, key, &state, visible_at));
        let messages = messages.collect::<Result<_, store::Error>>()?;
        let record = DedupRecord { until, what: DedupEntry::Attempt { leases, visible_at } };
        dedup::insert(tx, queue.rows, digest, &record, now.lease)?;
        return Ok(Receiving { messages, ..Receiving::default() });
    }
    let receiving = receive(tx, observer, queue, what, now)?;
    // An empty receive is not remembered: a repeat should look for new messages.
    if !receiving.messages.is_empty() {
        let leases = receiving.messages.iter().map(|message| (message.handle.sequence, message.handle.lease)).collect();
        let what = DedupEntry::Attempt { leases, visible_at };
        let record = DedupRecord { until: now.lease.after(dedup::REMEMBERED), what };
        dedup::insert(tx, queue.rows, digest, &record, now.lease)?;
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

/// The messages of an earlier receive, or `None` unless that receive still holds every one of them until `visible_at`.
fn still_held(
    tx: &mut Tx<'_>,
    queue: &QueueRecord,
    leases: &[(u64, u64)],
    visible_at: LeaseTime,
    now: Now,
) -> Result<Option<Vec<(Key, MessageState)>>, store::Error> {
    if visible_at <= now.lease {
        return Ok(None);
    }
    let mut held = Vec::new();
    for (sequence, lease) in leases {
        let key = (queue.rows, *sequence);
        match tx.states()?.get(&key)? {
            // A visibility that was changed shows in the moment; the lease stays.
            Some(state) if (state.lease, state.phase, state.visible_at) == (*lease, Phase::InFlight, visible_at) => {
                held.push((key, state));
            }
            _ => return Ok(None),
        }
    }
    Ok(Some(held))
}

/// Returns a message in flight again and restarts its visibility timeout. It counts as the same receive: the lease and
/// the receive count stay.
fn renew(tx: &mut Tx<'_>, key: Key, state: &MessageState, visible_at: LeaseTime) -> Result<Received, store::Error> {
    let held = MessageState { visible_at, ..state.clone() };
    if visible_at < state.visible_at {
        // Long polls sleep until the old moment; wake them so that they see the earlier one.
        messages::wake(tx, key)?;
    }
    messages::update(tx, key, state, &held)?;
    let body = state::body(tx, state)?;
    Ok(received(key, &held, body))
}

/// The queue's whole range in the ready index.
fn all(queue: &QueueRecord) -> RangeInclusive<(u32, u32, u64)> {
    (queue.rows, 0, 0)..=(queue.rows, u32::MAX, u64::MAX)
}

/// The message that a row of the ready index stands for.
fn shown_key((queue, _, place): (u32, u32, u64), Shown(sequence): Shown) -> Key {
    (queue, sequence.unwrap_or(place))
}

/// The state of one receive.
struct ReceiveStep<'a, 't> {
    tx: &'a mut Tx<'t>,
    observer: &'a dyn Observer,
    queue: &'a QueueRecord,
    what: Receive,
    visibility: Duration,
    now: Now,
    /// Messages received so far.
    messages: Vec<Received>,
    /// How to undo the receive of each of them.
    undo: Vec<Undo>,
    /// How many messages were examined, received or not; at [`SCAN_MAX`] the step ends.
    scanned: usize,
}

impl ReceiveStep<'_, '_> {
    fn run(&mut self) -> Result<(), Error> {
        // Heads of noisy groups, skipped in this first pass. At most nine groups can be noisy, because each has more
        // than a tenth of the messages in flight, so asking for that many more rows is cheap.
        let mut noisy_heads = BTreeSet::new();
        while self.goes_on() {
            // A few at a time: the first one of a group makes the rest of them stale.
            let wanted = self.wanted().min(LOOKED_AHEAD) + noisy_heads.len();
            let mut found = self.tx.ready()?.first(all(self.queue), wanted)?;
            found.retain(|(row, _)| !noisy_heads.contains(row));
            found.truncate(self.wanted());
            if found.is_empty() {
                break;
            }
            for (row, shown) in found {
                let key = shown_key(row, shown);
                let state = state::get(self.tx, key)?;
                match state.group {
                    None => self.offer(key, &state)?,
                    Some(group) if !group.is_ordered && group::is_noisy(self.tx, key.0, group.id)? => {
                        noisy_heads.insert(row);
                    }
                    Some(group) => {
                        self.offer_group(key, &state, group)?;
                        // The index changed: it now shows the group's next message, so `found` is stale.
                        break;
                    }
                }
            }
        }
        // Second pass: only noisy groups are left, so they get the remaining places. Skipping them would leave capacity
        // unused, and fairness only decides who goes first.
        while self.goes_on() {
            let Some((row, shown)) = self.tx.ready()?.first(all(self.queue), 1)?.pop() else { break };
            let key = shown_key(row, shown);
            let state = state::get(self.tx, key)?;
            self.offer(key, &state)?;
        }
        Ok(())
    }

    /// Receives from behind `after` to the end, then from the front. Noisy groups are not skipped: callers get each
    /// message in turn.
    fn run_after(&mut self, after: Position) -> Result<(), Error> {
        let (front, end) = all(self.queue).into_inner();
        let start = (self.queue.rows, after.0, after.1.saturating_add(1));
        for range in [start..=end, front..=start] {
            while self.goes_on() {
                let Some((row, shown)) = self.tx.ready()?.first(range.clone(), 1)?.pop() else { break };
                let key = shown_key(row, shown);
                let state = state::get(self.tx, key)?;
                match state.group {
                    None => self.offer(key, &state)?,
                    Some(group) => self.offer_group(key, &state, group)?,
                }
            }
        }
        Ok(())
    }

    fn wanted(&self) -> usize {
        self.what.max - self.messages.len()
    }

    fn goes_on(&self) -> bool {
        self.wanted() > 0 && self.scanned < SCAN_MAX.max(self.what.max)
    }

    /// Receives the message, unless it has expired or used up its attempts.
    fn offer(&mut self, key: Key, state: &MessageState) -> Result<(), Error> {
        self.scanned += 1;
        if remove_if_ended(self.tx, self.observer, self.queue, key, state, self.now)? {
            return Ok(());
        }
        let body = state::body(self.tx, state)?;
        if !is_held_back(self.tx, self.observer, (key, state), &body, self.now)? {
            let hold = Hold { owner: self.what.owner, visibility: self.visibility, suspicion: Suspicion::None };
            let turn = match state.group.filter(|group| group.is_ordered) {
                Some(group) => group::turn(self.tx, key.0, group.id)?,
                None => 0,
            };
            let message = hand_out(self.tx, (key, state), body, hold, self.now)?;
            self.undo.push(Undo::of(key, state, message.handle.lease, turn));
            self.messages.push(message);
        }
        Ok(())
    }

    /// Receives the first message of a group. On a FIFO queue a client also gets the messages behind it, up to the
    /// number it wants and to the first one that is held. Workers run in parallel and would break the order, so they get
    /// one.
    fn offer_group(&mut self, key: Key, state: &MessageState, group: Group) -> Result<(), Error> {
        if !group.is_ordered || self.what.owner == Owner::Worker {
            return self.offer(key, state);
        }
        for sequence in group::waiting(self.tx, key.0, group.id, self.wanted())? {
            let state = state::get(self.tx, (key.0, sequence))?;
            // A delayed message blocks those sent after it: skipping it would break the group's order.
            if state.phase != Phase::Ready {
                break;
            }
            self.offer((key.0, sequence), &state)?;
        }
        Ok(())
    }
}

/// Makes due messages ready: those whose delay has passed or whose lease has expired. Returns whether there are more.
pub(super) fn show_due(tx: &mut Tx<'_>, queue: &QueueRecord, now: Now) -> Result<bool, Error> {
    let due = tx.timed()?.first((queue.rows, 0, 0)..=(queue.rows, now.lease.as_millis(), u64::MAX), SCAN_MAX)?;
    let is_more = due.len() == SCAN_MAX;
    for ((_, _, sequence), ()) in due {
        let key = (queue.rows, sequence);
        let state = state::get(tx, key)?;
        // A worker settles its message before the lease ends, so an expired lease means that the worker is gone and its
        // attempt is recorded as lost. For a client an expired lease is normal and leaves no history.
        if state.phase == Phase::InFlight && state.owner == Owner::Worker {
            recover::lose_overdue(tx, key, &state, now)?;
        } else {
            // A client stays the owner until the next receive: its handle may still change the visibility.
            let shown = MessageState { phase: Phase::Ready, visible_at: LeaseTime::ZERO, ..state.clone() };
            messages::update(tx, key, &state, &shown)?;
        }
    }
    Ok(is_more)
}

/// Removes a message that may not be received, expired or out of attempts, and returns whether it did.
fn remove_if_ended(
    tx: &mut Tx<'_>,
    observer: &dyn Observer,
    queue: &QueueRecord,
    key: Key,
    state: &MessageState,
    now: Now,
) -> Result<bool, Error> {
    if state::is_expired(state, queue, now.wall) {
        ending::withdraw(tx, observer, key, state, Withdrawal::Expired, now.wall)?;
        return Ok(true);
    }
    let max = queue.attributes.redrive.as_ref().map(|(_, max)| *max);
    let Some(max) = max.filter(|max| state.attempts_charged >= *max) else { return Ok(false) };
    // Without an existing dead-letter queue the message stays receivable: nothing is dropped.
    let Some(dead_letter_queue) = catalog::dead_letter_queue(tx, queue)? else { return Ok(false) };
    // A worker has recorded its attempt; a client's receives leave no record, so this death needs one of its own.
    if state::last_attempt(tx, state)?.is_none_or(|last| last.number < state.attempts) {
        settle::record_attempt(tx, key, state, &never_deleted(state, max, now))?;
    }
    ending::move_to_dlq(tx, observer, key, state, &dead_letter_queue, now.wall)?;
    Ok(true)
}

/// The attempt recorded for a message that clients received but never settled, so that its dead letter has a
/// fingerprint too.
fn never_deleted(state: &MessageState, max: u32, now: Now) -> Attempt {
    let text = format!("received {} times and never deleted (max_receive_count is {max})", state.attempts_charged);
    Attempt {
        number: state.attempts,
        function: String::new(),
        started_at: now.wall_of(state.received_at),
        ended_at: now.wall,
        end: AttemptEnd::Dead,
        failure: Some(Failure::new("receive", "client", "max-receive-count", text)),
    }
}

/// Who holds a received message, and how.
struct Hold {
    owner: Owner,
    visibility: Duration,
    suspicion: Suspicion,
}

/// Whether the message's run keeps it from being received.
fn is_held_back(
    tx: &mut Tx<'_>,
    observer: &dyn Observer,
    (key, state): (Key, &MessageState),
    body: &Body,
    now: Now,
) -> Result<bool, store::Error> {
    let head = BodyHead { run: body.run, recipient: body.recipient };
    recall::hold_back(tx, observer, (key, state), observer::of(state, &head), now)
}

fn hand_out(
    tx: &mut Tx<'_>,
    (key, state): (Key, &MessageState),
    body: Body,
    hold: Hold,
    now: Now,
) -> Result<Received, Error> {
    let first = state.receive_count == 0;
    let held = MessageState {
        phase: Phase::InFlight,
        owner: hold.owner,
        suspicion: hold.suspicion,
        visible_at: now.lease.after(hold.visibility),
        first_received_at: if first { now.wall } else { state.first_received_at },
        received_at: now.lease,
        // Counted in the commit that precedes the work: a message that crashes the process is still charged.
        receive_count: state.receive_count.saturating_add(1),
        attempts_charged: state.attempts_charged.saturating_add(1),
        attempts: state.attempts.saturating_add(1),
        // A new lease invalidates the receipt handles of all earlier receives.
        lease: tx.fresh_id()?,
        ..state.clone()
    };
    messages::update(tx, key, state, &held)?;
    Ok(received(key, &held, body))
}

fn received(key: Key, held: &MessageState, body: Body) -> Received {
    let mut envelope = body.envelope;
    if held.source != 0 && held.group.is_some_and(|group| group.is_ordered) {
        // In a FIFO queue's dead-letter queue a message's id is its deduplication id, as in SQS.
        envelope.deduplication_id = Some(held.message_id.to_string());
    }
    Received {
        handle: ReceiptHandle { queue: key.0, sequence: key.1, lease: held.lease },
        message_id: held.message_id,
        body: body.bytes,
        envelope,
        run: body.run,
        recipient: body.recipient,
        sent_at: held.sent_at,
        first_received_at: held.first_received_at,
        received_at: held.received_at,
        receive_count: held.receive_count,
        attempts_charged: held.attempts_charged,
        source: held.source,
        priority: held.priority,
        deferred_since: held.deferred_since,
    }
}
