//! Slices of a users page: each is one commit, takes what its queues have room for, and recognises what an earlier
//! attempt committed, also when the page has shifted since.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use nightmail::base::{Backoff, Failure, ManualClock, Timestamp};
use nightmail::function::statement::{Page, PageAddress, Record, User, UsersOptions};
use nightmail::function::upstream;
use nightmail::queue::redrive::Redrive;
use nightmail::queue::settle::{self, Ended};
use nightmail::queue::{Error as Refused, Options, Queues, Receive, RedrivePolicy, catalog, peek};
use nightmail::run::report::{self, RunState};
use nightmail::run::{self, Start};
use nightmail::schedule::FanOutOptions;
use nightmail::schedule::fan_out::Error;
use nightmail::schedule::fan_out::page::PreparedPage;
use nightmail::schedule::fan_out::slice::{self, Slice, SliceEnd};
use nightmail::store::record::{Gate, Guard, RunRecord};
use nightmail::store::{self, Store, Tx};
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use crate::support::{START, World, forever};

/// The queues of a fan-out: `users` is its target, `own` its own, whose letters go to `letters`.
pub(crate) async fn make_queues(queues: &Queues, users: Options, letters: Options) {
    queues.ensure("letters", &letters).await.unwrap();
    let redrive = Some(RedrivePolicy { dead_letter_queue: "letters".into(), max_receive_count: 3 });
    queues.ensure("own", &Options { redrive, ..forever() }).await.unwrap();
    queues.ensure("users", &users).await.unwrap();
}

/// Starts a run without a guard and returns its record.
pub(crate) async fn start_run(world: &World, period: &str) -> RunRecord {
    start_guarded(world, period, None).await
}

/// Starts a run and returns its record.
pub(crate) async fn start_guarded(world: &World, period: &str, guard: Option<Guard>) -> RunRecord {
    start_gated(world, period, guard, None).await
}

/// Starts a run with a gate and returns its record.
pub(crate) async fn start_gated(world: &World, period: &str, guard: Option<Guard>, gate: Option<Gate>) -> RunRecord {
    let start = Start {
        schedule: "monthly".into(),
        function: "fan-out".into(),
        queue: "own".into(),
        params: BTreeMap::from([("period".into(), period.into())]),
        scheduled_for: world.now().wall,
        guard,
        brake: None,
        gate,
        note: String::new(),
    };
    let now = world.now();
    let step = move |tx: &mut Tx<'_>| run::start(tx, &start, now);
    let id = world.queues().store().write::<_, run::Error, _>(step).await.unwrap();
    stored(world, id)
}

pub(crate) fn stored(world: &World, run: u64) -> RunRecord {
    world.snapshot().runs().unwrap().get(&run).unwrap().unwrap()
}

