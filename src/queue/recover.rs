//! Attempts that a dying process left unfinished: noticed at start, or when the lease runs out.

use crate::base::{Attempt, AttemptEnd, Failure, Timestamp};
use crate::store::record::{MessageState, Owner, Place};
use crate::store::{self, Tx};

use super::{News, Witness, place, settle};

/// One step of [`end_worker_leases`] looks at this many messages.
const STEP_MAX: usize = 1000;

/// Ends the leases that workers of an earlier life of the daemon hold on messages of `queue`: those messages are ready
/// again, the attempt stays charged and stands in the history as lost. Answers the moment and number to go on from;
/// `None` when the queue is through.
///
/// # Errors
/// A storage fault.
pub fn end_worker_leases(
    tx: &mut Tx<'_>,
    witness: &dyn Witness,
    queue: u32,
    from: (u64, u64),
    now: Timestamp,
) -> Result<Option<(u64, u64)>, store::Error> {
    let held = tx.timed()?.first((queue, from.0, from.1)..=(queue, u64::MAX, u64::MAX), STEP_MAX)?;
    for ((_, _, sequence), ()) in &held {
        let key = (queue, *sequence);
        if let Some(state) = tx.states()?.get(&key)?
            && state.place == Place::InFlight
            && state.owner == Owner::Worker
        {
            lose(tx, witness, key, &state, now)?;
        }
    }
    let more = held.len() == STEP_MAX;
    Ok(held.last().filter(|_| more).map(|((_, at, sequence), ())| (*at, sequence + 1)))
}

/// Takes a message back from a worker that is gone.
pub(super) fn lose(
    tx: &mut Tx<'_>,
    witness: &dyn Witness,
    key: place::Key,
    state: &MessageState,
    now: Timestamp,
) -> Result<(), store::Error> {
    let why = Failure::new(
        "crash",
        "worker",
        "lost",
        "the attempt never ended: the daemon died or its time limit was passed by far",
    );
    let attempt = Attempt {
        number: state.attempts,
        function: String::new(),
        started_at: state.received_at,
        ended_at: now,
        end: AttemptEnd::Lost,
        failure: Some(why),
    };
    settle::remember(tx, state, &attempt)?;
    place::tell(tx, witness, state, News::Interrupted, now)?;
    let back = MessageState { deferred_since: Timestamp::ZERO, ..place::settled(state, Place::Ready, Timestamp::ZERO) };
    place::shift(tx, key, state, &back)
}
