//! Reports the progress of runs: a log line when a run is complete, and systemd's status line, which names what is
//! away and the run under way.
//!
//! It polls the store from time to time. So it is right no matter how the last recipient ended, and it costs attempts
//! nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio_util::sync::CancellationToken;

use crate::base::{MessageId, Timestamp};
use crate::queue::Queues;
use crate::run::report::FetchDeath;
use crate::run::{self, Report, report};
use crate::work::Breakers;

use super::notify;

/// How often the runs are polled.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Only the newest runs are polled, and those that wait for an operator: an older one that a redrive completes again is not reported.
const RUNS_LOOKED_AT: u64 = 16;

/// Runs until `shutdown`. `idle` is the status while no run is under way.
pub(super) async fn report(
    queues: Queues,
    breakers: Breakers,
    idle: String,
    shutdown: CancellationToken,
) -> Result<(), run::Error> {
    let mut watch = Watch::new(idle.clone());
    loop {
        let runs = queues.store().read(|snapshot| report::list_with_held(snapshot, RUNS_LOOKED_AT)).await?;
        for run in watch.completed(&runs) {
            tracing::info!(
                run = run.id,
                fetched = run.fetched,
                sent = run.sent,
                dead = run.dead,
                withdrawn = run.withdrawn,
                unknown = run.unknown,
                interrupted = run.interrupted,
                "the run is {}: every recipient has an end",
                run.state.name()
            );
        }
        for (run, death) in watch.died(&runs) {
            tracing::error!(run, letter = %death.letter, "the fan-out died: {}: {} ({})", death.class, death.text, death.remedy);
        }
        for run in watch.held(&runs) {
            let (id, state, because) = (run.id, run.state.name(), run.held_because.as_deref().unwrap_or_default());
            tracing::error!(run = id, "the run is {state}: {because} ({})", run.remedy());
        }
        let now = queues.now().wall;
        let away: Vec<String> = breakers.views().iter().filter_map(|view| view.line(now)).collect();
        if let Some(status) = watch.changed_status(&runs, &away, &idle) {
            notify::send(&[NotifyState::Status(status)]);
        }
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

/// What the last poll found.
struct Watch {
    /// The runs that were not complete at the last poll.
    under_way: BTreeSet<u64>,
    /// The letters of the fan-outs that were dead at the last poll.
    dead: BTreeSet<MessageId>,
    /// The runs that waited for an operator at the last poll, each since when.
    held: BTreeSet<(u64, Timestamp)>,
    /// The newest run at the last poll; `None` before the first.
    newest: Option<u64>,
    /// The status that was sent last.
    last_status: String,
}

impl Watch {
    const fn new(idle: String) -> Self {
        Self {
            under_way: BTreeSet::new(),
            dead: BTreeSet::new(),
            held: BTreeSet::new(),
            newest: None,
            last_status: idle,
        }
    }

    /// The runs that were under way at the last poll, or began since, and are complete now.
    fn completed<'a>(&mut self, runs: &'a [Report]) -> Vec<&'a Report> {
        let (done, open): (Vec<_>, Vec<_>) = runs.iter().partition(|run| run.is_complete());
        let is_new = |run: &Report| self.newest.is_some_and(|newest| run.id > newest);
        let completed = done.into_iter().filter(|run| self.under_way.contains(&run.id) || is_new(run)).collect();
        self.newest = Some(runs.first().map_or(0, |run| run.id));
        self.under_way = open.into_iter().map(|run| run.id).collect();
        completed
    }

    /// The runs whose fan-out died since the last poll; at the first poll all that are dead.
    fn died<'a>(&mut self, runs: &'a [Report]) -> Vec<(u64, &'a FetchDeath)> {
        let dead = runs.iter().filter_map(|run| Some((run.id, run.fetch_death.as_ref()?)));
        let dead: Vec<_> = dead.collect();
        let before = std::mem::replace(&mut self.dead, dead.iter().map(|(_, death)| death.letter).collect());
        dead.into_iter().filter(|(_, death)| !before.contains(&death.letter)).collect()
    }

    /// The runs that have come to wait for an operator since the last poll; at the first poll all that wait.
    fn held<'a>(&mut self, runs: &'a [Report]) -> Vec<&'a Report> {
        let key = |run: &Report| run.held_because.as_ref().and(run.held_since).map(|since| (run.id, since));
        let before = std::mem::replace(&mut self.held, runs.iter().filter_map(key).collect());
        runs.iter().filter(|run| key(run).is_some_and(|key| !before.contains(&key))).collect()
    }

    /// The status, if it differs from the one that was sent last.
    fn changed_status(&mut self, runs: &[Report], away: &[String], idle: &str) -> Option<&str> {
        let run = runs.iter().find(|run| !run.is_complete()).map_or_else(|| idle.to_owned(), status);
        // What is away comes first: the run's figures do not move because of it.
        let status = away.iter().cloned().chain([run]).collect::<Vec<_>>().join("; ");
        if status == self.last_status {
            return None;
        }
        self.last_status = status;
        Some(&self.last_status)
    }
}

