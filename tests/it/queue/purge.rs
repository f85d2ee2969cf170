//! PurgeQueue and DeleteQueue: one commit puts what was there out of reach, the rows go later.

use std::collections::BTreeMap;
use std::time::Duration;

use nightmail::queue::redrive::Redrive;
use nightmail::queue::unique::{Mode, Unique};
use nightmail::queue::{Error, Options, Queues, Receive, Send, Settled, purge, settle};
use nightmail::store::record::{Fifo, Owner, RedriveState};
use tokio_util::sync::CancellationToken;

use crate::support::{World, dying_after, forever, texts};

fn fifo() -> Options {
    Options { fifo: Some(Fifo { content_based_deduplication: true, ..Fifo::default() }), ..forever() }
}

fn grouped(group: &str, text: &str) -> Send {
    Send { group: Some(group.into()), ..Send::text(text.to_owned()) }
}

fn keyed(text: &str, mode: Mode) -> Send {
    Send { unique: Some(Unique { key: "key".into(), mode }), run: 1, ..Send::text(text.to_owned()) }
}

/// AWS, PurgeQueue: all messages, those in flight too; recorded: a receive right after it is empty.
#[tokio::test]
async fn a_purge_takes_all_that_is_there_at_once_and_nothing_of_other_queues() {
    let world = World::with_orders().await;
    let many: Vec<Send> = (0..1500).map(|n| Send::text(format!("{n}"))).collect();
    world.queues().send_all("orders", many).await.unwrap();
    world.send("orders", "mine").await;
    world.send("dead", "another's").await;
    let held = world.take("orders", 10).await;
    assert_eq!(world.queues().purge("orders").await, Ok(1501));
    insta::assert_snapshot!(world.dump("orders"), @"orders: 0 ready, 0 delayed, 0 in flight");
    assert!(world.take("orders", 10).await.is_empty());
    assert!(world.observer.take().is_empty(), "the run's books call it open as long as its row is there");
    assert_eq!(world.queues().delete(held[0].handle).await, Ok(false));
    let gone = world.queues().change_visibility(held[1].handle, Duration::ZERO).await;
    assert_eq!(gone, Err(Error::NotThere(held[1].handle.to_string())));
    world.send("orders", "new").await;
    world.check();
    assert_eq!(world.queues().remove_purged().await, Ok(1501));
    assert_eq!(world.observer.take(), ["mine withdrawn: purged"]);
    assert_eq!(world.queues().remove_purged().await, Ok(0));
    world.check();
    assert_eq!(texts(&world.take("orders", 10).await), ["new"]);
    assert_eq!(texts(&world.take("dead", 10).await), ["another's"]);
}

/// AWS, PurgeQueue: "PurgeQueueInProgress" within 60 seconds.
#[tokio::test]
async fn a_queue_can_be_purged_once_a_minute() {
    let mut world = World::with_orders().await;
    assert_eq!(world.queues().purge("orders").await, Ok(0));
    world.pass(59);
    world.reopen().await;
    assert_eq!(world.queues().purge("orders").await, Err(Error::PurgeInProgress("orders".into())));
    assert_eq!(world.queues().purge("dead").await, Ok(0), "another queue");
    world.pass(1);
    world.send("orders", "again").await;
    assert_eq!(world.queues().purge("orders").await, Ok(1));
    world.check();
}

#[tokio::test]
async fn the_rows_go_in_small_steps_also_after_a_restart() {
    let mut world = World::with_orders().await;
    let many: Vec<Send> = (0..450).map(|n| Send { run: 1, ..Send::text(format!("{n}")) }).collect();
    world.queues().send_all("orders", many).await.unwrap();
    world.queues().purge("orders").await.unwrap();
    let rows = purge::left(&world.snapshot()).unwrap().remove(0);
    let (observer, now) = (world.observer.clone(), world.now());
    let step = world.step(move |tx| purge::step(tx, &*observer, rows, purge::Rest::ALL, now)).await.unwrap();
    assert_eq!(step.0, 100, "one step leaves the writer to others");
    assert_eq!(world.observer.take().len(), 100, "withdrawn with their rows");
    world.check();
    world.reopen().await;
    world.check();
    assert_eq!(world.queues().remove_purged().await, Ok(350));
    assert!(purge::left(&world.snapshot()).unwrap().is_empty());
    world.check();
}

