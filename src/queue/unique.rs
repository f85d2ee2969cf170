//! Unique keys: at most one message of a queue holds a key, from its send to its end, through retries and the
//! dead-letter queue. The sender chooses what a second send under the same key does, as in BullMQ.

use std::ops::ControlFlow;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::{MessageId, Now, Timestamp};
use crate::store::record::{DedupEntry, Digest, Follower, MessageState, Phase, QueueRecord, UniqueRecord, UniqueRef};
use crate::store::{self, Tx};

use super::admission::{self, Room};
use super::messages::{self, Key};
use super::{Send, Sent, dedup, send};

/// A unique key and what a second send under it does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unique {
    /// The key: 1 to 256 bytes.
    pub key: String,
    /// See [`Mode`].
    pub mode: Mode,
}

/// What a second send under a key does while the first holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Nothing: it returns the first message's id until that message has ended.
    Simple,
    /// Nothing within this span of the first send (1 s to 14 d), even when the first message has already ended; later
    /// sends succeed.
    Throttle(Duration),
    /// It replaces the first message and restarts the delay while that message is still delayed. A message that is or
    /// was receivable is left alone: the second one is sent and takes over the key.
    Debounce,
    /// It replaces the first message until that one is first received. From then on it waits, is replaced in turn by
    /// later sends, and is sent when the first message has ended.
    KeepLast,
}

/// What to do with a send under a key.
#[derive(Debug)]
pub(super) enum Verdict {
    /// Send it.
    New,
    /// Do not send it; return this earlier message.
    Duplicate(Sent),
    /// Replace this message with it.
    Replace(Key, MessageState),
    /// Keep it until the holder in this row has ended.
    Wait(UniqueRecord),
}

/// Decides what a send does; writes nothing.
pub(super) fn judge(tx: &mut Tx<'_>, queue: &QueueRecord, unique: &Unique, now: Now) -> Result<Verdict, store::Error> {
    // A throttle outlives its message, so it is a deduplication entry with a time limit, not a row in `uniques`.
    if let Mode::Throttle(_) = unique.mode {
        let known = dedup::get(tx, queue.id, throttled(&unique.key), now.lease)?;
        return Ok(match known {
            Some(DedupEntry::Sent { message_id, sequence }) => {
                Verdict::Duplicate(Sent { message_id, sequence, is_duplicate: true })
            }
            _ => Verdict::New,
        });
    }
    let Some(row) = tx.uniques()?.get(&(queue.id, key(unique)))? else { return Ok(Verdict::New) };
    let holder = (row.queue, row.sequence);
    let Some(state) = tx.states()?.get(&holder)? else {
        let reason = format!("message {} of queue {} holds a key and is not there", holder.1, holder.0);
        return Err(tx.damaged("uniques", reason));
    };
    // Only a message without attempts may be replaced: history is keyed by the body's id, so a redriven letter's
    // history would be lost with its body.
    let is_new = state.attempts == 0 && state.receive_count == 0 && row.queue == queue.id;
    Ok(match unique.mode {
        Mode::Debounce if is_new && state.phase == Phase::Delayed && state.visible_at > now.lease => {
            Verdict::Replace(holder, state)
        }
        Mode::Debounce => Verdict::New,
        Mode::KeepLast if is_new => Verdict::Replace(holder, state),
        Mode::KeepLast => Verdict::Wait(row),
        Mode::Simple | Mode::Throttle(_) => {
            Verdict::Duplicate(Sent { message_id: state.message_id, sequence: holder.1, is_duplicate: true })
        }
    })
}

