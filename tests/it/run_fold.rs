//! Runs that ended long ago are folded: their numbers stay, their recipients go, and whatever names them is refused.

use std::collections::BTreeMap;
use std::time::Duration;

use nightmail::api::control::{Control, Request};
use nightmail::function::Permission;
use nightmail::queue::Send;
use nightmail::queue::redrive::Redrive;
use nightmail::run::report::{self, Filter};
use nightmail::run::{self, Again, Decision, Erase, Resolution, Resolve, Start, again, erase, fold, resolve};
use nightmail::store::Tx;
use nightmail::store::record::{RunRecord, Selection};
use tokio_util::sync::CancellationToken;

use crate::harness::{assert_recounted, assert_sound, messages};
use crate::run_refetch::Runs;
use crate::slices::{self, page, user};

const DAY: u64 = 86_400;
const KEPT: Duration = Duration::from_secs(400 * DAY);

fn options(runs: &Runs) -> fold::Options {
    fold::Options { keep: KEPT, archive: runs.world.dir.path().join("archive") }
}

async fn folded(runs: &Runs) -> u64 {
    let folded = fold::fold(&runs.queues, &options(runs), &CancellationToken::new()).await.unwrap();
    assert_sound(&runs.queues);
    folded
}

/// How many rows of recipients, user records and effects the run has.
fn rows(runs: &Runs) -> (usize, usize, usize) {
    let (snapshot, run) = (runs.world.snapshot(), runs.run);
    let of_run = (run, [0; 16])..=(run, [0xff; 16]);
    let effects = (run, [0; 16], [0; 16])..=(run, [0xff; 16], [0xff; 16]);
    (
        snapshot.recipients().unwrap().first(of_run.clone(), usize::MAX).unwrap().len(),
        snapshot.user_records().unwrap().first(of_run, usize::MAX).unwrap().len(),
        snapshot.effects().unwrap().first(effects, usize::MAX).unwrap().len(),
    )
}

#[tokio::test]
async fn a_run_that_ended_long_ago_is_folded_to_its_numbers_and_whatever_names_it_is_refused() {
    let runs = Runs::with(page((0..900).map(user), None)).await;
    let copy = messages(&runs.queues, "users")[3].body.clone();
    assert_eq!(runs.mail_all().await.len(), 900);
    runs.resend("3").await;
    runs.mail_all().await;
    runs.world.pass(399 * DAY);
    assert_eq!((folded(&runs).await, rows(&runs)), (0, (900, 900, 1)), "it is kept for 400 days");
    let before = assert_recounted(&runs.queues, runs.run);
    runs.world.pass(2 * DAY);
    assert_eq!((folded(&runs).await, rows(&runs)), (1, (0, 0, 0)));
    assert_eq!(folded(&runs).await, 0);
    let report = report::report(&runs.world.snapshot(), runs.run).unwrap();
    assert!(report.folded_at.is_some());
    assert_eq!(run::Report { folded_at: None, ..report }, before, "its numbers stay");

    let (run, refused) = (runs.run, run::Error::Folded(runs.run));
    assert_eq!(runs.refetch(None).await.unwrap_err(), refused);
    for decision in [Decision::Stop, Decision::Abandon, Decision::AbandonRefetch] {
        assert_eq!(runs.decide(decision).await.unwrap_err(), refused);
    }
    let whom = Erase { user: "3".into(), run: Some(run) };
    assert_eq!(erase::erase(&runs.queues, &whom, runs.world.dir.path()).await.unwrap_err(), refused);
    let what = Again { run, users: vec!["3".into()], accounts: Vec::new() };
    assert_eq!(again::resend(&runs.queues, &what, "users").await.unwrap_err(), refused);
    let what = Resolve { run, users: Vec::new(), resolution: Resolution::Sent, accounts: Vec::new() };
    assert_eq!(resolve::resolve(&runs.queues, &what, "users").await.unwrap_err(), refused);
    assert_eq!(report::rows(&runs.world.snapshot(), run, &Filter::default(), None).unwrap_err(), refused);
    let selection = Selection { run: Some(run), ..Selection::default() };
    let redrive = Redrive { from: "letters".into(), selection, ..Redrive::default() };
    let control = Control::of_cli(runs.queues.clone(), Vec::new());
    for request in [Request::PreviewRedrive(redrive.clone()), Request::StartRedrive(redrive)] {
        assert_eq!(control.answer(request).await.unwrap_err().text, refused.to_string());
    }
    let (start, now) = (start("2026-10", &runs), runs.world.now());
    let again = runs.queues.store().write(move |tx: &mut Tx<'_>| run::start(tx, &start, now)).await;
    let again = again.unwrap_err().to_string();
    assert!(again.ends_with("(a run happens once for its identifying parameters: its recipients are not on record any more: take another parameter to mail them again)"), "{again}");

    let whose = nightmail::run::ledger::user_key("3", "3");
    runs.queues.send("users", Send { run, recipient: whose, ..Send::text(copy) }).await.unwrap();
    let message = runs.receive("users").await.remove(0);
    assert_eq!(runs.ask(&message).await.1, Permission::Folded, "a copy mails nobody a second time");
}

fn start(period: &str, runs: &Runs) -> Start {
    Start {
        schedule: "monthly".into(),
        function: "fan-out".into(),
        queue: "own".into(),
        params: BTreeMap::from([("period".into(), period.into())]),
        scheduled_for: runs.world.now().wall,
        guard: None,
        brake: None,
        gate: None,
        note: String::new(),
    }
}

#[tokio::test]
async fn a_run_with_a_letter_a_message_or_somebody_open_is_kept_however_old_it_is() {
    let runs = Runs::new().await;
    let letter = runs.receive("users").await.remove(0);
    runs.kill(&letter).await;
    runs.world.pass(500 * DAY);
    assert_eq!((folded(&runs).await, rows(&runs).0), (0, 20), "recipients are open");
    runs.mail_all().await;
    runs.world.pass(500 * DAY);
    assert_eq!(folded(&runs).await, 0, "it has a letter");
    runs.redrive(letter.message_id).await;
    runs.mail_all().await;
    let again = Send { run: runs.run, recipient: [9; 16], ..Send::text("a copy") };
    runs.queues.send("letters", again).await.unwrap();
    assert_eq!(folded(&runs).await, 0, "a queue has a message of it");
    runs.queues.purge("letters").await.unwrap();
    assert_eq!((folded(&runs).await, rows(&runs)), (1, (0, 0, 0)));
}

#[tokio::test]
async fn a_folding_that_was_cut_off_goes_on() {
    let runs = Runs::with(page((0..900).map(user), None)).await;
    runs.mail_all().await;
    let record = slices::stored(&runs.world, runs.run);
    runs.world.pass(401 * DAY);
    let (run, at) = (runs.run, runs.world.now().wall);
    let mark = move |tx: &mut Tx<'_>| tx.runs()?.insert(&run, &RunRecord { folded_at: Some(at), ..record }).map(drop);
    runs.queues.store().write::<_, nightmail::store::Error, _>(mark).await.unwrap();
    let now_over = CancellationToken::new();
    now_over.cancel();
    fold::fold(&runs.queues, &options(&runs), &now_over).await.unwrap();
    assert_eq!((rows(&runs).0, folded(&runs).await, rows(&runs)), (900, 0, (0, 0, 0)));
}