#[tokio::test]
async fn a_step_counts_the_attempts_of_a_message_among_its_rows() {
    let world = World::new();
    world.queues().ensure("orders", &forever()).await.unwrap();
    for text in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        world.send("orders", text).await;
    }
    let all = Receive { max: 8, visibility: Some(Duration::from_secs(60)), owner: Owner::Worker };
    for _ in 0..80 {
        for message in world.receive("orders", all).await.unwrap().messages {
            world.retry(message.handle).await;
        }
    }
    world.queues().purge("orders").await.unwrap();
    let rows = purge::left(&world.snapshot()).unwrap().remove(0);
    let (observer, now) = (world.observer.clone(), world.now());
    let step = world.step(move |tx| purge::step(tx, &*observer, rows, purge::Rest::ALL, now)).await.unwrap();
    assert_eq!(step.0, 6, "each has 85 rows");
    assert_eq!(world.queues().remove_purged().await, Ok(2));
    world.check();
}

/// Own: what our workers hold is not lost track of.
#[tokio::test]
async fn an_attempt_at_a_purged_message_may_end_and_never_dies_or_comes_back() {
    let world = World::with_orders().await;
    for text in ["done", "dies", "is tried again", "is held"] {
        world.send("orders", text).await;
    }
    let mut handles = Vec::new();
    for _ in 0..4 {
        handles.push(world.work("orders").await.handle);
    }
    assert_eq!(world.queues().purge("orders").await, Ok(4));
    let done = handles[0];
    assert!(world.step(move |tx| settle::done(tx, done)).await.unwrap().is_some());
    assert_eq!(world.move_to_dlq(handles[1], "404").await, Settled::Deleted);
    assert_eq!(world.retry(handles[2]).await, Settled::Deleted);
    assert_eq!(world.observer.take(), ["dies withdrawn: purged", "is tried again withdrawn: purged"]);
    world.check();
    assert_eq!(world.queues().remove_purged().await, Ok(1));
    assert_eq!(world.observer.take(), ["is held withdrawn: purged"]);
    assert!(world.take("orders", 10).await.is_empty() && world.take("dead", 10).await.is_empty());
    assert_eq!(world.retry(handles[3]).await, Settled::Fenced);
}

/// AWS, PurgeQueue; checklist: a purge forgets deduplication ids and receive attempts, and ends each group's turn.
#[tokio::test]
async fn a_purge_forgets_deduplication_ids_attempts_and_held_groups() {
    let world = World::new();
    world.queues().ensure("q.fifo", &fifo()).await.unwrap();
    for text in ["a", "b"] {
        world.queues().send("q.fifo", grouped("g", text)).await.unwrap();
    }
    let queue = world.queue("q.fifo").id;
    let what = Receive::for_client(1);
    let first = world.queues().receive_attempt(queue, what, "attempt").await.unwrap().messages;
    assert_eq!(texts(&first), ["a"]);
    world.queues().purge("q.fifo").await.unwrap();
    let again = world.queues().send("q.fifo", grouped("g", "a")).await.unwrap();
    assert!(!again.is_duplicate);
    let found = world.queues().receive_attempt(queue, what, "attempt").await.unwrap().messages;
    assert_eq!(texts(&found), ["a"], "the group is not held, and the attempt is a new one");
    world.check();
    world.queues().remove_purged().await.unwrap();
    world.check();
    assert!(world.queues().send("q.fifo", grouped("g", "a")).await.unwrap().is_duplicate);
}

#[tokio::test]
async fn a_large_group_goes_in_small_steps_too() {
    let world = World::new();
    world.queues().ensure("q.fifo", &fifo()).await.unwrap();
    let all = (0..2000).map(|n| grouped("g", &n.to_string())).collect();
    world.queues().send_all("q.fifo", all).await.unwrap();
    assert_eq!(world.queues().purge("q.fifo").await, Ok(2000));
    world.queues().send("q.fifo", grouped("g", "new")).await.unwrap();
    assert_eq!(world.queues().remove_purged().await, Ok(2000));
    world.check();
    assert_eq!(texts(&world.take("q.fifo", 10).await), ["new"]);
}

