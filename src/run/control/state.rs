//! The state of a run in one word, and what of it may go on.

use serde::{Deserialize, Serialize};

use crate::base::Timestamp;
use crate::store::record::{FanOutProgress, Gate, RecipientRecord, RunControl, RunHold, RunRecord, RunTotals};
use crate::store::{self, Snapshot, Tx};

use super::super::ledger;

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
    /// All users are fetched, and their statements are being made; nothing is sent before all are.
    Rendering,
    /// All users are fetched, and their number is out of bounds, or their statements are made and wait: nothing is sent
    /// before an operator releases the run.
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
            Self::Rendering => "rendering",
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
            RunHold::Rendering | RunHold::Remaking => Some(Self::Rendering),
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
            Self::Rendering => format!(
                "see `nightmail run show {run}`; `nightmail run release {run}` sends without waiting for the rest, `nightmail run stop {run}` stops it"
            ),
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

    /// The same for a run with a gate that is not open, or with a refetch that has not ended.
    pub(in crate::run) fn remedy_of(self, run: u64, gate: GateStage, is_refetching: bool) -> String {
        let end = match is_refetching {
            true => format!("`nightmail run abandon {run} --refetch` gives the refetch up"),
            false => format!("`nightmail run abandon {run}` ends it"),
        };
        let (sends, its) = match is_refetching {
            true => ("mails the users who are new", "the statements of those who are new"),
            false => ("sends its messages", "its statements"),
        };
        match (self, gate) {
            (Self::AwaitingRelease, GateStage::None) => format!("`nightmail run release {run}` {sends}, {end}"),
            (Self::AwaitingRelease, GateStage::Unchecked) => {
                format!("`nightmail run release {run}` has {its} made, {end}")
            }
            (Self::AwaitingRelease, GateStage::Checked) => {
                format!("`nightmail run release {run}` {sends}, `nightmail run remake {run}` makes {its} again, {end}")
            }
            (Self::Waiting | Self::Fetching | Self::FetchDead | Self::Rendering, _) if is_refetching => {
                format!("see `nightmail run show {run}`; {end}")
            }
            _ => self.remedy(run),
        }
    }
}

/// How far a run's gate is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::run) enum GateStage {
    /// It has none, or that is open.
    None,
    /// It has not checked the statements of the present fetch.
    Unchecked,
    /// It has.
    Checked,
}

impl GateStage {
    /// Of a gate that has checked the statements at that time.
    pub(in crate::run) const fn of(checked_at: Option<Timestamp>) -> Self {
        match checked_at {
            Some(_) => Self::Checked,
            None => Self::Unchecked,
        }
    }
}

/// What an operator can do about a run, as commands.
pub(in crate::run) fn remedy(control: &RunControl, state: RunState, run: u64) -> String {
    let is_refetching = control.refetch.is_some_and(|refetch| refetch.abandoned_at.is_none());
    let gate = control.gate.map_or(GateStage::None, |gate| GateStage::of(gate.checked_at));
    state.remedy_of(run, gate, is_refetching)
}

/// What may happen to a recipient now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::run) enum Stage {
    /// Its mail may begin.
    Mail,
    /// Its statement may be made, and must not be mailed.
    Render,
    /// Nothing.
    Wait,
    /// Nothing, for good.
    Never,
}

impl Stage {
    /// Whether the recipient's message may be worked on.
    pub(in crate::run) const fn is_going_on(self) -> bool {
        matches!(self, Self::Mail | Self::Render)
    }
}

/// What may happen to a recipient now; without a row to those of the present fetch.
pub(in crate::run) fn stage(control: &RunControl, row: Option<&RecipientRecord>) -> Stage {
    match may_mail(control, row) {
        Allowed::Yes => Stage::Mail,
        Allowed::NotNow if may_render(control, row) => Stage::Render,
        Allowed::NotNow => Stage::Wait,
        Allowed::Never => Stage::Never,
    }
}

/// Whether the statements of the run are being made, or were and await its release.
pub(super) const fn is_shut(hold: &RunHold, gate: &Gate) -> bool {
    match hold {
        RunHold::Rendering => true,
        RunHold::AwaitingRelease { .. } => gate.checked_at.is_some(),
        RunHold::None
        | RunHold::Stopped { .. }
        | RunHold::Abandoned { .. }
        | RunHold::Fetching
        | RunHold::Remaking
        | RunHold::Braked { .. } => false,
    }
}