pub(crate) fn user(id: impl std::fmt::Display) -> Record {
    let json = format!(r#"{{"id":"{id}","name":"Ada","email":"ada@example.test"}}"#);
    Record::User(User::check(&json).unwrap())
}

/// A record that is no user.
pub(crate) fn malformed(raw: &str) -> Record {
    let why = Failure::new("data", "users", "missing-email", "there is no email");
    Record::Malformed { index: 0, raw: raw.into(), digest: Sha256::digest(raw).into(), why }
}

pub(crate) fn page(records: impl IntoIterator<Item = Record>, next: Option<&str>) -> Page {
    Page { records: records.into_iter().collect(), next: next.map(|next| PageAddress::Cursor(next.into())) }
}

fn options() -> FanOutOptions {
    let users = UsersOptions {
        url: String::new(),
        upstream: upstream::Options {
            connect_timeout: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            response_bytes_max: 1 << 20,
            token: None,
            headers: Vec::new(),
            retries: 0,
            backoff: Backoff::default(),
        },
        items: None,
        next: None,
        cursor_param: "cursor".into(),
        pages_max: 10,
    };
    FanOutOptions { name: "fan-out".into(), queue: "own".into(), target: "users".into(), users }
}

/// Makes the messages of a fetched page, as the fan-out does.
fn prepare(world: &World, run: &RunRecord, page: Page) -> PreparedPage {
    let address = match &run.fan_out.next {
        Some(next) => serde_json::from_str(next).unwrap(),
        None => PageAddress::First,
    };
    let page = PreparedPage::new(page, run, &address, (&world.queue("users"), &world.queue("own")));
    let earlier = run::control::search_earlier(&world.snapshot(), run).unwrap();
    page.compared_with(earlier)
}

/// Commits one slice of a page, fetched anew, from the record at `from`.
pub(crate) async fn commit_from(world: &World, run: &RunRecord, from: usize, page: Page) -> Result<Slice, Error> {
    let (page, run) = (prepare(world, run, page), run.clone());
    let now = world.now();
    let step = move |tx: &mut Tx<'_>| slice::commit(tx, &options(), &run, &page, from, now);
    world.queues().store().write(step).await
}

/// Commits a whole page, slice by slice.
async fn commit(world: &World, mut run: RunRecord, page: Page) -> (RunRecord, SliceEnd) {
    let mut from = 0;
    // Each slice takes one record at least.
    for _ in 0..=page.records.len() {
        let slice = commit_from(world, &run, from, page.clone()).await.unwrap();
        run = slice.run;
        match slice.end {
            SliceEnd::Record(next) => from = next,
            end => return (run, end),
        }
    }
    panic!("the page has no end");
}

/// Commits a whole page and returns the run.
pub(crate) async fn commit_whole(world: &World, run: RunRecord, page: Page) -> RunRecord {
    let (run, end) = commit(world, run, page).await;
    assert_eq!(end, SliceEnd::Page);
    run
}

async fn world() -> World {
    limited(forever(), forever()).await
}

async fn limited(users: Options, letters: Options) -> World {
    let world = World::new();
    make_queues(world.queues(), users, letters).await;
    world
}

fn at_most(messages: u64) -> Options {
    Options { messages_max: Some(messages), ..forever() }
}

/// The ids of the users that have a message, in the order of sending; each has exactly one.
fn sent(world: &World) -> Vec<String> {
    let snapshot = world.snapshot();
    let queue = catalog::look_up(&snapshot, "users").unwrap();
    let mut ids = Vec::new();
    for (_, state) in snapshot.states().unwrap().first((queue.rows, 0)..=(queue.rows, u64::MAX), usize::MAX).unwrap() {
        let body = snapshot.bodies().unwrap().get(&state.body).unwrap().unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body.bytes).unwrap();
        ids.push(body["user"]["id"].as_str().unwrap().to_owned());
    }
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "a user has two messages");
    ids
}

fn ids(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|id| id.to_string()).collect()
}

fn letters(world: &World) -> Vec<peek::Peeked> {
    peeked(world.queues(), "letters")
}

fn peeked(queues: &Queues, queue: &str) -> Vec<peek::Peeked> {
    let snapshot = queues.store().snapshot().unwrap();
    let queue = catalog::look_up(&snapshot, queue).unwrap();
    peek::peek(&snapshot, &queue, 1000, 10_000, queues.now()).unwrap()
}

/// The run's balance; its rows are recounted.
fn counted(world: &World, run: u64) -> (u64, u64, u64) {
    let snapshot = world.snapshot();
    let report = report::report(&snapshot, run).unwrap();
    let recounted = report::recount(&snapshot, run).unwrap();
    assert_eq!((recounted.fetched, recounted.dead), (report.fetched, report.dead));
    (report.fetched, report.dead, report.repeated)
}

