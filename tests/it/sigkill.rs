//! The daemon is killed while messages are sent and worked on: what was acknowledged is there, what is done stays gone,
//! and no message had more attempts than were counted.
//!
//! `NIGHTMAIL_SIGKILLS=200` is the full size; `NIGHTMAIL_SEED` replays the moments.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nightmail::queue::catalog;
use nightmail::queue::peek::Peeked;
use nightmail_demo::{bank, fixtures, sink};

use crate::harness::{Harness, Operator, Rng, assert_sound, messages, say, size};

/// The number of concurrent senders.
const SENDERS: u32 = 4;
/// Each of them sends at most this many messages in one life of the daemon.
const SENDS_MAX: u32 = 8;
/// The bank takes this long, so that kills hit attempts.
const LATENCY: Duration = Duration::from_millis(30);

/// Every user gets one message; a send that was cut off is not repeated, so that the test itself duplicates nothing.
#[derive(Default)]
struct Sends {
    next: AtomicU32,
    /// The numbers of the users whose message was acknowledged.
    acknowledged: BTreeSet<u32>,
    /// How many sends ended without an answer.
    unknown: u32,
}

impl Sends {
    /// Sends until the daemon is gone.
    async fn load(&self, harness: &Harness, operator: &Operator) -> (Vec<u32>, u32) {
        let (mut acknowledged, mut unknown) = (Vec::new(), 0);
        for _ in 0..SENDS_MAX {
            let index = self.next.fetch_add(1, Ordering::SeqCst);
            match operator.send_statement(&harness.fixtures().user(index)).await {
                Ok(()) => acknowledged.push(index),
                Err(_) => {
                    unknown += 1;
                    break;
                }
            }
        }
        (acknowledged, unknown)
    }

    /// One life: senders at work until the kill, at a random moment. One kill in five hits the start itself.
    async fn live_and_die(&mut self, harness: &Harness, rng: &mut Rng) {
        let mut child = harness.spawn();
        if rng.below(5) == 0 {
            tokio::time::sleep(rng.span(150)).await;
            return child.kill().await;
        }
        child.ready(harness).await;
        let (operator, span) = (child.operator.clone(), rng.span(400));
        let sends = &*self;
        let load = futures_util::future::join_all((0..SENDERS).map(|_| sends.load(harness, &operator)));
        let kill = async {
            tokio::time::sleep(span).await;
            child.kill().await;
        };
        let (ended, ()) = tokio::join!(load, kill);
        for (acknowledged, unknown) in ended {
            self.acknowledged.extend(acknowledged);
            self.unknown += unknown;
        }
    }
}

fn user_of(message: &Peeked) -> u32 {
    let body: serde_json::Value = serde_json::from_str(&message.body).unwrap();
    fixtures::user_index(body["user"]["id"].as_str().unwrap()).unwrap()
}

/// What the checks of the store between two lives have shown.
#[derive(Default)]
struct Looks {
    /// Users whose message was acknowledged, done and gone.
    gone: BTreeSet<u32>,
    /// How many messages were in work when the daemon was killed.
    cut: usize,
}

impl Looks {
    /// Nothing acknowledged is lost, nothing that was gone is back, and every attempt was counted before it was made.
    fn look(&mut self, harness: &Harness, sends: &Sends) {
        let queues = harness.queues();
        assert_sound(&queues);
        // A kill at the very start comes before the queues are made: then no message can be lost.
        let queues_made = catalog::list(&queues.store().snapshot().unwrap()).unwrap();
        let found: Vec<Peeked> = ["statements", "statements-dead"]
            .iter()
            .filter(|name| queues_made.iter().any(|queue| queue.name == **name))
            .flat_map(|queue| messages(&queues, queue))
            .collect();
        for message in &found {
            let (user, counted) = (user_of(message), u64::from(message.receive_count));
            let made = harness.bank.asked(user);
            assert!(made <= counted, "user {user}: {made} attempts were made, {counted} receives are counted");
        }
        self.cut += found.iter().filter(|message| message.phase == "in flight").count();
        let present: BTreeSet<u32> = found.iter().map(user_of).collect();
        assert_eq!(present.len(), found.len(), "a message is there twice");
        let ghosts: Vec<_> = present.intersection(&self.gone).collect();
        assert_eq!(ghosts, Vec::<&u32>::new(), "messages that were done are back");
        let mailed: BTreeSet<String> = harness.sink.records().into_iter().map(|record| record.recipient).collect();
        for user in sends.acknowledged.difference(&present) {
            assert!(mailed.contains(&harness.fixtures().user(*user).email), "user {user} was acknowledged and is lost");
            self.gone.insert(*user);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_sigkill_loses_an_acknowledged_message_brings_one_back_or_hides_an_attempt() {
    let kills = size("NIGHTMAIL_SIGKILLS", 20);
    let options =
        bank::Options { users: 1_000_000, fail_share: 0.1, latency: Some(LATENCY), ..bank::Options::default() };
    let mut harness = Harness::set(options, sink::Options::default()).await;
    harness.set_key("FUNCTIONS__STATEMENT__ACCOUNT__RETRIES", 0);
    harness.set_key("QUEUES__STATEMENTS__MAX_RECEIVE_COUNT", 12);
    let (mut rng, mut sends, mut looks) = (Rng::new(), Sends::default(), Looks::default());
    for _ in 0..kills {
        sends.live_and_die(&harness, &mut rng).await;
        looks.look(&harness, &sends);
    }

    harness.bank.fix();
    let child = harness.child().await;
    let operator = &child.operator;
    crate::harness::until("every message to be done", async || {
        if operator.queue("statements-dead").await.total() > 0 {
            operator.redrive("statements-dead").await;
        }
        (operator.queues().await.iter().all(|queue| queue.total() == 0)).then_some(())
    })
    .await;
    child.kill().await;
    looks.look(&harness, &sends);
    assert_eq!(looks.gone, sends.acknowledged, "all are done, and none is back after the last kill");
    assert!(looks.cut > 0, "no kill hit an attempt");
    say(format_args!(
        "{} kills: {} sends acknowledged, {} cut off, {} attempts cut off, {} mails to {} recipients",
        kills + 1,
        sends.acknowledged.len(),
        sends.unknown,
        looks.cut,
        harness.sink.summary().total,
        harness.sink.summary().distinct
    ));
}
