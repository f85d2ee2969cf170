//! How a worker's attempt ends: retried, deferred, released, dead, done, or lost.

use std::sync::Arc;
use std::time::Duration;

use nightmail::base::{AttemptEnd, LeaseTime};
use nightmail::queue::settle::{self, HISTORY_MAX, Settled};
use nightmail::queue::{Error, Options, Queues, Send, peek};
use nightmail::run::Ledger;
use nightmail::store::Store;
use nightmail::store::record::{Fifo, Record, Suspicion};

use crate::support::{World, dying_after, forever, tamper};

#[tokio::test]
async fn a_failed_attempt_waits_for_its_back_off_and_stands_in_the_history() {
    let world = World::with_orders().await;
    world.send("orders", "hello").await;
    let handle = world.work("orders").await.handle;
    let (ended, observer) = (world.ended("500"), world.observer.clone());
    let wait = Duration::from_secs(8);
    let settled = world.step(move |tx| settle::retry(tx, &*observer, handle, &ended, wait)).await.unwrap();
    assert_eq!(settled, Settled::Waits { until: world.now().lease.after(wait) });
    insta::assert_snapshot!(world.dump("orders"), @r"
    orders: 0 ready, 1 delayed, 0 in flight
      delayed 8s | received 1 charged 1 | hello
        #1 Retry http account 500
    ");
    world.pass(8);
    assert_eq!(world.work("orders").await.receive_count, 2);
}

#[tokio::test]
async fn a_worker_moves_the_message_to_the_dead_letter_queue_at_the_failure_that_uses_up_its_attempts() {
    let world = World::with_orders().await;
    world.send("orders", "hello").await;
    for _ in 0..2 {
        let handle = world.work("orders").await.handle;
        assert!(matches!(world.retry(handle).await, Settled::Waits { .. }));
    }
    let handle = world.work("orders").await.handle;
    assert_eq!(world.observer.take(), Vec::<String>::new());
    assert_eq!(world.retry(handle).await, Settled::MovedToDlq);
    assert_eq!(world.observer.take(), ["hello died"]);
    insta::assert_snapshot!(world.dump("orders"), @"orders: 0 ready, 0 delayed, 0 in flight");
    insta::assert_snapshot!(world.dump("dead"), @r"
    dead: 1 ready, 0 delayed, 0 in flight
      ready | received 3 charged 0 | hello
        #1 Retry http account 500
        #2 Retry http account 500
        #3 Dead http account 500
    ");
}

#[tokio::test]
async fn a_hopeless_message_is_dead_at_its_first_failure() {
    let world = World::with_orders().await;
    world.send("orders", "hello").await;
    let handle = world.work("orders").await.handle;
    assert_eq!(world.move_to_dlq(handle, "404").await, Settled::MovedToDlq);
    assert_eq!(world.move_to_dlq(handle, "404").await, Settled::Fenced);
    insta::assert_snapshot!(world.dump("dead"), @r"
    dead: 1 ready, 0 delayed, 0 in flight
      ready | received 1 charged 0 | hello
        #1 Dead http account 404
    ");
    assert_eq!(world.observer.take(), ["hello died"]);
}

#[tokio::test]
async fn without_a_dead_letter_queue_nothing_is_ever_dropped() {
    let world = World::new();
    let nowhere = Options { redrive: dying_after(1).redrive, ..forever() };
    world.queues().ensure("alone", &forever()).await.unwrap();
    world.queues().ensure("dead", &forever()).await.unwrap();
    world.queues().ensure("missing", &nowhere).await.unwrap();
    world.queues().delete_queue("dead").await.unwrap();
    for queue in ["alone", "missing"] {
        world.send(queue, queue).await;
        let handle = world.work(queue).await.handle;
        assert!(matches!(world.move_to_dlq(handle, "404").await, Settled::Waits { .. }));
        world.pass(5);
        let handle = world.work(queue).await.handle;
        assert!(matches!(world.retry(handle).await, Settled::Waits { .. }));
    }
    insta::assert_snapshot!(world.dump("missing"), @r"
    missing: 1 ready, 0 delayed, 0 in flight
      ready | received 2 charged 2 | missing
        #1 Retry http account 404
        #2 Retry http account 500
    ");
    assert!(world.observer.take().is_empty());
}

#[tokio::test]
async fn a_deferral_costs_no_attempt_but_the_receive_is_counted() {
    let world = World::with_orders().await;
    world.send("orders", "hello").await;
    for _ in 0..5 {
        let handle = world.work("orders").await.handle;
        assert!(matches!(world.defer(handle).await, Settled::Waits { .. }));
        world.pass(60);
    }
    let received = world.work("orders").await;
    assert_eq!((received.receive_count, received.attempts_charged), (6, 1));
}

#[tokio::test]
async fn a_message_that_was_put_off_for_too_long_dies() {
    let world = World::with_orders().await;
    world.send("orders", "hello").await;
    let began = world.now().lease;
    for deferrals in 1.. {
        assert!(deferrals < 100, "it never dies");
        let handle = world.work("orders").await.handle;
        let settled = world.defer(handle).await;
        if settled == Settled::MovedToDlq {
            break;
        }
        world.pass(60);
    }
    assert_eq!(world.now().lease.since(began), Duration::from_secs(3600), "an hour is the limit of `World::defer`");
    assert!(world.dump("dead").ends_with("#61 Dead http account 421\n"));
    assert_eq!(world.observer.take(), ["hello died"]);
}

#[tokio::test]
async fn a_failure_between_deferrals_begins_their_limit_anew() {
    let world = World::with_orders().await;
    world.send("orders", "hello").await;
    let handle = world.work("orders").await.handle;
    world.defer(handle).await;
    world.pass(3000);
    let handle = world.work("orders").await.handle;
    world.retry(handle).await;
    world.pass(3000);
    let handle = world.work("orders").await.handle;
    assert!(matches!(world.defer(handle).await, Settled::Waits { .. }));
    world.pass(3599);
    let handle = world.work("orders").await.handle;
    assert!(matches!(world.defer(handle).await, Settled::Waits { .. }));
}

#[tokio::test]
async fn a_wait_for_a_destination_that_is_away_costs_no_attempt_and_has_no_end() {
    let world = World::with_orders().await;
    world.send("orders", "hello").await;
    let handle = world.work("orders").await.handle;
    world.defer(handle).await;
    world.pass(3000);
    for _ in 0..100 {
        let handle = world.work("orders").await.handle;
        let (ended, pause) = (world.ended("refused"), Duration::from_secs(60));
        let settled = world.step(move |tx| settle::wait(tx, handle, &ended, pause)).await;
        assert_eq!(settled, Ok(Settled::Waits { until: world.now().lease.after(pause) }));
        world.pass(60);
    }
    let received = world.work("orders").await;
    assert_eq!((received.receive_count, received.attempts_charged), (102, 1));
    world.defer(received.handle).await;
    world.pass(3599);
    let handle = world.work("orders").await.handle;
    assert!(matches!(world.defer(handle).await, Settled::Waits { .. }), "the limit began after the last wait");
}

#[tokio::test]
async fn a_released_message_is_ready_at_once_as_if_not_tried() {
    let world = World::with_orders().await;
    world.send("orders", "hello").await;
    let handle = world.work("orders").await.handle;
    let settled = world.step(move |tx| settle::release(tx, handle)).await;
    assert_eq!(settled, Ok(Settled::Waits { until: LeaseTime::ZERO }));
    assert_eq!(world.step(move |tx| settle::release(tx, handle)).await, Ok(Settled::Fenced));
    insta::assert_snapshot!(world.dump("orders"), @r"
    orders: 1 ready, 0 delayed, 0 in flight
      ready | received 1 charged 0 | hello
    ");
}

#[tokio::test]
async fn a_worker_that_lost_its_message_to_another_changes_nothing() {
    let world = World::with_orders().await;
    world.send("orders", "hello").await;
    let old = world.work("orders").await.handle;
    world.pass(60);
    let new = world.work("orders").await.handle;
    let before = world.dump("orders");
    assert_eq!(world.retry(old).await, Settled::Fenced);
    assert_eq!(world.move_to_dlq(old, "404").await, Settled::Fenced);
    assert_eq!(world.defer(old).await, Settled::Fenced);
    assert_eq!(world.step(move |tx| settle::done(tx, old)).await, Ok(None));
    assert_eq!(world.dump("orders"), before);
    let head = world.step(move |tx| settle::done(tx, new)).await.unwrap();
    assert_eq!(head.map(|head| (head.run, head.recipient)), Some((1, [0; 16])));
    insta::assert_snapshot!(world.dump("orders"), @"orders: 0 ready, 0 delayed, 0 in flight");
    assert!(world.observer.take().is_empty(), "done is told by whoever settles, not to the observer");
}

#[tokio::test]
async fn a_lease_lost_over_a_restart_is_remembered_and_charged_to_nobody_who_was_not_alone() {
    let mut world = World::with_orders().await;
    for text in ["worker's", "client's"] {
        world.send("orders", text).await;
    }
    let lost = world.work("orders").await.handle;
    let kept = world.take_one("orders").await.handle;
    world.crash().await;
    assert!(world.observer.take().is_empty());
    insta::assert_snapshot!(world.dump("orders"), @r"
    orders: 1 ready, 0 delayed, 1 in flight
      ready | received 1 charged 0 | worker's
        #1 Lost crash worker lost
      in flight 30s | received 1 charged 1 | client's
    ");
    world.crash().await;
    assert!(world.observer.take().is_empty(), "the loss is told once");
    assert_eq!(world.retry(lost).await, Settled::Fenced);
    assert_eq!(world.queues().delete(kept).await, Ok(true), "a client's lease outlives the daemon");
}

#[tokio::test]
async fn a_message_that_crashes_the_daemon_while_it_is_alone_dies_after_max_receive_count_and_its_neighbours_never_pay()
{
    let mut world = World::with_orders().await;
    for text in ["before", "killer", "after"] {
        world.send("orders", text).await;
    }
    for _ in 0..3 {
        world.work("orders").await;
    }
    world.crash().await;
    assert!(world.take("orders", 10).await.is_empty(), "nobody else receives a suspect");
    let mut crashes = 0;
    while let Some(suspect) = world.work_suspect().await {
        if suspect.body == "killer" {
            crashes += 1;
            assert!(crashes <= 3, "it is received for ever");
            world.crash().await;
        } else {
            world.done(suspect.handle).await;
        }
    }
    assert_eq!(crashes, 3, "max_receive_count of orders");
    assert!(world.dump("dead").contains("ready | received 4 charged 0 | killer"), "{}", world.dump("dead"));
    assert!(world.dump("orders").starts_with("orders: 0 ready, 0 delayed, 0 in flight"), "{}", world.dump("orders"));
}

#[tokio::test]
async fn a_crash_is_not_charged_to_a_suspect_that_is_tried_beside_older_work() {
    let mut world = World::with_orders().await;
    world.send("orders", "innocent").await;
    world.work("orders").await;
    world.crash().await;
    for _ in 0..10 {
        let suspect = world.receive_suspect(Suspicion::None).await;
        assert_eq!(suspect.map(|suspect| suspect.body), Some("innocent".into()));
        world.crash().await;
    }
    assert!(world.dump("orders").contains("charged 0"), "{}", world.dump("orders"));
}

#[tokio::test]
async fn suspects_go_by_fewest_charges_then_age() {
    let mut world = World::with_orders().await;
    for text in ["a", "b", "c"] {
        world.send("orders", text).await;
        world.work("orders").await;
    }
    world.crash().await;
    let mut order = Vec::new();
    for _ in 0..4 {
        order.push(world.work_suspect().await.unwrap().body);
        world.crash().await;
    }
    assert_eq!(order, ["a", "b", "c", "a"]);
}

#[tokio::test]
async fn committed_progress_and_other_attempts_keep_a_crash_from_being_charged() {
    let mut world = World::with_orders().await;
    world.send("orders", "fan-out").await;
    let handle = world.work("orders").await.handle;
    world.step(move |tx| settle::progress(tx, handle)).await.unwrap();
    world.crash().await;
    assert_eq!(world.work_suspect().await, None, "progress clears suspicion");
    let again = world.work("orders").await;
    assert_eq!(again.attempts_charged, 1);
    world.crash().await;
    let alone = world.work_suspect().await.unwrap();
    world.step(move |tx| settle::end_alone(tx, alone.handle)).await.unwrap();
    world.crash().await;
    assert_eq!(world.work_suspect().await, None, "it was alone for as long as it may be, and nothing happened");
    let next = world.work("orders").await;
    assert_eq!(next.attempts_charged, 1, "others had come in: that crash is not charged");
}

#[tokio::test]
async fn a_suspect_whose_attempt_ends_is_a_message_like_any_other() {
    let mut world = World::with_orders().await;
    world.send("orders", "slow").await;
    world.work("orders").await;
    world.crash().await;
    let alone = world.work_suspect().await.unwrap().handle;
    world.retry(alone).await;
    assert_eq!(world.take("orders", 1).await.len(), 1);
    assert_eq!(world.queues().next_suspect(world.queue("orders").id), Ok(None));
}

#[tokio::test]
async fn a_queue_that_no_function_works_on_any_more_has_no_suspects() {
    let mut world = World::with_orders().await;
    world.send("orders", "hello").await;
    world.work("orders").await;
    world.crash().await;
    assert!(world.take("orders", 1).await.is_empty());
    world.reopen().await;
    assert_eq!(world.take_one("orders").await.body, "hello");
}

#[tokio::test]
async fn nothing_overtakes_a_suspect_of_a_fifo_group() {
    let mut world = World::new();
    let fifo = Options { fifo: Some(Fifo::default()), ..forever() };
    world.queues().ensure("orders.fifo", &fifo).await.unwrap();
    for text in ["first", "second"] {
        let message = Send { group: Some("g".into()), deduplication_id: Some(text.into()), ..Send::text(text) };
        world.queues().send("orders.fifo", message).await.unwrap();
    }
    world.work("orders.fifo").await;
    world.crash_serving("orders.fifo").await;
    assert!(world.take("orders.fifo", 10).await.is_empty());
    let queue = world.queue("orders.fifo").id;
    let alone =
        world.queues().receive_suspect(queue, Duration::from_secs(60), Suspicion::Alone).await.unwrap().unwrap();
    assert_eq!(alone.body, "first");
    world.done(alone.handle).await;
    assert_eq!(world.take_one("orders.fifo").await.body, "second");
}

#[tokio::test]
async fn a_history_is_bounded_and_keeps_the_latest_attempts() {
    let world = World::new();
    world.queues().ensure("alone", &forever()).await.unwrap();
    world.send("alone", "hello").await;
    let fail = async |times: u32| {
        for _ in 0..times {
            let handle = world.work("alone").await.handle;
            world.retry(handle).await;
        }
    };
    fail(HISTORY_MAX).await;
    for _ in 0..50 {
        // Numbers that leave no entry behind.
        let handle = world.take_one("alone").await.handle;
        world.queues().change_visibility(handle, Duration::ZERO).await.unwrap();
    }
    fail(60).await;
    let peeked = peek::peek(&world.snapshot(), &world.queue("alone"), 1, 10, world.now()).unwrap();
    let numbers: Vec<u32> = peeked[0].history.iter().map(|attempt| attempt.number).collect();
    assert!(numbers.len() <= HISTORY_MAX as usize, "{} attempts are kept", numbers.len());
    assert_eq!(numbers.last(), Some(&210));
    assert!(peeked[0].history.iter().all(|attempt| attempt.end == AttemptEnd::Retry));
}

#[tokio::test]
async fn done_and_the_observer_read_whose_message_it_is_and_no_more_of_its_body() {
    let mut world = World::with_orders().await;
    for text in ["done", "deleted"] {
        world.send("orders", text).await;
    }
    let taken = world.take("orders", 2).await;
    let (done, deleted) = (taken[0].handle, taken[1].handle);
    let bodies = world.snapshot().bodies().unwrap().first(0..=u64::MAX, 10).unwrap();
    world.close();
    for (id, body) in bodies {
        let mut bytes = body.encode();
        // An envelope that does not decode.
        bytes[25..29].copy_from_slice(&4_u32.to_be_bytes());
        tamper(&world.options().path, "bodies", &id.to_be_bytes(), &bytes);
    }
    let store = Store::open(&world.options()).unwrap();
    let queues = Queues::new(store, world.clock.clone(), Arc::new(Ledger));
    let head = queues.store().write::<_, Error, _>(move |tx| settle::done(tx, done)).await.unwrap();
    assert_eq!(head.map(|head| head.run), Some(1));
    assert_eq!(queues.delete(deleted).await, Ok(true), "the ledger was told");
}

#[tokio::test]
async fn a_wait_for_room_and_progress_end_the_series_of_deferrals_that_a_limit_bounds() {
    for with_progress in [false, true] {
        let world = World::with_orders().await;
        world.send("orders", "hello").await;
        // `defer` of these tests ends after an hour of deferrals.
        assert!(matches!(world.defer(world.work("orders").await.handle).await, Settled::Waits { .. }));
        for _ in 0..3 {
            world.pass(3000);
            let handle = world.work("orders").await.handle;
            if with_progress {
                world.step(move |tx| settle::progress(tx, handle)).await.unwrap();
                assert!(matches!(world.defer(handle).await, Settled::Waits { .. }));
            } else {
                let ended = world.ended("full");
                let wait = Duration::from_secs(60);
                let settled = world.step(move |tx| settle::wait(tx, handle, &ended, wait)).await.unwrap();
                assert_eq!(settled, Settled::Waits { until: world.now().lease.after(wait) });
            }
            world.check();
        }
        world.pass(3000);
        let handle = world.work("orders").await.handle;
        assert!(matches!(world.defer(handle).await, Settled::Waits { .. }), "the series began anew");
        let message = peek::peek(&world.snapshot(), &world.queue("orders"), 1, 10, world.now()).unwrap().remove(0);
        assert_eq!((message.attempts_charged, message.history.len()), (0, 5));
    }
}
