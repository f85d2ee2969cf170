//! A refetch that has not ended: it holds up nobody but those whom it has added, and can be given up.

use crate::base::Timestamp;
use crate::store::record::{FanOutProgress, Gate, Guard, Refetching, RunControl, RunHold, RunRecord};
use crate::store::{self, Tx};

use super::super::Error;
use super::row::save;
use super::{TOPIC, brake};

/// Records that the users of a run are fetched again; a guard has those who are new wait for the end of that, and a gate until
/// their statements are made.
///
/// # Errors
/// A storage fault.
pub(in crate::run) fn begin(
    tx: &mut Tx<'_>,
    run: u64,
    refetch: Refetching,
    (guard, gate): (Option<Guard>, Option<Gate>),
) -> Result<(), store::Error> {
    let control = tx.run_controls()?.get(&run)?.unwrap_or_default();
    let hold = if guard.is_some() { RunHold::Fetching } else { control.hold };
    let decision = tx.fresh_id()?;
    save(tx, run, &RunControl { hold, decision, guard, gate, refetch: Some(refetch), ..control })
}

/// Gives a refetch up: the run is again as fetched as it was before, and the recipients that were added are withdrawn in the
/// background. What else was decided about the run stays.
///
/// # Errors
/// [`Error::NoRefetch`]; a storage fault.
pub(super) fn abandon(tx: &mut Tx<'_>, record: RunRecord, now: Timestamp) -> Result<(), Error> {
    let run = record.id;
    let control = tx.run_controls()?.get(&run)?.unwrap_or_default();
    let refetch = control.refetch.filter(|refetch| refetch.abandoned_at.is_none()).ok_or(Error::NoRefetch(run))?;
    let fan_out = FanOutProgress { finished_at: Some(refetch.fetched_at), ..FanOutProgress::default() };
    tx.runs()?.insert(&run, &RunRecord { fan_out, ..record })?;
    let hold = match control.hold {
        RunHold::Fetching | RunHold::AwaitingRelease { .. } | RunHold::Rendering | RunHold::Remaking => RunHold::None,
        other => other,
    };
    let refetch = Some(Refetching { abandoned_at: Some(now), ..refetch });
    let decision = tx.fresh_id()?;
    // Recipients of an earlier fetch may be without a message, whoever held up the others.
    let has_unsent = control.has_unsent || hold == RunHold::None;
    save(tx, run, &RunControl { hold, decision, has_unsent, guard: None, gate: None, refetch, ..control })?;
    if tx.totals_of(run)?.open() == 0 {
        brake::all_ended(tx, run, now)?;
    }
    tx.signal(TOPIC);
    Ok(())
}
