//! The decision about a run, as one step. It counts from its commit on; what it leaves to do is done in the background.

use serde::{Deserialize, Serialize};

use crate::base::Timestamp;
use crate::store::Tx;
use crate::store::record::{Brake, RunControl, RunHold, RunTotals};

use super::super::{Error, fold};
use super::row::save;
use super::{RunState, TOPIC, gate, let_go, refetch};

/// What to do with a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decision {
    /// Let no more mail of it begin, and fetch no more of its users, until it is resumed.
    Stop,
    /// Let it go on where it was.
    Resume,
    /// Send its messages although the number of its users is out of bounds, or its gate waits for this. With a gate that
    /// has not seen its statements yet, they are made first. While they are being made, those that are not are made and
    /// sent unseen.
    Release,
    /// Make all of its statements again that are made and not sent.
    Remake,
    /// End it for good: what is open is withdrawn, and so are its dead letters.
    Abandon,
    /// End its refetch: the recipients that it has added are withdrawn, and the run is as it was before.
    AbandonRefetch,
}

impl Decision {
    /// What was done then.
    pub const fn past(self) -> &'static str {
        match self {
            Self::Stop => "stopped",
            Self::Resume => "resumed",
            Self::Release => "released",
            Self::Remake => "remade",
            Self::Abandon | Self::AbandonRefetch => "abandoned",
        }
    }

    const fn is_allowed(self, state: RunState, totals: &RunTotals) -> bool {
        match self {
            Self::Stop => match state {
                RunState::AwaitingRelease | RunState::Braked | RunState::Stopped | RunState::Abandoned => false,
                RunState::Complete => totals.resending > 0,
                // Its letters may be driven back.
                RunState::CompleteWithLetters => true,
                RunState::Waiting
                | RunState::Fetching
                | RunState::FetchDead
                | RunState::Rendering
                | RunState::Sending => true,
            },
            Self::Resume => matches!(state, RunState::Stopped | RunState::Braked),
            Self::Release => matches!(state, RunState::AwaitingRelease | RunState::Rendering),
            // Whether they were made, the run's gate tells.
            Self::Remake => matches!(state, RunState::AwaitingRelease),
            Self::Abandon => !matches!(state, RunState::Complete | RunState::Abandoned),
            // Whether there is one, the run's state does not tell.
            Self::AbandonRefetch => !matches!(state, RunState::Abandoned),
        }
    }
}

/// Decides about a run. When this step is committed, nothing of a stopped or abandoned run is received, permitted to be
/// mailed or fetched any more; attempts whose mail has begun end as they end.
///
/// # Errors
/// [`Error::NotFound`]; [`Error::State`] when the run's state does not allow it; [`Error::NoRefetch`].
pub fn decide(tx: &mut Tx<'_>, run: u64, decision: Decision, now: Timestamp) -> Result<(), Error> {
    let record = fold::unfolded(tx.runs()?.get(&run)?, run)?;
    let control = tx.run_controls()?.get(&run)?.unwrap_or_default();
    let state = super::state::state(tx, &record)?;
    let is_ending = matches!(decision, Decision::Abandon | Decision::AbandonRefetch);
    if control.hold == RunHold::Remaking && !is_ending {
        return Err(Error::Remaking(run));
    }
    let is_unmade = control.gate.is_none_or(|gate| gate.checked_at.is_none());
    let has_nothing_to_remake = decision == Decision::Remake && is_unmade;
    if has_nothing_to_remake || !decision.is_allowed(state, &tx.totals_of(run)?) {
        let (state, remedy) = (state.name(), super::remedy(&control, state, run));
        return Err(Error::State { run, state, decision: decision.past(), remedy });
    }
    if decision == Decision::AbandonRefetch {
        return refetch::abandon(tx, record, now);
    }
    let brake = control.brake.map(Brake::anew);
    let decided = RunControl { decision: tx.fresh_id()?, brake, ..control };
    let control = match decision {
        Decision::Stop => RunControl { hold: RunHold::Stopped { at: now }, has_queued: true, ..decided },
        Decision::Abandon => {
            let hold = RunHold::Abandoned { at: now };
            RunControl { hold, has_queued: true, has_unsent: false, guard: None, refetch: None, ..decided }
        }
        // Whether messages may be sent to those who are being fetched is for its guard to say.
        Decision::Resume if control.guard.is_some() => {
            let has_unsent = control.refetch.is_some();
            RunControl { hold: RunHold::Fetching, has_queued: false, has_unsent, ..decided }
        }
        Decision::Release if decided.hold == RunHold::Rendering => gate::open(decided),
        Decision::Resume | Decision::Release if control.gate.is_some_and(|gate| gate.checked_at.is_none()) => {
            return Ok(gate::begin(tx, run, decided, now)?);
        }
        Decision::Release => gate::open(decided),
        Decision::Remake => return Ok(gate::remake(tx, run, decided)?),
        Decision::Resume | Decision::AbandonRefetch => {
            RunControl { hold: RunHold::None, has_queued: false, has_unsent: true, ..decided }
        }
    };
    save(tx, run, &control)?;
    if decision == Decision::Release {
        let_go::record(tx, &record)?;
    }
    tx.signal(TOPIC);
    Ok(())
}
