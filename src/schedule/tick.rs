//! Durable ticks: each decision about a due moment is a row, and the run that it starts is in the same commit.

use sha2::{Digest, Sha256};

use crate::base::{Now, Timestamp};
use crate::queue::{self, catalog};
use crate::run::{self, Start};
use crate::store::record::{QueueRecord, TickRecord, TickVerdict};
use crate::store::{self, Snapshot, Tx};

use super::misfire::{self, Decision, Verdict};
use super::{Options, params, watermark};

/// One decision about a schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decided {
    /// The due moment.
    pub scheduled_for: Timestamp,
    /// Whether it fired.
    pub verdict: TickVerdict,
}

/// The result of one check of a schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decisions {
    /// What was decided and written.
    pub decided: Vec<Decided>,
    /// Whether there is more to decide right now.
    pub more: bool,
    /// The next due moment.
    pub next: Option<Timestamp>,
    /// The newest tick in the future that has a row: the clock was ahead when it was decided.
    pub ahead: Option<Timestamp>,
    /// Whether a tick waits for room in the fan-out's queue.
    pub is_waiting: bool,
}

/// Decides all moments of a schedule that have come due, writes the rows and starts the runs. A moment that has a run
/// never fires again, however the clock is set. What a clock decided that was ahead is decided anew when its time comes.
/// A tick that is to fire while the fan-out's queue is full waits, whatever the misfire policy is, and fires as soon as
/// there is room.
///
/// # Errors
/// A storage fault, or the fan-out's queue does not exist.
pub fn decide_due(tx: &mut Tx<'_>, options: &Options, fan_out_queue: &str, now: Now) -> Result<Decisions, run::Error> {
    // Before the first write: nothing below may be refused.
    let queue = catalog::find(tx, fan_out_queue)?;
    let name = &options.name;
    let mut decided = fire_waiting(tx, options, &queue, now)?;
    let rule = (rule_row(options), rule_hash(options));
    let is_new_rule = tx.meta()?.get(&rule.0)? != Some(rule.1);
    let watermark = if is_new_rule { None } else { watermark::find(tx, name, now.wall)? };
    let ahead = watermark::newest_ahead(tx, name, now.wall)?;
    let (more, next) = if let Some(last) = watermark {
        let Decision { due, next } =
            misfire::decide(&options.rule, options.misfire, options.grace, Some(last), last, now.wall);
        let newest = due.last().map_or(last, |tick| tick.scheduled_for);
        let more = !due.is_empty();
        for tick in due {
            // A clock that was ahead may have fired it.
            if !has_run(tx, name, tick.scheduled_for)? {
                decided.push(decide(tx, options, &queue, tick, now)?);
            }
        }
        watermark::set(tx, name, Some(last), newest, now.wall)?;
        (more, next)
    } else {
        // A new schedule, or one whose rule was edited, starts now: its rule says nothing about the time before, so
        // there is no missed tick to catch up.
        write(tx, options, now.wall, TickVerdict::Known, now)?;
        tx.meta()?.insert(&rule.0, &rule.1)?;
        watermark::set(tx, name, None, now.wall, now.wall)?;
        (false, options.rule.next_after(now.wall))
    };
    let is_waiting = tx.meta()?.get(&waiting_row(options))?.is_some();
    Ok(Decisions { more: more || !decided.is_empty(), decided, next, ahead, is_waiting })
}

fn decide(
    tx: &mut Tx<'_>,
    options: &Options,
    queue: &QueueRecord,
    tick: misfire::Decided,
    now: Now,
) -> Result<Decided, run::Error> {
    let verdict = match tick.verdict {
        Verdict::Skipped { why, ticks: 1, .. } => TickVerdict::Skipped { why: why.to_string() },
        Verdict::Skipped { why, first, ticks } => {
            TickVerdict::Skipped { why: format!("{ticks} ticks from {first} on: {why}") }
        }
        Verdict::Fire => fire(tx, options, queue, tick.scheduled_for, now)?,
    };
    write(tx, options, tick.scheduled_for, verdict.clone(), now)?;
    if verdict == TickVerdict::Waiting && tx.meta()?.get(&waiting_row(options))?.is_none() {
        tx.meta()?.insert(&waiting_row(options), &tick.scheduled_for.as_millis())?;
    }
    Ok(Decided { scheduled_for: tick.scheduled_for, verdict })
}

fn has_run(tx: &mut Tx<'_>, schedule: &str, scheduled_for: Timestamp) -> Result<bool, store::Error> {
    let row = tx.ticks()?.get(&(schedule.to_owned(), scheduled_for.as_millis()))?;
    Ok(row.is_some_and(|tick| watermark::has_run(&tick)))
}

/// One step looks at most at this many ticks from the first waiting one on.
const WAITING_PER_STEP: usize = 100;

