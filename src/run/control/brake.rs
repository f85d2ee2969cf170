//! The brake of a run: sending stops by itself when too many recipients fail one after the other.
//!
//! Failures are counted in windows: one begins with a failure and lasts until so many recipients have ended. So a run is
//! braked as soon as there are too many, early or late, and a few that are spread over a long run brake nothing.

use crate::base::{Timestamp, units};
use crate::store::record::{Brake, BrakeLimit, RecipientRecord, RunControl, RunHold, RunRecord};
use crate::store::{self, Tx};

use super::row::save;
use super::{TOPIC, gate};

/// One hundred percent, in the unit of shares.
const WHOLE: u64 = 10_000;

/// Counts a recipient whose mail failed for good or is in doubt, and stops sending when that is one too many. Records that
/// are no users do not count: nothing of them is sent.
///
/// # Errors
/// A storage fault.
pub(in crate::run) fn failed(tx: &mut Tx<'_>, run: u64, row: &RecipientRecord) -> Result<(), store::Error> {
    let control = tx.run_controls()?.get(&run)?.unwrap_or_default();
    // While users are fetched under a guard, only recipients of an earlier fetch can fail.
    let is_sending = matches!(control.hold, RunHold::None | RunHold::Fetching | RunHold::Rendering);
    let Some(brake) = control.brake.filter(|_| is_sending && !row.address.is_empty()) else {
        return Ok(());
    };
    let totals = tx.totals_of(run)?;
    let ended = match control.hold {
        // Statements that are made and not sent have ended for the time being.
        RunHold::Rendering => totals.sent + totals.dead + totals.unknown + totals.renderings.open,
        _ => totals.sent + totals.dead + totals.unknown,
    };
    let brake = count(brake, ended);
    let is_under_way = totals.open() > 0 || tx.runs()?.get(&run)?.is_some_and(|run| run.fan_out.finished_at.is_none());
    if !is_too_many(brake) || !is_under_way {
        return save(tx, run, &RunControl { brake: Some(brake), ..control });
    }
    let hold = RunHold::Braked { at: row.updated_at, reason: reason(brake, ended) };
    let decision = tx.fresh_id()?;
    let brake = Some(brake.anew());
    save(tx, run, &RunControl { hold, decision, has_queued: true, has_unsent: false, brake, ..control })?;
    tx.signal(TOPIC);
    Ok(())
}

/// Lets go of a braked run of which nothing is left to send: it is complete. Belongs into the commit that ends its last open
/// recipient.
///
/// # Errors
/// A storage fault.
pub(in crate::run) fn all_ended(tx: &mut Tx<'_>, run: u64, now: Timestamp) -> Result<(), store::Error> {
    let control = tx.run_controls()?.get(&run)?.unwrap_or_default();
    let is_fetched = |record: RunRecord| record.fan_out.finished_at.is_some();
    if !matches!(control.hold, RunHold::Braked { .. }) || !tx.runs()?.get(&run)?.is_some_and(is_fetched) {
        return Ok(());
    }
    // Nobody is left, but letters may be driven back, and must not be mailed before a release.
    if control.gate.is_some() {
        return gate::begin(tx, run, control, now);
    }
    let decision = tx.fresh_id()?;
    save(tx, run, &RunControl { hold: RunHold::None, decision, has_queued: false, has_unsent: false, ..control })?;
    // A refetch that is given up may have ended the last one: it looks again, since the decision is another one.
    tx.signal(TOPIC);
    Ok(())
}

/// Counts one more failure after so many recipients have ended, in the present window or in a new one.
fn count(brake: Brake, ended: u64) -> Brake {
    let is_new = brake.failures == 0 || ended <= brake.from || ended - brake.from > brake.limit.of;
    let (from, failures) = if is_new { (ended.saturating_sub(1), 0) } else { (brake.from, brake.failures) };
    Brake { from, failures: failures + 1, ..brake }
}

fn is_too_many(Brake { limit: BrakeLimit { share, of }, failures, .. }: Brake) -> bool {
    u128::from(failures) * u128::from(WHOLE) > u128::from(share) * u128::from(of)
}

fn reason(brake: Brake, ended: u64) -> String {
    let BrakeLimit { share, of } = brake.limit;
    let (share, ended) = (units::show_share(share.into()), ended.saturating_sub(brake.from));
    format!("of the last {ended} recipients that ended {} failed, and the brake is {share} of {of}", brake.failures)
}

/// The brake of a run that starts.
///
/// # Errors
/// A storage fault.
pub(in crate::run) fn set(tx: &mut Tx<'_>, run: u64, limit: BrakeLimit) -> Result<(), store::Error> {
    let control = tx.run_controls()?.get(&run)?.unwrap_or_default();
    let brake = Some(Brake { limit, from: 0, failures: 0 });
    save(tx, run, &RunControl { brake, ..control })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The recipient at which a brake of 2 % of 500 brakes; `is_failure` says who fails.
    fn braked_at(is_failure: impl Fn(u64) -> bool) -> Option<u64> {
        let mut brake = Brake { limit: BrakeLimit { share: 200, of: 500 }, from: 0, failures: 0 };
        (1..=100_000).find(|ended| {
            if is_failure(*ended) {
                brake = count(brake, *ended);
            }
            is_too_many(brake)
        })
    }

    #[test]
    fn a_brake_of_2_percent_of_500_brakes_at_the_eleventh_failure_of_500_and_at_no_fewer() {
        assert_eq!(braked_at(|_| true), Some(11), "everything fails");
        assert_eq!(braked_at(|ended| ended >= 70_000), Some(70_010), "after a good while");
        assert_eq!(braked_at(|ended| ended % 50 == 0), None, "each window has ten");
        assert_eq!(braked_at(|ended| ended % 45 == 0), Some(45 * 11), "eleven in 451");
        assert_eq!(braked_at(|ended| ended <= 10), None);
        assert_eq!(braked_at(|_| false), None);
    }

    #[test]
    fn recipients_that_a_redrive_opens_again_begin_a_new_window() {
        let brake = Brake { limit: BrakeLimit { share: 200, of: 500 }, from: 300, failures: 9 };
        assert_eq!(count(brake, 250), Brake { from: 249, failures: 1, ..brake });
    }
}
