//! `max_messages` and `max_bytes`: no way into a queue goes past them, and what was taken before needs no room.

use std::time::Duration;

use nightmail::queue::redrive::{self, Redrive};
use nightmail::queue::unique::{Mode, Unique};
use nightmail::queue::{Error, Options, Send, Sent};
use nightmail::store::record::{Fifo, RedriveRecord, RedriveState};
use tokio_util::sync::CancellationToken;

use crate::support::{World, dying_after, forever, texts};

fn at_most(messages: u64) -> Options {
    Options { messages_max: Some(messages), ..dying_after(3) }
}

/// Queue `orders` with these limits, whose letters go to `dead`.
async fn world(options: Options) -> World {
    let world = World::new();
    world.queues().ensure("dead", &forever()).await.unwrap();
    world.queues().ensure("orders", &options).await.unwrap();
    world
}

fn keyed(text: &str, key: &str, mode: Mode) -> Send {
    Send { unique: Some(Unique { key: key.into(), mode }), ..Send::text(text.to_owned()) }
}

async fn send(world: &World, message: Send) -> Result<Sent, Error> {
    let sent = world.queues().send("orders", message).await;
    world.check();
    sent
}

fn full(what: &'static str, max: u64) -> Error {
    Error::Full { queue: "orders".into(), what, max }
}

#[tokio::test]
async fn a_duplicate_of_a_message_that_was_taken_is_answered_with_its_id_although_the_queue_is_full() {
    let world = world(at_most(2)).await;
    let modes = [("simple", Mode::Simple), ("throttle", Mode::Throttle(Duration::from_secs(60)))];
    let mut sent = Vec::new();
    for (key, mode) in modes {
        sent.push(send(&world, keyed("first", key, mode)).await.unwrap());
    }
    assert_eq!(send(&world, Send::text("third")).await, Err(full("messages", 2)));
    for ((key, mode), first) in modes.into_iter().zip(sent) {
        let again = send(&world, keyed("again", key, mode)).await;
        assert_eq!(again, Ok(Sent { is_duplicate: true, ..first }), "{key}");
        assert_eq!(send(&world, keyed("other", "other", mode)).await, Err(full("messages", 2)), "{key}");
    }
}

#[tokio::test]
async fn a_deduplication_id_that_was_taken_is_answered_although_the_fifo_queue_is_full() {
    let world = World::new();
    let fifo = Some(Fifo { content_based_deduplication: true, ..Fifo::default() });
    let options = Options { fifo, messages_max: Some(1), ..forever() };
    world.queues().ensure("orders.fifo", &options).await.unwrap();
    let message = |text: &str| Send { group: Some("g".into()), ..Send::text(text.to_owned()) };
    let first = world.queues().send("orders.fifo", message("a")).await.unwrap();
    let again = world.queues().send("orders.fifo", message("a")).await;
    assert_eq!(again, Ok(Sent { is_duplicate: true, ..first }));
    let refused = Error::Full { queue: "orders.fifo".into(), what: "messages", max: 1 };
    assert_eq!(world.queues().send("orders.fifo", message("b")).await, Err(refused.clone()));
    let taken = world.take_one("orders.fifo").await;
    world.queues().delete(taken.handle).await.unwrap();
    // Within one call too: the second one of the same id is a duplicate of the first.
    let all = world.queues().send_all("orders.fifo", vec![message("c"), message("c")]).await.unwrap();
    assert_eq!((all[0].message_id, all[1].is_duplicate), (all[1].message_id, true));
    world.check();
}

#[tokio::test]
async fn of_messages_that_go_together_all_fit_or_none_is_sent() {
    let world = world(at_most(3)).await;
    let messages = |count: u32| (0..count).map(|n| Send::text(n.to_string())).collect::<Vec<_>>();
    assert_eq!(world.queues().send_all("orders", messages(4)).await, Err(full("messages", 3)));
    assert!(world.dump("orders").starts_with("orders: 0 ready"));
    world.queues().send_all("orders", messages(2)).await.unwrap();
    // As SQS answers a batch: each by itself.
    let answers = world.queues().send_batch("orders", messages(2)).await.unwrap();
    assert_eq!((answers[0].is_ok(), &answers[1]), (true, &Err(full("messages", 3))));
    world.check();
}

#[tokio::test]
async fn a_message_that_an_empty_queue_would_not_take_is_too_large_and_not_told_to_wait() {
    let world = world(Options { bytes_max: Some(1024), ..dying_after(3) }).await;
    let refused = send(&world, Send::text("x".repeat(1025))).await;
    assert_eq!(refused, Err(Error::TooLarge { queue: "orders".into(), bytes: 1025, max: 1024 }));
    send(&world, Send::text("x".repeat(1024))).await.unwrap();
    assert_eq!(send(&world, Send::text("x")).await, Err(full("bytes", 1024)));
}

