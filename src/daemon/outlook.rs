//! When the runs under way will have ended, and whether that is in time.
//!
//! Each second it looks at the counters of the runs that are under way, so it costs attempts nothing and scans no rows. It
//! writes a row when a run's standing changes, when it has ended, and every half a minute of what it has measured.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::base::{LeaseTime, Timestamp};
use crate::config::Settings;
use crate::function::{Function, Timings};
use crate::queue::Queues;
use crate::run::deadline::{self, Standing};
use crate::run::effects::quota::Allowance;
use crate::run::eta::{Basis, Rest};
use crate::run::pace::{Meter, Rate};
use crate::run::{self, Estimates, Eta, Report, RunState, SendingLimits, report};
use crate::schedule;
use crate::store::record::{DeadlineState, Measured, MeasuredLimits, RunDeadline, RunPace};
use crate::store::{self, Snapshot, Tx};
use crate::work::{BreakerState, Breakers};

use super::functions;

/// How often the runs are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Of the newest runs, so many are looked at for new ones; and those that wait for an operator.
const RUNS_LOOKED_AT: u64 = 16;
/// A fetch of users that took less than this does not tell how long the rest of it takes.
const FETCH_MIN: Duration = Duration::from_secs(5);
/// What was measured is written down this often.
const WRITE_EVERY: Duration = Duration::from_secs(30);
/// The last recipients of a run, this share in percent, are not measured: they wait for retries.
const UNMEASURED_SHARE: u64 = 2;

/// Looks at runs.
pub(super) struct Outlook {
    queues: Queues,
    breakers: Breakers,
    estimates: Estimates,
    /// By name.
    schedules: BTreeMap<String, Sending>,
    /// The runs under way.
    runs: BTreeMap<u64, Watched>,
    /// The newest run at the first look: those before it are watched only if they are under way.
    from: Option<u64>,
}

/// What works on the messages of a schedule's runs.
struct Sending {
    schedule: schedule::Options,
    function: Arc<dyn Function>,
    sending: SendingLimits,
}

impl Sending {
    const fn limits(&self) -> MeasuredLimits {
        self.sending.limits
    }

    /// The relay and its daily quota.
    fn quota(&self) -> Option<(String, u64)> {
        Some((self.sending.relay.clone(), self.sending.per_day?))
    }
}

/// A run under way.
struct Watched {
    meter: Meter,
    /// What is on disk of it, and what was measured since.
    pace: RunPace,
    written: RunPace,
    written_at: LeaseTime,
    /// The counters at the last look.
    before: Option<Counters>,
    /// An earlier run of the schedule of which something was measured.
    earlier: Option<Earlier>,
    /// When its users were first seen to be fetched, and how many it had then; `None` while none are.
    fetching: Option<(LeaseTime, u64)>,
}

/// Counters that a run's figures are differences of.
#[derive(Clone, Copy)]
struct Counters {
    at: LeaseTime,
    ended: u64,
    cpu: Duration,
    timings: Timings,
}

/// What an earlier run came to.
#[derive(Clone, Copy)]
struct Earlier {
    fetched: u64,
    measured: Measured,
}

/// What one look reads.
struct Seen {
    run: Report,
    /// `None` for a run that is watched already.
    found: Option<(RunPace, Option<Earlier>)>,
    allowance: Option<Allowance>,
}

impl Outlook {
    /// For the functions of these settings, which are in the same order.
    pub(super) fn new(
        settings: &Settings,
        queues: &Queues,
        (functions, breakers): (&[Arc<dyn Function>], &Breakers),
        estimates: &Estimates,
    ) -> Self {
        let (senders, mut limits) = (functions::senders(settings), functions::sending(settings));
        let mut sending = |schedule: &schedule::Options| {
            let function = functions[*senders.get(&schedule.name)?].clone();
            let sending = limits.remove(&schedule.name)?;
            Some((schedule.name.clone(), Sending { schedule: schedule.clone(), function, sending }))
        };
        let schedules = settings.schedules.iter().filter_map(&mut sending).collect();
        let (queues, breakers, estimates) = (queues.clone(), breakers.clone(), estimates.clone());
        Self { queues, breakers, estimates, schedules, runs: BTreeMap::new(), from: None }
    }

