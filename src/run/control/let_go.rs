//! Which run of a schedule was let go last: what the next one is compared with.

use crate::store::record::{RunHold, RunRecord};
use crate::store::{self, Tx};

/// Records that this run is what the schedule's next one is compared with.
///
/// # Errors
/// A storage fault.
pub(super) fn record(tx: &mut Tx<'_>, run: &RunRecord) -> Result<(), store::Error> {
    // A refetch of an earlier run lets that one go again.
    if tx.meta()?.get(&row(&run.schedule))?.is_none_or(|newest| newest < run.id) {
        tx.meta()?.insert(&row(&run.schedule), &run.id)?;
    }
    Ok(())
}

/// The earlier run of the schedule that was let go last, when it is on record and was not abandoned since.
///
/// # Errors
/// A storage fault.
pub(super) fn before(tx: &mut Tx<'_>, run: &RunRecord) -> Result<Option<u64>, store::Error> {
    let known = tx.meta()?.get(&row(&run.schedule))?.filter(|id| *id < run.id);
    match known {
        Some(id) if !is_abandoned(tx, id)? => Ok(Some(id)),
        _ => Ok(None),
    }
}

/// Whether the run was abandoned.
pub(super) fn is_abandoned(tx: &mut Tx<'_>, run: u64) -> Result<bool, store::Error> {
    Ok(matches!(super::state::hold(tx, run)?, RunHold::Abandoned { .. }))
}

/// The key in `meta` of the schedule's run that was let go last.
pub(super) fn row(schedule: &str) -> String {
    format!("let-go {schedule}")
}
