//! The row of what is decided about a run.

use crate::store::record::RunControl;
use crate::store::{self, Tx};

/// Writes what is decided about a run; a run about which nothing is decided has no row.
pub(super) fn save(tx: &mut Tx<'_>, run: u64, control: &RunControl) -> Result<(), store::Error> {
    let is_nothing = *control == RunControl { decision: control.decision, ..RunControl::default() };
    if is_nothing {
        tx.run_controls()?.remove(&run)?;
    } else {
        tx.run_controls()?.insert(&run, control)?;
    }
    Ok(())
}

/// What is decided about the run, unless something else was decided since.
pub(super) fn unchanged(tx: &mut Tx<'_>, run: u64, decision: u64) -> Result<Option<RunControl>, store::Error> {
    Ok(tx.run_controls()?.get(&run)?.filter(|control| control.decision == decision))
}
