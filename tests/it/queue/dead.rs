//! Dead letters: when a client's receives move a message to the dead-letter queue, how letters are grouped, what
//! retention does.

use std::time::Duration;

use nightmail::base::Fingerprint;
use nightmail::queue::redrive::Redrive;
use nightmail::queue::{Options, RedrivePolicy, Send, dead, settle, stats};
use tokio_util::sync::CancellationToken;

use crate::support::{START, World, dying_after, forever, texts};

#[tokio::test]
async fn a_client_gets_a_message_max_receive_count_times_and_then_it_is_dead() {
    let world = World::with_orders().await;
    world.send("orders", "hello").await;
    let mut id = None;
    for count in 1..=3 {
        let received = world.take_one("orders").await;
        assert_eq!(received.receive_count, count);
        id = Some(received.message_id);
        world.pass(30);
    }
    assert!(world.take("orders", 10).await.is_empty());
    insta::assert_snapshot!(world.dump("orders"), @"orders: 0 ready, 0 delayed, 0 in flight");
    insta::assert_snapshot!(world.dump("dead"), @r"
    dead: 1 ready, 0 delayed, 0 in flight
      ready | received 3 charged 0 | hello
        #3 Dead receive client max-receive-count
    ");
    assert_eq!(world.observer.take(), ["hello died"]);
    let letter = world.take_one("dead").await;
    assert_eq!((Some(letter.message_id), letter.sent_at), (id, START), "a letter keeps its id and its sent time");
    assert_eq!(letter.source, world.queue("orders").id);
}

#[tokio::test]
async fn letters_are_grouped_by_the_fault_that_killed_them() {
    let world = World::with_orders().await;
    for (text, code) in [("a", "404"), ("b", "500"), ("c", "404")] {
        world.send("orders", text).await;
        let handle = world.work("orders").await.handle;
        world.move_to_dlq(handle, code).await;
        world.pass(1);
    }
    world.queues().send("dead", Send::text("sent here")).await.unwrap();
    let groups = dead::groups(&world.snapshot(), &world.queue("dead")).unwrap();
    let lines: Vec<_> = groups.iter().map(|group| (group.class.as_str(), group.count)).collect();
    assert_eq!(lines, [("http account 404", 2), ("http account 500", 1), ("no recorded failure", 1)]);
    assert_eq!(groups[0].fingerprint, Some(Fingerprint::of("http", "account", "404")));
    assert_eq!((groups[0].first_at, groups[0].last_at), (START, START.after(Duration::from_secs(2))));
}

#[tokio::test]
async fn retention_deletes_what_outlived_it_wherever_it_is_and_tells_the_observer() {
    let world = World::with_orders().await;
    let short = Options { retention: Some(Duration::from_secs(100)), ..forever() };
    world.queues().ensure("short", &short).await.unwrap();
    for text in ["ready", "held"] {
        world.send("short", text).await;
    }
    let delayed = Send { delay: Some(Duration::from_secs(900)), run: 1, ..Send::text("delayed") };
    world.queues().send("short", delayed).await.unwrap();
    assert_eq!(texts(&world.take("short", 1).await), ["ready"]);
    world.pass(99);
    world.send("short", "later").await;
    assert_eq!(world.queues().expire().await, Ok(0));
    world.pass(1);
    assert_eq!(world.queues().expire().await, Ok(3));
    let mut observed = world.observer.take();
    observed.sort();
    assert_eq!(observed, ["delayed withdrawn: expired", "held withdrawn: expired", "ready withdrawn: expired"]);
    insta::assert_snapshot!(world.dump("short"), @r"
    short: 1 ready, 0 delayed, 0 in flight
      ready | received 0 charged 0 | later
    ");
    world.pass(98);
    assert!(!world.take("short", 1).await.is_empty(), "visible within its retention");
    world.pass(30);
    assert!(world.take("short", 1).await.is_empty(), "a receive never hands out what outlived its retention");
    assert_eq!(world.observer.take(), ["later withdrawn: expired"]);
    world.check();
}

#[tokio::test]
async fn a_letter_keeps_its_sent_time_for_the_retention_of_the_dead_letter_queue() {
    let world = World::with_orders().await;
    let hour = Options { retention: Some(Duration::from_secs(3600)), ..forever() };
    world.queues().ensure("dead", &hour).await.unwrap();
    for text in ["dies late", "dies early"] {
        world.send("orders", text).await;
        world.pass(600);
    }
    let late = world.work("orders").await.handle;
    let early = world.work("orders").await.handle;
    world.move_to_dlq(early, "404").await;
    world.pass(30);
    world.move_to_dlq(late, "404").await;
    world.pass(2370);
    assert_eq!(world.queues().expire().await, Ok(1), "sent an hour ago, dead for forty minutes");
    insta::assert_snapshot!(world.dump("dead"), @r"
    dead: 1 ready, 0 delayed, 0 in flight
      ready | received 1 charged 0 | dies early
        #1 Dead http account 404
    ");
}

#[tokio::test]
async fn a_new_limit_of_attempts_ends_what_is_beyond_it_at_the_next_receive() {
    let world = World::with_orders().await;
    world.send("orders", "hello").await;
    world.take_one("orders").await;
    world.pass(30);
    world.queues().ensure("orders", &dying_after(1)).await.unwrap();
    assert!(world.take("orders", 1).await.is_empty());
    assert_eq!(texts(&world.take("dead", 1).await), ["hello"]);
}

/// AWS, "Using dead-letter queues"; own choice for chains: each queue charges what it handed out itself.
#[tokio::test]
async fn in_a_chain_each_queue_charges_what_it_handed_out_and_the_receive_count_goes_on() {
    let world = World::new();
    let dying = |name: &str| {
        let redrive = Some(RedrivePolicy { dead_letter_queue: name.into(), max_receive_count: 2 });
        Options { redrive, ..forever() }
    };
    world.queues().ensure("last", &forever()).await.unwrap();
    world.queues().ensure("dead", &dying("last")).await.unwrap();
    world.queues().ensure("orders", &dying("dead")).await.unwrap();
    world.send("orders", "hello").await;
    let mut counts = Vec::new();
    for queue in ["orders", "dead", "last"] {
        for _ in 0..2 {
            let received = world.take_one(queue).await;
            counts.push((received.receive_count, received.attempts_charged));
            world.pass(31);
        }
        assert_eq!(world.take(queue, 1).await.len(), usize::from(queue == "last"), "{queue}");
        world.check();
    }
    assert_eq!(counts, [(1, 1), (2, 2), (3, 1), (4, 2), (5, 1), (6, 2)]);
    world.pass(31);
    // Each death stands in the history, and the latest is what groups see.
    insta::assert_snapshot!(world.dump("last"), @r"
    last: 1 ready, 0 delayed, 0 in flight
      ready | received 7 charged 3 | hello
        #2 Dead receive client max-receive-count
        #4 Dead receive client max-receive-count
    ");
}

/// Own choice: a letter that dies again is grouped and selected by its second death.
#[tokio::test]
async fn a_second_death_at_a_clients_hands_is_what_groups_see() {
    let world = World::with_orders().await;
    world.send("orders", "hello").await;
    let handle = world.work("orders").await.handle;
    world.move_to_dlq(handle, "404").await;
    let back = Redrive { from: "dead".into(), ..Redrive::default() };
    let id = world.queues().start_redrive(back).await.unwrap();
    world.queues().drive(id, &CancellationToken::new()).await.unwrap();
    for _ in 0..3 {
        world.take_one("orders").await;
        world.pass(31);
    }
    assert!(world.take("orders", 1).await.is_empty(), "it dies");
    let groups = dead::groups(&world.snapshot(), &world.queue("dead")).unwrap();
    let classes: Vec<&str> = groups.iter().map(|group| group.class.as_str()).collect();
    assert_eq!(classes, ["receive client max-receive-count"]);
}

/// Own choice: a clock that was ahead keeps nobody's message beyond its retention.
#[tokio::test]
async fn a_clock_set_back_over_a_restart_does_not_stop_the_sweep() {
    let mut world = World::new();
    let minute = Options { retention: Some(Duration::from_secs(60)), ..forever() };
    world.queues().ensure("orders", &minute).await.unwrap();
    world.pass(864_000);
    let ahead = (0..250).map(|n| Send::text(format!("ahead {n}"))).collect();
    world.queues().send_all("orders", ahead).await.unwrap();
    world.clock.set(START);
    world.reopen().await;
    world.send("orders", "in time").await;
    world.pass(60);
    assert_eq!(world.queues().expire().await, Ok(1), "behind 250 messages that nobody has sent yet");
    world.check();
}

#[tokio::test]
async fn groups_follow_their_letters_wherever_these_go() {
    let world = World::with_orders().await;
    for (text, code) in [("a", "404"), ("b", "404"), ("c", "500")] {
        world.send("orders", text).await;
        let handle = world.work("orders").await.handle;
        world.move_to_dlq(handle, code).await;
    }
    let lines = || {
        world.check();
        let groups = dead::groups(&world.snapshot(), &world.queue("dead")).unwrap();
        groups.into_iter().map(|group| (group.class, group.count, group.sample_id)).collect::<Vec<_>>()
    };
    let counts = || lines().into_iter().map(|(class, count, _)| (class, count)).collect::<Vec<_>>();
    let line = |class: &str, count| (class.to_owned(), count);
    assert_eq!(counts(), [line("http account 404", 2), line("http account 500", 1)]);
    // A worker of the dead-letter queue tries one of them, which fails in another way.
    let handle = world.work("dead").await.handle;
    let (ended, observer) = (world.ended("418"), world.observer.clone());
    world.step(move |tx| settle::retry(tx, &*observer, handle, &ended, Duration::ZERO)).await.unwrap();
    assert_eq!(counts(), [line("http account 404", 1), line("http account 418", 1), line("http account 500", 1)]);
    let deleted = world.take_one("dead").await;
    world.queues().delete(deleted.handle).await.unwrap();
    assert_eq!(lines().len(), 2);
    world.queues().purge("dead").await.unwrap();
    assert_eq!(counts(), []);
    world.queues().remove_purged().await.unwrap();
    assert_eq!(counts(), []);
    assert_eq!(world.snapshot().letters().unwrap().first((0, 0, 0, 0)..=(u32::MAX, 0, 0, 0), 9).unwrap(), []);
}

/// Own: a letter's source is known as long as the letter is there.
#[tokio::test]
async fn the_source_of_a_letter_is_known_after_that_queue_was_deleted() {
    let world = World::with_orders().await;
    world.send("orders", "hello").await;
    let handle = world.work("orders").await.handle;
    world.move_to_dlq(handle, "404").await;
    let orders = world.queue("orders").id;
    world.queues().delete_queue("orders").await.unwrap();
    world.queues().remove_purged().await.unwrap();
    let name = || world.snapshot().queues().unwrap().get(&orders).unwrap().map(|queue| queue.name);
    let letter = world.take_one("dead").await;
    assert_eq!((letter.source, name()), (orders, Some("orders".to_owned())));
    assert!(world.queues().send("orders", Send::text("x")).await.is_err(), "it is gone all the same");
    world.queues().delete(letter.handle).await.unwrap();
    world.queues().remove_purged().await.unwrap();
    assert_eq!(name(), None, "nobody asks any more");
    world.check();
}

/// Own: what is expired counts no more, before a sweep removes it too.
#[tokio::test]
async fn counts_leave_out_what_has_expired() {
    let world = World::new();
    let short = Options { retention: Some(Duration::from_secs(100)), ..forever() };
    world.queues().ensure("short", &short).await.unwrap();
    let send = |text: &'static str, expires: Option<u64>| {
        let expires_at = expires.map(|seconds| world.now().wall.after(Duration::from_secs(seconds)));
        world.queues().send("short", Send { expires_at, ..Send::text(text) })
    };
    send("old", None).await.unwrap();
    send("held", None).await.unwrap();
    world.take_one("short").await;
    world.pass(60);
    send("expires", Some(30)).await.unwrap();
    send("stays", None).await.unwrap();
    let counts = || {
        world.check();
        let stats = stats::stats(&world.snapshot(), &world.queue("short"), world.now()).unwrap();
        (stats.ready, stats.in_flight, stats.bytes, stats.oldest_age_s)
    };
    assert_eq!(counts(), (4, 0, 19, Some(60)), "its lease has run out");
    world.pass(40);
    assert_eq!(counts(), (1, 0, 5, Some(40)));
    assert_eq!(world.queues().expire().await, Ok(3));
    assert_eq!(counts(), (1, 0, 5, Some(40)));
}
