//! Attempts that a dead process left unfinished: detected at start, or when the lease runs out.

use crate::base::{Attempt, AttemptEnd, Failure, LeaseTime, Now};
use crate::store::record::{MessageState, Owner, Phase, Suspicion};
use crate::store::{self, Tx};

use super::state::Key;
use super::{messages, settle, state};

/// One step of [`end_worker_leases`] examines at most this many messages; each has about eight rows.
const STEP_MAX: usize = 60;

/// What [`end_worker_leases`] does with a queue's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served {
    /// A function works on the queue: messages that were in work become suspects.
    ByAFunction,
    /// No function works on it any more: nobody would try a suspect alone, so there are none.
    ByNobody,
}

/// Ends the leases that workers of an earlier process hold on messages under that row number of a queue, which crashed with them in work.
/// Those messages are ready again and each attempt is recorded as lost. Only an attempt that was alone in the process
/// stays charged, because only it is known to have been in work alone; all whose attempt had not committed progress are
/// suspects, to be tried alone. Returns the moment and sequence number to continue from; `None` at the end of the queue.
///
/// # Errors
/// A storage fault.
pub fn end_worker_leases(
    tx: &mut Tx<'_>,
    (rows, served): (u32, Served),
    from: (u64, u64),
    now: Now,
) -> Result<Option<(u64, u64)>, store::Error> {
    let held = tx.timed()?.first((rows, from.0, from.1)..=(rows, u64::MAX, u64::MAX), STEP_MAX)?;
    for ((_, _, sequence), ()) in &held {
        let key = (rows, *sequence);
        if let Some(state) = tx.states()?.get(&key)?
            && state.phase == Phase::InFlight
            && state.owner == Owner::Worker
        {
            let is_charged = state.suspicion == Suspicion::Alone;
            let is_suspect = state.suspicion != Suspicion::Progressed && served == Served::ByAFunction;
            let charged = state.attempts_charged.saturating_sub(u32::from(!is_charged));
            let suspicion = if is_suspect { Suspicion::Suspect } else { Suspicion::None };
            lose(tx, key, &state, (charged, suspicion), now)?;
        }
    }
    let more = held.len() == STEP_MAX;
    Ok(held.last().filter(|_| more).map(|((_, at, sequence), ())| (*at, sequence + 1)))
}

/// Clears some suspects of a queue that no function works on any more, so that clients can receive them. Returns
/// whether there may be more.
///
/// # Errors
/// A storage fault.
pub fn clear_suspects(tx: &mut Tx<'_>, rows: u32) -> Result<bool, store::Error> {
    let suspects = tx.suspects()?.first((rows, 0, 0)..=(rows, u32::MAX, u64::MAX), STEP_MAX)?;
    for ((_, _, sequence), ()) in &suspects {
        let key = (rows, *sequence);
        let state = state::get(tx, key)?;
        messages::update(tx, key, &state, &MessageState { suspicion: Suspicion::None, ..state.clone() })?;
    }
    Ok(suspects.len() == STEP_MAX)
}

/// Ends the lease of a worker that outlived its time limit by far. The attempt stays charged.
pub(super) fn lose_overdue(tx: &mut Tx<'_>, key: Key, state: &MessageState, now: Now) -> Result<(), store::Error> {
    lose(tx, key, state, (state.attempts_charged, Suspicion::None), now)
}

fn lose(
    tx: &mut Tx<'_>,
    key: Key,
    state: &MessageState,
    (attempts_charged, suspicion): (u32, Suspicion),
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
    settle::record_attempt(tx, key, state, &attempt)?;
    let back = MessageState {
        attempts_charged,
        suspicion,
        deferred_since: LeaseTime::ZERO,
        ..state::unleased(state, Phase::Ready, LeaseTime::ZERO)
    };
    messages::update(tx, key, state, &back)
}