    /// Runs until `shutdown`.
    pub(super) async fn run(mut self, shutdown: CancellationToken) -> Result<(), run::Error> {
        loop {
            self.look().await?;
            tokio::select! {
                // Once more: runs may have ended since.
                () = shutdown.cancelled() => return self.look().await,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    async fn look(&mut self) -> Result<(), run::Error> {
        let now = self.queues.now();
        let watched: Vec<u64> = self.runs.keys().copied().collect();
        let schedules: Quotas = self.schedules.iter().map(|(name, one)| (name.clone(), one.quota())).collect();
        let from = self.from;
        let read = move |snapshot: &Snapshot| read(snapshot, &watched, from, &schedules, now.wall);
        let (newest, seen) = self.queues.store().read(read).await?;
        let is_first = self.from.is_none();
        self.from.get_or_insert(newest);
        let (mut estimates, mut writes) = (BTreeMap::new(), Vec::new());
        let cpu = processor_time();
        for Seen { run, found, allowance } in seen {
            let Some(sending) = self.schedules.get(&run.schedule) else { continue };
            let watched = self.runs.entry(run.id).or_insert_with(|| Watched::new(found.unwrap_or_default(), now.lease));
            let away = away(&self.breakers, sending, now.wall);
            let timings = sending.function.timings().unwrap_or_default();
            watched.measure(&run, Counters { at: now.lease, ended: run.ended(), cpu, timings }, away.is_none());
            let eta = watched.eta(&run, sending, away, allowance, now.wall);
            match run.is_complete() && is_first && run.state != RunState::Abandoned {
                true => watched.judge_before_start(sending.schedule.deadline_of(run.scheduled_for), now.wall),
                false => watched.judge(&run, sending, eta.as_ref(), now.wall),
            }
            if watched.is_to_be_written(now.lease) {
                tell(&run, watched.written.deadline, watched.pace.deadline, eta.as_ref());
                watched.pace.measured.limits = sending.limits();
                (watched.written, watched.written_at) = (watched.pace.clone(), now.lease);
                writes.push((run.id, watched.pace.clone()));
            }
            match run.is_complete() {
                true => drop(self.runs.remove(&run.id)),
                false => drop(eta.map(|eta| estimates.insert(run.id, eta))),
            }
        }
        self.estimates.set(estimates);
        if writes.is_empty() {
            return Ok(());
        }
        let write = move |tx: &mut Tx<'_>| writes.iter().try_for_each(|(run, pace)| tx.run_paces()?.insert(run, pace));
        Ok(self.queues.store().write::<_, store::Error, _>(write).await?)
    }
}

/// The schedules, and of each the relay with its daily quota.
type Quotas = BTreeMap<String, Option<(String, u64)>>;

/// The newest run, and those of the schedules that are under way or have ended since the last look.
fn read(
    snapshot: &Snapshot,
    watched: &[u64],
    from: Option<u64>,
    schedules: &Quotas,
    now: Timestamp,
) -> Result<(u64, Vec<Seen>), run::Error> {
    // At the first look, all: any of them may be under way.
    let max = from.map_or(u64::MAX, |_| RUNS_LOOKED_AT);
    let mut runs = report::list_with_held(snapshot, max)?;
    let newest = runs.first().map_or(0, |run| run.id);
    for id in watched {
        if runs.iter().all(|run| run.id != *id) {
            runs.push(report::report(snapshot, *id)?);
        }
    }
    // The last process may have died before it saw the end of one.
    let is_new = |run: &Report| from.is_some_and(|from| run.id > from) || run.deadline.is_some();
    runs.retain(|run| schedules.contains_key(&run.schedule));
    runs.retain(|run| !run.is_complete() || watched.contains(&run.id) || run.ended_at.is_none() && is_new(run));
    let see = |run: Report| {
        let found = match watched.contains(&run.id) {
            true => None,
            false => Some((snapshot.run_paces()?.get(&run.id)?.unwrap_or_default(), earlier(snapshot, &run)?)),
        };
        let quota = schedules.get(&run.schedule).and_then(Option::as_ref);
        let allowance = quota.map(|(relay, per_day)| Allowance::of(snapshot, relay, *per_day, now)).transpose()?;
        Ok(Seen { run, found, allowance })
    };
    Ok((newest, runs.into_iter().map(see).collect::<Result<_, run::Error>>()?))
}

/// The newest run before this one of the same schedule of which something was measured.
fn earlier(snapshot: &Snapshot, run: &Report) -> Result<Option<Earlier>, run::Error> {
    let earlier = run::measured::before(snapshot, &run.schedule, run.id)?;
    Ok(earlier.map(|(earlier, measured)| Earlier { fetched: earlier.fetched, measured }))
}

impl Watched {
    fn new((pace, earlier): (RunPace, Option<Earlier>), now: LeaseTime) -> Self {
        let (meter, written) = (Meter::default(), pace.clone());
        Self { meter, written, pace, written_at: now, before: None, earlier, fetching: None }
    }

    /// Takes in the counters.
    fn measure(&mut self, run: &Report, now: Counters, is_reachable: bool) {
        let fetching = self.fetching.or(Some((now.at, run.fetched)));
        self.fetching = fetching.filter(|_| run.fetched_at.is_none());
        let is_sending = matches!(run.state, RunState::Sending | RunState::Fetching) && is_reachable;
        let before = self.before.replace(now);
        // While users are fetched for a guarded run nothing ends, and that is no slow sending.
        let has_begun = run.state == RunState::Sending || before.is_some_and(|before| now.ended > before.ended);
        self.meter.observe(now.at, now.ended, is_sending && has_begun);
        let Some(before) = before.filter(|before| is_sending && has_begun && now.ended >= before.ended) else { return };
        if run.open * 100 < run.fetched * UNMEASURED_SHARE {
            return;
        }
        let (sum, old, new) = (&mut self.pace.measured, before.timings, now.timings);
        sum.ended += now.ended - before.ended;
        sum.span_ms += now.at.since(before.at).as_millis() as u64;
        sum.cpu_ms += now.cpu.saturating_sub(before.cpu).as_millis() as u64;
        sum.account = sum.account.and(new.account.since(old.account));
        sum.document = sum.document.and(new.document.since(old.document));
        sum.mail = sum.mail.and(new.mail.since(old.mail));
    }

    /// When the run will probably have ended.
    fn eta(
        &self,
        run: &Report,
        sending: &Sending,
        away: Option<(Timestamp, String)>,
        allowance: Option<Allowance>,
        now: Timestamp,
    ) -> Option<Eta> {
        let per_second = sending.limits().per_second;
        let measured = self.meter.rate(run.fetched).map(|rate| (rate, Basis::Measured));
        let earlier = self.earlier.filter(|earlier| earlier.measured.limits == sending.limits());
        let earlier = || {
            let per_second = earlier.and_then(|earlier| run::measured::per_second(&earlier.measured));
            per_second.map(|per_second| (Rate::assumed(per_second), Basis::EarlierRun))
        };
        let limit = || per_second.map(|limit| (Rate::assumed(f64::from(limit)), Basis::Limit));
        let (rate, basis) = measured.or_else(earlier).or_else(limit)?;
        let (total, fetch) = match run.fetched_at {
            Some(_) => (run.fetched, None),
            // As many users as the last time, at the pace so far.
            None => {
                let total = self.earlier?.fetched.max(run.fetched);
                let until = now.after(self.rest_of_fetch(total, run.fetched)?);
                (total, Some((until, "its users are being fetched, as many as the last time is assumed".to_owned())))
            }
        };
        let held = || {
            let is_held = matches!(
                run.state,
                RunState::Stopped | RunState::Rendering | RunState::AwaitingRelease | RunState::Braked
            );
            is_held.then(|| (now, format!("it is {}: this is if it went on now", run.state.name())))
        };
        let (goes_on, left) = (held().or(fetch).or(away), total - run.ended());
        Rest { now, goes_on, left, rate, basis, per_second, allowance }.eta()
    }

    /// How long the rest of a fetch takes at the pace so far; `None` while no page of it is committed, or it has just begun.
    fn rest_of_fetch(&self, total: u64, fetched: u64) -> Option<Duration> {
        let ((began, had), now) = (self.fetching?, self.before?.at);
        let (took, came) = (now.since(began), fetched.checked_sub(had).filter(|came| *came > 0)?);
        let rest = took.as_secs_f64() * total.saturating_sub(fetched) as f64 / came as f64;
        Duration::try_from_secs_f64(rest).ok().filter(|_| took >= FETCH_MIN)
    }

    /// Judges a run that had ended before the daemon began: nobody knows when. In time, when that is so even now; otherwise
    /// the verdict stays as it was.
    fn judge_before_start(&mut self, deadline: Option<Timestamp>, now: Timestamp) {
        self.pace.ended_at = Some(now);
        if deadline.is_some_and(|at| now <= at) {
            let standing = Standing { at: deadline, ended_at: Some(now), eta: None, now };
            self.pace.deadline = deadline::judge(self.pace.deadline, &standing);
        }
    }

    /// Finds how the run stands to its deadline, and whether it has ended.
    fn judge(&mut self, run: &Report, sending: &Sending, eta: Option<&Eta>, now: Timestamp) {
        if run.is_complete() {
            self.pace.ended_at.get_or_insert(now);
        }
        if run.state == RunState::Abandoned {
            // Not everybody is mailed, so that it has ended is nothing to praise.
            self.pace.deadline = self.pace.deadline.filter(|deadline| deadline.state == DeadlineState::Missed);
            return;
        }
        let (at, ended_at) = (sending.schedule.deadline_of(run.scheduled_for), self.pace.ended_at);
        self.pace.deadline = deadline::judge(self.pace.deadline, &Standing { at, ended_at, eta, now });
    }

    fn is_to_be_written(&self, now: LeaseTime) -> bool {
        let is_changed = (self.pace.deadline, self.pace.ended_at) != (self.written.deadline, self.written.ended_at);
        is_changed || self.pace != self.written && now.since(self.written_at) >= WRITE_EVERY
    }
}

/// The first destination of the function that is away, and until when at least.
fn away(breakers: &Breakers, sending: &Sending, now: Timestamp) -> Option<(Timestamp, String)> {
    let views = breakers.views();
    let mut open = views.iter().filter(|view| view.state != BreakerState::Closed);
    let ours: Vec<String> = sending.function.destinations().iter().map(ToString::to_string).collect();
    let view = open.find(|view| ours.contains(&view.destination))?;
    Some((view.next_try.unwrap_or(now).max(now), format!("{} is away", view.destination)))
}

/// Logs a change of a run's standing.
fn tell(run: &Report, before: Option<RunDeadline>, now: Option<RunDeadline>, eta: Option<&Eta>) {
    let state = |deadline: Option<RunDeadline>| deadline.map(|deadline| deadline.state);
    if state(before) == state(now) {
        return;
    }
    let run = Report { deadline: now, eta: eta.cloned(), ..run.clone() };
    let (id, lateness) = (run.id, run.lateness().unwrap_or_default());
    match state(now) {
        Some(DeadlineState::AtRisk) => tracing::warn!(run = id, "the run {lateness}"),
        Some(DeadlineState::Missed) => tracing::error!(run = id, "the run {lateness}"),
        Some(DeadlineState::Met) => tracing::info!(run = id, "the run has met its deadline"),
        Some(DeadlineState::OnTime) if state(before) == Some(DeadlineState::AtRisk) => {
            tracing::info!(run = id, "the run will meet its deadline after all, as things stand");
        }
        Some(DeadlineState::OnTime) | None => {}
    }
}

/// Processor time of this process so far; zero when the system does not tell.
fn processor_time() -> Duration {
    /// The unit of `/proc`, on every Linux that programs are written for.
    const TICKS_PER_SECOND: u64 = 100;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The program's name may hold anything; behind its parenthesis the state is the first field, utime the twelfth.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: u64 = fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watched(pace: RunPace) -> Watched {
        Watched::new((pace, None), LeaseTime::from_millis(0))
    }

    #[test]
    fn the_rest_of_a_fetch_is_not_told_before_a_page_came_and_counts_from_this_fetch() {
        let rest = |began: u64, had, now: u64, fetched| {
            let mut watched = watched(RunPace::default());
            watched.fetching = Some((LeaseTime::from_millis(began * 1000), had));
            let (cpu, timings) = (Duration::ZERO, Timings::default());
            watched.before = Some(Counters { at: LeaseTime::from_millis(now * 1000), ended: 0, cpu, timings });
            watched.rest_of_fetch(100_000, fetched).map(|rest| rest.as_secs())
        };
        assert_eq!(rest(0, 0, 60, 0), None, "no page");
        assert_eq!(rest(0, 0, 2, 1000), None, "it has just begun");
        assert_eq!(rest(0, 0, 10, 1000), Some(990));
        assert_eq!(rest(86_400, 50_000, 86_410, 51_000), Some(490), "a fetch that goes on after a day");
        assert_eq!(rest(0, 0, 10, 100_000), Some(0));
    }

    #[test]
    fn an_end_that_nobody_saw_is_in_time_when_it_is_even_now_and_changes_no_verdict_otherwise() {
        let at = Timestamp::from_secs(1000);
        for (state, now, expected) in [
            (DeadlineState::AtRisk, 900, DeadlineState::Met),
            (DeadlineState::OnTime, 2000, DeadlineState::OnTime),
            (DeadlineState::Missed, 2000, DeadlineState::Missed),
        ] {
            let deadline = Some(RunDeadline { at, state, since: at });
            let mut watched = watched(RunPace { deadline, ..RunPace::default() });
            watched.judge_before_start(Some(at), Timestamp::from_secs(now));
            assert_eq!(watched.pace.deadline.map(|deadline| deadline.state), Some(expected));
            assert_eq!(watched.pace.ended_at, Some(Timestamp::from_secs(now)));
        }
    }
}
