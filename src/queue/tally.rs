//! How the letters of a redrive fare once they are back: counted in the commit that ends each of them.

use crate::store::record::{MessageState, RedriveTotals};
use crate::store::{self, Tx};

/// The message was done.
pub(super) fn succeeded(tx: &mut Tx<'_>, state: &MessageState) -> Result<(), store::Error> {
    add(tx, state, |totals| totals.succeeded += 1)
}

/// The message dies again.
pub(super) fn failed(tx: &mut Tx<'_>, state: &MessageState) -> Result<(), store::Error> {
    add(tx, state, |totals| totals.failed += 1)
}

/// The message was removed without an outcome.
pub(super) fn withdrawn(tx: &mut Tx<'_>, state: &MessageState) -> Result<(), store::Error> {
    add(tx, state, |totals| totals.withdrawn += 1)
}

/// An undo takes the message back.
pub(super) fn undone(tx: &mut Tx<'_>, state: &MessageState) -> Result<(), store::Error> {
    add(tx, state, |totals| totals.undone += 1)
}

fn add(tx: &mut Tx<'_>, state: &MessageState, one: impl FnOnce(&mut RedriveTotals)) -> Result<(), store::Error> {
    let Some(returned) = state.returned else { return Ok(()) };
    // A redrive that the store has forgotten keeps no tally.
    let Some(mut totals) = tx.redrive_totals()?.get(&returned.redrive)? else { return Ok(()) };
    one(&mut totals);
    tx.redrive_totals()?.insert(&returned.redrive, &totals)?;
    Ok(())
}
