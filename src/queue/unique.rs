//! Unique keys: at most one message of a queue holds a key, from the send to the message's end, through retries and the
//! dead-letter queue. What becomes of a second send is the sender's choice, as in BullMQ.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::{MessageId, Timestamp};
use crate::store::record::{Digest, Follower, MessageState, Place, QueueRecord, Recent, UniqueRecord, UniqueRef};
use crate::store::{self, Tx};

use super::place::{self, Key};
use super::{Send, Sent, recent, send};

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
    /// Nothing: it is answered with the first message's id, until that message has ended.
    Simple,
    /// Nothing within this span of the first send (1 s to 14 d), whatever became of the first message; later sends go
    /// through.
    Throttle(Duration),
    /// It replaces the first message, and its delay begins anew, while that one still waits out its delay. A message that
    /// can be received, or was, is left alone: the second one is sent and holds the key.
    Debounce,
    /// It replaces the first message while nobody has received that one. Afterwards it waits, replaced in turn by later
    /// ones, and is sent when the first has ended.
    KeepLast,
}

/// What a send under a key comes to.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It goes through.
    New,
    /// It is answered with an earlier message.
    Duplicate(Sent),
    /// It takes the place of this message.
    Replace(Key, MessageState),
    /// It waits for the end of this message.
    Wait(UniqueRecord),
}

/// Decides about a send, and writes nothing.
pub(super) fn judge(
    tx: &mut Tx<'_>,
    queue: &QueueRecord,
    unique: &Unique,
    now: Timestamp,
) -> Result<Verdict, store::Error> {
    if let Mode::Throttle(_) = unique.mode {
        let known = recent::recall(tx, queue.id, throttled(&unique.key), now)?;
        return Ok(match known {
            Some(Recent::Sent { message_id, sequence }) => {
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
    // A letter that came back was attempted too, and its history belongs to its body.
    let is_new = state.attempts == 0 && state.receive_count == 0 && row.queue == queue.id;
    Ok(match unique.mode {
        Mode::Debounce if is_new && state.place == Place::Delayed && state.visible_at > now => {
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

/// Gives the key to the message that is being sent.
pub(super) fn hold(
    tx: &mut Tx<'_>,
    queue: &QueueRecord,
    unique: &Unique,
    sent: Sent,
    now: Timestamp,
) -> Result<(), store::Error> {
    if let Mode::Throttle(span) = unique.mode {
        let what = Recent::Sent { message_id: sent.message_id, sequence: sent.sequence };
        let record = store::record::RecentRecord { until: now.after(span), what };
        return recent::remember(tx, queue.id, throttled(&unique.key), &record, now);
    }
    let at = (queue.id, key(unique));
    let follower = tx.uniques()?.get(&at)?.and_then(|old| old.follower);
    let row = UniqueRecord { queue: queue.id, sequence: sent.sequence, follower };
    tx.uniques()?.insert(&at, &row)?;
    Ok(())
}

/// What the state of a message under that key names; a throttled key is not held by a message.
pub(super) fn reference(queue: &QueueRecord, unique: &Unique) -> Option<UniqueRef> {
    match unique.mode {
        Mode::Throttle(_) => None,
        Mode::Simple | Mode::Debounce | Mode::KeepLast => Some(UniqueRef { queue: queue.id, key: key(unique) }),
    }
}

/// Puts the message that is being sent into the place of one that nobody has received. A delay that has not passed
/// begins anew.
pub(super) fn replace(
    tx: &mut Tx<'_>,
    queue: &QueueRecord,
    (at, old): (Key, MessageState),
    message: Send,
    now: Timestamp,
) -> Result<Sent, store::Error> {
    let sent = Sent { message_id: old.message_id, sequence: at.1, is_duplicate: true };
    let body = tx.fresh_id()?;
    let waits = old.place == Place::Delayed && old.visible_at > now;
    let visible_at = if waits { now.after(send::delay(queue, &message)) } else { old.visible_at };
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
    place::take(tx, at, &old)?;
    place::put(tx, at, &new)?;
    tx.bodies()?.insert(&body, &send::body(message))?;
    Ok(sent)
}

/// Keeps the message that is being sent until the holder of its key has ended, in place of one kept before.
pub(super) fn follow(
    tx: &mut Tx<'_>,
    queue: &QueueRecord,
    row: UniqueRecord,
    message: Send,
    now: Timestamp,
) -> Result<Sent, store::Error> {
    let at = (queue.id, message.unique.as_ref().map(key).unwrap_or_default());
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
        sent_at: now,
        expires_at: message.expires_at.unwrap_or(Timestamp::ZERO),
    };
    let sent = Sent { message_id, sequence: follower.body, is_duplicate: row.follower.is_some() };
    tx.bodies()?.insert(&follower.body, &send::body(message))?;
    tx.uniques()?.insert(&at, &UniqueRecord { follower: Some(follower), ..row })?;
    Ok(sent)
}

/// The holder moved to another queue or sequence number.
pub(super) fn moved(tx: &mut Tx<'_>, state: &MessageState, from: Key, to: Key) -> Result<(), store::Error> {
    if let Some((at, row)) = held(tx, state, from)? {
        tx.uniques()?.insert(&at, &UniqueRecord { queue: to.0, sequence: to.1, ..row })?;
    }
    Ok(())
}

/// The holder has ended: the key is free, or goes to the message that waited for it.
pub(super) fn released(tx: &mut Tx<'_>, key: Key, state: &MessageState) -> Result<(), store::Error> {
    let Some((at, row)) = held(tx, state, key)? else { return Ok(()) };
    let Some(follower) = row.follower else {
        tx.uniques()?.remove(&at)?;
        return Ok(());
    };
    let group = tx.bodies()?.get(&follower.body)?.and_then(|body| body.envelope.group);
    let sequence = tx.fresh_id()?;
    let fresh = place::fresh(sequence, follower.body, follower.size_bytes, follower.sent_at);
    let next = MessageState {
        message_id: follower.message_id,
        group: send::group(group.as_deref(), false),
        priority: follower.priority,
        expires_at: follower.expires_at,
        unique: state.unique,
        ..fresh
    };
    tx.uniques()?.insert(&at, &UniqueRecord { queue: at.0, sequence, follower: None })?;
    place::put(tx, (at.0, sequence), &next)
}

/// Lets go of the message that waits for the holder of its key: its queue is being emptied.
pub(super) fn drop_follower(tx: &mut Tx<'_>, key: Key, state: &MessageState) -> Result<(), store::Error> {
    let Some((at, row)) = held(tx, state, key)? else { return Ok(()) };
    if let Some(follower) = &row.follower {
        tx.bodies()?.remove(&follower.body)?;
        tx.uniques()?.insert(&at, &UniqueRecord { follower: None, ..row })?;
    }
    Ok(())
}

/// A key and its row.
type Held = ((u32, Digest), UniqueRecord);

/// The row of the key that the message holds; `None` when it holds none, or a later message took it.
fn held(tx: &mut Tx<'_>, state: &MessageState, key: Key) -> Result<Option<Held>, store::Error> {
    let Some(unique) = state.unique else { return Ok(None) };
    let at = (unique.queue, unique.key);
    let row = tx.uniques()?.get(&at)?;
    Ok(row.filter(|row| (row.queue, row.sequence) == key).map(|row| (at, row)))
}

fn key(unique: &Unique) -> Digest {
    recent::digest(&["unique", &unique.key])
}

fn throttled(key: &str) -> Digest {
    recent::digest(&["throttle", key])
}