/// Makes the message that is being sent the holder of the key.
pub(super) fn hold(
    tx: &mut Tx<'_>,
    queue: &QueueRecord,
    unique: &Unique,
    sent: Sent,
    now: Now,
) -> Result<(), store::Error> {
    if let Mode::Throttle(span) = unique.mode {
        let what = DedupEntry::Sent { message_id: sent.message_id, sequence: sent.sequence };
        let record = store::record::DedupRecord { until: now.lease.after(span), what };
        return dedup::insert(tx, queue.id, throttled(&unique.key), &record, now.lease);
    }
    let at = (queue.id, key(unique));
    // With Debounce the new message may take the key from a holder that a KeepLast send is waiting for: the follower
    // stays and waits for the new holder.
    let follower = tx.uniques()?.get(&at)?.and_then(|old| old.follower);
    let row = UniqueRecord { queue: queue.id, sequence: sent.sequence, follower };
    tx.uniques()?.insert(&at, &row)?;
    Ok(())
}

/// The key reference stored in a message's state; `None` for a throttled key, which no message holds.
pub(super) fn reference(queue: &QueueRecord, unique: &Unique) -> Option<UniqueRef> {
    match unique.mode {
        Mode::Throttle(_) => None,
        Mode::Simple | Mode::Debounce | Mode::KeepLast => Some(UniqueRef { queue: queue.id, key: key(unique) }),
    }
}

/// Replaces a message that was never received with the one that is being sent. A delay that has not passed restarts.
pub(super) fn replace(
    tx: &mut Tx<'_>,
    queue: &QueueRecord,
    (at, old): (Key, MessageState),
    message: Send,
    room: Room,
    now: Now,
) -> Result<Sent, store::Error> {
    let sent = Sent { message_id: old.message_id, sequence: at.1, is_duplicate: true };
    // A new body id: a body row never changes once written.
    let body = tx.fresh_id()?;
    // A message that is already visible stays visible: restarting its delay would hide it again.
    let waits = old.phase == Phase::Delayed && old.visible_at > now.lease;
    let visible_at = if waits { now.lease.after(send::delay(queue, &message)) } else { old.visible_at };
    let new = MessageState {
        body,
        size_bytes: send::size_bytes(&message),
        group: send::group(message.group.as_deref(), false),
        priority: message.priority,
        expires_at: message.expires_at.unwrap_or(Timestamp::ZERO),
        visible_at,
        ..old.clone()
    };
    tx.bodies()?.remove(&old.body)?;
    // Not `messages::update`: the size, group and priority change, and with them the byte count and index keys.
    messages::remove(tx, at, &old)?;
    messages::insert(tx, at, &new, room)?;
    tx.bodies()?.insert(&body, &send::body(message))?;
    Ok(sent)
}

/// Stores the message that is being sent as the follower of its key, until the holder has ended; replaces an earlier
/// follower.
pub(super) fn follow(
    tx: &mut Tx<'_>,
    queue: &QueueRecord,
    row: UniqueRecord,
    message: Send,
    room: Room,
    now: Now,
) -> Result<Sent, store::Error> {
    let at = (queue.id, message.unique.as_ref().map(key).unwrap_or_default());
    // The replaced follower's id was already returned to its sender, so the new one takes it over.
    let message_id = match &row.follower {
        Some(old) => {
            tx.bodies()?.remove(&old.body)?;
            old.message_id
        }
        None => MessageId::fresh(),
    };
    let follower = Follower {
        body: tx.fresh_id()?,
        message_id,
        size_bytes: send::size_bytes(&message),
        priority: message.priority,
        sent_at: now.wall,
        expires_at: message.expires_at.unwrap_or(Timestamp::ZERO),
    };
    let sent = Sent { message_id, sequence: follower.body, is_duplicate: row.follower.is_some() };
    admission::reserve(tx, queue.id, room, &follower, row.follower.as_ref())?;
    tx.bodies()?.insert(&follower.body, &send::body(message))?;
    tx.uniques()?.insert(&at, &UniqueRecord { follower: Some(follower), ..row })?;
    Ok(sent)
}

/// Updates the key's row after its holder moved to another queue or sequence number.
pub(super) fn moved(tx: &mut Tx<'_>, state: &MessageState, from: Key, to: Key) -> Result<(), store::Error> {
    if let Some((at, row)) = held(tx, state, from)? {
        tx.uniques()?.insert(&at, &UniqueRecord { queue: to.0, sequence: to.1, ..row })?;
    }
    Ok(())
}

