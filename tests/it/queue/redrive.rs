//! Redrive: which letters move, where to, and that it stops, resumes and ends as documented.

use std::collections::BTreeMap;
use std::time::Duration;

use nightmail::base::{Fingerprint, MessageId};
use nightmail::queue::redrive::{self, CanaryOptions, Preview, Redrive};
use nightmail::queue::{Error, Options, Receive, RedrivePolicy, Send, peek};
use nightmail::store::record::{Attribute, AttributeValue, MessageState, RedriveRecord, RedriveState, Selection};
use tokio_util::sync::CancellationToken;

use crate::support::{World, dying_after, forever, texts};

/// A world with letters in `dead` that died of these codes; each text is its number, from 1.
async fn with_letters(codes: &[&str]) -> World {
    let world = World::with_orders().await;
    for (n, code) in (1..).zip(codes) {
        world.send("orders", &n.to_string()).await;
        let handle = world.work("orders").await.handle;
        world.move_to_dlq(handle, code).await;
    }
    world.observer.take();
    world
}

fn all() -> Redrive {
    Redrive { from: "dead".into(), ..Redrive::default() }
}

fn of_ids(ids: Vec<MessageId>) -> Redrive {
    Redrive { selection: Selection { ids, ..Selection::default() }, ..all() }
}

fn preview(world: &World, what: &Redrive) -> Result<Preview, Error> {
    redrive::plan(&world.snapshot(), what, world.now().wall).map(|plan| plan.preview)
}

fn ids(world: &World, queue: &str) -> Vec<MessageId> {
    let peeked = peek::peek(&world.snapshot(), &world.queue(queue), 100, 10, world.now()).unwrap();
    peeked.into_iter().map(|message| message.message_id).collect()
}

/// Moves up to `budget` letters.
async fn step(world: &World, id: u64, budget: usize) -> RedriveRecord {
    let (observer, now) = (world.observer.clone(), world.now());
    let record = world.step(move |tx| redrive::step(tx, &*observer, id, budget, now)).await.unwrap();
    world.check();
    record
}

/// Runs a redrive to its end, checking that the preview announced what it moved.
async fn drive(world: &World, what: Redrive) -> RedriveRecord {
    let preview = preview(world, &what).unwrap();
    assert_eq!(preview.letters, ids(world, &what.from).len() as u64);
    assert_eq!(preview.matching, preview.destinations.values().sum::<u64>());
    let id = world.queues().start_redrive(what).await.unwrap();
    world.queues().drive(id, &CancellationToken::new()).await.unwrap();
    let record = redrive::list(&world.snapshot()).unwrap().remove(0);
    assert_eq!((record.id, record.moved), (id, preview.matching), "the preview is what moves");
    world.check();
    record
}