fn status(run: &Report) -> String {
    if let Some(death) = &run.fetch_death {
        return format!("run {} of {}: {}: {}", run.id, run.schedule, run.state.name(), death.class);
    }
    let (id, schedule, state) = (run.id, &run.schedule, run.state.name());
    let made = run.gate.as_ref().filter(|gate| gate.mode.is_some()).map(|gate| gate.waiting);
    let made = made.map(|made| format!(", made {made}")).unwrap_or_default();
    format!("run {id} of {schedule}: {state}: fetched {}{made}, sent {}, dead {}", run.fetched, run.sent, run.dead)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::report::RunState;

    fn run(id: u64, sent: u64, open: u64) -> Report {
        Report {
            id,
            schedule: "monthly".into(),
            params: std::collections::BTreeMap::new(),
            scheduled_for: Timestamp::ZERO,
            started_at: Timestamp::ZERO,
            fetched_at: Some(Timestamp::ZERO),
            fetched: sent + open,
            sent,
            dead: 0,
            withdrawn: 0,
            open,
            repeated: 0,
            interrupted: 0,
            unknown: 0,
            skipped: 0,
            suppressed: 0,
            copies: 0,
            resending: 0,
            resends_unknown: 0,
            is_refetching: false,
            state: if open == 0 { RunState::Complete } else { RunState::Sending },
            held_since: None,
            held_because: None,
            fetch_death: None,
            note: String::new(),
            folded_at: None,
            ended_at: None,
            deadline: None,
            eta: None,
            gate: None,
            phases: report::PhasesReport::default(),
        }
    }

    #[test]
    fn a_run_is_told_once_each_time_that_it_completes() {
        let mut watch = Watch::new("idle".into());
        let mut last_status = |runs: &[Report]| watch.completed(runs).iter().map(|run| run.id).collect::<Vec<_>>();
        assert!(last_status(&[run(1, 5, 0)]).is_empty(), "it was complete before the daemon started");
        assert!(last_status(&[run(2, 3, 2), run(1, 5, 0)]).is_empty());
        assert_eq!(last_status(&[run(2, 5, 0), run(1, 5, 0)]), [2]);
        assert!(last_status(&[run(2, 5, 0), run(1, 5, 0)]).is_empty());
        assert!(last_status(&[run(2, 4, 1), run(1, 5, 0)]).is_empty(), "a redrive opened it again");
        assert_eq!(last_status(&[run(2, 5, 0), run(1, 5, 0)]), [2]);
        assert_eq!(last_status(&[run(3, 1, 0), run(2, 5, 0)]), [3], "it began and ended between two looks");
    }

    #[test]
    fn a_fan_out_that_died_is_told_once_each_time() {
        let mut watch = Watch::new("idle".into());
        let dead = |letter: u8| Report {
            state: RunState::FetchDead,
            fetched_at: None,
            fetch_death: Some(FetchDeath {
                letter: MessageId::from_bytes([letter; 16]),
                queue: "fan-out-dead".into(),
                class: "data users none".into(),
                text: "no users".into(),
                died_at: Timestamp::ZERO,
                remedy: "redrive it".into(),
            }),
            ..run(3, 0, 0)
        };
        let mut died = |runs: &[Report]| watch.died(runs).into_iter().map(|(run, _)| run).collect::<Vec<_>>();
        assert_eq!(died(&[run(2, 3, 2), dead(1)]), [3]);
        assert!(died(&[dead(1)]).is_empty(), "it is told already");
        assert!(died(&[run(3, 0, 1)]).is_empty(), "redriven");
        assert_eq!(died(&[dead(2)]), [3], "and dead again, as a letter with a new id");
        let mut watch = Watch::new("idle".into());
        assert_eq!(
            watch.changed_status(&[dead(1)], &[], "idle"),
            Some("run 3 of monthly: fetch-dead: data users none")
        );
    }

    #[test]
    fn a_run_that_waits_for_an_operator_is_told_once_each_time() {
        let mut watch = Watch::new("idle".into());
        let waiting = |seconds| Report {
            state: RunState::AwaitingRelease,
            held_since: Some(Timestamp::from_secs(seconds)),
            held_because: Some("3 users fetched, but users.min is 10".into()),
            ..run(3, 0, 3)
        };
        let mut held = |runs: &[Report]| watch.held(runs).iter().map(|run| run.id).collect::<Vec<_>>();
        assert_eq!(held(&[waiting(5), run(2, 1, 1)]), [3]);
        assert!(held(&[waiting(5)]).is_empty(), "it is told already");
        assert!(held(&[run(3, 0, 3)]).is_empty(), "released");
        assert_eq!(held(&[waiting(9)]), [3], "and again, for another reason");
    }

    #[test]
    fn the_status_follows_the_run_under_way_and_is_told_only_when_it_changes() {
        let mut watch = Watch::new("idle".into());
        assert_eq!(watch.changed_status(&[], &[], "idle"), None);
        let under_way = "run 2 of monthly: sending: fetched 5, sent 3, dead 0";
        assert_eq!(watch.changed_status(&[run(2, 3, 2), run(1, 5, 0)], &[], "idle"), Some(under_way));
        assert_eq!(watch.changed_status(&[run(2, 3, 2)], &[], "idle"), None);
        let away = ["relay mail.example:587 away since 02:14, next try in 30s".to_owned()];
        let both = format!("{}; {under_way}", away[0]);
        assert_eq!(watch.changed_status(&[run(2, 3, 2)], &away, "idle"), Some(both.as_str()));
        assert_eq!(watch.changed_status(&[run(2, 3, 2)], &away, "idle"), None);
        assert_eq!(watch.changed_status(&[run(2, 5, 0)], &[], "idle"), Some("idle"));
    }
}
