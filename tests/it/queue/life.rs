//! The life of a message between its sender and a client: send, receive, delete, time, limits, long polls.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nightmail::base::SystemClock;
use nightmail::queue::observer::NoObserver;
use nightmail::queue::stats;
use nightmail::queue::{Error, Options, Queues, ReceiptHandle, Receive, Send};
use nightmail::store::Store;
use nightmail::store::record::Owner;

use crate::support::{World, forever, texts};

#[tokio::test]
async fn a_message_is_sent_received_once_and_deleted() {
    let world = World::with_orders().await;
    world.send("orders", "hello").await;
    insta::assert_snapshot!(world.dump("orders"), @r"
    orders: 1 ready, 0 delayed, 0 in flight
      ready | received 0 charged 0 | hello
    ");
    let received = world.take_one("orders").await;
    assert_eq!((&received.body[..], received.receive_count), (&b"hello"[..], 1));
    assert!(world.take("orders", 10).await.is_empty(), "a message in flight is invisible to others");
    insta::assert_snapshot!(world.dump("orders"), @r"
    orders: 0 ready, 0 delayed, 1 in flight
      in flight 30s | received 1 charged 1 | hello
    ");
    assert_eq!(world.queues().delete(received.handle).await, Ok(true));
    assert_eq!(world.queues().delete(received.handle).await, Ok(false), "deleting twice is no error");
    insta::assert_snapshot!(world.dump("orders"), @"orders: 0 ready, 0 delayed, 0 in flight");
}

#[tokio::test]
async fn messages_are_received_in_the_order_of_sending_and_no_more_than_asked() {
    let world = World::with_orders().await;
    for text in ["a", "b", "c", "d"] {
        world.send("orders", text).await;
    }
    assert_eq!(texts(&world.take("orders", 3).await), ["a", "b", "c"]);
    assert_eq!(texts(&world.take("orders", 3).await), ["d"]);
}

#[tokio::test]
async fn a_receive_behind_a_position_gives_every_message_in_turn() {
    let world = World::with_orders().await;
    let later = |text: &'static str| Send { priority: 1, ..Send::text(text) };
    for message in [later("d"), Send::text("a"), Send::text("b"), Send::text("c"), later("e")] {
        world.queues().send("orders", message).await.unwrap();
    }
    let first = world.take_one("orders").await;
    let (queue, mut position) = (world.queue("orders").id, first.position());
    let mut seen = Vec::new();
    for _ in 0..8 {
        let what = Receive { max: 1, visibility: Some(Duration::ZERO), owner: Owner::Client };
        let found = world.queues().receive_after(queue, what, position).await.unwrap();
        position = found.messages[0].position();
        seen.extend(texts(&found.messages));
        world.pass(1);
    }
    assert_eq!(seen.concat(), "bcdebcde", "{first:?} is in flight");
    world.queues().change_visibility(first.handle, Duration::ZERO).await.unwrap();
    let all = world.queues().receive_after(queue, Receive::for_client(10), position).await.unwrap();
    assert_eq!(texts(&all.messages).concat(), "abcde", "from behind the last one it goes on at the front");
}

#[tokio::test]
async fn a_batch_is_sent_whole_or_not_at_all() {
    let world = World::with_orders().await;
    let batch = |last: &'static str| vec![Send::text("one"), Send::text("two"), Send::text(last)];
    assert_eq!(world.queues().send_all("orders", batch("")).await, Err(Error::BodyEmpty));
    insta::assert_snapshot!(world.dump("orders"), @"orders: 0 ready, 0 delayed, 0 in flight");
    assert_eq!(world.queues().send_all("orders", batch("three")).await.map(|sent| sent.len()), Ok(3));
    insta::assert_snapshot!(world.dump("orders"), @r"
    orders: 3 ready, 0 delayed, 0 in flight
      ready | received 0 charged 0 | one
      ready | received 0 charged 0 | two
      ready | received 0 charged 0 | three
    ");
}

#[tokio::test]
async fn a_delayed_message_appears_when_its_delay_has_passed() {
    let world = World::with_orders().await;
    let slow = Options { delay: Duration::from_secs(7), ..forever() };
    world.queues().ensure("slow", &slow).await.unwrap();
    world.queues().send("slow", Send::text("queue's delay")).await.unwrap();
    let own = |seconds| Send { delay: Some(Duration::from_secs(seconds)), ..Send::text("own delay") };
    world.queues().send("slow", own(900)).await.unwrap();
    world.queues().send("slow", own(0)).await.unwrap();
    insta::assert_snapshot!(world.dump("slow"), @r"
    slow: 1 ready, 2 delayed, 0 in flight
      delayed 7s | received 0 charged 0 | queue's delay
      delayed 900s | received 0 charged 0 | own delay
      ready | received 0 charged 0 | own delay
    ");
    world.pass(6);
    assert_eq!(texts(&world.take("slow", 10).await), ["own delay"]);
    world.pass(1);
    assert_eq!(texts(&world.take("slow", 10).await), ["queue's delay"]);
    let refused = world.queues().send("slow", own(901)).await;
    assert_eq!(refused, Err(Error::OutOfRange { what: "DelaySeconds", min: 0, max: 900, got: 901 }));
}

#[tokio::test]
async fn a_message_is_redelivered_after_its_visibility_timeout() {
    let world = World::with_orders().await;
    world.send("orders", "hello").await;
    let first = world.take_one("orders").await;
    world.clock.advance(Duration::from_millis(29_999));
    assert!(world.take("orders", 10).await.is_empty());
    world.clock.advance(Duration::from_millis(1));
    insta::assert_snapshot!(world.dump("orders"), @r"
    orders: 1 ready, 0 delayed, 0 in flight
      ready | received 1 charged 1 | hello
    ");
    let second = world.take_one("orders").await;
    assert_eq!((second.receive_count, second.attempts_charged), (2, 2));
    assert_eq!((second.message_id, second.sent_at), (first.message_id, first.sent_at));
    assert_eq!(second.first_received_at, first.first_received_at);
}

#[tokio::test]
async fn an_old_handle_deletes_nothing_after_another_receive() {
    let world = World::with_orders().await;
    world.send("orders", "hello").await;
    let old = world.take_one("orders").await.handle;
    world.pass(30);
    let new = world.take_one("orders").await.handle;
    assert_eq!(world.queues().delete(old).await, Ok(false));
    let forged = ReceiptHandle { lease: 0, ..new };
    assert_eq!(world.queues().delete(forged).await, Ok(false));
    insta::assert_snapshot!(world.dump("orders"), @r"
    orders: 0 ready, 0 delayed, 1 in flight
      in flight 30s | received 2 charged 2 | hello
    ");
    assert_eq!(world.queues().delete(new).await, Ok(true));
}

/// Recorded: on standard queues the handle of an older receive changes the visibility too.
#[tokio::test]
async fn an_older_handle_changes_the_visibility_on_a_standard_queue_but_not_of_what_a_worker_holds() {
    let world = World::with_orders().await;
    world.send("orders", "hello").await;
    let old = world.take_one("orders").await.handle;
    world.pass(30);
    let new = world.take_one("orders").await.handle;
    world.queues().change_visibility(old, Duration::from_secs(90)).await.unwrap();
    insta::assert_snapshot!(world.dump("orders"), @r"
    orders: 0 ready, 0 delayed, 1 in flight
      in flight 90s | received 2 charged 2 | hello
    ");
    let forged = ReceiptHandle { lease: new.lease + 1, ..new };
    assert_eq!(world.queues().change_visibility(forged, Duration::ZERO).await, Err(Error::NotInFlight));
    world.queues().change_visibility(old, Duration::ZERO).await.unwrap();
    let worker = world.work("orders").await.handle;
    for client in [old, new] {
        let fenced = world.queues().change_visibility(client, Duration::ZERO).await;
        assert_eq!(fenced, Err(Error::NotInFlight), "a worker holds it");
    }
    world.queues().change_visibility(worker, Duration::from_secs(90)).await.unwrap();
    world.check();
}

/// AWS, "ChangeMessageVisibility": MessageNotInflight; recorded: InvalidParameterValue for a deleted message.
#[tokio::test]
async fn a_deleted_message_is_told_from_one_that_is_not_in_flight() {
    let world = World::with_orders().await;
    world.send("orders", "hello").await;
    let handle = world.take_one("orders").await.handle;
    let change = |seconds| world.queues().change_visibility(handle, Duration::from_secs(seconds));
    world.pass(31);
    change(10).await.unwrap();
    world.check();
    world.pass(11);
    change(0).await.unwrap();
    assert_eq!(change(10).await, Err(Error::NotInFlight), "it was given back");
    assert_eq!(world.queues().delete(handle).await, Ok(true));
    assert_eq!(change(10).await, Err(Error::NotThere(handle.to_string())));
}

#[tokio::test]
async fn a_late_delete_counts_until_the_message_is_received_again() {
    let world = World::with_orders().await;
    for text in ["timed out", "given back"] {
        world.send("orders", text).await;
    }
    let held = world.take("orders", 2).await;
    world.queues().change_visibility(held[1].handle, Duration::ZERO).await.unwrap();
    world.pass(30);
    for message in &held {
        assert_eq!(world.queues().delete(message.handle).await, Ok(true), "{:?}", message.body);
    }
    insta::assert_snapshot!(world.dump("orders"), @"orders: 0 ready, 0 delayed, 0 in flight");
}

#[tokio::test]
async fn visibility_can_be_ended_at_once_and_extended_to_twelve_hours_in_total() {
    let world = World::with_orders().await;
    world.send("orders", "hello").await;
    let handle = world.take_one("orders").await.handle;
    world.queues().change_visibility(handle, Duration::ZERO).await.unwrap();
    let handle = world.take_one("orders").await.handle;
    world.pass(10);
    let hours = Duration::from_secs(12 * 3600 - 10);
    world.queues().change_visibility(handle, hours).await.unwrap();
    let beyond = world.queues().change_visibility(handle, hours + Duration::from_secs(1)).await;
    assert_eq!(beyond, Err(Error::OutOfRange { what: "VisibilityTimeout", min: 0, max: 43_190, got: 43_191 }));
    insta::assert_snapshot!(world.dump("orders"), @r"
    orders: 0 ready, 0 delayed, 1 in flight
      in flight 43190s | received 2 charged 2 | hello
    ");
    world.pass(43_190);
    let one = Duration::from_secs(1);
    let used_up = world.queues().change_visibility(handle, one).await;
    assert_eq!(used_up, Err(Error::OutOfRange { what: "VisibilityTimeout", min: 0, max: 0, got: 1 }));
    let too_long = Receive { visibility: Some(Duration::from_secs(43_201)), ..Receive::for_client(1) };
    assert!(matches!(world.receive("orders", too_long).await, Err(Error::OutOfRange { got: 43_201, .. })));
    assert_eq!(world.take_one("orders").await.receive_count, 3);
}

#[tokio::test]
async fn bodies_and_names_out_of_their_limits_are_refused_and_leave_no_trace() {
    let world = World::with_orders().await;
    let small = Options { message_bytes_max: 1024, ..forever() };
    world.queues().ensure("small", &small).await.unwrap();
    let send = |body: Vec<u8>| world.queues().send("small", Send::text(Bytes::from(body)));
    assert_eq!(send(Vec::new()).await, Err(Error::BodyEmpty));
    let too_large = Error::TooLarge { queue: "small".into(), bytes: 1025, max: 1024 };
    assert_eq!(send(vec![b'a'; 1025]).await, Err(too_large));
    for (body, at) in [(&b"ok\x00"[..], 2), (b"\xff", 0), (b"a\x0bb", 1), ("é\u{fffe}".as_bytes(), 2)] {
        assert_eq!(send(body.to_vec()).await, Err(Error::Characters { what: "body", at }), "{body:?}");
    }
    let allowed = "\t\n\r ~\u{e000}\u{10ffff}".as_bytes();
    assert!(send(allowed.to_vec()).await.is_ok() && send(vec![b'a'; 1024]).await.is_ok());
    for name in ["", "no spaces", "no.dots", "ü", &"n".repeat(81)] {
        assert!(matches!(world.queues().ensure(name, &forever()).await, Err(Error::Name(_))), "{name:?}");
    }
    world.queues().ensure(&"n".repeat(80), &forever()).await.unwrap();
    let missing = world.queues().send("statments", Send::text("x")).await.unwrap_err().to_string();
    insta::assert_snapshot!(missing.replace(&"n".repeat(80), "n…"), @r#"queue "statments" not found (known: dead, n…, orders, small)"#);
    world.check();
    assert_eq!(world.take("small", 10).await.len(), 2);
}

#[tokio::test]
async fn a_queue_keeps_its_number_and_messages_when_its_attributes_change() {
    let world = World::with_orders().await;
    world.send("orders", "hello").await;
    let before = world.queue("orders");
    world.pass(5);
    world.queues().ensure("orders", &forever()).await.unwrap();
    let after = world.queue("orders");
    assert_eq!((after.id, after.created_at, after.attributes.redrive), (before.id, before.created_at, None));
    assert_eq!(texts(&world.take("orders", 1).await), ["hello"]);
}

/// A `Queues` handle with the system clock, for what happens in real time.
async fn living(world: &mut World) -> Queues {
    world.close();
    let store = Store::open(&world.options()).unwrap();
    Queues::new(store, SystemClock::shared(), Arc::new(NoObserver))
}

/// Far longer than any of these waits takes, and shorter than the polls that must return early.
const BOUND: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_secs(20);

async fn poll(queues: &Queues) -> Vec<String> {
    let received = tokio::time::timeout(BOUND, queues.receive("orders", Receive::for_client(1), POLL)).await;
    texts(&received.expect("the poll wakes long before its end").unwrap())
}

#[tokio::test]
async fn a_long_poll_wakes_at_once_on_a_send() {
    let mut world = World::with_orders().await;
    let queues = living(&mut world).await;
    let send = async {
        tokio::task::yield_now().await;
        queues.send("orders", Send::text("hello")).await.unwrap();
    };
    let (texts, ()) = tokio::join!(poll(&queues), send);
    assert_eq!(texts, ["hello"]);
}

#[tokio::test]
async fn a_long_poll_wakes_when_a_delay_passes_or_a_visibility_is_shortened() {
    let mut world = World::with_orders().await;
    let queues = living(&mut world).await;
    let delayed = Send { delay: Some(Duration::from_millis(30)), ..Send::text("hello") };
    queues.send("orders", delayed).await.unwrap();
    assert_eq!(poll(&queues).await, ["hello"], "no send wakes this one");
    queues.purge("orders").await.unwrap();

    queues.send("orders", Send::text("again")).await.unwrap();
    let held = queues.receive("orders", Receive::for_client(1), Duration::ZERO).await.unwrap();
    // `join!` polls the receive first: it finds the message in flight for another 30 s.
    let shorten = async {
        queues.store().write::<_, Error, _>(|_| Ok(())).await.unwrap();
        queues.change_visibility(held[0].handle, Duration::from_millis(30)).await.unwrap();
    };
    let (texts, ()) = tokio::join!(poll(&queues), shorten);
    assert_eq!(texts, ["again"], "the poll slept until the old moment");
}

#[tokio::test]
async fn a_long_poll_ends_empty_when_its_time_is_up() {
    let mut world = World::with_orders().await;
    let queues = living(&mut world).await;
    let received = queues.receive("orders", Receive::for_client(1), Duration::from_millis(20)).await;
    assert_eq!(received, Ok(Vec::new()));
}

#[tokio::test]
async fn a_receive_gets_past_any_number_of_messages_that_leave_the_queue() {
    let world = World::with_orders().await;
    let short = Options { retention: Some(Duration::from_secs(60)), ..forever() };
    world.queues().ensure("short", &short).await.unwrap();
    let old = (0..600).map(|n| Send::text(format!("old {n}"))).collect();
    world.queues().send_all("short", old).await.unwrap();
    world.pass(60);
    world.send("short", "new").await;
    // The clock stands still, so that only a wake-up to look again can find the message.
    let poll = world.queues().receive("short", Receive::for_client(1), POLL);
    let received = tokio::time::timeout(BOUND, poll).await.expect("the poll does not sleep over a ready message");
    assert_eq!(texts(&received.unwrap()), ["new"]);
    world.check();
}

/// Ready, delayed and in flight, as the store counts them.
fn counts(world: &World, queue: &str) -> (u64, u64, u64) {
    let counts = world.snapshot().counts().unwrap().get(&world.queue(queue).id).unwrap().unwrap_or_default();
    (counts.ready, counts.delayed, counts.in_flight)
}

#[tokio::test]
async fn a_receive_looks_at_no_more_than_100_messages_that_are_due() {
    let world = World::with_orders().await;
    let late = |n: u32| Send { delay: Some(Duration::from_secs(10)), ..Send::text(n.to_string()) };
    world.queues().send_all("orders", (0..150).map(late).collect()).await.unwrap();
    world.pass(10);
    let receiving = world.receive("orders", Receive::for_client(1)).await.unwrap();
    assert_eq!(texts(&receiving.messages), ["0"]);
    assert_eq!(counts(&world, "orders"), (99, 50, 1));
    assert_eq!(receiving.next_visible_at, Some(world.now().lease), "the others are due");
    assert_eq!(texts(&world.take("orders", 1).await), ["1"]);
    assert_eq!(counts(&world, "orders"), (148, 0, 2));
    world.check();
}

#[tokio::test]
async fn a_receive_removes_no_more_than_100_messages_and_then_asks_to_be_repeated() {
    let world = World::with_orders().await;
    let short = Options { retention: Some(Duration::from_secs(60)), ..forever() };
    world.queues().ensure("short", &short).await.unwrap();
    let old = (0..150).map(|n| Send::text(format!("old {n}"))).collect();
    world.queues().send_all("short", old).await.unwrap();
    world.pass(60);
    let receiving = world.receive("short", Receive::for_client(10)).await.unwrap();
    assert_eq!((receiving.messages.len(), receiving.next_visible_at), (0, Some(world.now().lease)));
    assert_eq!(counts(&world, "short"), (50, 0, 0));
    let receiving = world.receive("short", Receive::for_client(10)).await.unwrap();
    assert_eq!((receiving.messages.len(), receiving.next_visible_at), (0, None));
    assert_eq!(counts(&world, "short"), (0, 0, 0));
    world.check();
}

#[tokio::test]
async fn statistics_look_at_a_bounded_number_of_due_messages_and_say_when_there_are_more() {
    const MORE: u64 = 150;
    let world = World::with_orders().await;
    let second = Some(Duration::from_secs(1));
    let due = stats::DUE_COUNTED_MAX;
    let messages = (0..due).map(|_| Send { delay: second, ..Send::text("x") }).collect();
    world.queues().send_all("orders", messages).await.unwrap();
    world.pass(2);
    let stats = || stats::stats(&world.snapshot(), &world.queue("orders"), world.now()).unwrap();
    let seen = stats();
    assert_eq!((seen.ready, seen.delayed, seen.is_more_ready), (due, 0, false));
    let messages = (0..MORE).map(|_| Send { delay: second, ..Send::text("x") }).collect();
    world.queues().send_all("orders", messages).await.unwrap();
    world.pass(2);
    let seen = stats();
    assert_eq!((seen.ready, seen.delayed, seen.is_more_ready), (due, MORE, true));
    assert_eq!(seen.total(), due + MORE);
    // The daemon shows them also where nobody receives.
    world.queues().show_due().await.unwrap();
    let shown = stats();
    assert_eq!((shown.ready, shown.delayed, shown.is_more_ready), (due + MORE, 0, false));
    assert_eq!(world.snapshot().counts().unwrap().get(&world.queue("orders").rows).unwrap().unwrap().ready, due + MORE);
    let received = world.take("orders", 10).await.len() as u64;
    world.take("orders", 10).await;
    let seen = stats();
    assert_eq!((seen.in_flight, seen.total(), seen.is_more_ready), (2 * received, due + MORE, false));
    world.check();
}
