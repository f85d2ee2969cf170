//! An operator sets the clock in the middle of a run.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use nightmail::api::control::Request;
use nightmail::base::{Clock, LeaseTime, SystemClock, Timestamp};
use nightmail_demo::{bank, sink};

use crate::harness::{Harness, until};
use crate::support::files;

/// The machine's clock, whose wall time a test moves.
#[derive(Debug, Default)]
struct Stepped {
    system: SystemClock,
    offset_s: AtomicI64,
}

impl Stepped {
    fn step_to(&self, offset_s: i64) {
        self.offset_s.store(offset_s, Ordering::SeqCst);
    }
}

impl Clock for Stepped {
    fn wall(&self) -> Timestamp {
        let ms = self.system.wall().as_millis().saturating_add_signed(1000 * self.offset_s.load(Ordering::SeqCst));
        Timestamp::from_millis(ms)
    }

    fn monotonic(&self) -> Duration {
        self.system.monotonic()
    }

    fn lease(&self) -> LeaseTime {
        self.system.lease()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_set_both_ways_in_the_middle_of_a_run_defers_no_mail_and_charges_nobody() {
    const USERS: u32 = 120;
    let latency = Some(Duration::from_millis(100));
    let options = bank::Options { users: USERS, latency, ..bank::Options::default() };
    let mut harness = Harness::set(options, sink::Options::default()).await;
    harness.set_key("FUNCTIONS__STATEMENT__CONCURRENCY", 8);
    let clock = Arc::new(Stepped::default());
    let daemon = harness.daemon_by(clock.clone()).await;
    let run = daemon.operator.start().await;
    for (sent, offset_s) in [(20, 600), (50, -600), (80, 40 * 86_400), (100, 0)] {
        until("some mails", async || (harness.sink.summary().distinct >= sent).then_some(())).await;
        clock.step_to(offset_s);
        for message in daemon.operator.peek("statements").await {
            assert_eq!(message.history, [], "an attempt failed or was deferred");
        }
    }
    let report = daemon.operator.complete(run).await;
    assert_eq!((report.sent, report.dead, report.interrupted), (u64::from(USERS), 0, 0));
    harness.assert_one_mail_each(USERS);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_by_hand_is_for_the_month_that_the_clock_shows() {
    let harness = Harness::with_users(1).await;
    let clock = Arc::new(Stepped::default());
    let daemon = harness.daemon_by(clock.clone()).await;
    clock.step_to(40 * 86_400);
    let run = daemon.operator.start_this_month().await;
    let report = daemon.operator.report(run).await;
    let shown = clock.wall().to_jiff().unwrap().to_zoned(jiff::tz::TimeZone::get("Europe/Berlin").unwrap());
    let month = shown.date().first_of_month().yesterday().unwrap();
    assert_eq!(report.params["period"], format!("{:04}-{:02}", month.year(), month.month()));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_folds_at_its_start_what_is_older_than_runs_retention_and_its_fan_out_refuses_a_folded_run() {
    let mut harness = Harness::with_users(3).await;
    harness.set_key("FUNCTIONS__STATEMENT__ARCHIVE", "files");
    let clock = Arc::new(Stepped::default());
    let daemon = harness.daemon_by(clock.clone()).await;
    let run = daemon.operator.start().await;
    daemon.operator.complete(run).await;
    daemon.stop().await;
    let archive = harness.settings().data_dir.join("archive");
    let documents = || files(&archive).len();
    assert_eq!(documents(), 6, "each has a PDF and its data");
    clock.step_to(31 * 86_400);
    let daemon = harness.daemon_by(clock.clone()).await;
    assert_eq!(daemon.operator.report(run).await.folded_at, None, "the default is 400 days");
    daemon.stop().await;
    harness.set_key("RUNS__RETENTION", "30d");
    let daemon = harness.daemon_by(clock).await;
    until("the folding", async || daemon.operator.report(run).await.folded_at).await;
    until("the documents to go", async || (documents() == 0).then_some(())).await;
    let body = format!("{{\"run\": {run}}}");
    let send = Request::Send { queue: "fan-out".into(), body, with: Box::default() };
    daemon.operator.try_ask(send).await.unwrap();
    let letters = daemon.operator.died("fan-out-dead", 1).await;
    assert_eq!(letters[0].class, "data fan-out folded-run");
    daemon.stop().await;
}