/// Fires the ticks that wait for room in the fan-out's queue, oldest first, as far as there is some.
fn fire_waiting(tx: &mut Tx<'_>, options: &Options, queue: &QueueRecord, now: Now) -> Result<Vec<Decided>, run::Error> {
    let row = waiting_row(options);
    let mut decided = Vec::new();
    let Some(first) = tx.meta()?.get(&row)? else { return Ok(decided) };
    // One that lies in the future was decided by a clock that was ahead: it is decided anew when its time comes.
    let rows = (options.name.clone(), first)..=(options.name.clone(), now.wall.as_millis().max(first));
    let mut ticks = tx.ticks()?.first(rows, WAITING_PER_STEP)?;
    ticks.retain(|((_, at), _)| *at <= now.wall.as_millis());
    let rest = ticks.last().filter(|_| ticks.len() == WAITING_PER_STEP).map(|((_, at), _)| at + 1);
    for ((_, at), _) in ticks.into_iter().filter(|(_, tick)| tick.verdict == TickVerdict::Waiting) {
        let scheduled_for = Timestamp::from_millis(at);
        let verdict = fire(tx, options, queue, scheduled_for, now)?;
        if verdict == TickVerdict::Waiting {
            if at != first {
                tx.meta()?.insert(&row, &at)?;
            }
            return Ok(decided);
        }
        write(tx, options, scheduled_for, verdict.clone(), now)?;
        decided.push(Decided { scheduled_for, verdict });
    }
    match rest {
        Some(next) => drop(tx.meta()?.insert(&row, &next)?),
        None => drop(tx.meta()?.remove(&row)?),
    }
    Ok(decided)
}

/// The key in `meta` of the first moment of the schedule that may be waiting for room in the fan-out's queue.
fn waiting_row(options: &Options) -> String {
    format!("waiting {}", options.name)
}

/// The key in `meta` of the rule by which the schedule's ticks were last decided.
fn rule_row(options: &Options) -> String {
    format!("rule {}", options.name)
}

fn rule_hash(options: &Options) -> u64 {
    let digest = Sha256::digest(options.rule.to_string());
    let (head, _) = digest.split_first_chunk::<8>().expect("a SHA-256 has 32 bytes");
    u64::from_be_bytes(*head)
}

fn fire(
    tx: &mut Tx<'_>,
    options: &Options,
    queue: &QueueRecord,
    scheduled_for: Timestamp,
    now: Now,
) -> Result<TickVerdict, run::Error> {
    let params = match params::evaluate(&options.params, scheduled_for, options.rule.zone()) {
        Ok(params) => params,
        Err(error) => return Ok(TickVerdict::Skipped { why: format!("its parameters do not evaluate: {error}") }),
    };
    let start = Start {
        schedule: options.name.clone(),
        function: options.function.clone(),
        queue: queue.name.clone(),
        params,
        scheduled_for,
        guard: options.guard,
        brake: options.brake,
        gate: options.gate,
        note: String::new(),
    };
    match run::start(tx, &start, now) {
        Ok(run) => Ok(TickVerdict::Fired { run }),
        Err(error @ run::Error::Exists { .. }) => Ok(TickVerdict::Skipped { why: error.to_string() }),
        Err(run::Error::Queue(queue::Error::Full { .. })) => Ok(TickVerdict::Waiting),
        Err(error) => Err(error),
    }
}

fn write(
    tx: &mut Tx<'_>,
    options: &Options,
    scheduled_for: Timestamp,
    verdict: TickVerdict,
    now: Now,
) -> Result<(), store::Error> {
    let key = (options.name.clone(), scheduled_for.as_millis());
    // A moment at which a schedule is first seen may be that of a tick that a clock ahead fired.
    if verdict != TickVerdict::Known || !has_run(tx, &options.name, scheduled_for)? {
        tx.ticks()?.insert(&key, &TickRecord { decided_at: now.wall, verdict })?;
    }
    Ok(())
}

/// The newest `max` ticks of a schedule up to `upto`, the newest first.
///
/// # Errors
/// A storage fault.
pub fn newest(
    snapshot: &Snapshot,
    schedule: &str,
    upto: Timestamp,
    max: usize,
) -> Result<Vec<(Timestamp, TickRecord)>, store::Error> {
    let mut found = Vec::new();
    let mut end = upto.as_millis();
    while found.len() < max {
        let rows = (schedule.to_owned(), 0)..=(schedule.to_owned(), end);
        let Some(((_, at), tick)) = snapshot.ticks()?.last(rows)? else { break };
        found.push((Timestamp::from_millis(at), tick));
        let Some(earlier) = at.checked_sub(1) else { break };
        end = earlier;
    }
    Ok(found)
}

/// Starts a run by hand (`nightmail run start`), with the parameters that the schedule would evaluate now, some of them
/// replaced by `given`, and with a note.
///
/// # Errors
/// The run's own errors, or a parameter that does not evaluate.
pub fn start_by_hand(
    tx: &mut Tx<'_>,
    options: &Options,
    fan_out_queue: &str,
    (given, note): (&std::collections::BTreeMap<String, String>, &str),
    now: Now,
) -> Result<u64, StartError> {
    let params = params::with_given(&options.params, given, now.wall, options.rule.zone())?;
    let start = Start {
        schedule: options.name.clone(),
        function: options.function.clone(),
        queue: fan_out_queue.to_owned(),
        params,
        scheduled_for: now.wall,
        guard: options.guard,
        brake: options.brake,
        gate: options.gate,
        note: note.into(),
    };
    Ok(run::start(tx, &start, now)?)
}

/// Why a run was not started by hand.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A parameter's template does not evaluate.
    #[error(transparent)]
    Params(#[from] params::Error),
    /// The run cannot be started.
    #[error(transparent)]
    Run(#[from] run::Error),
    /// A queue operation failed.
    #[error(transparent)]
    Queue(#[from] queue::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
}
