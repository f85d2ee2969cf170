//! Message groups: which message of a group can be received next.
//!
//! At most one message of each group, its head, is in the ready index, so skipping a group of a million messages costs
//! no more than skipping a group of one. On a standard queue the head is the group's first ready message, and receive
//! may skip groups that have too many messages in flight. On a FIFO queue the head is the group's first message, and
//! there is none while an earlier message of the group is in flight; a group that was handed out goes behind the others.

use crate::store::record::{Digest, Group, GroupRecord, MessageState, Phase, Shown, Suspicion};
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
    let mut row = known.clone().unwrap_or_default();
    let stood_at = position(&row);
    // Remove before add: both may touch the same `grouped` key, and the key must exist at the end.
    if let Some(old) = old {
        remove(tx, key, old, &mut row)?;
    }
    if let Some(new) = new {
        add(tx, key, new, &mut row)?;
    }
    if group.is_ordered && new.is_some_and(|new| new.phase == Phase::InFlight && new.lease > row.turn) {
        row.turn = new.map_or(0, |new| new.lease);
    }
    update_head(tx, at, group.is_ordered, (stood_at, &mut row))?;
    save(tx, at, known, row)
}

/// Gives a FIFO queue's group its earlier position again, unless one of its messages was received since `lease`.
pub(super) fn restore_turn(
    tx: &mut Tx<'_>,
    (queue, group): (u32, Group),
    lease: u64,
    turn: u64,
) -> Result<(), store::Error> {
    let at = (queue, group.id);
    let Some(known) = tx.groups()?.get(&at)?.filter(|row| group.is_ordered && row.turn == lease) else { return Ok(()) };
    let mut row = GroupRecord { turn, ..known.clone() };
    update_head(tx, at, true, (position(&known), &mut row))?;
    save(tx, at, Some(known), row)
}

/// The turn of a FIFO queue's group; see [`GroupRecord::turn`].
pub(super) fn turn(tx: &mut Tx<'_>, queue: u32, group: Digest) -> Result<u64, store::Error> {
    Ok(tx.groups()?.get(&(queue, group))?.map_or(0, |row| row.turn))
}

fn save(tx: &mut Tx<'_>, at: (u32, Digest), known: Option<GroupRecord>, row: GroupRecord) -> Result<(), store::Error> {
    // Empty groups keep no row. Group ids are chosen by senders and unbounded in number.
    if row.is_empty() {
        if known.is_some() {
            tx.groups()?.remove(&at)?;
        }
    } else if known.as_ref() != Some(&row) {
        tx.groups()?.insert(&at, &row)?;
    }
    Ok(())
}

/// Where the group's head stands in the ready index.
fn position(row: &GroupRecord) -> (u32, u64) {
    // Turns and sequence numbers are of one series, so a group that was handed out goes behind what was there by then.
    (row.head.0, row.head.1.max(row.turn))
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

/// The sequence numbers of the first waiting messages of a FIFO queue's group, in order, as far as none of its messages
/// that are held stands before them.
pub(super) fn waiting(tx: &mut Tx<'_>, queue: u32, group: Digest, max: usize) -> Result<Vec<u64>, store::Error> {
    let row = tx.groups()?.get(&(queue, group))?.unwrap_or_default();
    let found = tx.grouped()?.first((queue, group, 0, 0)..=(queue, group, u32::MAX, u64::MAX), max)?;
    Ok(found.into_iter().map(|((_, _, _, sequence), ())| sequence).take_while(|one| is_free(&row, *one)).collect())
}

/// Whether no held message of the FIFO queue's group stands before this one.
fn is_free(row: &GroupRecord, sequence: u64) -> bool {
    // Where those stand that format 3 counted is not known.
    row.held_known.len() as u64 == row.held && row.held_known.first().is_none_or(|held| sequence < *held)
}

fn add(tx: &mut Tx<'_>, key: Key, state: &MessageState, row: &mut GroupRecord) -> Result<(), store::Error> {
    if let Some(at) = waits_at(key, state) {
        tx.grouped()?.insert(&at, &())?;
        row.waiting += 1;
    }
    row.in_flight += u64::from(state.phase == Phase::InFlight);
    if is_held(state) {
        row.held += 1;
        let at = row.held_known.partition_point(|held| *held < key.1);
        row.held_known.insert(at, key.1);
    }
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
    if is_held(state) {
        row.held_known.retain(|held| *held != key.1);
    }
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
        // A delayed message with a receive count is backing off after a retry: it is held (`is_held`) instead.
        Phase::Delayed => group.is_ordered && state.receive_count == 0,
        Phase::InFlight => false,
    };
    waits.then_some((key.0, group.id, state.priority, key.1))
}

/// Whether those behind the message in its FIFO queue's group wait for it: it was received and is neither gone nor ready
/// again.
pub(super) fn is_held(state: &MessageState) -> bool {
    let is_ordered = state.group.is_some_and(|group| group.is_ordered);
    // A suspect of a FIFO queue is still its group's first message: nothing overtakes it.
    let is_first = state.phase != Phase::Ready || state.suspicion == Suspicion::Suspect;
    is_ordered && is_first && state.receive_count > 0
}

/// Replaces the group's head in the ready index, or clears it; `stood_at` is the position of the one so far.
fn update_head(
    tx: &mut Tx<'_>,
    (queue, group): (u32, Digest),
    is_ordered: bool,
    (stood_at, row): ((u32, u64), &mut GroupRecord),
) -> Result<(), store::Error> {
    let mut next = None;
    if row.waiting > 0 {
        let first = tx.grouped()?.first((queue, group, 0, 0)..=(queue, group, u32::MAX, u64::MAX), 1)?;
        next = first.first().map(|((_, _, priority, sequence), ())| (*priority, *sequence));
    }
    // A FIFO group whose first message is held or still delayed has no head: a later message must not overtake it.
    if let Some((_, sequence)) = next.filter(|_| is_ordered) {
        let head = tx.states()?.get(&(queue, sequence))?;
        next = next.filter(|_| is_free(row, sequence) && head.is_some_and(|head| head.phase == Phase::Ready));
    }
    let (had, shown) = (row.head, next.unwrap_or_default());
    row.head = shown;
    let stands_at = position(row);
    if shown == had && (shown.1 == 0 || stands_at == stood_at) {
        return Ok(());
    }
    // Sequence number 0 is never given out, so it stands for "no head".
    if had.1 != 0 && !tx.ready()?.remove(&(queue, stood_at.0, stood_at.1))? {
        let reason = format!("message {} of queue {queue} does not stand in the ready index", had.1);
        return Err(tx.damaged("groups", reason));
    }
    if shown.1 != 0 {
        let sequence = (stands_at.1 != shown.1).then_some(shown.1);
        tx.ready()?.insert(&(queue, stands_at.0, stands_at.1), &Shown(sequence))?;
        tx.signal(u64::from(queue));
    }
    Ok(())
}
