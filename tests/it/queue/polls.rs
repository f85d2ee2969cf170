//! Long polls: one send wakes one, at the limit they wait, and one whose caller goes away leaves no trace.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use nightmail::base::SystemClock;
use nightmail::queue::observer::NoObserver;
use nightmail::queue::receive::IN_FLIGHT_MAX;
use nightmail::queue::{Error, Options, Queues, Receive, Send};
use nightmail::store::Store;
use nightmail::store::record::{Fifo, MessageState};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::support::{World, dying_after, forever, texts};

/// Far longer than any of these waits takes, and shorter than the polls that must return early.
const BOUND: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_secs(20);

/// A `Queues` handle with the system clock, for what happens in real time.
fn living(world: &mut World) -> Queues {
    world.close();
    let store = Store::open(&world.options()).unwrap();
    Queues::new(store, SystemClock::shared(), Arc::new(NoObserver))
}

fn states(queues: &Queues) -> Vec<MessageState> {
    let all = (0, 0)..=(u32::MAX, u64::MAX);
    queues
        .store()
        .snapshot()
        .unwrap()
        .states()
        .unwrap()
        .first(all, usize::MAX)
        .unwrap()
        .into_iter()
        .map(|row| row.1)
        .collect()
}

/// Waits until the condition holds.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(BOUND, wait).await.unwrap_or_else(|_| panic!("{what}: not within {BOUND:?}"));
}

/// Own choice, in DESIGN's words: a receive whose answer was not begun is undone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_hundred_cancelled_long_polls_hold_nothing_count_nothing_and_kill_nothing() {
    let mut rng = StdRng::seed_from_u64(7);
    let mut world = World::new();
    world.queues().ensure("dead", &forever()).await.unwrap();
    world.queues().ensure("orders", &dying_after(1)).await.unwrap();
    world.queues().send_all("orders", (0..20).map(|n| Send::text(n.to_string())).collect()).await.unwrap();
    let queues = living(&mut world);
    let before = states(&queues);
    for _ in 0..300 {
        // Cut off before the step, between its commit and the answer, or when the answer was there and never begun.
        let poll = queues.poll("orders", Receive::for_client(rng.random_range(1..=10)), POLL);
        let at_most = Duration::from_micros(rng.random_range(0..2_000));
        drop(tokio::time::timeout(at_most, poll).await);
    }
    until("every receive is undone", || states(&queues) == before).await;
    let counts = queues.store().snapshot().unwrap().counts().unwrap().first(0..=u32::MAX, 9).unwrap();
    let counts: Vec<_> = counts.into_iter().map(|(_, counts)| (counts.ready, counts.in_flight)).collect();
    assert_eq!(counts, [(20, 0)], "none is held and none is dead");
}

/// Own choice: the undo is fenced, so whoever received the message meanwhile keeps it.
#[tokio::test]
async fn a_cancelled_receive_takes_nothing_from_who_received_the_message_since() {
    let world = World::with_orders().await;
    world.send("orders", "hello").await;
    let unanswered = world.queues().poll("orders", Receive::for_client(1), Duration::ZERO).await.unwrap();
    world.pass(30);
    let later = world.take_one("orders").await;
    assert_eq!(later.receive_count, 2);
    drop(unanswered);
    tokio::task::yield_now().await;
    // A step behind the undo.
    world.step(|_| Ok(())).await.unwrap();
    assert_eq!(world.queues().delete(later.handle).await, Ok(true), "it still holds the message");
    world.check();
}

