//! Message groups: which message of a group can be received next.
//!
//! At most one message of each group, its head, is in the ready index, so skipping a group of a million messages costs
//! no more than skipping a group of one. On a standard queue the head is the group's first ready message, and receive
//! may skip groups that have too many messages in flight. On a FIFO queue the head is the group's first message, and
//! there is none while another message of the group is in flight.

use crate::store::record::{Digest, GroupRecord, MessageState, Phase, Suspicion};
use crate::store::{self, Tx};

use super::state::Key;

/// Updates the group's row and its head in the ready index after a message was inserted, changed or removed. Call it
/// after the message's state is written: finding the head reads the states.
pub(super) fn update(
    tx: &mut Tx<'_>,
    key: Key,
    old: Option<&MessageState>,
    new: Option<&MessageState>,
) -> Result<(), store::Error> {
    let Some(group) = new.or(old).and_then(|state| state.group) else { return Ok(()) };
    let at = (key.0, group.id);
    let known = tx.groups()?.get(&at)?;
    let mut row = known.unwrap_or_default();
    // Remove before add: both may touch the same `grouped` key, and the key must exist at the end.
    if let Some(old) = old {
        remove(tx, key, old, &mut row)?;
    }
    if let Some(new) = new {
        add(tx, key, new, &mut row)?;
    }
    update_head(tx, at, group.is_ordered, &mut row)?;
    // Empty groups keep no row. Group ids are chosen by senders and unbounded in number.
    if row == GroupRecord::default() {
        if known.is_some() {
            tx.groups()?.remove(&at)?;
        }
    } else if known != Some(row) {
        tx.groups()?.insert(&at, &row)?;
    }
    Ok(())
}

/// A group is noisy when it has at least this many messages in flight and more than a tenth of the queue's total; the
/// idea is from SQS's fair queues.
const NOISY_IN_FLIGHT_MIN: u64 = 30;

/// Whether the group has so many messages in flight that receive prefers other groups.
pub(super) fn is_noisy(tx: &mut Tx<'_>, queue: u32, group: Digest) -> Result<bool, store::Error> {
    let row = tx.groups()?.get(&(queue, group))?.unwrap_or_default();
    let in_flight = tx.counts_of(queue)?.in_flight;
    Ok(row.in_flight >= NOISY_IN_FLIGHT_MIN && row.in_flight * 10 > in_flight)
}

/// The sequence numbers of the group's first waiting messages, in the order in which they are received.
pub(super) fn waiting(tx: &mut Tx<'_>, queue: u32, group: Digest, max: usize) -> Result<Vec<u64>, store::Error> {
    let found = tx.grouped()?.first((queue, group, 0, 0)..=(queue, group, u32::MAX, u64::MAX), max)?;
    Ok(found.into_iter().map(|((_, _, _, sequence), ())| sequence).collect())
}

fn add(tx: &mut Tx<'_>, key: Key, state: &MessageState, row: &mut GroupRecord) -> Result<(), store::Error> {
    if let Some(at) = waits_at(key, state) {
        tx.grouped()?.insert(&at, &())?;
        row.waiting += 1;
    }
    row.in_flight += u64::from(state.phase == Phase::InFlight);
    row.held += u64::from(is_held(state));
    Ok(())
}

fn remove(tx: &mut Tx<'_>, key: Key, state: &MessageState, row: &mut GroupRecord) -> Result<(), store::Error> {
    // A count below zero means that the row and the messages disagree. Report it instead of wrapping.
    let mut is_counted = true;
    let mut take = |count: &mut u64, by: bool| {
        let left = count.checked_sub(u64::from(by));
        is_counted &= left.is_some();
        *count = left.unwrap_or(0);
    };
    take(&mut row.in_flight, state.phase == Phase::InFlight);
    take(&mut row.held, is_held(state));
    if let Some(at) = waits_at(key, state) {
        take(&mut row.waiting, true);
        is_counted &= tx.grouped()?.remove(&at)?;
    }
    if is_counted {
        return Ok(());
    }
    let reason = format!("the group of message {} of queue {} does not count it", state.message_id, key.0);
    Err(tx.damaged("groups", reason))
}

/// The message's key in the `grouped` index, or `None` when it is not waiting. Ready messages wait; so do, on FIFO
/// queues, messages in their first delay, because they block those sent after them.
pub(super) fn waits_at(key: Key, state: &MessageState) -> Option<(u32, Digest, u32, u64)> {
    let group = state.group?;
    let waits = match state.phase {
        // A suspect is received from an index of its own.
        Phase::Ready if state.suspicion == Suspicion::Suspect => false,
        Phase::Ready => true,
        // A delayed message with a receive count is backing off after a retry: it locks its group (`is_held`) instead.
        Phase::Delayed => group.is_ordered && state.receive_count == 0,
        Phase::InFlight => false,
    };
    waits.then_some((key.0, group.id, state.priority, key.1))
}

/// Whether the message locks its FIFO group: it was received and is neither gone nor ready again.
pub(super) fn is_held(state: &MessageState) -> bool {
    let is_ordered = state.group.is_some_and(|group| group.is_ordered);
    // A suspect of a FIFO queue is still its group's first message: nothing overtakes it.
    let is_first = state.phase != Phase::Ready || state.suspicion == Suspicion::Suspect;
    is_ordered && is_first && state.receive_count > 0
}

/// Replaces the group's head in the ready index, or clears it.
fn update_head(
    tx: &mut Tx<'_>,
    (queue, group): (u32, Digest),
    is_ordered: bool,
    row: &mut GroupRecord,
) -> Result<(), store::Error> {
    let mut next = None;
    if row.waiting > 0 && !(is_ordered && row.held > 0) {
        let first = tx.grouped()?.first((queue, group, 0, 0)..=(queue, group, u32::MAX, u64::MAX), 1)?;
        next = first.first().map(|((_, _, priority, sequence), ())| (*priority, *sequence));
    }
    // A FIFO group whose first message is still delayed has no head: a later message must not overtake it.
    if let Some((_, sequence)) = next.filter(|_| is_ordered) {
        let head = tx.states()?.get(&(queue, sequence))?;
        next = next.filter(|_| head.is_some_and(|head| head.phase == Phase::Ready));
    }
    let shown = next.unwrap_or_default();
    if shown == row.head {
        return Ok(());
    }
    // Sequence number 0 is never given out, so it stands for "no head".
    if row.head.1 != 0 && !tx.ready()?.remove(&(queue, row.head.0, row.head.1))? {
        let reason = format!("message {} of queue {queue} does not stand in the ready index", row.head.1);
        return Err(tx.damaged("groups", reason));
    }
    if shown.1 != 0 {
        tx.ready()?.insert(&(queue, shown.0, shown.1), &())?;
        tx.signal(u64::from(queue));
    }
    row.head = shown;
    Ok(())
}
