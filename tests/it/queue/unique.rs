//! Unique keys, expiry, pause, limits and the life of a queue.

use std::collections::BTreeMap;
use std::time::Duration;

use nightmail::queue::unique::{Mode, Unique};
use nightmail::queue::{Error, Options, Send, Sent, stats};
use nightmail::store::record::{Attribute, AttributeValue, RedriveAllow};

use crate::support::{World, dying_after, forever, texts};

async fn send(world: &World, text: &str, mode: Mode, delay: u64) -> Sent {
    let unique = Some(Unique { key: "key".into(), mode });
    let message = Send { unique, delay: Some(Duration::from_secs(delay)), ..Send::text(text.to_owned()) };
    let sent = world.queues().send("orders", message).await.unwrap();
    world.check();
    sent
}

#[tokio::test]
async fn a_simple_key_is_held_through_retries_and_the_dead_letter_queue_until_the_message_is_done() {
    let world = World::with_orders().await;
    let first = send(&world, "first", Mode::Simple, 0).await;
    let second = send(&world, "second", Mode::Simple, 0).await;
    assert_eq!(second, Sent { is_duplicate: true, ..first });
    let message = world.work("orders").await;
    world.move_to_dlq(message.handle, "404").await;
    assert!(send(&world, "second", Mode::Simple, 0).await.is_duplicate, "a dead letter holds it");
    let letter = world.take_one("dead").await;
    world.queues().delete(letter.handle).await.unwrap();
    assert!(!send(&world, "second", Mode::Simple, 0).await.is_duplicate);
    assert_eq!(texts(&world.take("orders", 10).await), ["second"]);
}

#[tokio::test]
async fn a_throttled_key_lets_one_through_in_its_span_whatever_became_of_it() {
    let world = World::with_orders().await;
    let mode = Mode::Throttle(Duration::from_secs(60));
    send(&world, "first", mode, 0).await;
    let taken = world.take_one("orders").await;
    world.queues().delete(taken.handle).await.unwrap();
    assert!(send(&world, "second", mode, 0).await.is_duplicate);
    world.pass(60);
    assert!(!send(&world, "third", mode, 0).await.is_duplicate);
    assert_eq!(texts(&world.take("orders", 10).await), ["third"]);
}

#[tokio::test]
async fn a_debounced_key_keeps_the_latest_and_its_delay_begins_anew() {
    let world = World::with_orders().await;
    let first = send(&world, "first", Mode::Debounce, 10).await;
    world.pass(9);
    let second = send(&world, "second", Mode::Debounce, 10).await;
    assert_eq!((second.message_id, second.is_duplicate), (first.message_id, true));
    world.pass(9);
    assert!(world.take("orders", 1).await.is_empty(), "the delay began anew");
    world.pass(1);
    assert_eq!(texts(&world.take("orders", 10).await), ["second"]);
    assert!(!send(&world, "third", Mode::Debounce, 0).await.is_duplicate, "the second one is in work");
    assert_eq!(texts(&world.take("orders", 10).await), ["third"]);
}

#[tokio::test]
async fn keep_last_replaces_what_waits_and_sends_the_latest_after_what_is_in_work() {
    let world = World::with_orders().await;
    let first = send(&world, "first", Mode::KeepLast, 0).await;
    assert_eq!(send(&world, "second", Mode::KeepLast, 0).await.message_id, first.message_id);
    let working = world.work("orders").await;
    assert_eq!(working.body, "second");
    let third = send(&world, "third", Mode::KeepLast, 0).await;
    let fourth = send(&world, "fourth", Mode::KeepLast, 0).await;
    let stats = stats::stats(&world.snapshot(), &world.queue("orders"), world.now()).unwrap();
    assert_eq!(
        (stats.in_flight, stats.followers, stats.total()),
        (1, 1, 2),
        "the latest waits for the end of the first"
    );
    assert_eq!(fourth.message_id, third.message_id);
    assert!(world.take("orders", 10).await.is_empty(), "it waits for the one in work");
    world.queues().delete(working.handle).await.unwrap();
    world.check();
    let next = world.take("orders", 10).await;
    assert_eq!((texts(&next), next[0].message_id), (vec!["fourth".to_owned()], third.message_id));
    send(&world, "fifth", Mode::KeepLast, 0).await;
    assert_eq!(world.purge("orders").await, Ok(1));
    world.check();
    assert!(world.take("orders", 10).await.is_empty(), "a purge takes what waits too");
}