#[tokio::test]
async fn a_replacement_needs_room_only_for_what_it_is_larger() {
    let world = world(Options { bytes_max: Some(1000), messages_max: Some(1), ..dying_after(3) }).await;
    let first = send(&world, keyed(&"x".repeat(600), "key", Mode::KeepLast)).await.unwrap();
    let larger = send(&world, keyed(&"y".repeat(1000), "key", Mode::KeepLast)).await.unwrap();
    assert_eq!(larger.message_id, first.message_id);
    let delayed =
        |text: String| Send { delay: Some(Duration::from_secs(9)), ..keyed(&text, "debounced", Mode::Debounce) };
    assert_eq!(send(&world, delayed("z".into())).await, Err(full("messages", 1)));
    let taken = world.take_one("orders").await;
    world.queues().delete(taken.handle).await.unwrap();
    send(&world, delayed("z".repeat(10))).await.unwrap();
    send(&world, delayed("z".repeat(1000))).await.unwrap();
}

#[tokio::test]
async fn a_follower_counts_towards_the_limits_from_its_send_on() {
    let world = world(Options { bytes_max: Some(3000), ..at_most(2) }).await;
    let keep_last = |text: &str, bytes: usize| keyed(&text.repeat(bytes), "key", Mode::KeepLast);
    send(&world, keep_last("a", 1000)).await.unwrap();
    let working = world.work("orders").await;
    let follower = send(&world, keep_last("b", 1000)).await.unwrap();
    assert_eq!(send(&world, Send::text("c")).await, Err(full("messages", 2)), "the follower has its place already");
    assert_eq!(send(&world, keep_last("d", 2001)).await, Err(full("bytes", 3000)));
    assert_eq!(send(&world, keep_last("d", 2000)).await.map(|sent| sent.message_id), Ok(follower.message_id));
    world.queues().delete(working.handle).await.unwrap();
    world.check();
    send(&world, Send::text("e".repeat(1000))).await.unwrap();
    assert_eq!(send(&world, Send::text("f")).await, Err(full("messages", 2)));
}

#[tokio::test]
async fn a_follower_of_a_dead_letter_keeps_its_place_so_that_its_queue_is_never_over_its_limit() {
    let world = world(at_most(1)).await;
    send(&world, keyed("a", "key", Mode::KeepLast)).await.unwrap();
    let working = world.work("orders").await;
    world.move_to_dlq(working.handle, "404").await;
    send(&world, keyed("b", "key", Mode::KeepLast)).await.unwrap();
    assert_eq!(send(&world, Send::text("c")).await, Err(full("messages", 1)));
    let letter = world.take_one("dead").await;
    world.queues().delete(letter.handle).await.unwrap();
    world.check();
    assert!(world.dump("orders").starts_with("orders: 1 ready"), "{}", world.dump("orders"));
}

#[tokio::test]
async fn a_purge_and_the_end_of_a_queue_give_the_places_of_followers_back() {
    let world = world(at_most(2)).await;
    send(&world, keyed("a", "key", Mode::KeepLast)).await.unwrap();
    world.work("orders").await;
    send(&world, keyed("b", "key", Mode::KeepLast)).await.unwrap();
    assert_eq!(world.purge("orders").await, Ok(1));
    world.check();
    // A letter in `dead` keeps a follower that was sent to `orders`, which is deleted then.
    send(&world, keyed("c", "key", Mode::KeepLast)).await.unwrap();
    let working = world.work("orders").await;
    world.move_to_dlq(working.handle, "404").await;
    send(&world, keyed("d", "key", Mode::KeepLast)).await.unwrap();
    world.queues().delete_queue("orders").await.unwrap();
    world.check();
    world.queues().remove_purged().await.unwrap();
    world.check();
    let letter = world.take_one("dead").await;
    world.queues().delete(letter.handle).await.unwrap();
    world.check();
}

/// Three letters in `dead`, and room for two of them in `orders`, of which one is taken.
async fn with_letters() -> World {
    let world = world(dying_after(3)).await;
    for text in ["1", "2", "3"] {
        world.send("orders", text).await;
        let handle = world.work("orders").await.handle;
        world.move_to_dlq(handle, "404").await;
    }
    world.queues().ensure("orders", &at_most(2)).await.unwrap();
    world.queues().ensure("other", &Options { messages_max: Some(2), ..forever() }).await.unwrap();
    world
}

