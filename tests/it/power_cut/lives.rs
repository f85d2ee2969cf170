//! One life after another on the same disks, each ended by a power cut, with messages of equal size. Only then does a
//! frame of one life stand exactly behind a frame of the next, with the sequence that is expected there: the generation
//! alone tells them apart.

use std::collections::BTreeSet;
use std::sync::Arc;

use nightmail::base::ManualClock;
use nightmail::queue::{Queues, Send, catalog, peek};
use nightmail::run::Ledger;
use nightmail::store::{Options, Store, Tx};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use super::disk::{Bytes, Call, Machine, open, options};
use super::image::lose;
use super::recovery::{Meddle, take_other_generations};
use super::watch::Watch;
use crate::harness::{say, seed, size};
use crate::support::{START, START_NOW, World, unsound};

/// After so many lives the next one begins with an empty queue.
const LIVES_MAX: u32 = 30;
/// Longer than a segment: its group is made durable by a checkpoint, while those behind it wait for one sync.
const LARGE_BYTES: usize = 13_000;

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
        machine.watch(Arc::new(Watch::slow()));
        // Each message is a frame of its own. Now and then the log has another size in a life.
        let factor = if self.rng.random_ratio(1, 10) { 2 } else { 1 };
        let options = Options { group_max: 1, log_bytes: options().log_bytes * factor, ..options() };
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
            let short = |texts: &[String]| texts.iter().map(|text| text[..8].to_owned()).collect::<Vec<_>>();
            let [found, acknowledged, in_doubt] =
                [&found, &self.acknowledged, &self.in_doubt].map(|texts| short(texts));
            Err(format!("found {found:?}, acknowledged {acknowledged:?}, in doubt {in_doubt:?}"))
        }
    }

    /// The texts of a life: a few messages of equal size; or so many that the log goes on in its second segment, then a
    /// large one, with which it comes back to the first, and some that share a sync there.
    fn texts(&mut self) -> Vec<String> {
        let before = self.rng.random_range(1..=6);
        let mut lengths = vec![8; before];
        if self.rng.random_ratio(1, 3) {
            lengths.resize(before + self.rng.random_range(3..=9), 8);
            lengths.push(LARGE_BYTES);
            lengths.resize(lengths.len() + self.rng.random_range(1..=3), 8);
        }
        let texts = lengths.iter().zip(self.sent..).map(|(length, sent)| format!("{sent:08}").repeat(length / 8));
        let texts: Vec<String> = texts.collect();
        self.sent += u32::try_from(texts.len()).unwrap();
        texts
    }

    /// Sends messages that wait for the writer together; returns their texts and after how many calls each was answered.
    async fn send(&mut self, machine: &Machine, queues: &Queues) -> (Vec<String>, Vec<usize>) {
        let texts = self.texts();
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

    /// Cuts the power: at any moment, or before a sync of the log.
    fn cut(&mut self, calls: &[Call], texts: Vec<String>, answered: &[usize]) {
        let syncs: Vec<usize> = (0..calls.len()).filter(|at| calls[*at].is_sync_of_log()).collect();
        let cut = match syncs.choose(&mut self.rng) {
            Some(sync) if self.rng.random_bool(0.5) => *sync,
            _ => self.rng.random_range(0..=calls.len()),
        };
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
    for life in 0..50_000 {
        if let Err(why) = faulty.live(Some(take_other_generations)).await {
            say(format_args!("recovery looks at no generation: found by life {life}: {why}"));
            return;
        }
    }
    panic!("recovery looks at no generation: not found");
}

/// Writes a row that is another one in each life, and rows that are the same and fill a second sector.
fn rows(tx: &mut Tx<'_>, number: u64) -> Result<(), nightmail::store::Error> {
    tx.meta()?.insert(&"number".into(), &number)?;
    for same in 0..20 {
        tx.meta()?.insert(&format!("same-{same:02}"), &7)?;
    }
    Ok(())
}

#[tokio::test]
async fn a_frame_that_one_life_left_torn_is_not_completed_by_the_next() {
    let made = Machine::holding(Bytes::default());
    drop(open(&made).unwrap());
    let mut disks = made.content();
    // The first life leaves the first sector of its frame, the second one the second.
    for sector in 0..2 {
        let machine = Machine::holding(disks);
        let store = open(&machine).unwrap();
        disks = machine.begin();
        store.write(move |tx| rows(tx, sector as u64)).await.unwrap();
        let calls = machine.take_calls();
        let frame = calls.iter().find(|call| super::log::is_frame(call)).unwrap();
        let (offset, data) = frame.log_write().unwrap();
        assert_eq!(data.len(), 1024);
        disks[frame.disk][offset + 512 * sector..][..512].copy_from_slice(&data[512 * sector..][..512]);
    }
    let found = open(&Machine::holding(disks)).unwrap().snapshot().unwrap().meta().unwrap().get(&"number".into());
    assert_eq!(found, Ok(None), "neither was ever answered");
}
