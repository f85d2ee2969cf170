//! The decision about a run, as one step. It counts from its commit on; what it leaves to do is done in the background.

use serde::{Deserialize, Serialize};

use crate::base::Timestamp;
use crate::store::Tx;
use crate::store::record::{Brake, RunControl, RunHold};

use super::super::Error;
use super::row::save;
use super::{RunState, TOPIC, guard};

/// What to do with a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decision {
    /// Let no more mail of it begin, and fetch no more of its users, until it is resumed.
    Stop,
    /// Let it go on where it was.
    Resume,
    /// Send its messages although the number of its users is out of bounds.
    Release,
    /// End it for good: what is open is withdrawn, and so are its dead letters.
    Abandon,
}

impl Decision {
    /// What was done then.
    pub const fn past(self) -> &'static str {
        match self {
            Self::Stop => "stopped",
            Self::Resume => "resumed",
            Self::Release => "released",
            Self::Abandon => "abandoned",
        }
    }

    const fn is_allowed(self, state: RunState) -> bool {
        match self {
            Self::Stop => !matches!(
                state,
                RunState::AwaitingRelease
                    | RunState::Braked
                    | RunState::Complete
                    | RunState::Stopped
                    | RunState::Abandoned
            ),
            Self::Resume => matches!(state, RunState::Stopped | RunState::Braked),
            Self::Release => matches!(state, RunState::AwaitingRelease),
            Self::Abandon => !matches!(state, RunState::Complete | RunState::Abandoned),
        }
    }
}

/// Decides about a run. When this step is committed, nothing of a stopped or abandoned run is received, permitted to be
/// mailed or fetched any more; attempts whose mail has begun end as they end.
///
/// # Errors
/// [`Error::NotFound`]; [`Error::State`] when the run's state does not allow it.
pub fn decide(tx: &mut Tx<'_>, run: u64, decision: Decision, now: Timestamp) -> Result<(), Error> {
    let record = tx.runs()?.get(&run)?.ok_or(Error::NotFound(run))?;
    let control = tx.run_controls()?.get(&run)?.unwrap_or_default();
    let state = super::state::state(tx, &record)?;
    if !decision.is_allowed(state) {
        let (state, remedy) = (state.name(), state.remedy(run));
        return Err(Error::State { run, state, decision: decision.past(), remedy });
    }
    let brake = control.brake.map(|brake| Brake { failures: 0, ..brake });
    let decided = RunControl { decision: tx.fresh_id()?, brake, ..control };
    let control = match decision {
        Decision::Stop => RunControl { hold: RunHold::Stopped { at: now }, has_queued: true, ..decided },
        Decision::Abandon => {
            let hold = RunHold::Abandoned { at: now };
            RunControl { hold, has_queued: true, has_unsent: false, guard: None, ..decided }
        }
        // Whether its messages may be sent is for its guard to say.
        Decision::Resume if control.guard.is_some() => {
            RunControl { hold: RunHold::Fetching, has_queued: false, ..decided }
        }
        Decision::Resume | Decision::Release => {
            RunControl { hold: RunHold::None, has_queued: false, has_unsent: true, ..decided }
        }
    };
    save(tx, run, &control)?;
    if decision == Decision::Release {
        guard::let_go(tx, &record)?;
    }
    tx.signal(TOPIC);
    Ok(())
}