#[tokio::test]
async fn a_message_is_not_received_from_the_moment_on_at_which_it_expires() {
    let world = World::with_orders().await;
    let expires = |text: &str, seconds| {
        let expires_at = Some(world.now().wall.after(Duration::from_secs(seconds)));
        world.queues().send("orders", Send { expires_at, run: 1, ..Send::text(text.to_owned()) })
    };
    expires("short", 10).await.unwrap();
    expires("long", 100).await.unwrap();
    world.pass(10);
    assert_eq!(texts(&world.take("orders", 10).await), ["long"]);
    assert_eq!(world.observer.take(), ["short withdrawn: expired"]);
    world.pass(90);
    assert!(world.take("orders", 1).await.is_empty(), "its lease ran out after its time");
    assert_eq!(world.observer.take(), ["long withdrawn: expired"]);
    expires("waiting", 5).await.unwrap();
    world.pass(5);
    assert_eq!(world.queues().expire().await, Ok(1), "also when nobody comes for it");
    world.check();
}

#[tokio::test]
async fn what_is_in_work_or_dead_does_not_expire() {
    let world = World::with_orders().await;
    let expires_at = Some(world.now().wall.after(Duration::from_secs(10)));
    world.queues().send("orders", Send { expires_at, ..Send::text("x") }).await.unwrap();
    let message = world.work("orders").await;
    world.pass(11);
    assert_eq!(world.queues().expire().await, Ok(0));
    world.move_to_dlq(message.handle, "404").await;
    assert_eq!(world.queues().expire().await, Ok(0));
    assert_eq!(texts(&world.take("dead", 1).await), ["x"]);
    world.check();
}

#[tokio::test]
async fn a_paused_queue_takes_messages_and_gives_none_also_after_a_restart() {
    let mut world = World::with_orders().await;
    world.queues().pause("orders", "ada").await.unwrap();
    world.queues().pause("orders", "bob").await.unwrap();
    world.send("orders", "x").await;
    world.reopen().await;
    assert!(world.take("orders", 1).await.is_empty());
    let paused = world.queue("orders").paused.unwrap();
    assert_eq!((paused.by.as_str(), paused.since), ("ada", world.now().wall));
    let queues = world.queues().clone();
    let waiting = tokio::spawn(async move {
        queues.receive("orders", nightmail::queue::Receive::for_client(1), Duration::from_secs(20)).await
    });
    world.queues().resume("orders").await.unwrap();
    assert_eq!(texts(&waiting.await.unwrap().unwrap()), ["x"], "the resume wakes who waits");
}

#[tokio::test]
async fn a_full_queue_refuses_sends_and_says_which_limit() {
    let world = World::new();
    let options = Options { messages_max: Some(2), bytes_max: Some(2000), ..forever() };
    world.queues().ensure("orders", &options).await.unwrap();
    let send = |bytes: usize| world.queues().send("orders", Send::text("x".repeat(bytes)));
    send(1500).await.unwrap();
    let full = |what, max| Err(Error::Full { queue: "orders".into(), what, max });
    assert_eq!(send(501).await.map(drop), full("bytes", 2000));
    send(500).await.unwrap();
    assert_eq!(send(1).await.map(drop), full("messages", 2));
    let taken = world.take_one("orders").await;
    world.queues().delete(taken.handle).await.unwrap();
    send(1).await.unwrap();
}

