//! A relay that is full, or closes the connection after the end of data.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use nightmail::base::attempt::AttemptEnd;
use nightmail_demo::bank;
use nightmail_demo::sink::{self, Action, Step};

use crate::harness::{Harness, assert_recounted, size, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_is_full_for_a_while_costs_no_attempt_and_nobody_a_mail() {
    const USERS: u32 = 30;
    /// Each message is deferred more often than it may fail: if deferrals were charged, it would have died.
    const REFUSALS_MIN: u64 = 10 * USERS as u64;
    let (is_full, refusals) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU64::new(0)));
    let (full, refused) = (is_full.clone(), refusals.clone());
    let script: sink::Script = Arc::new(move |_, _, step| {
        if step == Step::Mail && full.load(Ordering::SeqCst) {
            refused.fetch_add(1, Ordering::SeqCst);
            return Action::Reply(452, "4.3.1 no space left, come back later".into());
        }
        Action::Accept
    });
    let options = bank::Options { users: USERS, ..bank::Options::default() };
    let mut harness = Harness::set(options, sink::Options { script: Some(script), ..sink::Options::default() }).await;
    harness.set_key("FUNCTIONS__STATEMENT__DEFERRAL_PAUSE", "10ms");
    let daemon = harness.daemon().await;
    let run = daemon.operator.start().await;
    until("refusals", async || (refusals.load(Ordering::SeqCst) >= REFUSALS_MIN).then_some(())).await;
    for message in daemon.operator.peek("statements").await {
        assert!(message.attempts_charged <= 1, "only the attempt in hand may be charged: {message:?}");
        assert!(message.history.iter().all(|attempt| attempt.end == AttemptEnd::Deferred), "{message:?}");
    }
    is_full.store(false, Ordering::SeqCst);
    let report = daemon.operator.complete(run).await;
    assert_eq!((report.sent, report.dead, report.interrupted), (u64::from(USERS), 0, 0));
    harness.assert_one_mail_each(USERS);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn under_resend_a_mail_whose_reply_is_lost_comes_twice_at_most_under_one_message_id_and_is_listed() {
    const USERS: u32 = 40;
    // Every seventh connection accepts its mail and closes without the reply.
    let script: sink::Script = Arc::new(|connection, _, step| match step {
        Step::Dot if connection % 7 == 3 => Action::Close,
        _ => Action::Accept,
    });
    let options = bank::Options { users: USERS, ..bank::Options::default() };
    let mut harness = Harness::set(options, sink::Options { script: Some(script), ..sink::Options::default() }).await;
    harness.set_key("FUNCTIONS__STATEMENT__MAIL__RELAY__MAILS_PER_CONNECTION", 2);
    harness.set_key("FUNCTIONS__STATEMENT__MAIL__UNKNOWN", "resend");
    let daemon = harness.daemon().await;
    let run = daemon.operator.start().await;
    let report = daemon.operator.complete(run).await;
    assert_eq!(report.sent, u64::from(USERS));
    harness.assert_recipients(USERS);
    let doubled = harness.sink.summary().doubled;
    assert!(!doubled.is_empty(), "the script must lose replies");
    let in_doubt: Vec<String> = daemon.operator.in_doubt(run).await.into_iter().map(|row| row.user).collect();
    for twice in &doubled {
        assert!(in_doubt.iter().any(|user| twice.recipient == format!("{user}@example.test")), "{twice:?}");
        assert!(twice.message_ids.iter().all(|id| *id == twice.message_ids[0]), "{twice:?}");
    }
    assert_recounted(&daemon.queues, run);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn under_resend_a_doubt_names_the_message_id_under_which_the_relays_log_has_the_mail() {
    const USERS: u32 = 3;
    let is_lossy = Arc::new(AtomicBool::new(true));
    let lossy = is_lossy.clone();
    let script: sink::Script = Arc::new(move |_, _, step| match step {
        Step::Dot if lossy.load(Ordering::SeqCst) => Action::Close,
        _ => Action::Accept,
    });
    let options = bank::Options { users: USERS, ..bank::Options::default() };
    let mut harness = Harness::set(options, sink::Options { script: Some(script), ..sink::Options::default() }).await;
    harness.set_key("FUNCTIONS__STATEMENT__MAIL__UNKNOWN", "resend");
    for name in ["FIRST", "MAX"] {
        harness.set_key(&format!("FUNCTIONS__STATEMENT__BACKOFF__{name}"), "3s");
    }
    let daemon = harness.daemon().await;
    let run = daemon.operator.start().await;
    let open = until("doubts about open recipients", async || {
        let rows = daemon.operator.in_doubt(run).await;
        (rows.len() == USERS as usize && rows.iter().all(|row| row.state == "open")).then_some(rows)
    });
    let open = open.await;
    is_lossy.store(false, Ordering::SeqCst);
    daemon.operator.complete(run).await;
    let sent = daemon.operator.in_doubt(run).await;
    let doubled = harness.sink.summary().doubled;
    assert_eq!((sent.len(), doubled.len()), (USERS as usize, USERS as usize));
    for (before, after) in open.iter().zip(&sent) {
        assert_eq!((&before.message_id, &before.address), (&after.message_id, &after.address), "{after:?}");
        assert!(after.reply.as_ref().unwrap().starts_with("250 "), "{after:?}");
        let twice = doubled.iter().find(|twice| twice.recipient == after.address).unwrap();
        let in_log = twice.message_ids[0].trim_matches(['<', '>']);
        assert_eq!(after.message_id.as_ref().unwrap().trim_matches(['<', '>']), in_log);
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_answers_long_after_the_attempts_time_limit_gets_each_mail_once() {
    const USERS: u32 = 6;
    // The attempt's own limit is for what stands before the mail. A dialogue that was begun in it goes on to its end.
    let silence = Duration::from_secs(size("NIGHTMAIL_DOT_SECONDS", 5).into());
    let script: sink::Script = Arc::new(move |_, _, step| match step {
        Step::Dot => Action::Delay(silence),
        _ => Action::Accept,
    });
    let options = bank::Options { users: USERS, ..bank::Options::default() };
    let mut harness = Harness::set(options, sink::Options { script: Some(script), ..sink::Options::default() }).await;
    harness.set_key("FUNCTIONS__STATEMENT__TIMEOUT", "3s");
    let daemon = harness.daemon().await;
    let run = daemon.operator.start().await;
    let in_work = until("a message in work", async || {
        let messages = daemon.operator.peek("statements").await;
        messages.into_iter().find(|message| message.phase == "in flight")
    });
    let message = in_work.await;
    // The lease ends on lease time, the message was sent on wall time: the two clocks may differ by milliseconds.
    let lease = message.visible_at.unwrap().since(message.sent_at) + Duration::from_millis(500);
    // The attempt's limit, the limits of a dialogue's steps together, and the time to settle.
    assert!(lease >= Duration::from_secs(3 + 3742 + 30), "the lease outlasts the longest dialogue: {lease:?}");
    let report = daemon.operator.complete(run).await;
    assert_eq!((report.sent, report.dead, report.interrupted), (u64::from(USERS), 0, 0));
    harness.assert_one_mail_each(USERS);
    daemon.stop().await;
}
