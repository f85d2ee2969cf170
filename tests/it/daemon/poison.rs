//! Messages that break their worker: only the pool and a store, with test functions.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use nightmail::base::attempt::AttemptEnd;
use nightmail::base::{Backoff, Outcome, Report, SystemClock};
use nightmail::function::{Function, Invocation};
use nightmail::queue::{Queues, Send, catalog, stats};
use nightmail::run::Ledger;
use nightmail::store::{self, Store};
use nightmail::work::pool::Drain;
use nightmail::work::{Breakers, Options, Pool};

use crate::harness::{messages, until};
use crate::support::{dying_after, forever};

/// Fails on some texts and counts every call.
#[derive(Debug, Default)]
struct Brittle {
    poison: AtomicU32,
    good: AtomicU32,
}

impl Function for Brittle {
    fn call(&self, invocation: Invocation) -> BoxFuture<'_, Report> {
        Box::pin(async move {
            match invocation.body.as_ref() {
                b"panics" => {
                    self.poison.fetch_add(1, Ordering::SeqCst);
                    panic!("poison on purpose");
                }
                b"hangs" => {
                    self.poison.fetch_add(1, Ordering::SeqCst);
                    std::future::pending().await
                }
                _ => {
                    self.good.fetch_add(1, Ordering::SeqCst);
                    Outcome::done().into()
                }
            }
        })
    }
}

/// Processes `poison` and 50 good messages with `max` attempts each; answers how the poison died and how often each
/// kind was called.
async fn work_off(poison: &str, max: u32) -> (nightmail::queue::peek::Peeked, u32, u32) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&store::Options::at(dir.path().join("nightmail.redb"))).unwrap();
    let queues = Queues::new(store, SystemClock::shared(), Arc::new(Ledger));
    queues.ensure("dead", &forever()).await.unwrap();
    queues.ensure("orders", &dying_after(max)).await.unwrap();
    queues.send("orders", Send::text(poison.to_owned())).await.unwrap();
    for number in 0..50 {
        queues.send("orders", Send::text(format!("good {number}"))).await.unwrap();
    }
    let backoff = Backoff { first: Duration::from_millis(5), max: Duration::from_millis(20) };
    let options = Options {
        function: "brittle".into(),
        queue: "orders".into(),
        concurrency: 2,
        timeout: Duration::from_millis(100),
        backoff,
        deferral_pause: Duration::from_millis(10),
        deferral_max: Duration::from_secs(60),
        on_unknown: nightmail::run::OnUnknown::Hold,
    };
    let breakers = Breakers::new(SystemClock::shared());
    let (brittle, drain) = (Arc::new(Brittle::default()), Drain::default());
    let pool = tokio::spawn(Pool::new(queues.clone(), options, brittle.clone(), drain.clone(), &breakers).run());
    until("an empty queue", async || {
        let snapshot = queues.store().snapshot().unwrap();
        let queue = catalog::look_up(&snapshot, "orders").unwrap();
        (stats::stats(&snapshot, &queue, queues.now()).unwrap().total() == 0).then_some(())
    })
    .await;
    drain.stop.cancel();
    pool.await.unwrap().unwrap();
    let mut dead = messages(&queues, "dead");
    assert_eq!(dead.len(), 1);
    (dead.remove(0), brittle.poison.load(Ordering::SeqCst), brittle.good.load(Ordering::SeqCst))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_panics_its_function_dies_after_exactly_its_attempts_and_the_others_go_on() {
    let (letter, poison, good) = work_off("panics", 3).await;
    assert_eq!((letter.body.as_str(), poison, good), ("panics", 3, 50));
    let ends: Vec<AttemptEnd> = letter.history.iter().map(|attempt| attempt.end).collect();
    assert_eq!(ends, [AttemptEnd::Retry, AttemptEnd::Retry, AttemptEnd::Dead]);
    for attempt in &letter.history {
        let why = attempt.failure.as_ref().unwrap();
        assert_eq!(why.class(), "panic brittle attempt");
        assert!(why.text.contains("poison on purpose"), "{}", why.text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_hangs_is_ended_by_its_time_limit_and_the_others_go_on() {
    let (letter, poison, good) = work_off("hangs", 2).await;
    assert_eq!((letter.body.as_str(), poison, good), ("hangs", 2, 50));
    assert_eq!(letter.history.len(), 2);
    for attempt in &letter.history {
        let why = attempt.failure.as_ref().unwrap();
        assert_eq!(why.class(), "timeout brittle attempt");
        assert!(why.text.contains("functions.brittle.timeout (100ms)"), "{}", why.text);
        assert!(attempt.ended_at.since(attempt.started_at) >= Duration::from_millis(100));
    }
}
