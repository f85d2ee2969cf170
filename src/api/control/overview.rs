//! The state of the daemon at one moment: everything that `nightmail status` shows, and what is wrong with it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::{Timestamp, units};
use crate::function::PaceView;
use crate::queue::stats::Stats;
use crate::run::{Report, RunState};
use crate::work::BreakerView;

use super::views::{RedriveView, Status};

/// A tick that nobody has decided this long after its moment is late.
pub const LATE_AFTER: Duration = Duration::from_secs(60);
/// A destination is shown as silent after this time without a reply.
pub const SILENT_AFTER: Duration = Duration::from_secs(30);

/// The state of the daemon at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overview {
    /// Who answers.
    pub status: Status,
    /// All queues.
    pub queues: Vec<Stats>,
    /// The runs that are under way or have unknown mails, the newest first; the newest run when none is.
    pub runs: Vec<Report>,
    /// The redrives that are under way.
    pub redrives: Vec<RedriveView>,
    /// The circuit breakers that are open: destinations that are away.
    #[serde(default)]
    pub breakers: Vec<BreakerView>,
    /// Destinations that have owed a reply for longer than [`SILENT_AFTER`].
    #[serde(default)]
    pub silences: Vec<Silence>,
    /// Limits of the rate of mails that hold now: those that were found from a relay's replies, and those of domains.
    #[serde(default)]
    pub paces: Vec<PaceView>,
    /// All schedules.
    pub schedules: Vec<NextTick>,
    /// The disk of the store.
    pub disk: Disk,
    /// The URL that SQS clients call; `None` when the endpoint is off.
    #[serde(default)]
    pub sqs: Option<String>,
}

/// A destination that owes a reply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Silence {
    /// Its name: `relay mail.example:587`.
    pub destination: String,
    /// For how long, in milliseconds.
    pub silent_ms: u64,
}

/// A schedule and its next tick.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextTick {
    /// The schedule's name.
    pub schedule: String,
    /// Its zone.
    pub timezone: String,
    /// The next due moment; `None` when its rule names none.
    pub next: Option<Timestamp>,
    /// The oldest due moment that nobody has decided, when it is older than [`LATE_AFTER`].
    pub late_since: Option<Timestamp>,
}

/// The disk of the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Free bytes; `None` when they cannot be read.
    pub free_bytes: Option<u64>,
    /// What the store's file takes, in bytes.
    pub store_bytes: Option<u64>,
    /// `store.reserve`, in bytes: sends stop below it. `None` without a daemon, which alone enforces it.
    pub reserve_bytes: Option<u64>,
}

impl Overview {
    /// What needs a person, a sentence each, the gravest first. Empty means healthy. Without a daemon nothing else
    /// counts.
    pub fn problems(&self) -> Vec<String> {
        let fetch_dead = self.runs.iter().filter_map(|run| {
            let death = run.fetch_death.as_ref()?;
            Some(format!("run {} is {}: {} ({})", run.id, run.state.name(), death.class, death.remedy))
        });
        let away = self.breakers.iter().filter_map(|breaker| away(breaker, self.status.now));
        let low = self.disk.problem();
        let late = self.schedules.iter().filter_map(NextTick::problem);
        let paused = self.queues.iter().filter_map(|queue| {
            let pause = queue.paused.as_ref()?;
            Some(format!("{} is paused by {} since {}", queue.name, pause.by, pause.since))
        });
        let letters = self.dead_letter_queues().map(|queue| {
            let letters = units::count(queue.total(), "dead letter");
            format!("{letters} in {}", queue.name)
        });
        let unknown = self.runs.iter().filter(|run| run.unknown + run.resends_unknown > 0).map(|run| {
            let mails = units::count(run.unknown + run.resends_unknown, "unknown mail");
            format!("{mails} in run {} wait for `nightmail run resolve`", run.id)
        });
        let stopped = self.runs.iter().filter(|run| run.state == RunState::Stopped).map(|run| {
            let open = units::count(run.open, "recipient");
            format!("run {} is stopped with {open} open: {}", run.id, run.remedy())
        });
        let late = late.chain(self.runs.iter().filter(|run| !run.is_complete()).filter_map(|run| {
            let lateness = run.lateness()?;
            Some(format!("run {} of {} {lateness}", run.id, run.schedule))
        }));
        let unreleased = self.runs.iter().filter_map(|run| {
            let because = run.held_because.as_ref()?;
            Some(format!("run {} is {}: {because}: {}", run.id, run.state.name(), run.remedy()))
        });
        fetch_dead
            .chain(away)
            .chain(low)
            .chain(late)
            .chain(unreleased)
            .chain(paused)
            .chain(stopped)
            .chain(letters)
            .chain(unknown)
            .collect()
    }

