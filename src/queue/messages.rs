//! Phase changes of messages. All writes of states, indexes and counts go through here, so that they stay consistent.

use crate::store::record::{MessageState, Phase, Shown, Suspicion};
use crate::store::{self, Tx};

use super::room::Room;
use super::state::{self, Key};
use super::{group, letters};

/// At most this many messages of a queue are in flight, as in SQS.
pub const IN_FLIGHT_MAX: u64 = 120_000;

/// Adds a message to its queue, which has `room` for it.
pub(super) fn insert(tx: &mut Tx<'_>, key: Key, state: &MessageState, room: Room) -> Result<(), store::Error> {
    room.take_up();
    link(tx, key, state)?;
    tx.states()?.insert(&key, state)?;
    letters::insert(tx, key, state)?;
    group::update(tx, key, None, Some(state))?;
    let counts = tx.counts_mut(key.0)?;
    *state::slot(counts, state.phase) += 1;
    counts.bytes += u64::from(state.size_bytes);
    // Wake the queue's long polls. A delayed message counts too: it may move the moment of their next receive forward.
    if state.phase != Phase::InFlight {
        wake(tx, key)?;
    }
    Ok(())
}

/// Removes a message from its queue. Body and history stay, because they move with the message to another queue.
pub(super) fn remove(tx: &mut Tx<'_>, key: Key, state: &MessageState) -> Result<(), store::Error> {
    unlink(tx, key, state)?;
    letters::remove(tx, key, state)?;
    tx.states()?.remove(&key)?;
    group::update(tx, key, Some(state), None)?;
    let counts = tx.counts_mut(key.0)?;
    let is_at_limit = state.phase == Phase::InFlight && counts.in_flight == IN_FLIGHT_MAX;
    let is_covered =
        uncount(state::slot(counts, state.phase), 1) && uncount(&mut counts.bytes, u64::from(state.size_bytes));
    if is_at_limit {
        // Long polls wait for it: there is room for one more in flight.
        wake(tx, key)?;
    }
    if is_covered { Ok(()) } else { Err(not_counted(tx, key)) }
}

/// Replaces a message's state within its queue. `old` must equal the stored state: its index entries are removed by it.
pub(super) fn update(tx: &mut Tx<'_>, key: Key, old: &MessageState, new: &MessageState) -> Result<(), store::Error> {
    // Unlink first: when both states share an index key, the reverse order would delete the new entry.
    unlink(tx, key, old)?;
    link(tx, key, new)?;
    tx.states()?.insert(&key, new)?;
    group::update(tx, key, Some(old), Some(new))?;
    let counts = tx.counts_mut(key.0)?;
    if !uncount(state::slot(counts, old.phase), 1) {
        return Err(not_counted(tx, key));
    }
    *state::slot(counts, new.phase) += 1;
    if new.phase != Phase::InFlight {
        wake(tx, key)?;
    }
    Ok(())
}

/// Wakes the long polls and workers of the message's queue.
pub(super) fn wake(tx: &mut Tx<'_>, key: Key) -> Result<(), store::Error> {
    let queue = tx.queue_of_rows(key.0)?;
    tx.signal(u64::from(queue));
    Ok(())
}

/// Adds a message to the index of its phase. Ready messages of a group are indexed by [`group::update`] instead.
fn link(tx: &mut Tx<'_>, key: Key, state: &MessageState) -> Result<(), store::Error> {
    match state.phase {
        Phase::Ready if state.suspicion == Suspicion::Suspect => {
            tx.suspects()?.insert(&state::suspect_key(key, state), &())?;
        }
        Phase::Ready if state.group.is_some() => {}
        Phase::Ready => drop(tx.ready()?.insert(&state::ready_key(key, state), &Shown::default())?),
        Phase::Delayed | Phase::InFlight => drop(tx.timed()?.insert(&state::timed_key(key, state), &())?),
    }
    if state::expires_while_waiting(state) {
        tx.expiries()?.insert(&(key.0, state.expires_at.as_millis(), key.1), &())?;
    }
    Ok(())
}

fn unlink(tx: &mut Tx<'_>, key: Key, state: &MessageState) -> Result<(), store::Error> {
    let mut was_there = match state.phase {
        Phase::Ready if state.suspicion == Suspicion::Suspect => {
            tx.suspects()?.remove(&state::suspect_key(key, state))?
        }
        Phase::Ready if state.group.is_some() => true,
        Phase::Ready => tx.ready()?.remove(&state::ready_key(key, state))?,
        Phase::Delayed | Phase::InFlight => tx.timed()?.remove(&state::timed_key(key, state))?,
    };
    if state::expires_while_waiting(state) {
        was_there &= tx.expiries()?.remove(&(key.0, state.expires_at.as_millis(), key.1))?;
    }
    // A missing entry means that index and state already disagreed: fail before this step makes it worse.
    if was_there {
        return Ok(());
    }
    let reason = format!("message {} of queue {} does not stand in the index of its phase", state.message_id, key.0);
    Err(tx.damaged("states", reason))
}

/// Subtracts from a count; false when the count is too small. A wrapped count would stay wrong for good.
fn uncount(count: &mut u64, by: u64) -> bool {
    let left = count.checked_sub(by);
    *count = left.unwrap_or(0);
    left.is_some()
}

fn not_counted(tx: &Tx<'_>, key: Key) -> store::Error {
    tx.damaged("counts", format!("the counts of queue {} do not cover message {}", key.0, key.1))
}
