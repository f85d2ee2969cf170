//! Attempts that a dead process left unfinished: detected at start, or when the lease runs out.

use crate::base::{Attempt, AttemptEnd, Failure, LeaseTime, Now};
use crate::store::record::{MessageState, Owner, Phase};
use crate::store::{self, Tx};

use super::{Observer, Transition, messages, settle};

/// One step of [`end_worker_leases`] examines at most this many messages.
const STEP_MAX: usize = 1000;

/// Ends the leases that workers of an earlier process hold on messages of `queue`. Those messages are ready again; the
/// attempt stays charged and is recorded as lost. Returns the moment and sequence number to continue from; `None` at
/// the end of the queue.
///
/// # Errors
/// A storage fault.
pub fn end_worker_leases(
    tx: &mut Tx<'_>,
    observer: &dyn Observer,
    queue: u32,
    from: (u64, u64),
    now: Now,
) -> Result<Option<(u64, u64)>, store::Error> {
    let held = tx.timed()?.first((queue, from.0, from.1)..=(queue, u64::MAX, u64::MAX), STEP_MAX)?;
    for ((_, _, sequence), ()) in &held {
        let key = (queue, *sequence);
        if let Some(state) = tx.states()?.get(&key)?
            && state.phase == Phase::InFlight
            && state.owner == Owner::Worker
        {
            lose(tx, observer, key, &state, now)?;
        }
    }
    let more = held.len() == STEP_MAX;
    Ok(held.last().filter(|_| more).map(|((_, at, sequence), ())| (*at, sequence + 1)))
}

/// Ends the lease of a worker that is gone.
pub(super) fn lose(
    tx: &mut Tx<'_>,
    observer: &dyn Observer,
    key: messages::Key,
    state: &MessageState,
    now: Now,
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
        started_at: now.wall_of(state.received_at),
        ended_at: now.wall,
        end: AttemptEnd::Lost,
        failure: Some(why),
    };
    settle::record_attempt(tx, state, &attempt)?;
    messages::notify(tx, observer, state, Transition::Interrupted, now.wall)?;
    let back =
        MessageState { deferred_since: LeaseTime::ZERO, ..messages::unleased(state, Phase::Ready, LeaseTime::ZERO) };
    messages::update(tx, key, state, &back)
}
