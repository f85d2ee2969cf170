//! The gate of a run: its statements are made first, and none of them is mailed before all are made and checked.
//!
//! A statement that is made is kept in its recipient's row by its hash (`ledger::rendered`), and the recipient's message is gone
//! then. The commit that makes the last one checks them all and lets the run go, or has it wait for its release. A letter that
//! is driven back meanwhile is made again, and the check with it.

use crate::base::{Timestamp, units};
use crate::store::record::{
    Brake, CheckRecord, Gate, GateLimits, GateMode, Guard, RenderingRecord, RenderingTotals, RunControl, RunHold,
    RunRecord, RunTotals,
};
use crate::store::{self, Tx};

use super::super::phases;
use super::row::save;
use super::state::is_shut;
use super::{TOPIC, let_go};

/// One hundred percent, in the unit of shares.
const WHOLE: u64 = 10_000;

/// Sets the gate of a run whose users are about to be fetched.
///
/// # Errors
/// A storage fault.
pub(in crate::run) fn set(tx: &mut Tx<'_>, run: u64, gate: Gate) -> Result<(), store::Error> {
    let control = tx.run_controls()?.get(&run)?.unwrap_or_default();
    save(tx, run, &RunControl { gate: Some(gate), ..control })
}

/// The guard of a run with that gate: one that lets any number of users pass has them fetched before the first message.
pub(in crate::run) fn guard_of(guard: Option<Guard>, gate: Option<&Gate>) -> Option<Guard> {
    guard.or_else(|| gate.map(|_| Guard::default()))
}

/// What the gate says against a statement of that size: a clause for people.
fn fault(control: &RunControl, bytes: u64, pages: u32) -> Option<String> {
    let GateLimits { pages_max, bytes_max, .. } = control.gate?.limits;
    if pages > pages_max {
        return Some(format!("{}, and checks.pages_max is {pages_max}", units::count(pages, "page")));
    }
    (bytes > bytes_max).then(|| {
        let (size, max) = (units::show_size(bytes), units::show_size(bytes_max));
        format!("the statement has {size}, and checks.size_max is {max}")
    })
}

/// Checks the statements of a run once no open recipient is without one, and lets the run go or has it wait. Belongs into
/// each commit that may make the last one.
///
/// # Errors
/// A storage fault.
pub(in crate::run) fn all_rendered(tx: &mut Tx<'_>, run: u64, now: Timestamp) -> Result<(), store::Error> {
    let control = tx.run_controls()?.get(&run)?.unwrap_or_default();
    let Some(gate) = control.gate.filter(|gate| is_shut(&control.hold, gate)) else { return Ok(()) };
    let totals = tx.totals_of(run)?;
    // Whoever is open or dead then is of an earlier fetch, which was let go.
    let is_nobody_new = control.refetch.is_some_and(|refetch| totals.phases.fetch.done == refetch.users_before);
    let is_made = is_nobody_new || totals.unrendered() == 0;
    let Some(record) = tx.runs()?.get(&run)?.filter(|_| is_made) else { return Ok(()) };
    let findings = check(tx, &record, (&gate.limits, &totals))?;
    let is_nobody_left = is_nobody_new || (totals.open() == 0 && totals.dead == 0);
    let is_let_go = is_nobody_left || (gate.mode == GateMode::Auto && findings.is_empty());
    let reason = reason(gate.mode, &totals, &findings);
    phases::checked(tx, run, gate.checked_at.is_some())?;
    let record = RunRecord { check: Some(CheckRecord { at: now, findings }), ..record };
    tx.runs()?.insert(&run, &record)?;
    let decision = tx.fresh_id()?;
    if is_let_go {
        let control = RunControl { decision, ..open(control) };
        save(tx, run, &control)?;
        tx.signal(TOPIC);
        return let_go::record(tx, &record);
    }
    // A letter that was driven back is no new wait: it would be announced for each of them.
    let at = match &control.hold {
        RunHold::AwaitingRelease { at, .. } => *at,
        _ => now,
    };
    let gate = Some(Gate { checked_at: Some(now), ..gate });
    let hold = RunHold::AwaitingRelease { at, reason };
    // Recipients of an earlier fetch may be without a message all the same.
    let has_unsent = control.has_unsent && control.refetch.is_some();
    save(tx, run, &RunControl { hold, decision, has_unsent, gate, ..control })
}

/// What is decided about a run whose gate opens: its messages are sent.
pub(super) fn open(control: RunControl) -> RunControl {
    let brake = control.brake.map(Brake::anew);
    RunControl { hold: RunHold::None, has_queued: false, has_unsent: true, refetch: None, gate: None, brake, ..control }
}

/// Has the statements of a run made whose users are all fetched.
///
/// # Errors
/// A storage fault.
pub(super) fn begin(tx: &mut Tx<'_>, run: u64, control: RunControl, now: Timestamp) -> Result<(), store::Error> {
    let (decision, gate) = (tx.fresh_id()?, control.gate.map(|gate| Gate { checked_at: None, ..gate }));
    let hold = RunHold::Rendering;
    save(tx, run, &RunControl { hold, decision, has_queued: false, has_unsent: true, guard: None, gate, ..control })?;
    tx.signal(TOPIC);
    all_rendered(tx, run, now)
}

