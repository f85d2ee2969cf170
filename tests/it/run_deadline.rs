//! A run with a deadline: it is told when it will probably miss it and when it has, it goes on all the same, and its estimate
//! is right.

use std::sync::Arc;
use std::time::Duration;

use nightmail::api::control::{Answer, Request};
use nightmail::base::{Clock, LeaseTime, SystemClock, Timestamp};
use nightmail::run::eta::Basis;
use nightmail::store::record::DeadlineState;
use serde_json::Value;

use crate::harness::{Harness, until};

/// The machine's clock, with another time of day.
#[derive(Debug)]
struct Shifted {
    system: SystemClock,
    began: Timestamp,
}

impl Shifted {
    /// It is that moment now.
    fn at(moment: &str) -> Arc<dyn Clock> {
        Arc::new(Self { system: SystemClock::new(), began: Timestamp::from_jiff(moment.parse().unwrap()) })
    }
}

impl Clock for Shifted {
    fn wall(&self) -> Timestamp {
        self.began.after(self.system.monotonic())
    }

    fn monotonic(&self) -> Duration {
        self.system.monotonic()
    }

    fn lease(&self) -> LeaseTime {
        LeaseTime::from_millis(self.wall().as_millis())
    }
}

const NAME: &str = "monthly-statements";
const SCHEDULE: &str = "SCHEDULES__MONTHLY_STATEMENTS";

/// A relay that is given 20 mails a second, and a deadline at 10:00.
async fn harness(users: u32) -> Harness {
    let mut harness = Harness::with_users(users).await;
    harness.set_key(&format!("{SCHEDULE}__DEADLINE"), "10:00");
    harness.set_key(&format!("{SCHEDULE}__TIMEZONE"), "UTC");
    harness.set_key("FUNCTIONS__STATEMENT__MAIL__RELAY__PER_SECOND", "20");
    harness
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_will_miss_its_deadline_is_told_before_and_after_it_and_mails_everybody() {
    let mut harness = harness(160).await;
    harness.add_sections("\n[queues.alerts]\n");
    harness.set_key(&format!("{SCHEDULE}__NOTIFY__QUEUE"), "alerts");
    let daemon = harness.daemon_by(Shifted::at("2026-11-01T09:59:56Z")).await;
    let run = daemon.operator.start().await;
    let report = until("the risk", async || {
        let report = daemon.operator.report(run).await;
        report.deadline.filter(|deadline| deadline.state == DeadlineState::AtRisk).map(|_| report)
    });
    let report = report.await;
    let text = report.lateness().unwrap();
    assert!(text.starts_with("will probably miss its deadline, 2026-11-01T10:00:00.000Z: it ends at about"), "{text}");
    let Ok(Answer::Overview(overview)) = daemon.operator.try_ask(Request::Overview).await else {
        panic!("no overview")
    };
    assert!(overview.problems().iter().any(|problem| problem.contains("deadline")), "{:?}", overview.problems());
    daemon.operator.complete(run).await;
    let report = until("the end", async || {
        let report = daemon.operator.report(run).await;
        report.ended_at.map(|_| report)
    });
    let report = report.await;
    assert_eq!((report.sent, report.deadline.unwrap().state), (160, DeadlineState::Missed));
    assert_eq!(report.eta, None);
    let messages = until("three notifications", async || {
        Some(daemon.operator.peek("alerts").await).filter(|messages| messages.len() >= 3)
    });
    let told: Vec<Value> = messages.await.iter().map(|one| serde_json::from_str(&one.body).unwrap()).collect();
    let kinds: Vec<&str> = told.iter().map(|one| one["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["deadline-at-risk", "deadline-missed", "end"], "each once: {told:?}");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_estimate_of_a_run_at_a_constant_limit_is_right_and_a_deadline_in_time_is_met() {
    let harness = harness(400).await;
    let daemon = harness.daemon_by(Shifted::at("2026-11-01T02:00:00Z")).await;
    let run = daemon.operator.start().await;
    // 20 s in all: after 12 s the first of them has been measured for long enough.
    let half = until("a half", async || {
        let report = daemon.operator.report(run).await;
        (report.ended() >= 240 && report.eta.is_some()).then_some(report)
    });
    let half = half.await;
    let eta = half.eta.unwrap();
    assert_eq!((eta.basis, eta.bound_by.as_deref()), (Basis::Measured, Some("relay.per_second")));
    assert!((60_000..=73_000).contains(&eta.per_hour), "{eta:?}");
    daemon.operator.complete(run).await;
    let ended = until("the end", async || daemon.operator.report(run).await.ended_at).await;
    let off = eta.at.since(ended).max(ended.since(eta.at));
    // Of the 20 s; looks are a second apart.
    assert!(off < Duration::from_secs(4), "estimated {}, ended {ended}", eta.at);
    let report = daemon.operator.report(run).await;
    assert_eq!(report.deadline.unwrap().state, DeadlineState::Met);
    let pace = daemon.queues.store().snapshot().unwrap().run_paces().unwrap().get(&run).unwrap().unwrap();
    assert!(pace.measured.ended > 300 && pace.measured.mail.count > 300, "{pace:?}");
    assert_eq!(pace.measured.limits.per_second, Some(20));
    let forecast = async |users| match daemon.operator.try_ask(Request::Forecast { schedule: NAME.into(), users }).await
    {
        Ok(Answer::Forecast(forecast)) => forecast,
        other => panic!("{other:?}"),
    };
    let same = forecast(None).await;
    assert_eq!((same.users, same.earlier_run, same.fits), (400, Some(run), Some(true)));
    assert_eq!(same.starts_at.to_string(), "2026-12-01T02:00:00.000Z");
    let took = same.ends_at.since(same.starts_at);
    assert!((Duration::from_secs(18)..Duration::from_secs(30)).contains(&took), "{same:?}");
    let many = forecast(Some(1_000_000)).await;
    let (runs, limit) = (format!("run {run}"), "relay.per_second".to_owned());
    assert!(many.fits == Some(false) && [runs, limit].contains(&many.bound_by), "14 hours at 20 a second: {many:?}");
    daemon.stop().await;
}