#[tokio::test]
async fn attributes_come_back_and_count_towards_the_size() {
    let world = World::with_orders().await;
    let text = Attribute { data_type: "String.id".into(), value: AttributeValue::Text("v".into()) };
    let attributes = BTreeMap::from([("name".to_owned(), text)]);
    let message = Send { attributes: attributes.clone(), trace_header: Some("Root=1".into()), ..Send::text("body") };
    world.queues().send("orders", message).await.unwrap();
    assert_eq!(
        world.snapshot().counts().unwrap().get(&world.queue("orders").id).unwrap().unwrap().bytes,
        4 + 4 + 9 + 1
    );
    let received = world.take_one("orders").await;
    assert_eq!((received.envelope.attributes, received.envelope.trace_header), (attributes, Some("Root=1".into())));
    world.check();
}

#[tokio::test]
async fn attributes_out_of_sqs_rules_are_refused_by_name() {
    let world = World::with_orders().await;
    let text = |data_type: &str, value: &str| Attribute {
        data_type: data_type.into(),
        value: AttributeValue::Text(value.into()),
    };
    for (name, attribute, why) in [
        ("AWS.x", text("String", "v"), "reserved"),
        ("a..b", text("String", "v"), "two in a row"),
        ("a b", text("String", "v"), "1 to 256"),
        ("a", text("String", ""), "empty"),
        ("a", text("Text", "v"), "must begin with"),
        ("a", text("String.", "v"), "label"),
        ("a", text("Number", "one"), "38 digits"),
        ("a", text("Number", &"1".repeat(39)), "38 digits"),
        ("a", text("Binary", "v"), "not of its data type"),
        ("a", text("String", "\u{1}"), "character"),
    ] {
        let message = Send { attributes: BTreeMap::from([(name.to_owned(), attribute)]), ..Send::text("x") };
        let error = world.queues().send("orders", message).await.unwrap_err().to_string();
        assert!(error.contains(why) && error.contains(name), "{error}");
    }
}

#[tokio::test]
async fn a_batch_takes_what_fits_and_refuses_the_rest_one_by_one() {
    let world = World::with_orders().await;
    let answers = world.queues().send_batch("orders", vec![Send::text("a"), Send::text(""), Send::text("b")]).await;
    let answers = answers.unwrap();
    assert!(answers[0].is_ok() && answers[2].is_ok());
    assert_eq!(answers[1], Err(Error::BodyEmpty));
    assert!(world.queues().send_batch("orders", vec![]).await.is_err());
    assert!(world.queues().send_batch("orders", vec![Send::text("x"); 11]).await.is_err());
    let large = vec![Send::text("x".repeat(600_000)); 2];
    assert!(matches!(world.queues().send_batch("orders", large).await, Err(Error::BatchTooLong { .. })));
    let taken = world.take("orders", 10).await;
    let changes = vec![(taken[0].handle, Duration::ZERO), (taken[1].handle, Duration::from_secs(43_201))];
    let changed = world.queues().change_visibility_batch(changes).await.unwrap();
    assert!(changed[0].is_ok() && changed[1].is_err());
    let handles = taken.iter().map(|message| message.handle).collect();
    assert_eq!(world.queues().delete_batch(handles).await.unwrap(), [Ok(true), Ok(true)]);
    world.check();
}

#[tokio::test]
async fn a_deleted_queue_leaves_nothing_and_its_name_rests_for_a_minute() {
    let world = World::with_orders().await;
    let tags = || BTreeMap::from([("team".to_owned(), "a".to_owned())]);
    let id = world.queues().create("mine", &forever(), tags()).await.unwrap();
    assert_eq!(world.queues().create("mine", &forever(), tags()).await, Ok(id), "the same attributes are no fault");
    let other = world.queues().create("mine", &Options { delay: Duration::from_secs(1), ..forever() }, tags()).await;
    assert_eq!(other, Err(Error::Exists { name: "mine".into(), what: "delay".into() }));
    world.queues().tag("mine", BTreeMap::from([("b".into(), "c".into())])).await.unwrap();
    world.queues().untag("mine", vec!["team".into()]).await.unwrap();
    assert_eq!(world.queue("mine").tags, BTreeMap::from([("b".into(), "c".into())]));
    world.send("mine", "x").await;
    assert_eq!(world.queues().delete_queue("mine").await, Ok(1));
    assert_eq!(world.queues().remove_purged().await, Ok(1));
    assert_eq!(world.observer.take(), ["x withdrawn: purged"]);
    world.check();
    assert!(matches!(world.queues().send("mine", Send::text("x")).await, Err(Error::NotFound { .. })));
    assert_eq!(world.queues().create("mine", &forever(), tags()).await, Err(Error::DeletedRecently("mine".into())));
    world.pass(60);
    assert_ne!(world.queues().create("mine", &forever(), tags()).await, Ok(id), "numbers are never used again");
}

