//! Message groups: which one message of a group can be received next.
//!
//! Of each group at most one message stands in the ready index, so that a group of a million messages costs no more to
//! pass over than one of a single message. On a standard queue it is the group's first ready one, and receive may pass
//! over groups that hold too much of what is in flight. On a FIFO queue it is the group's first message, and none stands
//! there while one of the group is held.

use crate::store::record::{Digest, GroupRecord, MessageState, Place};
use crate::store::{self, Tx};

use super::place::Key;

/// Brings the group's row and the ready index up to date after a message was added, changed or taken. To be called once
/// the message's state is written.
pub(super) fn moved(
    tx: &mut Tx<'_>,
    key: Key,
    old: Option<&MessageState>,
    new: Option<&MessageState>,
) -> Result<(), store::Error> {
    let Some(group) = new.or(old).and_then(|state| state.group) else { return Ok(()) };
    let at = (key.0, group.id);
    let known = tx.groups()?.get(&at)?;
    let mut row = known.unwrap_or_default();
    if let Some(old) = old {
        leave(tx, key, old, &mut row)?;
    }
    if let Some(new) = new {
        join(tx, key, new, &mut row)?;
    }
    show(tx, at, group.is_ordered, &mut row)?;
    if row == GroupRecord::default() {
        if known.is_some() {
            tx.groups()?.remove(&at)?;
        }
    } else if known != Some(row) {
        tx.groups()?.insert(&at, &row)?;
    }
    Ok(())
}

/// A group is noisy when it has at least this many messages in flight, and more than a tenth of all: SQS's fair queues.
const NOISY_IN_FLIGHT_MIN: u64 = 30;

/// Whether the group holds so much of what is in flight that it yields to others.
pub(super) fn is_noisy(tx: &mut Tx<'_>, queue: u32, group: Digest) -> Result<bool, store::Error> {
    let row = tx.groups()?.get(&(queue, group))?.unwrap_or_default();
    let in_flight = tx.counts_of(queue)?.in_flight;
    Ok(row.in_flight >= NOISY_IN_FLIGHT_MIN && row.in_flight * 10 > in_flight)
}

/// The first messages of the group that wait their turn, by sequence number.
pub(super) fn waiting(tx: &mut Tx<'_>, queue: u32, group: Digest, max: usize) -> Result<Vec<u64>, store::Error> {
    let found = tx.grouped()?.first((queue, group, 0, 0)..=(queue, group, u32::MAX, u64::MAX), max)?;
    Ok(found.into_iter().map(|((_, _, _, sequence), ())| sequence).collect())
}

fn join(tx: &mut Tx<'_>, key: Key, state: &MessageState, row: &mut GroupRecord) -> Result<(), store::Error> {
    if let Some(at) = waits_at(key, state) {
        tx.grouped()?.insert(&at, &())?;
        row.waiting += 1;
    }
    row.in_flight += u64::from(state.place == Place::InFlight);
    row.held += u64::from(is_held(state));
    Ok(())
}

fn leave(tx: &mut Tx<'_>, key: Key, state: &MessageState, row: &mut GroupRecord) -> Result<(), store::Error> {
    let mut is_counted = true;
    let mut take = |count: &mut u64, by: bool| {
        let left = count.checked_sub(u64::from(by));
        is_counted &= left.is_some();
        *count = left.unwrap_or(0);
    };
    take(&mut row.in_flight, state.place == Place::InFlight);
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

/// Where the message stands among those of its group that wait their turn: ready ones, and on a FIFO queue also those
/// that wait out their first delay, because they hold up what was sent after them.
pub(super) fn waits_at(key: Key, state: &MessageState) -> Option<(u32, Digest, u32, u64)> {
    let group = state.group?;
    let waits = match state.place {
        Place::Ready => true,
        Place::Delayed => group.is_ordered && state.receive_count == 0,
        Place::InFlight => false,
    };
    waits.then_some((key.0, group.id, state.priority, key.1))
}

/// Whether the message locks its group: it was received and is neither gone nor visible again.
pub(super) fn is_held(state: &MessageState) -> bool {
    let is_ordered = state.group.is_some_and(|group| group.is_ordered);
    is_ordered && state.place != Place::Ready && state.receive_count > 0
}

/// Puts the group's next message into the ready index, or none.
fn show(
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
    if let Some((_, sequence)) = next.filter(|_| is_ordered) {
        let head = tx.states()?.get(&(queue, sequence))?;
        next = next.filter(|_| head.is_some_and(|head| head.place == Place::Ready));
    }
    let shown = next.unwrap_or_default();
    if shown == row.shown {
        return Ok(());
    }
    if row.shown.1 != 0 && !tx.ready()?.remove(&(queue, row.shown.0, row.shown.1))? {
        let reason = format!("message {} of queue {queue} does not stand in the ready index", row.shown.1);
        return Err(tx.damaged("groups", reason));
    }
    if shown.1 != 0 {
        tx.ready()?.insert(&(queue, shown.0, shown.1), &())?;
        tx.signal(u64::from(queue));
    }
    row.shown = shown;
    Ok(())
}