#[tokio::test]
async fn a_purged_holder_of_a_unique_key_counts_as_none() {
    for mode in [Mode::Simple, Mode::Debounce, Mode::KeepLast] {
        let world = World::with_orders().await;
        world.queues().send("orders", keyed("old", mode)).await.unwrap();
        world.work("orders").await;
        world.queues().send("orders", keyed("follower", Mode::KeepLast)).await.unwrap();
        world.queues().purge("orders").await.unwrap();
        world.check();
        let sent = world.queues().send("orders", keyed("new", mode)).await.unwrap();
        assert!(!sent.is_duplicate, "{mode:?}");
        world.check();
        world.queues().remove_purged().await.unwrap();
        world.check();
        assert_eq!(texts(&world.take("orders", 10).await), ["new"], "{mode:?}: the follower went too");
    }
}

#[tokio::test]
async fn a_follower_goes_with_its_own_queue_and_not_with_the_queue_of_its_holder() {
    let world = World::with_orders().await;
    let send = |text| world.queues().send("orders", keyed(text, Mode::KeepLast));
    // The holder becomes a letter, and a follower waits for its end.
    send("letter").await.unwrap();
    let handle = world.work("orders").await.handle;
    world.move_to_dlq(handle, "404").await;
    send("first follower").await.unwrap();
    world.queues().purge("orders").await.unwrap();
    world.check();
    send("second follower").await.unwrap();
    world.check();
    world.queues().remove_purged().await.unwrap();
    world.check();
    assert!(world.take("orders", 1).await.is_empty(), "it waits for the letter");
    // The letter goes, and its follower does not.
    world.queues().purge("dead").await.unwrap();
    send("third follower").await.unwrap();
    world.check();
    world.queues().remove_purged().await.unwrap();
    world.check();
    assert_eq!(texts(&world.take("orders", 10).await), ["third follower"]);
}

#[tokio::test]
async fn many_followers_of_letters_go_in_small_steps() {
    let world = World::with_orders().await;
    for n in 0..600 {
        let unique = Unique { key: n.to_string(), mode: Mode::KeepLast };
        let message = || Send { unique: Some(unique.clone()), ..Send::text("x") };
        world.queues().send("orders", message()).await.unwrap();
        let handle = world.work("orders").await.handle;
        world.move_to_dlq(handle, "404").await;
        world.queues().send("orders", message()).await.unwrap();
    }
    world.queues().purge("orders").await.unwrap();
    world.check();
    world.queues().remove_purged().await.unwrap();
    world.check();
    let uniques = world.snapshot().uniques().unwrap().first((0, [0; 16])..=(u32::MAX, [255; 16]), 9999).unwrap();
    assert!(uniques.iter().all(|(_, row)| row.follower.is_none()));
}

#[tokio::test]
async fn a_letter_goes_back_to_its_source_after_that_queue_was_purged() {
    let world = World::with_orders().await;
    world.send("orders", "letter").await;
    let handle = world.work("orders").await.handle;
    world.move_to_dlq(handle, "404").await;
    world.queues().purge("orders").await.unwrap();
    world.queues().remove_purged().await.unwrap();
    let id = world.queues().start_redrive(Redrive { from: "dead".into(), ..Redrive::default() }).await.unwrap();
    world.queues().drive(id, &CancellationToken::new()).await.unwrap();
    assert_eq!(texts(&world.take("orders", 1).await), ["letter"]);
    world.check();
}

