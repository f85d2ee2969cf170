//! Outcomes of redriven letters, counted per redrive in the commit that ends each letter.

use crate::store::record::{MessageState, RedriveTotals};
use crate::store::{self, Tx};

/// The message was processed.
pub(super) fn succeeded(tx: &mut Tx<'_>, state: &MessageState) -> Result<(), store::Error> {
    add(tx, state, |totals| totals.succeeded += 1)
}

/// The message moved to a dead-letter queue again.
pub(super) fn failed(tx: &mut Tx<'_>, state: &MessageState) -> Result<(), store::Error> {
    add(tx, state, |totals| totals.failed += 1)
}

/// The message was removed without an outcome.
pub(super) fn withdrawn(tx: &mut Tx<'_>, state: &MessageState) -> Result<(), store::Error> {
    add(tx, state, |totals| totals.withdrawn += 1)
}

/// An undo returned the message to the dead-letter queue.
pub(super) fn undone(tx: &mut Tx<'_>, state: &MessageState) -> Result<(), store::Error> {
    add(tx, state, |totals| totals.undone += 1)
}

fn add(tx: &mut Tx<'_>, state: &MessageState, one: impl FnOnce(&mut RedriveTotals)) -> Result<(), store::Error> {
    let Some(redriven_by) = state.redriven_by else { return Ok(()) };
    // Old redrives are pruned with their totals; their letters are no longer counted.
    let Some(mut totals) = tx.redrive_totals()?.get(&redriven_by.redrive)? else { return Ok(()) };
    one(&mut totals);
    tx.redrive_totals()?.insert(&redriven_by.redrive, &totals)?;
    Ok(())
}