/// Has the statements forgotten that are made and not sent, and then all made again; the background does it.
///
/// # Errors
/// A storage fault.
pub(super) fn remake(tx: &mut Tx<'_>, run: u64, control: RunControl) -> Result<(), store::Error> {
    let has_unsent = control.has_unsent && control.refetch.is_some();
    save(tx, run, &RunControl { hold: RunHold::Remaking, has_unsent, ..control })?;
    tx.signal(TOPIC);
    Ok(())
}

/// Why the run awaits its release, in words.
fn reason(mode: GateMode, totals: &RunTotals, findings: &[String]) -> String {
    let made = units::count(totals.renderings.open, "statement");
    match (mode, findings.is_empty()) {
        (_, false) => format!("{made} to send, and the checks found: {}", findings.join("; ")),
        (GateMode::Manual, true) => format!("{made} to send, the checks found nothing, and the gate is manual"),
        // An automatic gate waits only when there is a finding.
        (GateMode::Auto, true) => format!("{made} to send"),
    }
}

/// What is odd about the statements of a run.
fn check(
    tx: &mut Tx<'_>,
    run: &RunRecord,
    (limits, totals): (&GateLimits, &RunTotals),
) -> Result<Vec<String>, store::Error> {
    let made = &totals.renderings;
    let mut findings = Vec::new();
    let ended = totals.sent + totals.dead + totals.unknown + totals.withdrawn + totals.skipped + totals.suppressed;
    if totals.fetched != ended + made.open {
        findings.push(format!("{} fetched, and {ended} ended + {} made", totals.fetched, made.open));
    }
    if made.over > 0 {
        let over = units::count(made.over, "statement");
        findings.push(format!("{over} over checks.pages_max or checks.size_max (`run recipients --reason checks.`)"));
    }
    findings.extend(over_share(("recipients are dead", "failures"), totals.dead, totals.fetched, limits.failures));
    let empty = ("statements have no transactions", "empty");
    findings.extend(over_share(empty, made.empty, made.statements, limits.empty));
    if let Some(deviation) = limits.deviation
        && let Some(id) = let_go::before(tx, run)?
    {
        let before = tx.totals_of(id)?;
        if before.renderings.statements > 0 {
            findings.extend(deviations((totals, &before), u64::from(deviation), id));
        }
    }
    Ok(findings)
}

/// The finding that more of all are something than may be.
fn over_share((what, key): (&str, &str), some: u64, all: u64, max: Option<u32>) -> Option<String> {
    let max = u64::from(max?);
    let share = share(some, all);
    let is_over = u128::from(some) * u128::from(WHOLE) > u128::from(all) * u128::from(max);
    is_over.then(|| {
        let (share, max) = (units::show_share(share), units::show_share(max));
        format!("{some} of {all} {what} ({share}, checks.{key} is {max})")
    })
}

/// How the statements differ from those of run `id`, where that is by more than they may.
fn deviations((totals, before): (&RunTotals, &RunTotals), max: u64, id: u64) -> Vec<String> {
    let (now, then) = (&totals.renderings, &before.renderings);
    let may = units::show_share(max);
    let by_ratio = [
        ("statements", now.statements, then.statements),
        ("pages in 100 statements", mean(100 * now.pages, now), mean(100 * then.pages, then)),
        ("bytes a statement", mean(now.bytes, now), mean(then.bytes, then)),
    ];
    let ratios = by_ratio.into_iter().filter_map(|(what, now, then)| {
        let difference = u128::from(now.abs_diff(then)) * u128::from(WHOLE);
        let is_off = difference > u128::from(then) * u128::from(max);
        is_off.then(|| format!("{now} {what}, {then} in run {id} (checks.deviation is {may})"))
    });
    let by_points = [
        ("are dead", share(totals.dead, totals.fetched), share(before.dead, before.fetched)),
        ("have no transactions", share(now.empty, now.statements), share(then.empty, then.statements)),
    ];
    let points = by_points.into_iter().filter_map(|(what, now, then)| {
        let (now_share, then_share) = (units::show_share(now), units::show_share(then));
        let is_off = now.abs_diff(then) > max;
        is_off.then(|| format!("{now_share} {what}, {then_share} in run {id} (checks.deviation is {may})"))
    });
    ratios.chain(points).collect()
}

/// A sum as its share of one statement.
fn mean(sum: u64, of: &RenderingTotals) -> u64 {
    sum.checked_div(of.statements).unwrap_or_default()
}

/// The share of all that some are, in hundredths of a percent.
fn share(some: u64, all: u64) -> u64 {
    let share = (u128::from(some) * u128::from(WHOLE)).checked_div(all.into()).unwrap_or_default();
    u64::try_from(share).unwrap_or(u64::MAX)
}

/// A document as its recipient's row keeps it, and what the gate says against it.
pub(in crate::run) fn judged(control: &RunControl, made: RenderingRecord) -> (RenderingRecord, Option<String>) {
    let fault = fault(control, made.bytes, made.pages);
    (RenderingRecord { is_over: fault.is_some(), ..made }, fault)
}
