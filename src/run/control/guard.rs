//! The guard of a run: before anything of it is sent, the number of its users is compared with what it may be.
//!
//! The bounds are fixed when the run starts. They are looked at in the commit that ends the fetch; within them the run is
//! let go, otherwise it awaits its release.

use crate::base::{Timestamp, units};
use crate::store::record::{Guard, RunControl, RunHold, RunRecord, RunTotals};
use crate::store::{self, Snapshot, Tx};

use super::row::save;
use super::{TOPIC, gate, let_go};

/// When it is not on record which run was let go last, at most this many earlier ones are looked at.
const EARLIER_LOOKED_AT: usize = 10_000;
/// One hundred percent, in the unit of shares.
const WHOLE: u64 = 10_000;

/// Sets the guard of a run whose users are about to be fetched.
///
/// # Errors
/// A storage fault.
pub(in crate::run) fn set(tx: &mut Tx<'_>, run: u64, guard: Guard) -> Result<(), store::Error> {
    let decision = tx.fresh_id()?;
    let control = tx.run_controls()?.get(&run)?.unwrap_or_default();
    save(tx, run, &RunControl { hold: RunHold::Fetching, decision, guard: Some(guard), ..control })
}

/// Whether the run's recipients get no messages before all of its users are fetched.
///
/// # Errors
/// A storage fault.
pub fn is_guarded(tx: &mut Tx<'_>, run: u64) -> Result<bool, store::Error> {
    Ok(super::state::hold(tx, run)? == RunHold::Fetching)
}

/// Lets a run go whose users are all fetched, or has it wait for its release. Belongs into the commit that ends the fetch.
/// `earlier` is what [`search`] found before that commit.
///
/// # Errors
/// A storage fault.
pub fn fetched(tx: &mut Tx<'_>, run: &RunRecord, earlier: Option<u64>, now: Timestamp) -> Result<(), store::Error> {
    let control = tx.run_controls()?.get(&run.id)?.unwrap_or_default();
    if let Some(guard) = control.guard {
        if let Some(reason) = out_of_bounds(tx, run, (guard, earlier))? {
            let hold = RunHold::AwaitingRelease { at: now, reason };
            return save(tx, run.id, &RunControl { hold, guard: None, ..control });
        }
        // The gate lets the run go, or has it wait.
        if control.gate.is_some() {
            return gate::begin(tx, run.id, control, now);
        }
        // A decision of its own: what was being sent for those of earlier fetches has passed over the others.
        let (hold, decision) = (RunHold::None, tx.fresh_id()?);
        save(tx, run.id, &RunControl { hold, decision, has_unsent: true, guard: None, refetch: None, ..control })?;
        tx.signal(TOPIC);
    } else if control.refetch.is_some() {
        save(tx, run.id, &RunControl { refetch: None, ..control })?;
    }
    let_go::record(tx, run)
}

/// The bounds that the number of the run's users is out of, in words.
fn out_of_bounds(
    tx: &mut Tx<'_>,
    run: &RunRecord,
    (guard, earlier): (Guard, Option<u64>),
) -> Result<Option<String>, store::Error> {
    let totals = tx.totals_of(run.id)?;
    // At the first fetch nothing has been sent, so the dead are the records that are malformed.
    let users = if run.refetches == 0 { totals.fetched - totals.dead } else { users(&totals) };
    let mut reasons = Vec::new();
    if users < guard.users_min {
        reasons.push(format!("users.min is {}", guard.users_min));
    }
    if let Some(deviation) = guard.deviation {
        reasons.extend(previous(tx, run, earlier)?.and_then(|previous| deviates(users, previous, deviation.into())));
    }
    let fetched = units::count(users, "user");
    Ok((!reasons.is_empty()).then(|| format!("{fetched} fetched, but {}", reasons.join(", and "))))
}

/// How the number of users differs from the previous run's, when that is by more than it may.
fn deviates(users: u64, (run, before): (u64, u64), deviation: u64) -> Option<String> {
    let difference = users.abs_diff(before);
    let share = u128::from(difference) * u128::from(WHOLE);
    if share <= u128::from(before) * u128::from(deviation) {
        return None;
    }
    let direction = if users < before { "fewer" } else { "more" };
    let (actual, allowed) = (share.checked_div(before.into()), units::show_share(deviation));
    let actual = actual.and_then(|share| u64::try_from(share).ok()).map_or("any".into(), units::show_share);
    Some(format!("run {run} had {before} ({actual} {direction}, users.deviation is {allowed})"))
}

/// The run that the schedule's runs are compared with, and the number of its users.
fn previous(tx: &mut Tx<'_>, run: &RunRecord, earlier: Option<u64>) -> Result<Option<(u64, u64)>, store::Error> {
    let id = match let_go::before(tx, run)? {
        Some(id) => Some(id),
        // It may have been abandoned since it was found.
        None => match earlier {
            Some(id) if !let_go::is_abandoned(tx, id)? => Some(id),
            _ => None,
        },
    };
    id.map(|id| Ok((id, users(&tx.totals_of(id)?)))).transpose()
}

/// The number of users of a run that was let go: whom an abandoned refetch had added is none of them.
const fn users(totals: &RunTotals) -> u64 {
    totals.fetched - totals.refetch_abandoned
}

/// The newest earlier run of the schedule that was let go and not abandoned, when that is not on record and the run's guard
/// compares with it. Looks through many runs, hence not in the commit that ends the fetch.
///
/// # Errors
/// A storage fault.
pub fn search(snapshot: &Snapshot, run: &RunRecord) -> Result<Option<u64>, store::Error> {
    let controls = snapshot.run_controls()?;
    let hold = |id: &u64| Ok::<_, store::Error>(controls.get(id)?.unwrap_or_default().hold);
    let is_compared = controls.get(&run.id)?.and_then(|control| control.guard?.deviation).is_some();
    let known = snapshot.meta()?.get(&let_go::row(&run.schedule))?.filter(|id| *id < run.id);
    let is_on_record = match known {
        Some(id) => !matches!(hold(&id)?, RunHold::Abandoned { .. }),
        None => false,
    };
    if !is_compared || is_on_record {
        return Ok(None);
    }
    for (id, earlier) in snapshot.runs()?.newest(0..=run.id.saturating_sub(1), EARLIER_LOOKED_AT)? {
        let is_one = earlier.schedule == run.schedule && earlier.fan_out.finished_at.is_some();
        if is_one && hold(&id)? == RunHold::None {
            return Ok(Some(id));
        }
    }
    Ok(None)
}