#[tokio::test]
async fn a_redrive_moves_nothing_that_was_purged() {
    let world = World::with_orders().await;
    for text in ["first", "second"] {
        world.send("orders", text).await;
        let handle = world.work("orders").await.handle;
        world.move_to_dlq(handle, "404").await;
    }
    let id = world.queues().start_redrive(Redrive { from: "dead".into(), ..Redrive::default() }).await.unwrap();
    world.queues().purge("dead").await.unwrap();
    world.queues().drive(id, &CancellationToken::new()).await.unwrap();
    let record = world.snapshot().redrives().unwrap().get(&id).unwrap().unwrap();
    assert!(matches!(record.state, RedriveState::Completed { .. }) && record.moved == 0, "{record:?}");
    assert!(world.take("orders", 10).await.is_empty());
    world.queues().remove_purged().await.unwrap();
    world.check();
}

#[tokio::test]
async fn a_purged_letter_leaves_what_came_after_the_purge_whatever_its_age() {
    let world = World::with_orders().await;
    for text in ["old, dies later", "letter"] {
        world.send("orders", text).await;
    }
    let old = world.work("orders").await.handle;
    let letter = world.work("orders").await.handle;
    world.move_to_dlq(letter, "404").await;
    assert_eq!(world.queues().purge("dead").await, Ok(1));
    world.move_to_dlq(old, "500").await;
    world.send("dead", "sent later").await;
    assert_eq!(world.queues().remove_purged().await, Ok(1));
    assert_eq!(texts(&world.take("dead", 10).await), ["old, dies later", "sent later"]);
    world.check();
}

#[tokio::test]
async fn workers_and_polls_go_on_after_a_purge_with_the_number_that_they_know() {
    let world = World::with_orders().await;
    let queue = world.queue("orders").id;
    let mut changed = world.queues().store().subscribe(u64::from(queue));
    world.send("orders", "old").await;
    world.queues().purge("orders").await.unwrap();
    changed.borrow_and_update();
    world.send("orders", "new").await;
    tokio::time::timeout(Duration::from_secs(30), changed.changed()).await.expect("a send wakes them").unwrap();
    assert_eq!(world.queue("orders").id, queue, "the number stays");
    let found = world.queues().receive_now(queue, Receive::for_client(10)).await.unwrap();
    assert_eq!(texts(&found.messages), ["new"]);
}

#[tokio::test]
async fn a_name_is_free_a_minute_after_its_deletion_even_if_rows_are_left() {
    let world = World::with_orders().await;
    let made = |queues: &Queues| {
        let queues = queues.clone();
        async move { queues.create("mine", &forever(), BTreeMap::new()).await }
    };
    let id = made(world.queues()).await.unwrap();
    world.send("mine", "old").await;
    assert_eq!(world.queues().delete_queue("mine").await, Ok(1));
    world.check();
    assert_eq!(made(world.queues()).await, Err(Error::DeletedRecently("mine".into())));
    world.pass(60);
    assert_ne!(made(world.queues()).await, Ok(id));
    world.send("mine", "new").await;
    assert_eq!(world.queues().remove_purged().await, Ok(1));
    assert_eq!(world.observer.take(), ["old withdrawn: purged"]);
    world.check();
    assert_eq!(texts(&world.take("mine", 10).await), ["new"]);
    assert_eq!(world.snapshot().queues().unwrap().get(&id), Ok(None));
}

#[tokio::test]
async fn a_queue_that_was_purged_and_then_deleted_leaves_no_row() {
    let world = World::new();
    world.queues().ensure("dead", &forever()).await.unwrap();
    world.queues().ensure("orders", &dying_after(3)).await.unwrap();
    let id = world.queue("orders").id;
    for _ in 0..3 {
        world.send("orders", "x").await;
        world.queues().purge("orders").await.unwrap();
        world.pass(60);
    }
    world.send("orders", "x").await;
    world.queues().delete_queue("orders").await.unwrap();
    world.check();
    assert_eq!(world.queues().remove_purged().await, Ok(4));
    world.check();
    let snapshot = world.snapshot();
    assert_eq!(snapshot.queues().unwrap().get(&id), Ok(None));
    assert_eq!(snapshot.row_numbers().unwrap().first(0..=u32::MAX, 9).unwrap(), []);
    let counts = snapshot.counts().unwrap().first(0..=u32::MAX, 9).unwrap();
    assert!(counts.iter().all(|(rows, _)| *rows == world.queue("dead").rows), "{counts:?}");
}
