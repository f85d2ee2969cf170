//! A schedule in the running daemon: one tick starts one run, also across a restart.

use std::time::Duration;

use nightmail::base::{Clock, SystemClock, Timestamp};

use crate::harness::{Harness, cron_at, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_tick_starts_exactly_one_run_also_over_a_restart() {
    let mut harness = Harness::with_users(20).await;
    let due = Timestamp::from_secs(SystemClock::new().wall().after(Duration::from_secs(2)).as_secs());
    harness.set_key("SCHEDULES__MONTHLY_STATEMENTS__CRON", cron_at(due));
    harness.set_key("SCHEDULES__MONTHLY_STATEMENTS__TIMEZONE", "UTC");
    let daemon = harness.daemon().await;
    let run = until("the tick", async || daemon.operator.runs().await.pop()).await;
    assert_eq!(run.scheduled_for, due);
    daemon.operator.complete(run.id).await;
    daemon.stop().await;

    let daemon = harness.daemon().await;
    let by_hand = daemon.operator.try_start("2001-01").await.unwrap();
    daemon.operator.complete(by_hand).await;
    let runs: Vec<u64> = daemon.operator.runs().await.iter().map(|run| run.id).collect();
    assert_eq!(runs, [by_hand, run.id], "the tick and the start by hand, nothing else");
    let refused = daemon.operator.try_start(&run.params["period"]).await.unwrap_err().to_string();
    assert!(refused.contains(&format!("run {}", run.id)), "{refused}");
    harness.assert_recipients(20);
    assert_eq!(harness.sink.summary().total, 40);
    daemon.stop().await;
}
