//! One life after another on the same disks, each ended by a power cut, with messages of equal size. Only then does a
//! frame of one life stand exactly behind a frame of the next, with the sequence that is expected there: the generation
//! alone tells them apart.

use std::collections::BTreeSet;
use std::sync::Arc;

use nightmail::base::ManualClock;
use nightmail::queue::{Queues, Send, catalog, peek};
use nightmail::run::Ledger;
use nightmail::store::{Options, Store};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::disk::{Bytes, Call, Machine, open, options};
use super::image::lose;
use super::recovery::{Meddle, take_other_generations};
use crate::harness::{say, seed, size};
use crate::support::{START, START_NOW, World, unsound};

/// After so many lives the next one begins with an empty queue.
const LIVES_MAX: u32 = 30;
/// A life sends at most so many messages.
const SENDS_MAX: usize = 6;

/// The disks between two lives, and what they must hold.
struct Lives {
    rng: StdRng,
    /// The disks of a store whose queue is empty.
    start: Bytes,
    disks: Bytes,
    /// The texts of the messages that were there when the last life began or were acknowledged in it, in order.
    acknowledged: Vec<String>,
    /// Those that may be there too: each only with all before it.
    in_doubt: Vec<String>,
    lives: u32,
    sent: u32,
}

impl Lives {
    async fn new(seed: u64) -> Self {
        let machine = Machine::holding(Bytes::default());
        let world = World::around(open(&machine).unwrap());
        world.make_orders().await;
        drop(world);
        let (rng, start) = (StdRng::seed_from_u64(seed), machine.content());
        let (acknowledged, in_doubt) = (Vec::new(), Vec::new());
        Self { rng, disks: start.clone(), start, acknowledged, in_doubt, lives: 0, sent: 0 }
    }

    /// One life and the power cut at its end. `meddle` changes what recovery reads.
    async fn live(&mut self, meddle: Option<Meddle>) -> Result<(), String> {
        if self.lives.is_multiple_of(LIVES_MAX) {
            self.disks.clone_from(&self.start);
            (self.acknowledged, self.in_doubt) = (Vec::new(), Vec::new());
        }
        self.lives += 1;
        if let Some(meddle) = meddle {
            meddle(&mut self.disks);
        }
        let machine = Machine::holding(self.disks.clone());
        // Each message is a frame of its own.
        let options = Options { group_max: 1, ..options() };
        let store = Store::open_on(machine.disks(), &options).map_err(|error| format!("does not open: {error}"))?;
        self.acknowledged = self.compare(&store)?;
        let queues = Queues::new(store, ManualClock::new(START), Arc::new(Ledger));
        let (texts, answered) = self.send(&machine, &queues).await;
        let calls = machine.take_calls();
        drop(queues);
        self.cut(&calls, texts, &answered);
        Ok(())
    }

    /// The texts that the store holds, if they are what it may hold.
    fn compare(&self, store: &Store) -> Result<Vec<String>, String> {
        let snapshot = store.snapshot().map_err(|error| error.to_string())?;
        let queue = catalog::look_up(&snapshot, "orders").map_err(|error| error.to_string())?;
        let found = peek::peek(&snapshot, &queue, 1000, 1 << 20, START_NOW).map_err(|error| error.to_string())?;
        let ids: BTreeSet<u64> = found.iter().map(|message| message.sequence).collect();
        let found: Vec<String> = found.into_iter().map(|message| message.body).collect();
        let all: Vec<&String> = self.acknowledged.iter().chain(&self.in_doubt).collect();
        let is_allowed = found.len() >= self.acknowledged.len() && found.iter().eq(all.into_iter().take(found.len()));
        if is_allowed && ids.len() == found.len() && unsound(&snapshot) == 0 {
            Ok(found)
        } else {
            let (acknowledged, in_doubt) = (&self.acknowledged, &self.in_doubt);
            Err(format!("found {found:?}, acknowledged {acknowledged:?}, in doubt {in_doubt:?}"))
        }
    }

    /// Sends messages that wait for the writer together; returns their texts and after how many calls each was answered.
    async fn send(&mut self, machine: &Machine, queues: &Queues) -> (Vec<String>, Vec<usize>) {
        let count = self.rng.random_range(1..=SENDS_MAX);
        let texts: Vec<String> = (0..count as u32).map(|nth| format!("{:08}", self.sent + nth)).collect();
        self.sent += count as u32;
        let (open, gate) = std::sync::mpsc::channel::<()>();
        let closed = queues.store().write::<_, nightmail::store::Error, _>(move |_| {
            let _ = gate.recv();
            Ok(())
        });
        let sends = texts.iter().map(|text| async {
            queues.send("orders", Send::text(text.clone())).await.unwrap();
            machine.calls()
        });
        let open = async {
            tokio::task::yield_now().await;
            drop(open);
        };
        let (closed, answered, ()) = tokio::join!(biased; closed, futures_util::future::join_all(sends), open);
        closed.unwrap();
        (texts, answered)
    }

    /// Cuts the power, mostly after the first message is on its way.
    fn cut(&mut self, calls: &[Call], texts: Vec<String>, answered: &[usize]) {
        let first = calls.iter().position(super::log::is_frame).unwrap_or(0);
        let from = if self.rng.random_bool(0.9) { first } else { 0 };
        let cut = self.rng.random_range(from..=calls.len());
        let before: Vec<&Call> = calls[..cut].iter().collect();
        self.disks = lose(std::mem::take(&mut self.disks), &before, &mut self.rng).0;
        let safe = answered.iter().take_while(|answered| **answered <= cut).count();
        self.in_doubt = texts;
        self.acknowledged.extend(self.in_doubt.drain(..safe));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_power_cut_in_any_of_many_lives_brings_a_message_of_an_earlier_one_back() {
    let seed = seed();
    let lives_max = size("NIGHTMAIL_CRASH_IMAGES", 6000) / 10;
    let mut lives = Lives::new(seed).await;
    for life in 0..lives_max {
        lives.live(None).await.unwrap_or_else(|why| panic!("life {life}: {why}"));
    }
    say(format_args!("{lives_max} lives with {} messages", lives.sent));
    let mut faulty = Lives::new(seed).await;
    for life in 0..10_000 {
        if let Err(why) = faulty.live(Some(take_other_generations)).await {
            say(format_args!("recovery looks at no generation: found by life {life}: {why}"));
            return;
        }
    }
    panic!("recovery looks at no generation: not found");
}