    /// The dead-letter queues that hold letters.
    fn dead_letter_queues(&self) -> impl Iterator<Item = &Stats> {
        let is_one = |name: &str| self.queues.iter().any(|queue| queue.dead_letter_queue.as_deref() == Some(name));
        self.queues.iter().filter(move |queue| queue.total() > 0 && is_one(&queue.name))
    }
}

/// A destination that is away, since when, when it is tried again, and why.
fn away(breaker: &BreakerView, now: Timestamp) -> Option<String> {
    let cause = breaker.cause.as_ref().map(|cause| format!(" ({cause})")).unwrap_or_default();
    Some(breaker.line(now)? + &cause)
}

impl NextTick {
    fn problem(&self) -> Option<String> {
        let since = self.late_since?;
        Some(format!("{} is late: the tick of {since} has not been decided", self.schedule))
    }
}

impl Disk {
    fn problem(&self) -> Option<String> {
        let (free, reserve) = (self.free_bytes?, self.reserve_bytes?);
        let refused = match free {
            free if free < reserve / 2 => "all sends are refused",
            free if free < reserve => "sends are refused, except to queues that functions serve",
            _ => return None,
        };
        Some(format!("the disk is nearly full ({} free): {refused}", units::show_size(free)))
    }
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::*;
    use crate::work::BreakerState;

    fn healthy() -> Overview {
        let status = Status {
            version: "0".into(),
            pid: 1,
            is_daemon: true,
            now: Timestamp::from_secs(1_000_000),
            started_at: None,
        };
        let disk = Disk { free_bytes: Some(256 << 20), store_bytes: None, reserve_bytes: Some(256 << 20) };
        let (queues, schedules) = (Vec::new(), Vec::new());
        let (runs, redrives, breakers, silences) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Overview { status, queues, runs, redrives, breakers, silences, paces: Vec::new(), schedules, disk, sqs: None }
    }

    #[test]
    fn a_disk_is_a_problem_below_the_reserve_and_a_graver_one_below_half_of_it() {
        let with = |free_bytes, reserve_bytes| {
            let disk = Disk { free_bytes, reserve_bytes, ..Disk::default() };
            Overview { disk, ..healthy() }.problems().join("")
        };
        let reserve = Some(256 << 20);
        assert_eq!(healthy().problems(), Vec::<String>::new());
        assert_eq!((with(None, reserve), with(Some(0), None)), (String::new(), String::new()));
        let low = "the disk is nearly full (128.0 MiB free): sends are refused, except to queues that functions serve";
        assert_eq!(with(Some(128 << 20), reserve), low);
        let very_low = "the disk is nearly full (128.0 MiB free): all sends are refused";
        assert_eq!(with(Some((128 << 20) - 1), reserve), very_low);
    }

    #[test]
    fn a_destination_that_is_away_says_since_when_until_when_and_why() {
        let now = healthy().status.now;
        let away = BreakerView {
            destination: "relay mail.example:587".into(),
            state: BreakerState::Open,
            since: Some(Timestamp::from_secs(999_000)),
            next_try: Some(now.after(Duration::from_secs(30))),
            cause: Some("connection refused".into()),
            needs_operator: false,
        };
        let problems = |breaker: &BreakerView| Overview { breakers: vec![breaker.clone()], ..healthy() }.problems();
        let since = TimeZone::system().to_datetime(Timestamp::from_secs(999_000).to_jiff().unwrap()).strftime("%H:%M");
        let since = format!("relay mail.example:587 away since {since}");
        assert_eq!(problems(&away), [format!("{since}, next try in 30s (connection refused)")]);
        let due = BreakerView { next_try: Some(now), needs_operator: true, ..away.clone() };
        let text = "needs an operator, the next message tries it (connection refused)";
        assert_eq!(problems(&due), [format!("{since}, {text}")]);
        let probing = BreakerView { state: BreakerState::Probing, cause: None, ..away };
        assert_eq!(problems(&probing), [format!("{since}, one message tries it now")]);
    }
}
