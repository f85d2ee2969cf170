//! Runs that go on after their end: users who are new, mails that are sent again, and starts that find an earlier run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use nightmail::api::control::{Answer, Failure, Request};
use nightmail::queue::{Queues, Receive};
use nightmail::run::control::work_off;
use nightmail::run::report::{Filter, Row};
use nightmail::run::{self, Again, Decision, Ledger, Refetch, RunState};
use nightmail::store::Tx;
use nightmail::store::record::{Guard, Owner};
use tokio_util::sync::CancellationToken;

use crate::harness::{Harness, Inner, assert_recounted, assert_sound, until};
use crate::slices::{self, page, user};
use crate::support::{World, forever};

/// Receives and deletes what is in the queue `users` once the background has queued it; returns the users.
async fn receive_all(world: &World, queues: &Queues) -> BTreeSet<String> {
    let (stop, targets) = (CancellationToken::new(), BTreeMap::from([("fan-out".into(), "users".into())]));
    let working = tokio::spawn(work_off(queues.clone(), targets, stop.clone()));
    let mut received = BTreeSet::new();
    until("all messages", async || {
        let what = Receive { max: 10, visibility: Some(Duration::from_secs(60)), owner: Owner::Worker };
        for message in queues.receive_now(world.queue("users").id, what).await.unwrap().messages {
            let body: serde_json::Value = serde_json::from_slice(&message.body).unwrap();
            assert!(received.insert(body["user"]["id"].as_str().unwrap().to_owned()), "a user got two messages");
            queues.delete(message.handle).await.unwrap();
        }
        let controls = queues.store().snapshot().unwrap().run_controls().unwrap();
        let controls = controls.first(0..=u64::MAX, usize::MAX).unwrap();
        let is_idle = controls.iter().all(|(_, control)| !control.has_unsent);
        (is_idle && crate::harness::messages(queues, "users").is_empty()).then_some(())
    })
    .await;
    stop.cancel();
    working.await.unwrap().unwrap();
    received
}

pub(crate) fn ids(range: std::ops::Range<u32>) -> BTreeSet<String> {
    range.map(|id| id.to_string()).collect()
}