#[tokio::test]
async fn all_letters_go_back_to_their_sources_with_a_fresh_start_and_their_history() {
    let world = with_letters(&["404", "404"]).await;
    world.queues().ensure("invoices", &dying_after(5)).await.unwrap();
    world.send("invoices", "invoice").await;
    let handle = world.work("invoices").await.handle;
    world.move_to_dlq(handle, "500").await;
    world.observer.take();
    let before = ids(&world, "dead");
    world.pass(100);
    let record = drive(&world, all()).await;
    assert_eq!(record.state, RedriveState::Completed { at: world.now().wall });
    insta::assert_snapshot!(world.dump("orders"), @r"
    orders: 2 ready, 0 delayed, 0 in flight
      ready | received 0 charged 0 | 1
        #1 Dead http account 404
      ready | received 0 charged 0 | 2
        #1 Dead http account 404
    ");
    insta::assert_snapshot!(world.dump("invoices"), @r"
    invoices: 1 ready, 0 delayed, 0 in flight
      ready | received 0 charged 0 | invoice
        #1 Dead http account 500
    ");
    assert_eq!(world.observer.take(), ["1 redriven", "2 redriven", "invoice redriven"]);
    assert!(ids(&world, "orders").iter().all(|id| !before.contains(id)), "as in SQS the ids are new");
    let received = world.work("orders").await;
    assert_eq!(received.sent_at, world.now().wall, "as in SQS the sent time is new");
    world.move_to_dlq(received.handle, "503").await;
    insta::assert_snapshot!(world.dump("dead"), @r"
    dead: 1 ready, 0 delayed, 0 in flight
      ready | received 1 charged 0 | 1
        #1 Dead http account 404
        #2 Dead http account 503
    ");
}

#[tokio::test]
async fn only_letters_of_that_fingerprint_go_back() {
    let world = with_letters(&["404", "500", "404"]).await;
    let what = Redrive {
        selection: Selection { fingerprint: Some(Fingerprint::of("http", "account", "404")), ..Selection::default() },
        ..all()
    };
    assert_eq!(drive(&world, what).await.moved, 2);
    assert_eq!(texts(&world.take("dead", 10).await), ["2"]);
}

#[tokio::test]
async fn only_the_letters_named_go_back() {
    let world = with_letters(&["404", "404", "404"]).await;
    let dead = ids(&world, "dead");
    let what = of_ids(vec![dead[2], dead[0], MessageId::fresh(), dead[2]]);
    assert_eq!(drive(&world, what).await.moved, 2);
    assert_eq!(texts(&world.take("dead", 10).await), ["2"]);
    assert_eq!(texts(&world.take("orders", 10).await), ["1", "3"]);
}

#[tokio::test]
async fn letters_go_where_they_are_sent_and_not_to_their_own_queue() {
    let world = with_letters(&["404"]).await;
    world.queues().ensure("elsewhere", &forever()).await.unwrap();
    world.send("dead", "without a source").await;
    assert_eq!(drive(&world, Redrive { to: Some("elsewhere".into()), ..all() }).await.moved, 2);
    assert_eq!(texts(&world.take("elsewhere", 10).await), ["1", "without a source"]);
    let itself = world.queues().start_redrive(Redrive { to: Some("dead".into()), ..all() }).await;
    assert_eq!(itself, Err(Error::RedriveToItself("dead".into())));
}

#[tokio::test]
async fn a_letter_without_a_way_back_fails_the_redrive_and_stays() {
    let world = with_letters(&["404"]).await;
    world.send("dead", "without a source").await;
    let preview = preview(&world, &all()).unwrap();
    assert_eq!(preview.destinations.get(""), Some(&1), "the preview warns of it");
    let id = world.queues().start_redrive(all()).await.unwrap();
    let mut ended = world.queues().store().subscribe(redrive::TOPIC);
    let record = step(&world, id, 10).await;
    assert!(matches!(&record.state, RedriveState::Failed { why, .. } if why.contains("--to")), "{:?}", record.state);
    assert!(ended.has_changed().unwrap() && *ended.borrow_and_update() > 0, "its end is signalled");
    assert_eq!(record.moved, 1);
    assert_eq!(texts(&world.take("dead", 10).await), ["without a source"]);
}

#[tokio::test]
async fn a_redrive_says_that_a_queue_was_gone_when_it_failed_and_no_other_failure_becomes_that_later() {
    for (to, source) in [(Some("elsewhere".to_owned()), "elsewhere"), (None, "orders")] {
        let world = with_letters(&["404"]).await;
        world.queues().ensure("elsewhere", &forever()).await.unwrap();
        let id = world.queues().start_redrive(Redrive { to, ..all() }).await.unwrap();
        world.queues().delete_queue(source).await.unwrap();
        let record = step(&world, id, 10).await;
        assert!(matches!(&record.state, RedriveState::QueueGone { why, .. } if why.contains("is gone")), "{record:?}");
    }
    let world = with_letters(&[]).await;
    world.send("dead", "without a source").await;
    let id = world.queues().start_redrive(all()).await.unwrap();
    step(&world, id, 10).await;
    world.queues().delete_queue("orders").await.unwrap();
    let record = world.snapshot().redrives().unwrap().get(&id).unwrap().unwrap();
    assert!(matches!(record.state, RedriveState::Failed { .. }), "as it was recorded: {record:?}");
}

#[tokio::test]
async fn each_step_moves_no_more_than_its_budget_and_the_rest_follows_after_a_restart() {
    let mut world = with_letters(&["404"; 5]).await;
    let id = world.queues().start_redrive(all()).await.unwrap();
    assert_eq!(step(&world, id, 2).await.moved, 2);
    assert!(world.dump("dead").starts_with("dead: 3 ready"));
    assert!(matches!(
        world.queues().start_redrive(all()).await,
        Err(Error::RedriveRunning { id: running, .. }) if running == id
    ));
    world.reopen().await;
    let shutdown = CancellationToken::new();
    let watch = async {
        let mut changed = world.queues().store().subscribe(redrive::TOPIC);
        while redrive::list(&world.snapshot()).unwrap()[0].state == RedriveState::Running {
            tokio::time::timeout(Duration::from_secs(60), changed.changed()).await.expect("the redrive ends").unwrap();
        }
        shutdown.cancel();
    };
    let (driven, ()) = tokio::join!(world.queues().clone().drive_all(shutdown.clone()), watch);
    assert_eq!(driven, Ok(()));
    assert_eq!(redrive::list(&world.snapshot()).unwrap()[0].moved, 5);
    assert_eq!(texts(&world.take("orders", 10).await), ["1", "2", "3", "4", "5"]);
    world.check();
}

#[tokio::test]
async fn a_redrive_that_an_earlier_version_started_is_still_the_only_one_of_its_queue() {
    let world = with_letters(&["404"; 3]).await;
    let id = world.queues().start_redrive(all()).await.unwrap();
    let row = format!("redriving {}", world.queue("dead").id);
    let forget = row.clone();
    world.step(move |tx| Ok(tx.meta()?.remove(&forget).map(drop)?)).await.unwrap();
    step(&world, id, 1).await;
    let second = world.queues().start_redrive(all()).await;
    assert_eq!(second, Err(Error::RedriveRunning { id, queue: "dead".into() }));
    assert_ne!(step(&world, id, 10).await.state, RedriveState::Running);
    assert_eq!(world.snapshot().meta().unwrap().get(&row).unwrap(), None);
    world.queues().start_redrive(all()).await.unwrap();
}

#[tokio::test]
async fn a_cancelled_redrive_keeps_what_it_moved_and_moves_no_more() {
    let world = with_letters(&["404"; 3]).await;
    let id = world.queues().start_redrive(all()).await.unwrap();
    step(&world, id, 1).await;
    assert_eq!(world.queues().cancel_redrive(id).await, Ok(1));
    assert_eq!(world.queues().cancel_redrive(id).await, Err(Error::RedriveNotFound(id)));
    assert_eq!(step(&world, id, 10).await.state, RedriveState::Cancelled { at: world.now().wall });
    assert_eq!(texts(&world.take("dead", 10).await), ["2", "3"]);
}

#[tokio::test]
async fn letters_that_arrive_after_the_start_stay_also_when_they_were_sent_before() {
    let world = World::with_orders().await;
    for text in ["sent first, dies last", "letter"] {
        world.send("orders", text).await;
    }
    let old = world.work("orders").await.handle;
    let letter = world.work("orders").await.handle;
    world.move_to_dlq(letter, "404").await;
    let id = world.queues().start_redrive(all()).await.unwrap();
    world.move_to_dlq(old, "404").await;
    world.send("dead", "sent here").await;
    let record = step(&world, id, 10).await;
    assert_eq!((record.moved, record.state), (1, RedriveState::Completed { at: world.now().wall }));
    assert_eq!(texts(&world.take("dead", 10).await), ["sent first, dies last", "sent here"]);
}

#[tokio::test]
async fn a_letter_that_dies_again_during_the_redrive_is_not_driven_round_in_circles() {
    let world = with_letters(&["404", "404"]).await;
    let id = world.queues().start_redrive(all()).await.unwrap();
    step(&world, id, 1).await;
    let handle = world.work("orders").await.handle;
    world.move_to_dlq(handle, "404").await;
    let record = step(&world, id, 10).await;
    assert_eq!((record.moved, record.state), (2, RedriveState::Completed { at: world.now().wall }));
    assert_eq!(texts(&world.take("dead", 10).await), ["1"]);
    assert_eq!(texts(&world.take("orders", 10).await), ["2"]);
}

#[tokio::test]
async fn only_a_dead_letter_queue_can_be_driven_back_and_limits_are_named() {
    let world = with_letters(&[]).await;
    let refused = |what: Redrive| world.queues().start_redrive(what);
    let orders = Redrive { from: "orders".into(), ..all() };
    assert_eq!(refused(orders).await, Err(Error::NotDeadLetterQueue("orders".into())));
    let rate = Redrive { per_second: Some(0), ..all() };
    assert!(matches!(refused(rate).await, Err(Error::OutOfRange { what: "rate", .. })));
    let many = of_ids(vec![MessageId::fresh(); redrive::IDS_MAX + 1]);
    assert!(matches!(refused(many).await, Err(Error::OutOfRange { what: "ids", .. })));
    assert!(redrive::list(&world.snapshot()).unwrap().is_empty());
}

#[tokio::test]
async fn redrives_that_ended_are_forgotten_in_the_end_and_running_ones_never() {
    let world = with_letters(&["404"]).await;
    for (queue, letters) in [("orders-2", "dead-2"), ("orders-3", "dead-3")] {
        world.queues().ensure(letters, &forever()).await.unwrap();
        let policy = RedrivePolicy { dead_letter_queue: letters.into(), max_receive_count: 3 };
        world.queues().ensure(queue, &Options { redrive: Some(policy), ..forever() }).await.unwrap();
    }
    let start = async |from: &str| {
        world.queues().start_redrive(Redrive { from: from.into(), ..Redrive::default() }).await.unwrap()
    };
    let kept = redrive::retention::ENDED_KEPT_MAX;
    let mut ended = Vec::new();
    for _ in 0..kept + 5 {
        for queue in ["dead", "dead-2", "dead-3"] {
            ended.push(start(queue).await);
            world.queues().cancel_redrive(*ended.last().unwrap()).await.unwrap();
        }
    }
    let running = start("dead").await;
    world.queues().delete_queue("dead-3").await.unwrap();
    assert_eq!(world.queues().forget_redrives().await.unwrap() as usize, 5 + 5 + (kept + 5));
    assert_eq!(world.queues().forget_redrives().await, Ok(0));
    let known: Vec<u64> = redrive::list(&world.snapshot()).unwrap().iter().rev().map(|record| record.id).collect();
    let expected = ended[15..].iter().enumerate().filter(|(n, _)| n % 3 != 2).map(|(_, id)| *id);
    assert_eq!(known, expected.chain([running]).collect::<Vec<_>>(), "the newest of each queue, and the running one");
    let totals = world.snapshot().redrive_totals().unwrap().first(0..=u64::MAX, 1000).unwrap();
    assert_eq!(totals.into_iter().map(|(id, _)| id).collect::<Vec<_>>(), known);
}

#[tokio::test]
async fn a_redrive_moves_exactly_what_its_preview_named_whatever_dies_in_the_meantime() {
    let world = with_letters(&["404", "404"]).await;
    let named = preview(&world, &all()).unwrap();
    assert_eq!((named.matching, named.sample), (2, ids(&world, "dead")));
    world.send("orders", "later").await;
    let handle = world.work("orders").await.handle;
    world.move_to_dlq(handle, "404").await;
    let what = Redrive { as_of: Some(named.as_of), ..all() };
    assert_eq!(preview(&world, &what).unwrap().matching, 2);
    let id = world.queues().start_redrive(what.clone()).await.unwrap();
    assert_eq!(step(&world, id, 100).await.moved, 2);
    assert!(matches!(step(&world, id, 100).await.state, RedriveState::Completed { .. }));
    let again = world.queues().start_redrive(what).await;
    assert_eq!(again, Err(Error::NothingMatches { queue: "dead".into(), letters: 1 }));
    assert_eq!(texts(&world.take("dead", 10).await), ["later"]);
}

#[tokio::test]
async fn a_token_pins_the_selection_and_one_that_no_preview_gave_is_refused() {
    let world = with_letters(&["404", "500", "404"]).await;
    world.queues().ensure("dead-2", &forever()).await.unwrap();
    let dying = RedrivePolicy { dead_letter_queue: "dead-2".into(), max_receive_count: 3 };
    world.queues().ensure("invoices", &Options { redrive: Some(dying), ..forever() }).await.unwrap();
    let of = |code: &str| {
        let fingerprint = Some(Fingerprint::of("http", "account", code));
        Redrive { selection: Selection { fingerprint, ..Selection::default() }, ..all() }
    };
    let named = preview(&world, &of("500")).unwrap();
    assert_eq!(named.matching, 1);
    let as_of = Some(named.as_of.clone());
    let young = Some(Duration::from_secs(60));
    for other in [
        all(),
        of("404"),
        Redrive { newer: young, ..of("500") },
        Redrive { older: young, ..of("500") },
        Redrive { from: "dead-2".into(), ..of("500") },
    ] {
        let refused = world.queues().start_redrive(Redrive { as_of: as_of.clone(), ..other.clone() }).await;
        assert_eq!(refused, Err(Error::TokenOfAnother), "{other:?}");
    }
    for invented in ["17".to_owned(), String::new(), "0".repeat(named.as_of.len()), "x".repeat(1000)] {
        let refused = world.queues().start_redrive(Redrive { as_of: Some(invented.clone()), ..of("500") }).await;
        assert!(matches!(refused, Err(Error::Token(_))), "{invented}: {refused:?}");
    }
    let other = with_letters(&["404", "500", "404"]).await;
    let refused = other.queues().start_redrive(Redrive { as_of: as_of.clone(), ..of("500") }).await;
    assert!(matches!(refused, Err(Error::Token(_))), "of another store");
    assert!(redrive::list(&world.snapshot()).unwrap().is_empty());
    let elsewhere = Redrive { as_of, to: Some("invoices".into()), per_second: Some(5), ..of("500") };
    let id = world.queues().start_redrive(elsewhere).await.unwrap();
    assert_eq!(step(&world, id, 100).await.moved, 1, "destination and rate are free");
}

#[tokio::test]
async fn ages_count_from_the_preview_whose_token_is_given() {
    let world = with_letters(&["404"]).await;
    world.pass(30);
    let what = Redrive { newer: Some(Duration::from_secs(60)), ..all() };
    let named = preview(&world, &what).unwrap();
    world.pass(3600);
    assert_eq!(world.queues().start_redrive(what.clone()).await, Err(nothing(1)));
    let older = Redrive { older: Some(Duration::from_secs(60)), ..all() };
    assert_eq!(preview(&world, &older).unwrap().matching, 1);
    let pinned = Redrive { as_of: Some(named.as_of), ..what };
    let id = world.queues().start_redrive(pinned).await.unwrap();
    assert_eq!(step(&world, id, 100).await.moved, 1);
}

fn nothing(letters: u64) -> Error {
    Error::NothingMatches { queue: "dead".into(), letters }
}

#[tokio::test]
async fn what_matches_nothing_is_refused_and_names_the_fingerprints_and_runs_that_there_are() {
    let world = with_letters(&["404", "500", "404"]).await;
    let of = |selection: Selection| Redrive { selection, ..all() };
    let teapot = Fingerprint::of("http", "account", "418");
    let refused = preview(&world, &of(Selection { fingerprint: Some(teapot), ..Selection::default() })).unwrap_err();
    let (not_found, error) = (Fingerprint::of("http", "account", "404"), Fingerprint::of("http", "account", "500"));
    assert_eq!(
        refused.to_string(),
        format!(
            "fingerprint {teapot}: no letter in queue \"dead\" has it (known: {not_found} http account 404, 2 letters; \
             {error} http account 500, 1 letter)"
        )
    );
    let refused = preview(&world, &of(Selection { run: Some(8), ..Selection::default() })).unwrap_err();
    assert_eq!(refused.to_string(), "run 8: no letter in queue \"dead\" belongs to it (known: 1, 3 letters)");
    // Both are known, but no letter has both.
    world.queues().send("orders", Send { run: 9, ..Send::text("new") }).await.unwrap();
    let handle = world.work("orders").await.handle;
    world.move_to_dlq(handle, "503").await;
    let both = of(Selection { fingerprint: Some(error), run: Some(9), ..Selection::default() });
    assert_eq!(world.queues().start_redrive(both).await, Err(nothing(4)));
    // Twelve more classes: the list has an end.
    for code in 100..112 {
        world.send("orders", "x").await;
        let handle = world.work("orders").await.handle;
        world.move_to_dlq(handle, &code.to_string()).await;
    }
    let refused = preview(&world, &of(Selection { fingerprint: Some(teapot), ..Selection::default() })).unwrap_err();
    assert!(refused.to_string().ends_with("; and 5 more)"), "{refused}");
    // Everything of an empty queue is no mistake.
    world.queues().purge("dead").await.unwrap();
    assert_eq!(drive(&world, all()).await.moved, 0);
}

#[tokio::test]
async fn a_selection_is_of_age_run_attribute_and_error_text() {
    let world = with_letters(&["404"]).await;
    world.pass(3600);
    let value = AttributeValue::Text("a".into());
    let attribute = Attribute { data_type: "String".into(), value };
    let attributes = BTreeMap::from([("team".to_owned(), attribute)]);
    world.queues().send("orders", Send { run: 9, attributes, ..Send::text("new") }).await.unwrap();
    let handle = world.work("orders").await.handle;
    world.move_to_dlq(handle, "500").await;
    let hour = world.now().wall.as_millis() - 1000;
    let moment = Some(nightmail::base::Timestamp::from_millis(hour));
    for (selection, matching) in [
        (Selection::default(), 2),
        (Selection { died_before: moment, ..Selection::default() }, 1),
        (Selection { died_from: moment, ..Selection::default() }, 1),
        (Selection { run: Some(9), ..Selection::default() }, 1),
        (Selection { run: Some(8), ..Selection::default() }, 0),
        (Selection { attribute: Some(("team".into(), "a".into())), ..Selection::default() }, 1),
        (Selection { attribute: Some(("team".into(), "b".into())), ..Selection::default() }, 0),
        (Selection { error_contains: Some("service refused".into()), ..Selection::default() }, 2),
        (Selection { error_contains: Some("teapot".into()), ..Selection::default() }, 0),
    ] {
        let what = Redrive { selection: selection.clone(), ..all() };
        let found = preview(&world, &what);
        assert_eq!(found.map_or(0, |preview| preview.matching), matching, "{selection:?}");
    }
}

#[tokio::test]
async fn an_undo_takes_back_what_nobody_has_received_and_nothing_else() {
    let world = with_letters(&["404", "500", "404"]).await;
    let before = ids(&world, "dead");
    let id = world.queues().start_redrive(all()).await.unwrap();
    assert_eq!(world.queues().undo_redrive(id).await, Err(Error::RedriveRunning { id, queue: "dead".into() }));
    step(&world, id, 100).await;
    let received = world.work("orders").await;
    assert_eq!(received.body, "1");
    let undo = world.queues().undo_redrive(id).await.unwrap();
    // One step for each queue, of which there are two, and one that finds no other.
    for _ in 0..3 {
        step(&world, undo, 100).await;
    }
    assert_ne!(redrive::list(&world.snapshot()).unwrap()[0].state, RedriveState::Running);
    assert_eq!(
        world.dump("orders"),
        "orders: 0 ready, 0 delayed, 1 in flight\n  in flight 60s | received 1 charged 1 | 1\n    #1 Dead http account 404\n"
    );
    assert_eq!(ids(&world, "dead").len(), before.len() - 1);
    assert!(world.dump("dead").contains("    #1 Dead http account 500\n"), "the history is there");
    let (_, totals) = redrive::list_with_outcomes(&world.snapshot()).unwrap().pop().unwrap();
    assert_eq!((totals.undone, totals.ended()), (2, 2));
    world.observer.take();
    let again = world.queues().start_redrive(all()).await.unwrap();
    assert_eq!(step(&world, again, 100).await.moved, 2, "they know where they died");
}

/// Ten letters, and a redrive of a tenth of them first that stops when more than half died again.
async fn careful() -> (World, u64) {
    let world = with_letters(&["404"; 10]).await;
    let canary = Some(CanaryOptions { first_permille: 100, failed_permille_max: 500 });
    let id = world.queues().start_redrive(Redrive { canary, ..all() }).await.unwrap();
    assert_eq!(step(&world, id, 100).await.moved, 1, "a tenth");
    assert_eq!(step(&world, id, 100).await.moved, 1, "it waits for the end of that one");
    (world, id)
}

#[tokio::test]
async fn a_canary_goes_on_when_its_letters_are_done() {
    let (world, id) = careful().await;
    let message = world.take_one("orders").await;
    world.queues().delete(message.handle).await.unwrap();
    assert_eq!(step(&world, id, 100).await.moved, 10);
    assert!(matches!(step(&world, id, 100).await.state, RedriveState::Completed { .. }));
}

#[tokio::test]
async fn a_canary_stops_when_too_many_letters_die_again() {
    let (world, id) = careful().await;
    let message = world.work("orders").await;
    world.move_to_dlq(message.handle, "404").await;
    let record = step(&world, id, 100).await;
    let RedriveState::Failed { why, .. } = record.state else { panic!("{record:?}") };
    assert_eq!(why, "1 of 1 letters died again, more than 50 % (the other 9 stay where they are)");
    assert_eq!(ids(&world, "dead").len(), 10);
}

/// Thirty letters, and a redrive of a tenth of them first that stops when more than half died again.
async fn careful_with_three() -> (World, u64) {
    let world = with_letters(&["404"; 30]).await;
    let canary = Some(CanaryOptions { first_permille: 100, failed_permille_max: 500 });
    let id = world.queues().start_redrive(Redrive { canary, ..all() }).await.unwrap();
    (world, id)
}

async fn dies_again(world: &World) {
    let message = world.work("orders").await;
    world.move_to_dlq(message.handle, "404").await;
}

async fn is_done(world: &World) {
    let message = world.take_one("orders").await;
    world.queues().delete(message.handle).await.unwrap();
}

#[tokio::test]
async fn a_canary_of_several_letters_is_judged_when_all_of_them_have_ended() {
    let (world, id) = careful_with_three().await;
    assert_eq!(step(&world, id, 2).await.moved, 2);
    dies_again(&world).await;
    assert_eq!(step(&world, id, 100).await.moved, 3, "one of one died, but the first share is three letters");
    is_done(&world).await;
    assert_eq!(step(&world, id, 100).await.moved, 3, "one of the three is still at work");
    is_done(&world).await;
    assert_eq!(step(&world, id, 100).await.moved, 30, "one of three is less than half");
}

#[tokio::test]
async fn a_canary_that_went_on_stops_at_once_when_too_many_letters_die_again() {
    let (world, id) = careful_with_three().await;
    step(&world, id, 100).await;
    for _ in 0..3 {
        is_done(&world).await;
    }
    assert_eq!(step(&world, id, 4).await.moved, 7);
    for _ in 0..3 {
        dies_again(&world).await;
    }
    assert_eq!(step(&world, id, 1).await.moved, 8, "three of six are not more than half");
    dies_again(&world).await;
    let record = step(&world, id, 100).await;
    assert!(matches!(&record.state, RedriveState::Failed { why, .. } if why.starts_with("4 of 7")), "{record:?}");
    assert_eq!(record.moved, 8, "although its share of thirty is not through");
}

#[tokio::test]
async fn an_undo_takes_back_no_more_than_its_budget_in_a_step_and_all_of_them_in_the_end() {
    let world = with_letters(&["404"; 5]).await;
    let before = ids(&world, "dead");
    let id = world.queues().start_redrive(all()).await.unwrap();
    step(&world, id, 100).await;
    let undo = world.queues().undo_redrive(id).await.unwrap();
    let mut moved = Vec::new();
    // One step more for each of the queues, of which there are two.
    for _ in 0..5 {
        let record = step(&world, undo, 2).await;
        moved.push(record.moved);
        if record.state != RedriveState::Running {
            break;
        }
    }
    moved.dedup();
    assert_eq!(moved, [0, 2, 4, 5]);
    assert_eq!(redrive::list(&world.snapshot()).unwrap()[0].state, RedriveState::Completed { at: world.now().wall });
    assert_eq!(ids(&world, "dead").len(), before.len());
}

/// AWS, "StartMessageMoveTask": messages in flight are not moved.
#[tokio::test]
async fn a_redrive_leaves_letters_that_a_consumer_holds() {
    let world = World::with_orders().await;
    for text in ["held", "ran out", "free"] {
        world.send("orders", text).await;
        let handle = world.work("orders").await.handle;
        world.move_to_dlq(handle, "404").await;
    }
    let hour = Receive { visibility: Some(Duration::from_secs(3600)), ..Receive::for_client(1) };
    let held = world.receive("dead", hour).await.unwrap().messages;
    assert_eq!(texts(&world.take("dead", 1).await), ["ran out"]);
    world.pass(30);
    let back = Redrive { from: "dead".into(), ..Redrive::default() };
    let id = world.queues().start_redrive(back).await.unwrap();
    world.queues().drive(id, &CancellationToken::new()).await.unwrap();
    assert_eq!(texts(&world.take("orders", 10).await), ["ran out", "free"]);
    assert_eq!(world.queues().delete(held[0].handle).await, Ok(true), "its consumer still holds it");
    world.check();
}

/// Own choice: what an operator drives back is processed, however old it is.
#[tokio::test]
async fn a_redriven_letter_whose_expiry_has_passed_is_received() {
    let world = World::with_orders().await;
    let expires_at = Some(world.now().wall.after(Duration::from_secs(60)));
    world.queues().send("orders", Send { expires_at, ..Send::text("late") }).await.unwrap();
    let handle = world.work("orders").await.handle;
    world.move_to_dlq(handle, "404").await;
    world.pass(61);
    let back = Redrive { from: "dead".into(), ..Redrive::default() };
    let id = world.queues().start_redrive(back).await.unwrap();
    world.queues().drive(id, &CancellationToken::new()).await.unwrap();
    world.queues().expire().await.unwrap();
    assert_eq!(texts(&world.take("orders", 1).await), ["late"]);
    world.check();
}

/// A rate counts the letters that move: those that a selection passes over cost no time.
#[tokio::test]
async fn a_rate_of_20_000_a_second_is_reached_and_a_sparse_selection_is_not_slower() {
    let world = World::with_orders().await;
    let mut rare = Vec::new();
    for n in 0..2_500 {
        let sent = world.queues().send("dead", Send::text(n.to_string())).await.unwrap();
        rare.extend((n % 500 == 499).then_some(sent.message_id));
    }
    let drive = |per_second, ids| {
        let selection = Selection { ids, ..Selection::default() };
        let to = Some("orders".to_owned());
        Redrive { from: "dead".into(), to, selection, per_second: Some(per_second), ..Redrive::default() }
    };
    // Five letters among 2,500, at 50 a second: a tenth of a second, not one step of 5 letters for each 500 passed over.
    let id = world.queues().start_redrive(drive(50, rare)).await.unwrap();
    let within = Duration::from_secs(5);
    tokio::time::timeout(within, world.queues().drive(id, &CancellationToken::new())).await.unwrap().unwrap();
    let commits = world.queues().store().commits();
    let id = world.queues().start_redrive(drive(20_000, Vec::new())).await.unwrap();
    tokio::time::timeout(within, world.queues().drive(id, &CancellationToken::new())).await.unwrap().unwrap();
    let steps = world.queues().store().commits() - commits;
    assert!((50..=60).contains(&steps), "{steps} steps for 2,495 letters: up to 50 each, 2.5 ms apart");
    world.check();
}

/// Own: an undone letter is as it was before the redrive, its id and its sent time too.
#[tokio::test]
async fn an_undone_letter_is_as_it_was() {
    let world = with_letters(&["404", "500"]).await;
    let look = || {
        let rows = world.queue("dead").rows;
        let states = world.snapshot().states().unwrap().first((rows, 0)..=(rows, u64::MAX), 9).unwrap();
        let kept = |(key, state): ((u32, u64), MessageState)| (key, MessageState { arrival_seq: 0, ..state });
        states.into_iter().map(kept).collect::<Vec<_>>()
    };
    let (dump, before) = (world.dump("dead"), look());
    world.pass(100);
    let id = world.queues().start_redrive(all()).await.unwrap();
    world.queues().drive(id, &CancellationToken::new()).await.unwrap();
    world.pass(100);
    let undo = world.queues().undo_redrive(id).await.unwrap();
    world.queues().drive(undo, &CancellationToken::new()).await.unwrap();
    world.check();
    assert_eq!((world.dump("dead"), look()), (dump, before));
}