async fn step(world: &World, id: u64) -> RedriveRecord {
    let (observer, now) = (world.observer.clone(), world.now());
    let record = world.step(move |tx| redrive::step(tx, &*observer, id, 500, now)).await.unwrap();
    world.check();
    record
}

#[tokio::test]
async fn a_redrive_waits_for_room_and_loses_nothing_wherever_it_goes() {
    for to in [None, Some("other")] {
        let world = with_letters().await;
        let target = to.unwrap_or("orders");
        world.queues().send(target, Send::text("new")).await.unwrap();
        let what = Redrive { from: "dead".into(), to: to.map(Into::into), ..Redrive::default() };
        let id = world.queues().start_redrive(what).await.unwrap();
        let first = step(&world, id).await;
        assert_eq!((first.moved, &first.state), (1, &RedriveState::Running), "{to:?}");
        let commits = world.queues().store().commits();
        assert_eq!(step(&world, id).await, first, "{to:?}: it waits");
        assert_eq!(world.queues().store().commits(), commits, "waiting costs no commit");
        for moved in 2..=3 {
            let taken = world.take_one(target).await;
            world.queues().delete(taken.handle).await.unwrap();
            assert_eq!(step(&world, id).await.moved, moved, "{to:?}");
        }
        assert!(matches!(step(&world, id).await.state, RedriveState::Completed { .. }));
        assert_eq!(texts(&world.take(target, 10).await), ["2", "3"], "{to:?}");
        assert!(world.dump("dead").starts_with("dead: 0 ready"));
    }
}

#[tokio::test]
async fn a_redrive_that_waits_is_driven_on_as_soon_as_there_is_room() {
    let world = with_letters().await;
    let id = world.queues().start_redrive(Redrive { from: "dead".into(), ..Redrive::default() }).await.unwrap();
    let (queues, stop) = (world.queues().clone(), CancellationToken::new());
    let driver = tokio::spawn({
        let stop = stop.clone();
        async move { queues.drive_all(stop).await }
    });
    let all = async {
        let mut texts = Vec::new();
        while texts.len() < 3 {
            texts.extend(take(&world).await);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        texts
    };
    let texts = tokio::time::timeout(Duration::from_secs(60), all).await.expect("it goes on when there is room");
    assert_eq!(texts, ["1", "2", "3"]);
    stop.cancel();
    driver.await.unwrap().unwrap();
    assert_eq!(redrive::list(&world.snapshot()).unwrap()[0].id, id);
    world.check();
}

/// Receives what is there and deletes it.
async fn take(world: &World) -> Vec<String> {
    let taken = world.take("orders", 10).await;
    for message in &taken {
        world.queues().delete(message.handle).await.unwrap();
    }
    texts(&taken)
}

#[tokio::test]
async fn a_letter_that_its_queue_would_never_take_ends_the_redrive_with_the_reason() {
    let world = with_letters().await;
    world.send("orders", &"x".repeat(2000)).await;
    let handle = world.work("orders").await.handle;
    world.move_to_dlq(handle, "404").await;
    world.queues().ensure("orders", &Options { bytes_max: Some(1024), ..dying_after(3) }).await.unwrap();
    let id = world.queues().start_redrive(Redrive { from: "dead".into(), ..Redrive::default() }).await.unwrap();
    let record = step(&world, id).await;
    let RedriveState::Failed { why, .. } = &record.state else { panic!("{record:?}") };
    assert!(why.contains("2000 bytes") && why.contains("max_bytes"), "{why}");
    assert_eq!(record.moved, 3);
    assert!(world.dump("dead").starts_with("dead: 1 ready"));
}

#[tokio::test]
async fn a_message_that_fails_dies_whatever_its_dead_letter_queue_holds_and_an_undo_takes_letters_back() {
    let world = world(dying_after(3)).await;
    world.queues().ensure("dead", &Options { messages_max: Some(1), ..forever() }).await.unwrap();
    for text in ["1", "2"] {
        world.send("orders", text).await;
        let handle = world.work("orders").await.handle;
        world.move_to_dlq(handle, "404").await;
    }
    assert!(world.dump("dead").starts_with("dead: 2 ready"), "a failed message must be somewhere");
    let id = world.queues().start_redrive(Redrive { from: "dead".into(), ..Redrive::default() }).await.unwrap();
    step(&world, id).await;
    world.queues().send("dead", Send::text("new")).await.unwrap();
    let undo = world.queues().undo_redrive(id).await.unwrap();
    let mut steps = 0;
    while step(&world, undo).await.state == RedriveState::Running {
        steps += 1;
        assert!(steps < 10, "the undo has no end");
    }
    assert!(world.dump("dead").starts_with("dead: 3 ready"), "{}", world.dump("dead"));
}