#[tokio::test]
async fn a_dead_letter_queue_says_whose_letters_it_takes() {
    let world = World::new();
    let only = RedriveAllow::Only(vec!["orders".into()]);
    world.queues().ensure("dead", &Options { redrive_allow: only, ..forever() }).await.unwrap();
    assert!(world.queues().ensure("orders", &dying_after(3)).await.is_ok());
    let refused = Err(Error::NotAllowed { from: "others".into(), to: "dead".into() });
    assert_eq!(world.queues().ensure("others", &dying_after(3)).await, refused);
}

#[tokio::test]
async fn tags_have_sqs_lengths_and_number() {
    let world = World::with_orders().await;
    let tag =
        |key: usize, value: usize| world.queues().tag("orders", BTreeMap::from([("k".repeat(key), "ä".repeat(value))]));
    assert_eq!(tag(1, 256).await, Ok(()));
    let out = |what, min, max, got| Err(Error::OutOfRange { what, min, max, got });
    assert_eq!(tag(1, 257).await, out("characters of a tag's value", 0, 256, 257));
    assert_eq!(tag(128, 0).await, Ok(()));
    assert_eq!(tag(129, 0).await, out("characters of a tag's key", 1, 128, 129));
    assert_eq!(tag(0, 1).await, out("characters of a tag's key", 1, 128, 0));
    let more = |count: usize| (0..count).map(|n| (format!("tag{n}"), String::new())).collect();
    assert_eq!(world.queues().tag("orders", more(48)).await, Ok(()));
    assert_eq!(world.queues().tag("orders", more(49)).await, out("tags", 0, 50, 51));
    assert_eq!(world.queue("orders").tags.len(), 50);
}

#[tokio::test]
async fn what_keep_last_sends_after_the_one_in_work_is_in_its_own_group() {
    let world = World::with_orders().await;
    send(&world, "first", Mode::KeepLast, 0).await;
    let working = world.work("orders").await;
    let unique = Some(Unique { key: "key".into(), mode: Mode::KeepLast });
    let follower = Send { unique, group: Some("fair".into()), ..Send::text("second") };
    world.queues().send("orders", follower).await.unwrap();
    world.queues().send("orders", Send { group: Some("fair".into()), ..Send::text("third") }).await.unwrap();
    world.queues().delete(working.handle).await.unwrap();
    world.check();
    let id = world.queue("orders").id;
    let states = world.snapshot().states().unwrap().first((id, 0)..=(id, u64::MAX), 10).unwrap();
    let groups: Vec<_> = states.iter().map(|(_, state)| state.group).collect();
    assert!(groups.len() == 2 && groups[0].is_some() && groups[0] == groups[1], "{groups:?}");
    let taken = world.take("orders", 10).await;
    assert_eq!(texts(&taken), ["third", "second"]);
    assert_eq!(taken[1].envelope.group.as_deref(), Some("fair"));
}

/// Own: a follower is delayed from its own send on, as if it had been sent then.
#[tokio::test]
async fn a_follower_keeps_its_delay() {
    let world = World::with_orders().await;
    send(&world, "holder", Mode::KeepLast, 0).await;
    let working = world.work("orders").await;
    send(&world, "waits", Mode::KeepLast, 600).await;
    world.pass(30);
    world.queues().delete(working.handle).await.unwrap();
    insta::assert_snapshot!(world.dump("orders"), @r"
    orders: 0 ready, 1 delayed, 0 in flight
      delayed 570s | received 0 charged 0 | waits
    ");
    world.pass(570);
    assert_eq!(texts(&world.take("orders", 1).await), ["waits"]);
    world.check();
}