#[tokio::test]
async fn a_refetch_sends_to_users_who_are_new_alone_wherever_the_pages_show_the_others_and_its_guard_counts_all() {
    let world = World::new();
    slices::make_queues(world.queues(), forever(), forever()).await;
    let queues = Queues::new(world.queues().store().clone(), world.clock.clone(), Arc::new(Ledger));
    let guard = Some(Guard { users_min: 24, deviation: None });
    let run = slices::start_run(&world, "2026-10").await;
    let run = slices::commit_whole(&world, run, page((0..10).map(user), Some("b"))).await;
    let refetch = async |run| {
        let (what, now) = (Refetch { run, queue: "own".into(), guard, gate: None }, world.now());
        queues.store().write(move |tx: &mut Tx<'_>| run::refetch(tx, &what, now)).await
    };
    let refused = refetch(run.id).await.unwrap_err().to_string();
    assert!(refused.starts_with(&format!("run {} is fetching, so it cannot be refetched (", run.id)), "{refused}");
    let run = slices::commit_whole(&world, run, page((10..20).map(user), None)).await;
    assert_eq!(receive_all(&world, &queues).await, ids(0..20));

    for (until_user, state) in [(23_u32, RunState::AwaitingRelease), (25, RunState::Sending)] {
        refetch(run.id).await.unwrap();
        let again = slices::stored(&world, run.id);
        // Three users are gone and new ones stand in front: everybody is on another page.
        let again = slices::commit_whole(&world, again, page((17..until_user).map(user), Some("b"))).await;
        assert_eq!(receive_all(&world, &queues).await, BTreeSet::new(), "its guard waits for all of them");
        slices::commit_whole(&world, again, page((3..17).map(user), None)).await;
        let report = assert_recounted(&queues, run.id);
        assert_eq!((report.state, report.fetched, report.repeated), (state, u64::from(until_user), 0));
        if state == RunState::AwaitingRelease {
            assert_eq!(report.held_because.as_deref(), Some("23 users fetched, but users.min is 24"));
            let id = run.id;
            let release = move |tx: &mut Tx<'_>| run::decide(tx, id, Decision::Release, crate::support::START);
            queues.store().write(release).await.unwrap();
            assert_eq!(receive_all(&world, &queues).await, ids(20..23));
        } else {
            assert_eq!(receive_all(&world, &queues).await, ids(23..25));
        }
        assert_sound(&queues);
    }
}

async fn resend(daemon: &Inner, run: u64, user: &str) -> Result<Answer, Failure> {
    daemon.operator.try_ask(Request::Resend(Again { run, users: vec![user.into()], accounts: Vec::new() })).await
}

async fn row(daemon: &Inner, run: u64, user: &str) -> Row {
    let filter = Filter { user: Some(user.into()), ..Filter::default() };
    match daemon.operator.try_ask(Request::Recipients { id: run, filter, after: None }).await.unwrap() {
        Answer::Recipients(mut rows) => rows.pop().unwrap(),
        other => panic!("{other:?}"),
    }
}

/// The Message-IDs of the mails that the sink has for that user.
fn mails(harness: &Harness, index: u32) -> Vec<String> {
    let address = harness.fixtures().user(index).email;
    let of_user = harness.sink.records().into_iter().filter(|record| record.recipient == address);
    of_user.filter_map(|record| record.message_id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_that_is_sent_again_has_a_purpose_and_a_message_id_of_its_own_and_the_books_stay() {
    let harness = Harness::with_users(6).await;
    let daemon = harness.daemon().await;
    let run = daemon.operator.start().await;
    let report = daemon.operator.complete(run).await;
    let user = harness.fixtures().user(2).id;
    for number in 1..=2 {
        let Answer::Resent(resent) = resend(&daemon, run, &user).await.unwrap() else { panic!("another answer") };
        assert_eq!(
            (resent[0].user.as_str(), resent[0].purpose.as_deref()),
            (user.as_str(), Some(format!("resend-{number}").as_str()))
        );
        until("the mail", async || {
            let row = row(&daemon, run, &user).await;
            (row.resends.len() == number && row.resends.iter().all(|resend| resend.state == "sent")).then_some(())
        })
        .await;
    }
    let ids = mails(&harness, 2);
    assert_eq!((ids.len(), ids.iter().collect::<BTreeSet<_>>().len()), (3, 3), "{ids:?}");
    let row = row(&daemon, run, &user).await;
    let resent = row.resends.iter().filter_map(|resend| resend.message_id.clone());
    let known = resent.chain(row.message_id).map(|id| id.trim_matches(['<', '>']).to_owned());
    let known: BTreeSet<String> = known.collect();
    assert_eq!(known, ids.into_iter().collect());
    assert_eq!(daemon.operator.report(run).await, report, "the balance is that of the run's own mails");
    assert_eq!(harness.sink.summary().total, 8, "nobody else got one");
    let unknown = resend(&daemon, run, "nobody").await.unwrap_err().text;
    assert_eq!(unknown, format!("run {run} has no recipient \"nobody\" (see `nightmail run recipients {run}`)"));
    assert_sound(&daemon.queues);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recipient_whose_message_was_purged_gets_the_runs_own_mail_by_hand_and_an_open_one_is_refused() {
    let harness = Harness::with_users(4).await;
    let daemon = harness.daemon().await;
    let queue = "statements".to_owned();
    daemon.operator.try_ask(Request::Pause { queue: queue.clone(), by: "test".into() }).await.unwrap();
    let run = daemon.operator.start().await;
    until("the messages", async || (daemon.operator.queue(&queue).await.total() == 4).then_some(())).await;
    let user = harness.fixtures().user(1).id;
    let refused = resend(&daemon, run, &user).await.unwrap_err().text;
    let open =
        format!("recipient {user:?} of run {run} is open, so it is not mailed again (its mail is still to come)");
    assert_eq!(refused, open);
    daemon.operator.try_ask(Request::Purge { queue: queue.clone() }).await.unwrap();
    until("the purge", async || (daemon.operator.report(run).await.withdrawn == 4).then_some(())).await;
    daemon.operator.try_ask(Request::Resume { queue }).await.unwrap();
    let Answer::Resent(resent) = resend(&daemon, run, &user).await.unwrap() else { panic!("another answer") };
    assert_eq!(resent[0].purpose, None);
    let report = until("the mail", async || Some(daemon.operator.report(run).await).filter(|run| run.sent == 1)).await;
    assert_eq!((report.state, report.withdrawn, harness.sink.summary().total), (RunState::Complete, 3, 1));
    assert_sound(&daemon.queues);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_finds_an_earlier_run_names_it_and_what_can_be_done_and_a_run_keeps_its_note() {
    let harness = Harness::with_users(3).await;
    let daemon = harness.daemon().await;
    let run = daemon.operator.start().await;
    daemon.operator.complete(run).await;
    let refused = daemon.operator.try_start("2026-10").await.unwrap_err().text;
    let identity = "monthly-statements period=\"2026-10\"";
    let remedy = format!(
        "`nightmail run refetch {run}` mails users who are new, `nightmail run resend {run} --recipient ID` mails one again"
    );
    let text = format!(
        "{identity} was started before as run {run}, which is complete (a run happens once for its identifying \
         parameters: {remedy})"
    );
    assert_eq!(refused, text);
    let note = |text: &str| Request::NoteRun { id: run, text: text.into() };
    daemon.operator.try_ask(note("after the fix\nof the template")).await.unwrap();
    let refused = daemon.operator.try_ask(note("a\tb")).await.unwrap_err().text;
    assert_eq!(refused, "the note has control characters");
    let refused = daemon.operator.try_ask(note(&"n".repeat(2001))).await.unwrap_err().text;
    assert_eq!(refused, "the note has 2001 bytes, at most 2000");
    let start = async |period: &str, note: String| {
        let params = BTreeMap::from([("period".into(), period.into())]);
        daemon.operator.try_ask(Request::StartRun { schedule: "monthly-statements".into(), params, note }).await
    };
    let refused = start("2026-11", "n".repeat(2001)).await.unwrap_err().text;
    assert_eq!(refused, "the note has 2001 bytes, at most 2000");
    assert_eq!(daemon.operator.runs().await.len(), 1, "nothing was started");
    let Answer::Started(other) = start("2026-11", "by hand".into()).await.unwrap() else { panic!("another answer") };
    assert_eq!(daemon.operator.complete(other).await.note, "by hand");
    daemon.operator.try_ask(Request::RefetchRun { id: run }).await.unwrap();
    let report = daemon.operator.complete(run).await;
    assert_eq!((report.fetched, report.sent, report.repeated), (3, 3, 0));
    assert_eq!(report.note, "after the fix\nof the template", "a refetch keeps it");
    assert_eq!(harness.sink.summary().total, 6, "three of each run: there is nobody new");
    daemon.stop().await;
}