#[tokio::test]
async fn a_page_goes_in_slices_of_80_records_and_each_is_one_commit() {
    let world = world().await;
    let mut run = start_run(&world, "2026-10").await;
    let (mut from, mut ends, before) = (0, Vec::new(), world.queues().store().commits());
    while !matches!(ends.last(), Some(SliceEnd::Page)) {
        let slice = commit_from(&world, &run, from, page((0..203).map(user), None)).await.unwrap();
        run = slice.run;
        assert_eq!(stored(&world, run.id), run, "the cursor is in the commit");
        if let SliceEnd::Record(next) = slice.end {
            assert_eq!((run.fan_out.position as usize, sent(&world).len()), (next, next));
            from = next;
        }
        ends.push(slice.end);
        assert!(ends.len() < 10, "{ends:?}");
        world.check();
    }
    assert_eq!(ends, [SliceEnd::Record(80), SliceEnd::Record(160), SliceEnd::Page]);
    assert_eq!(world.queues().store().commits() - before, 3);
    assert_eq!((run.fan_out.pages, run.fan_out.position, run.fan_out.finished_at), (1, 0, Some(world.now().wall)));
    assert_eq!((sent(&world), counted(&world, run.id)), (ids(0..203), (203, 0, 0)));
}

#[tokio::test]
async fn a_resumed_page_counts_none_of_its_own_rows_as_repeated_and_loses_nobody_when_it_has_shifted() {
    for shift in [0, 1, 7] {
        let world = world().await;
        let run = start_run(&world, "2026-10").await;
        let first = commit_from(&world, &run, 0, page((0..120).map(user), Some("b"))).await.unwrap();
        assert_eq!((first.end, first.run.fan_out.position), (SliceEnd::Record(80), 80));
        // The daemon stopped here. Meanwhile users before the position were removed, and the page moved up.
        let run = commit_whole(&world, first.run, page((shift..120 + shift).map(user), Some("b"))).await;
        assert_eq!(sent(&world), ids(0..120 + shift), "moved up by {shift}");
        // Others were added in front, and the next page begins with users of this one.
        let run = commit_whole(&world, run, page((110..180).map(user), None)).await;
        assert_eq!(counted(&world, run.id), (180, 0, u64::from(10 + shift)), "only the second page repeats users");
        assert_eq!(sent(&world), ids(0..180));
    }
}

#[tokio::test]
async fn a_user_that_a_page_names_twice_is_counted_once_however_often_the_page_is_read() {
    let world = world().await;
    let run = start_run(&world, "2026-10").await;
    let records = || (0..120).map(|id| user(if id == 110 || id == 20 { 7 } else { id }));
    let first = commit_from(&world, &run, 0, page(records(), None)).await.unwrap();
    assert_eq!((first.repeated, first.end), (1, SliceEnd::Record(80)));
    let again = commit_from(&world, &first.run, 0, page(records(), None)).await.unwrap();
    assert_eq!((again.repeated, again.end, &again.run), (0, SliceEnd::Record(80), &first.run));
    let last = commit_from(&world, &again.run, 80, page(records(), None)).await.unwrap();
    assert_eq!((last.repeated, last.end), (1, SliceEnd::Page));
    assert_eq!(counted(&world, run.id), (118, 0, 2));
}