/// Frees the key after its holder has ended, or sends the follower, which then holds the key.
pub(super) fn released(tx: &mut Tx<'_>, key: Key, state: &MessageState) -> Result<(), store::Error> {
    let Some((at, row)) = held(tx, state, key)? else { return Ok(()) };
    let Some(follower) = row.follower else {
        tx.uniques()?.remove(&at)?;
        return Ok(());
    };
    let room = Room::of_follower(tx, at.0, &follower)?;
    if tx.queues()?.get(&at.0)?.is_none_or(|queue| queue.deleted_at.is_some()) {
        // It was sent to a queue that is being deleted while the holder was in the dead-letter queue.
        tx.uniques()?.remove(&at)?;
        tx.bodies()?.remove(&follower.body)?;
        return Ok(());
    }
    // The follower is a first-class message from here on: its size and age count from its own send.
    let group = tx.bodies()?.get(&follower.body)?.and_then(|body| body.envelope.group);
    let sequence = tx.fresh_id()?;
    let fresh = messages::fresh(sequence, follower.body, follower.size_bytes, follower.sent_at);
    let next = MessageState {
        message_id: follower.message_id,
        group: send::group(group.as_deref(), false),
        priority: follower.priority,
        expires_at: follower.expires_at,
        unique: state.unique,
        ..fresh
    };
    tx.uniques()?.insert(&at, &UniqueRecord { queue: at.0, sequence, follower: None })?;
    messages::insert(tx, (at.0, sequence), &next, room)
}

/// Deletes the follower of the message's key. A purge calls it first, since removing the holder would otherwise send
/// the follower into the queue that is being emptied.
pub(super) fn drop_follower(tx: &mut Tx<'_>, key: Key, state: &MessageState) -> Result<(), store::Error> {
    let Some((at, row)) = held(tx, state, key)? else { return Ok(()) };
    if let Some(follower) = &row.follower {
        admission::give_up(tx, at.0, follower)?;
        tx.bodies()?.remove(&follower.body)?;
        tx.uniques()?.insert(&at, &UniqueRecord { follower: None, ..row })?;
    }
    Ok(())
}

/// Deletes followers that were sent to `queue` and whose holders are elsewhere, e.g. in its dead-letter queue; false
/// when there are more than `max`. Call it when the queue is deleted.
pub(super) fn drop_followers(tx: &mut Tx<'_>, queue: u32, max: usize) -> Result<bool, store::Error> {
    let mut found = Vec::new();
    tx.uniques()?.scan((queue, [0; 16])..=(queue, [u8::MAX; 16]), |at, row| {
        found.extend(row.follower.clone().map(|follower| (at, row, follower)));
        if found.len() > max { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    let is_all = found.len() <= max;
    for (at, row, follower) in found.into_iter().take(max) {
        admission::give_up(tx, queue, &follower)?;
        tx.bodies()?.remove(&follower.body)?;
        tx.uniques()?.insert(&at, &UniqueRecord { follower: None, ..row })?;
    }
    Ok(is_all)
}

/// A key and its row.
type Held = ((u32, Digest), UniqueRecord);

/// The row of the key that the message holds; `None` when it has no key or a later message took the key over.
fn held(tx: &mut Tx<'_>, state: &MessageState, key: Key) -> Result<Option<Held>, store::Error> {
    let Some(unique) = state.unique else { return Ok(None) };
    let at = (unique.queue, unique.key);
    let row = tx.uniques()?.get(&at)?;
    Ok(row.filter(|row| (row.queue, row.sequence) == key).map(|row| (at, row)))
}

/// What stands for the key among the keys of one step.
pub(super) fn digest(unique: &Unique) -> Digest {
    match unique.mode {
        Mode::Throttle(_) => throttled(&unique.key),
        Mode::Simple | Mode::Debounce | Mode::KeepLast => key(unique),
    }
}

fn key(unique: &Unique) -> Digest {
    dedup::digest(&["unique", &unique.key])
}

fn throttled(key: &str) -> Digest {
    dedup::digest(&["throttle", key])
}
