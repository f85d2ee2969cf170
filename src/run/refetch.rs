//! Reads the users of a run again that is complete, for those who are new: a recipient who has a row keeps it, and gets
//! nothing.

use crate::base::Now;
use crate::queue::{Send, admission, catalog, send};
use crate::store::Tx;
use crate::store::record::{FanOutProgress, Gate, Guard, Refetching, RunRecord};

use super::start::FanOutMessage;
use super::{Error, RunState, control, fold};

/// What to fetch again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refetch {
    /// The run.
    pub run: u64,
    /// The queue of the fan-out function.
    pub queue: String,
    /// The bounds of the number of users, those who have a row included; as for a run that starts.
    pub guard: Option<Guard>,
    /// The gate of those who are new.
    pub gate: Option<Gate>,
}

/// Begins to fetch the users of a run again.
///
/// # Errors
/// [`Error::NotFound`]; [`Error::State`] unless the run is complete; [`Error::RefetchEnding`]; the fan-out's queue does not
/// exist or is full.
pub fn refetch(tx: &mut Tx<'_>, what: &Refetch, now: Now) -> Result<(), Error> {
    let run = what.run;
    let record = fold::unfolded(tx.runs()?.get(&run)?, run)?;
    let state = control::state(tx, &record)?;
    let control = control::decided(tx, run)?.unwrap_or_default();
    let (true, Some(fetched_at)) =
        (matches!(state, RunState::Complete | RunState::CompleteWithLetters), record.fan_out.finished_at)
    else {
        let remedy = control::remedy(&control, state, run);
        return Err(Error::State { run, state: state.name(), decision: "refetched", remedy });
    };
    if control.refetch.is_some() {
        return Err(Error::RefetchEnding(run));
    }
    let queue = catalog::find(tx, &what.queue)?;
    let message = admission::admit(tx, &queue, Send { run, ..Send::text(FanOutMessage { run }.body()) }, now)?;
    send::send(tx, message, now)?;
    let (fan_out, refetches) = (FanOutProgress::default(), record.refetches + 1);
    tx.runs()?.insert(&run, &RunRecord { fan_out, refetches, ..record })?;
    let users_before = tx.totals_of(run)?.phases.fetch.done;
    let refetch = Refetching { number: refetches, fetched_at, abandoned_at: None, users_before };
    let guard = control::guard_of(what.guard, what.gate.as_ref());
    Ok(control::begin_refetch(tx, run, refetch, (guard, what.gate))?)
}
