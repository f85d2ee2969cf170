//! The holder of a unique key and its follower: who holds the key, what a later send under it replaces, and who is next.

use crate::base::{LeaseTime, MessageId, Now, Timestamp};
use crate::store::record::{DedupEntry, DedupRecord, Digest, Follower, MessageState, Phase, QueueRecord, UniqueRecord};
use crate::store::{self, Tx};

use super::new_message::{self, Send, Sent};
use super::room::{self, Room};
use super::state::{self, Key};
use super::unique::{self, Mode, Unique};
use super::{dedup, messages};

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
        let record = DedupRecord { until: now.lease.after(span), what };
        return dedup::insert(tx, queue.rows, unique::throttled(&unique.key), &record, now.lease);
    }
    let at = (queue.id, unique::key(unique));
    // With Debounce the new message may take the key from a holder that a KeepLast send is waiting for: the follower
    // stays and waits for the new holder.
    let follower = match tx.uniques()?.get(&at)? {
        Some(old) => without_purged(tx, queue.id, old)?.follower,
        None => None,
    };
    let row = UniqueRecord { queue: queue.rows, sequence: sent.sequence, follower };
    tx.uniques()?.insert(&at, &row)?;
    Ok(())
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
    let visible_at = if waits { now.lease.after(new_message::delay(queue, &message)) } else { old.visible_at };
    let new = MessageState {
        body,
        size_bytes: new_message::size_bytes(&message),
        group: new_message::group(message.group.as_deref(), false),
        priority: message.priority,
        expires_at: message.expires_at.unwrap_or(Timestamp::ZERO),
        visible_at,
        ..old.clone()
    };
    tx.bodies()?.remove(&old.body)?;
    // Not `messages::update`: the size, group and priority change, and with them the byte count and index keys.
    messages::remove(tx, at, &old)?;
    messages::insert(tx, at, &new, room)?;
    tx.bodies()?.insert(&body, &new_message::body(message))?;
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
    let at = (queue.id, message.unique.as_ref().map(unique::key).unwrap_or_default());
    let row = without_purged(tx, queue.id, row)?;
    // The replaced follower's id was already returned to its sender, so the new one takes it over.
    let message_id = match &row.follower {
        Some(old) => {
            tx.bodies()?.remove(&old.body)?;
            old.message_id
        }
        None => MessageId::fresh(),
    };
    let delay = new_message::delay(queue, &message);
    let follower = Follower {
        body: tx.fresh_id()?,
        message_id,
        size_bytes: new_message::size_bytes(&message),
        priority: message.priority,
        sent_at: now.wall,
        expires_at: message.expires_at.unwrap_or(Timestamp::ZERO),
        visible_at: if delay.is_zero() { LeaseTime::ZERO } else { now.lease.after(delay) },
    };
    let sent = Sent { message_id, sequence: follower.body, is_duplicate: row.follower.is_some() };
    room::reserve(tx, queue.rows, room, &follower, row.follower.as_ref())?;
    tx.bodies()?.insert(&follower.body, &new_message::body(message))?;
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
    let row = without_purged(tx, at.0, row)?;
    let (Some(follower), Some(queue)) = (row.follower, tx.queue(at.0)?) else {
        tx.uniques()?.remove(&at)?;
        return Ok(());
    };
    let room = Room::of_follower(tx, queue.rows, &follower)?;
    // The follower is a first-class message from here on: its size and age count from its own send.
    let group = tx.bodies()?.get(&follower.body)?.and_then(|body| body.envelope.group);
    let sequence = tx.fresh_id()?;
    let fresh = state::fresh(sequence, follower.body, follower.size_bytes, follower.sent_at);
    let next = MessageState {
        message_id: follower.message_id,
        group: new_message::group(group.as_deref(), false),
        priority: follower.priority,
        expires_at: follower.expires_at,
        unique: state.unique,
        // A delay that is over ends with the next receive, as any other.
        phase: if follower.visible_at == LeaseTime::ZERO { Phase::Ready } else { Phase::Delayed },
        visible_at: follower.visible_at,
        ..fresh
    };
    tx.uniques()?.insert(&at, &UniqueRecord { queue: queue.rows, sequence, follower: None })?;
    messages::insert(tx, (queue.rows, sequence), &next, room)
}

/// Deletes followers that were sent to `queue` before it was purged or deleted, from that key on; looks at `max` keys and
/// returns the one to go on from. Their holders are in other queues, e.g. in its dead-letter queue.
pub(super) fn drop_purged_followers(
    tx: &mut Tx<'_>,
    queue: u32,
    from: Digest,
    max: usize,
) -> Result<Option<Digest>, store::Error> {
    let found = tx.uniques()?.first((queue, from)..=(queue, [u8::MAX; 16]), max)?;
    let next = found.last().filter(|_| found.len() == max).map(|((_, last), _)| u128::from_be_bytes(*last));
    for (at, row) in found {
        if let Some(follower) = &row.follower
            && is_purged(tx, queue, follower)?
        {
            tx.bodies()?.remove(&follower.body)?;
            tx.uniques()?.insert(&at, &UniqueRecord { follower: None, ..row })?;
        }
    }
    Ok(next.and_then(|last| last.checked_add(1)).map(u128::to_be_bytes))
}

/// Whether the follower was sent to `queue` before it was purged or deleted: then it counts as gone.
pub(super) fn is_purged(tx: &mut Tx<'_>, queue: u32, follower: &Follower) -> Result<bool, store::Error> {
    let queue = tx.queue(queue)?.filter(|queue| queue.deleted_at.is_none());
    Ok(queue.is_none_or(|queue| queue.purged.is_some_and(|purge| follower.body < purge.before)))
}

/// The key's row without a follower that is purged, which is deleted.
fn without_purged(tx: &mut Tx<'_>, queue: u32, row: UniqueRecord) -> Result<UniqueRecord, store::Error> {
    match &row.follower {
        Some(follower) if is_purged(tx, queue, follower)? => {
            tx.bodies()?.remove(&follower.body)?;
            Ok(UniqueRecord { follower: None, ..row })
        }
        _ => Ok(row),
    }
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