#[tokio::test]
async fn a_malformed_record_is_one_letter_wherever_its_page_shows_it() {
    let world = world().await;
    let run = start_run(&world, "2026-10").await;
    let broken = || malformed(r#"{"id":"x","name":"Ada"}"#);
    let records = || (0..79).map(user).chain([broken()]);
    let first = commit_from(&world, &run, 0, page(records().chain((80..120).map(user)), None)).await.unwrap();
    assert_eq!((first.run.fan_out.position, letters(&world).len()), (80, 1));
    // Two users before it are gone now, and it is on the page once more.
    let shifted = records().skip(2).chain((80..120).map(user)).chain([broken()]);
    let run = commit_whole(&world, first.run, page(shifted, None)).await;
    assert_eq!((letters(&world).len(), counted(&world, run.id)), (1, (120, 1, 1)));
    assert!(letters(&world)[0].body.contains(r#""page":0,"index":79"#), "{:?}", letters(&world)[0].body);
}

#[tokio::test]
async fn records_that_name_no_id_are_told_apart_although_their_texts_are_the_same() {
    let world = world().await;
    let run = start_run(&world, "2026-10").await;
    let nulls = || page([malformed("null"), user(1), malformed("null")], Some("b"));
    let run = commit_whole(&world, run, nulls()).await;
    let run = commit_whole(&world, run, page([malformed("null")], None)).await;
    assert_eq!((letters(&world).len(), counted(&world, run.id)), (3, (4, 3, 0)));
}

#[tokio::test]
async fn a_full_target_takes_what_fits_and_the_rest_waits_with_nothing_half_written() {
    let world = limited(at_most(50), forever()).await;
    let mut run = start_run(&world, "2026-10").await;
    let records = || page((0..120).map(user), None);
    for round in 1..=2 {
        let slice = commit_from(&world, &run, run.fan_out.position as usize, records()).await.unwrap();
        assert_eq!(slice.end, SliceEnd::Record(50 * round));
        run = slice.run;
        let before = world.dump("users");
        let refused = commit_from(&world, &run, 50 * round, records()).await.unwrap_err();
        let full = Refused::Full { queue: "users".into(), what: "messages", max: 50 };
        assert!(matches!(&refused, Error::Queue(error) if *error == full), "{refused}");
        assert_eq!((world.dump("users"), &stored(&world, run.id)), (before, &run));
        for taken in world.take("users", 50).await {
            world.queues().delete(taken.handle).await.unwrap();
        }
    }
    // Read again from its beginning: what is done needs no room.
    let (run, end) = commit(&world, run, records()).await;
    assert_eq!((end, counted(&world, run.id), sent(&world)), (SliceEnd::Page, (120, 0, 0), ids(100..120)));
}

#[tokio::test]
async fn a_full_dead_letter_queue_holds_malformed_records_back_and_the_fan_outs_own_queue_does_not() {
    let world = limited(forever(), at_most(1)).await;
    let redrive = Some(RedrivePolicy { dead_letter_queue: "letters".into(), max_receive_count: 3 });
    world.queues().ensure("own", &Options { redrive, ..at_most(1) }).await.unwrap();
    let run = start_run(&world, "2026-10").await;
    assert!(world.dump("own").starts_with("own: 1 ready"), "the fan-out's message alone fills its queue");
    let records = || page([user(1), malformed(r#"{"id":"x"}"#), malformed(r#"{"id":"y"}"#), user(2)], None);
    let slice = commit_from(&world, &run, 0, records()).await.unwrap();
    assert_eq!((slice.end, letters(&world).len()), (SliceEnd::Record(2), 1));
    let refused = commit_from(&world, &slice.run, 2, records()).await.unwrap_err();
    assert!(matches!(&refused, Error::Queue(Refused::Full { queue, .. }) if queue == "letters"), "{refused}");
    assert_eq!(world.queues().purge("letters").await, Ok(1));
    let run = commit_whole(&world, slice.run, records()).await;
    assert_eq!((counted(&world, run.id).0, sent(&world)), (4, ids(1..3)));
    world.check();
}

#[tokio::test]
async fn a_users_api_without_users_finishes_no_run_and_the_run_begins_anew_after_the_fix() {
    let world = world().await;
    let run = start_run(&world, "2026-10").await;
    let run = commit_whole(&world, run, page([], Some("b"))).await;
    let (run, end) = commit(&world, run, page([], None)).await;
    assert_eq!((end, &run.fan_out.next, run.fan_out.finished_at), (SliceEnd::NoUsers, &None, None));
    assert_eq!(stored(&world, run.id), run);
    let run = commit_whole(&world, run, page([user(1)], Some("b"))).await;
    let run = commit_whole(&world, run, page([], None)).await;
    assert_eq!((run.fan_out.finished_at.is_some(), sent(&world)), (true, ids(1..2)), "an empty last page is no fault");
    let other = start_run(&world, "2026-11").await;
    let other = commit_whole(&world, other, page([malformed("null")], None)).await;
    assert!(other.fan_out.finished_at.is_some(), "a malformed record is a recipient too");
}

#[tokio::test]
async fn a_cursor_that_comes_back_ends_the_fan_out_within_a_few_pages_and_it_goes_on_after_the_fix() {
    let mut world = world().await;
    let mut run = start_run(&world, "2026-10").await;
    let mut read = 0_u32;
    let end = loop {
        let next = if run.fan_out.next.as_deref().is_some_and(|at| at.contains("\"a\"")) { "b" } else { "a" };
        let (after, end) = commit(&world, run, page((read * 2..read * 2 + 2).map(user), Some(next))).await;
        (run, read) = (after, read + 1);
        if end != SliceEnd::Page {
            break end;
        }
        assert!(read < 20, "the ring is not noticed");
        // What is known about the cursors survives restarts.
        world.reopen().await;
        assert_eq!(stored(&world, run.id), run);
    };
    assert_eq!(end, SliceEnd::CursorCameBack);
    assert!((3..=6).contains(&read), "after {read} pages");
    assert_eq!(stored(&world, run.id).fan_out.position, 2, "the page is done, and the cursor stays at it");
    let run = commit_whole(&world, run, page((read * 2 - 2..read * 2).map(user), Some("c"))).await;
    let run = commit_whole(&world, run, page([user(1000)], None)).await;
    assert_eq!(counted(&world, run.id), (u64::from(read) * 2 + 1, 0, 0), "nothing of the page was sent twice");
}

#[tokio::test]
async fn a_slice_whose_cursor_has_moved_since_writes_nothing() {
    let world = world().await;
    let run = start_run(&world, "2026-10").await;
    commit_from(&world, &run, 0, page((0..3).map(user), Some("b"))).await.unwrap();
    let late = commit_from(&world, &run, 0, page((0..4).map(user), Some("b"))).await.unwrap_err();
    assert!(matches!(late, Error::Overtaken));
    assert_eq!(sent(&world), ids(0..3));
    world.check();
}

#[tokio::test]
async fn a_fan_out_that_dies_gives_its_run_a_state_with_the_letter_until_it_is_redriven() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&store::Options::at(dir.path().join("nightmail.redb"))).unwrap();
    let queues = Queues::new(store, ManualClock::new(START), Arc::new(run::Ledger));
    make_queues(&queues, forever(), forever()).await;
    let start = Start {
        schedule: "monthly".into(),
        function: "fan-out".into(),
        queue: "own".into(),
        params: BTreeMap::new(),
        scheduled_for: Timestamp::ZERO,
        guard: None,
        brake: None,
        gate: None,
        note: String::new(),
    };
    let now = queues.now();
    let id = queues.store().write::<_, run::Error, _>(move |tx| run::start(tx, &start, now)).await.unwrap();
    let report = || report::report(&queues.store().snapshot().unwrap(), id).unwrap();
    assert_eq!((report().state, report().fetch_death), (RunState::Waiting, None));
    let die = async || {
        let received = queues.receive("own", Receive::for_client(1), Duration::ZERO).await;
        let (handle, now) = (received.unwrap()[0].handle, queues.now());
        let why = Failure::new("data", "users", "none", "nobody");
        let ended = Ended { function: "fan-out".into(), why, at: now };
        let step = move |tx: &mut Tx<'_>| settle::move_to_dlq(tx, &run::Ledger, handle, &ended, Duration::ZERO);
        queues.store().write(step).await.unwrap();
    };
    die().await;
    let letter = peeked(&queues, "letters").remove(0);
    let death = report().fetch_death.expect("it is dead");
    assert_eq!(
        (report().state, death.letter, death.queue.as_str()),
        (RunState::FetchDead, letter.message_id, "letters")
    );
    assert_eq!((death.class.as_str(), death.text.as_str()), ("data users none", "nobody"));
    assert!(death.remedy.contains(&format!("nightmail redrive letters --id {}", death.letter)), "{}", death.remedy);
    let redrive = queues.start_redrive(Redrive { from: "letters".into(), ..Redrive::default() }).await.unwrap();
    queues.drive(redrive, &CancellationToken::new()).await.unwrap();
    assert_eq!((report().state, report().fetch_death), (RunState::Waiting, None));
    die().await;
    queues.purge("letters").await.unwrap();
    queues.remove_purged().await.unwrap();
    let death = report().fetch_death.expect("it is dead for good");
    assert_eq!((report().state, death.queue.as_str()), (RunState::FetchDead, ""));
    assert!(death.remedy.contains("nightmail send"), "{}", death.remedy);
}