#[tokio::test]
async fn a_receive_whose_answer_began_counts() {
    let world = World::with_orders().await;
    world.send("orders", "hello").await;
    let received = world.queues().poll("orders", Receive::for_client(1), Duration::ZERO).await.unwrap().begin();
    assert_eq!(texts(&received), ["hello"]);
    tokio::task::yield_now().await;
    world.step(|_| Ok(())).await.unwrap();
    insta::assert_snapshot!(world.dump("orders"), @r"
    orders: 0 ready, 0 delayed, 1 in flight
      in flight 30s | received 1 charged 1 | hello
    ");
}

/// Polls the futures until each of them waits for something else than the writer.
async fn settle(queues: &Queues) {
    for _ in 0..20 {
        tokio::task::yield_now().await;
        queues.store().write::<_, Error, _>(|_| Ok(())).await.unwrap();
    }
}

#[tokio::test]
async fn one_send_wakes_one_poller_and_a_batch_as_many_as_it_has_messages() {
    let mut world = World::with_orders().await;
    let queues = living(&mut world);
    let commits = |queues: &Queues| queues.store().commits();
    let polls: Vec<_> = (0..50)
        .map(|_| {
            let queues = queues.clone();
            tokio::spawn(async move { queues.receive("orders", Receive::for_client(1), POLL).await.unwrap() })
        })
        .collect();
    settle(&queues).await;
    let finished = || polls.iter().filter(|poll| poll.is_finished()).count();
    assert_eq!(finished(), 0);
    let before = commits(&queues);
    queues.send("orders", Send::text("one")).await.unwrap();
    until("one poll has it", || finished() == 1).await;
    settle(&queues).await;
    assert_eq!((finished(), commits(&queues) - before), (1, 2), "a send and a receive; nobody else looked");
    let batch = (0..5).map(|n| Send::text(n.to_string())).collect();
    queues.send_batch("orders", batch).await.unwrap();
    until("five more polls have one each", || finished() == 6).await;
    polls.into_iter().for_each(|poll| poll.abort());
}

#[tokio::test]
async fn a_poller_that_goes_away_passes_its_turn_on() {
    let mut world = World::with_orders().await;
    let queues = living(&mut world);
    let poll = || {
        let queues = queues.clone();
        tokio::spawn(async move { queues.receive("orders", Receive::for_client(1), POLL).await.unwrap() })
    };
    let first = {
        let queues = queues.clone();
        tokio::spawn(async move { queues.poll("orders", Receive::for_client(1), POLL).await.unwrap() })
    };
    settle(&queues).await;
    let second = poll();
    settle(&queues).await;
    queues.send("orders", Send::text("hello")).await.unwrap();
    // The first one is woken, takes the message, and goes away without having begun an answer.
    drop(tokio::time::timeout(BOUND, first).await.unwrap().unwrap());
    let received = tokio::time::timeout(BOUND, second).await.expect("the second one is woken").unwrap();
    assert_eq!((texts(&received), received[0].receive_count), (vec!["hello".to_owned()], 1));
}

#[tokio::test]
async fn a_delay_that_passes_wakes_another_poller_when_the_one_that_watched_is_gone() {
    let mut world = World::with_orders().await;
    let queues = living(&mut world);
    let spawn = || {
        let queues = queues.clone();
        tokio::spawn(async move { queues.receive("orders", Receive::for_client(1), POLL).await.unwrap() })
    };
    let delayed = Send { delay: Some(Duration::from_millis(150)), ..Send::text("hello") };
    queues.send("orders", delayed).await.unwrap();
    let watcher = spawn();
    settle(&queues).await;
    let other = spawn();
    settle(&queues).await;
    watcher.abort();
    let received = tokio::time::timeout(BOUND, other).await.expect("it watches now").unwrap();
    assert_eq!(texts(&received), ["hello"]);
}

/// Puts the queue at the limit; its messages are only counted, not there.
async fn fill(world: &World, queue: &str) {
    let id = world.queue(queue).id;
    let count = move |tx: &mut nightmail::store::Tx<'_>| {
        tx.counts_mut(id)?.in_flight = IN_FLIGHT_MAX;
        Ok(())
    };
    world.step(count).await.unwrap();
}

/// AWS, "Amazon SQS message quotas": short polling returns OverLimit, long polling no error; FIFO queues no error.
#[tokio::test]
async fn at_120_000_in_flight_a_short_poll_answers_over_limit_a_long_poll_waits_and_a_fifo_queue_gives_nothing() {
    let world = World::with_orders().await;
    world.queues().ensure("orders.fifo", &Options { fifo: Some(Fifo::default()), ..forever() }).await.unwrap();
    world.send("orders", "hello").await;
    let grouped = Send { group: Some("a".into()), deduplication_id: Some("1".into()), ..Send::text("hello") };
    world.queues().send("orders.fifo", grouped).await.unwrap();
    for queue in ["orders", "orders.fifo"] {
        fill(&world, queue).await;
    }
    let receive = |queue, wait| world.queues().receive(queue, Receive::for_client(1), wait);
    let short = receive("orders", Duration::ZERO).await;
    assert_eq!(short, Err(Error::OverLimit { queue: "orders".into(), max: IN_FLIGHT_MAX }));
    let long = Duration::from_millis(200);
    let waits = tokio::time::timeout(long / 2, receive("orders", long)).await;
    assert!(waits.is_err(), "a long poll waits");
    assert_eq!(receive("orders", long).await, Ok(Vec::new()));
    assert_eq!(receive("orders.fifo", Duration::ZERO).await, Ok(Vec::new()));
    assert_eq!(receive("orders.fifo", long).await, Ok(Vec::new()));
}

#[tokio::test]
async fn a_long_poll_at_the_limit_goes_on_when_a_message_in_flight_is_deleted() {
    let world = World::with_orders().await;
    world.send("orders", "held").await;
    let held = world.take_one("orders").await;
    world.send("orders", "waits").await;
    fill(&world, "orders").await;
    let mut poll = pin!(world.queues().receive("orders", Receive::for_client(1), POLL));
    for _ in 0..10 {
        assert!(matches!(poll.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Pending));
        tokio::task::yield_now().await;
        world.step(|_| Ok(())).await.unwrap();
    }
    assert_eq!(world.queues().delete(held.handle).await, Ok(true));
    let received = tokio::time::timeout(BOUND, poll).await.expect("the delete wakes it").unwrap();
    assert_eq!(texts(&received), ["waits"]);
}
