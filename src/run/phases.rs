//! What happens in the phases of a run, counted in the commits in which it happens: fetch, render, check and send. The counters
//! stand in the run's totals, so that they cost no row of their own.
//!
//! An attempt renders and sends; which of the two failed, the failure's class says.

use crate::base::Failure;
use crate::function::statement::CHANGED;
use crate::store::record::{PhaseCounts, RecipientRecord, RecipientState, RunTotals};
use crate::store::{self, Tx};

use super::message::FAN_OUT;

/// The phase in which something failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Fetch,
    Render,
    Send,
}

impl Phase {
    /// Where the attempt of that recipient's message failed; the fan-out's own message has none.
    fn of(recipient: [u8; 16], why: Option<&Failure>) -> Self {
        let Some(why) = why.filter(|_| recipient != FAN_OUT) else {
            return if recipient == FAN_OUT { Self::Fetch } else { Self::Render };
        };
        match why.place.as_str() {
            "users" | "fan-out" => Self::Fetch,
            "relay" | "mail" | "ledger" => Self::Send,
            _ if (why.kind.as_str(), why.place.as_str(), why.code.as_str()) == CHANGED => Self::Send,
            _ => Self::Render,
        }
    }

    const fn counts(self, totals: &mut RunTotals) -> &mut PhaseCounts {
        match self {
            Self::Fetch => &mut totals.phases.fetch,
            Self::Render => &mut totals.phases.render,
            Self::Send => &mut totals.phases.send,
        }
    }
}

/// Counts an attempt that failed and is made again. A message of no run counts nowhere.
///
/// # Errors
/// A storage fault.
pub(super) fn retried(tx: &mut Tx<'_>, whose: (u64, [u8; 16]), why: &Failure) -> Result<(), store::Error> {
    if is_known(tx, whose)? {
        Phase::of(whose.1, Some(why)).counts(tx.totals_mut(whose.0)?).retried += 1;
    }
    Ok(())
}

/// Counts a death; `row` is the recipient's, unless the fan-out died.
///
/// # Errors
/// A storage fault.
pub(super) fn died(
    tx: &mut Tx<'_>,
    whose: (u64, [u8; 16]),
    row: Option<&RecipientRecord>,
    why: Option<&Failure>,
) -> Result<(), store::Error> {
    let phase = Phase::of(whose.1, why);
    let totals = tx.totals_mut(whose.0)?;
    phase.counts(totals).dead += 1;
    // What could not be mailed was made.
    let is_made_now = phase == Phase::Send && row.is_some_and(|row| row.rendering.is_none());
    totals.phases.render.done += u64::from(is_made_now);
    Ok(())
}

/// Counts what became of the run's own mail to that recipient, in the commit in which its row says so.
///
/// # Errors
/// A storage fault.
pub(super) fn ended(tx: &mut Tx<'_>, whose: (u64, [u8; 16]), state: &RecipientState) -> Result<(), store::Error> {
    let Some(row) = tx.recipients()?.get(&whose)? else { return Ok(()) };
    let is_made = row.rendering.is_some();
    let phases = &mut tx.totals_mut(whose.0)?.phases;
    match state {
        RecipientState::Sent(_) => {
            phases.render.done += u64::from(!is_made);
            phases.send.done += 1;
        }
        RecipientState::Unknown(_) => {
            phases.render.done += u64::from(!is_made);
            phases.send.dead += 1;
        }
        RecipientState::Skipped(_) => phases.render.skipped += 1,
        RecipientState::Suppressed(_) if is_made => phases.send.filtered += 1,
        RecipientState::Suppressed(_) => phases.render.filtered += 1,
        RecipientState::Open | RecipientState::Dead(_) | RecipientState::Withdrawn(_) => {}
    }
    Ok(())
}

/// Counts a message that was deleted without a mail, because its recipient had been mailed.
///
/// # Errors
/// A storage fault.
pub(super) fn copied(tx: &mut Tx<'_>, whose: (u64, [u8; 16])) -> Result<(), store::Error> {
    if is_known(tx, whose)? {
        tx.totals_mut(whose.0)?.phases.send.skipped += 1;
    }
    Ok(())
}

/// Counts a check of all statements, of which some are over a limit; whether it was not the first one.
///
/// # Errors
/// A storage fault.
pub(super) fn checked(tx: &mut Tx<'_>, run: u64, is_again: bool) -> Result<(), store::Error> {
    let totals = tx.totals_mut(run)?;
    let made = totals.renderings;
    let check = &mut totals.phases.check;
    (check.done, check.skipped) = (made.statements - made.over, made.over);
    check.retried += u64::from(is_again);
    Ok(())
}

/// Counts recipients of an earlier fetch, whom a refetch has named again.
///
/// # Errors
/// A storage fault.
pub fn known(tx: &mut Tx<'_>, run: u64, recipients: u64) -> Result<(), store::Error> {
    if recipients > 0 {
        tx.totals_mut(run)?.phases.fetch.skipped += recipients;
    }
    Ok(())
}

/// Whether a run has such a recipient, or it is the run's fan-out.
fn is_known(tx: &mut Tx<'_>, (run, recipient): (u64, [u8; 16])) -> Result<bool, store::Error> {
    if recipient == FAN_OUT {
        return Ok(run != 0 && tx.runs()?.get(&run)?.is_some());
    }
    Ok(tx.recipients()?.get(&(run, recipient))?.is_some())
}