/// Whether the recipient's statement may be made, and not be mailed. Of a recipient who has one it is not made again.
fn may_render(control: &RunControl, row: Option<&RecipientRecord>) -> bool {
    let is_rendered = row.is_some_and(|row| row.rendering.is_some());
    !is_rendered && control.gate.is_some_and(|gate| is_shut(&control.hold, &gate))
}

/// Whether something of a run may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::run) enum Allowed {
    /// It may.
    Yes,
    /// Not before somebody decides otherwise, or before all users are fetched.
    NotNow,
    /// Not any more.
    Never,
}

/// Whether the mail to a recipient may begin. A refetch holds up those alone whom it has added.
pub(in crate::run) fn may_mail(control: &RunControl, row: Option<&RecipientRecord>) -> Allowed {
    let is_added = control.refetch.is_some_and(|refetch| row.is_some_and(|row| row.refetch >= refetch.number));
    let is_given_up = control.refetch.is_some_and(|refetch| refetch.abandoned_at.is_some());
    match &control.hold {
        RunHold::Abandoned { .. } => Allowed::Never,
        _ if is_added && is_given_up && row.is_some_and(|row| !ledger::is_settled(&row.state)) => Allowed::Never,
        RunHold::None => Allowed::Yes,
        RunHold::Fetching | RunHold::AwaitingRelease { .. } | RunHold::Rendering | RunHold::Remaking
            if control.refetch.is_some() && !is_added =>
        {
            Allowed::Yes
        }
        RunHold::Stopped { .. }
        | RunHold::Fetching
        | RunHold::AwaitingRelease { .. }
        | RunHold::Rendering
        | RunHold::Remaking
        | RunHold::Braked { .. } => Allowed::NotNow,
    }
}

/// Whether the users of a run may be fetched.
pub(in crate::run) fn may_fetch(control: &RunControl) -> Allowed {
    match &control.hold {
        RunHold::Abandoned { .. } => Allowed::Never,
        _ if control.refetch.is_some_and(|refetch| refetch.abandoned_at.is_some()) => Allowed::Never,
        RunHold::None | RunHold::Fetching | RunHold::Rendering => Allowed::Yes,
        RunHold::Stopped { .. } | RunHold::AwaitingRelease { .. } | RunHold::Remaking | RunHold::Braked { .. } => {
            Allowed::NotNow
        }
    }
}

/// What is decided about a run, when that is anything.
///
/// # Errors
/// A storage fault.
pub(in crate::run) fn decided(tx: &mut Tx<'_>, run: u64) -> Result<Option<RunControl>, store::Error> {
    tx.run_controls()?.get(&run)
}

/// Why no mail of the run may begin; most often nothing.
///
/// # Errors
/// A storage fault.
pub(in crate::run) fn hold(tx: &mut Tx<'_>, run: u64) -> Result<RunHold, store::Error> {
    Ok(decided(tx, run)?.map(|control| control.hold).unwrap_or_default())
}

/// The state of a run.
///
/// # Errors
/// A storage fault.
pub(in crate::run) fn state(tx: &mut Tx<'_>, run: &RunRecord) -> Result<RunState, store::Error> {
    let control = tx.run_controls()?.get(&run.id)?.unwrap_or_default();
    Ok(RunState::of(&control, &run.fan_out, &tx.totals_of(run.id)?))
}

/// The state of the run, when neither its fetch nor its mails may go on. A refetch that awaits its release holds up
/// nobody but those whom it has added.
///
/// # Errors
/// A storage fault.
pub fn held(tx: &mut Tx<'_>, run: u64) -> Result<Option<RunState>, store::Error> {
    let control = decided(tx, run)?.unwrap_or_default();
    Ok(RunState::of_hold(&control.hold).filter(|_| may_mail(&control, None) != Allowed::Yes))
}

/// The state of the run, when its users may not be fetched, nor records of them be checked again.
///
/// # Errors
/// A storage fault.
pub fn fetch_held(tx: &mut Tx<'_>, run: u64) -> Result<Option<RunState>, store::Error> {
    let control = decided(tx, run)?.unwrap_or_default();
    let is_rendering = may_render(&control, None);
    Ok(if is_rendering {
        None
    } else {
        RunState::of_hold(&control.hold).filter(|_| may_mail(&control, None) != Allowed::Yes)
    })
}

/// Whether an open recipient must have a message.
pub(in crate::run) fn is_going_on(snapshot: &Snapshot, run: u64, row: &RecipientRecord) -> Result<bool, store::Error> {
    let control = snapshot.run_controls()?.sound(&run)?.unwrap_or_default();
    Ok(stage(&control, Some(row)).is_going_on() && !control.has_unsent)
}
