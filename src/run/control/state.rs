//! The state of a run in one word, and what of it may go on.

use serde::{Deserialize, Serialize};

use crate::store::record::{FanOutProgress, RunControl, RunHold, RunRecord, RunTotals};
use crate::store::{self, Snapshot, Tx};

/// The state of a run in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunState {
    /// It has started, and none of its users are fetched yet.
    Waiting,
    /// Its users are being fetched.
    Fetching,
    /// The fan-out's message is a dead letter: no more users are fetched until it is redriven.
    FetchDead,
    /// All users are fetched, and their number is out of bounds: nothing is sent before an operator releases the run.
    AwaitingRelease,
    /// All users are fetched, and some recipients' messages have not ended.
    Sending,
    /// Too many recipients failed one after the other: nothing is sent before an operator resumes the run.
    Braked,
    /// Every recipient's message has ended, none of them in a dead-letter queue.
    Complete,
    /// Every recipient's message has ended, some of them in a dead-letter queue.
    CompleteWithLetters,
    /// An operator stopped it: nothing of it is fetched or mailed until it is resumed.
    Stopped,
    /// An operator abandoned it: nothing of it is fetched or mailed any more.
    Abandoned,
}

impl RunState {
    /// The word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Fetching => "fetching",
            Self::FetchDead => "fetch-dead",
            Self::AwaitingRelease => "awaiting-release",
            Self::Sending => "sending",
            Self::Braked => "braked",
            Self::Complete => "complete",
            Self::CompleteWithLetters => "complete-with-letters",
            Self::Stopped => "stopped",
            Self::Abandoned => "abandoned",
        }
    }

    /// The state of a run with these rows.
    pub fn of(control: &RunControl, progress: &FanOutProgress, totals: &RunTotals) -> Self {
        if let Some(held) = Self::of_hold(&control.hold) {
            return held;
        }
        let has_begun = progress.pages > 0 || progress.position > 0;
        match (progress.finished_at, totals.open(), totals.dead) {
            (None, ..) if progress.letter.is_some() => Self::FetchDead,
            (None, ..) if !has_begun => Self::Waiting,
            (None, ..) => Self::Fetching,
            (Some(_), 0, 0) => Self::Complete,
            (Some(_), 0, _) => Self::CompleteWithLetters,
            (Some(_), ..) => Self::Sending,
        }
    }

    /// The state of a run that may not go on.
    const fn of_hold(hold: &RunHold) -> Option<Self> {
        match hold {
            RunHold::None | RunHold::Fetching => None,
            RunHold::AwaitingRelease { .. } => Some(Self::AwaitingRelease),
            RunHold::Braked { .. } => Some(Self::Braked),
            RunHold::Stopped { .. } => Some(Self::Stopped),
            RunHold::Abandoned { .. } => Some(Self::Abandoned),
        }
    }

    /// What an operator can do about a run in this state, as commands.
    pub fn remedy(self, run: u64) -> String {
        match self {
            Self::Waiting | Self::Fetching | Self::FetchDead | Self::Sending => {
                format!("see `nightmail run show {run}`; `nightmail run stop {run}` stops it")
            }
            Self::AwaitingRelease => {
                format!("`nightmail run release {run}` sends its messages, `nightmail run abandon {run}` ends it")
            }
            Self::Complete | Self::CompleteWithLetters => format!(
                "`nightmail run refetch {run}` mails users who are new, `nightmail run resend {run} --recipient ID` mails one again"
            ),
            Self::Stopped | Self::Braked => {
                format!("`nightmail run resume {run}` goes on, `nightmail run abandon {run}` ends it")
            }
            Self::Abandoned => "that is for good".into(),
        }
    }
}

/// Why no mail of the run may begin; most often nothing.
///
/// # Errors
/// A storage fault.
pub(in crate::run) fn hold(tx: &mut Tx<'_>, run: u64) -> Result<RunHold, store::Error> {
    Ok(tx.run_controls()?.get(&run)?.map(|control| control.hold).unwrap_or_default())
}

/// The state of a run.
///
/// # Errors
/// A storage fault.
pub(in crate::run) fn state(tx: &mut Tx<'_>, run: &RunRecord) -> Result<RunState, store::Error> {
    let control = tx.run_controls()?.get(&run.id)?.unwrap_or_default();
    Ok(RunState::of(&control, &run.fan_out, &tx.totals_of(run.id)?))
}

/// The state of the run, when neither its fetch nor its mails may go on.
///
/// # Errors
/// A storage fault.
pub fn held(tx: &mut Tx<'_>, run: u64) -> Result<Option<RunState>, store::Error> {
    Ok(RunState::of_hold(&hold(tx, run)?))
}

/// Whether each open recipient of the run must have a message.
pub(in crate::run) fn is_going_on(snapshot: &Snapshot, run: u64) -> Result<bool, store::Error> {
    let control = snapshot.run_controls()?.sound(&run)?.unwrap_or_default();
    Ok(control.hold == RunHold::None && !control.has_unsent)
}
