//! The workload of the power cut tests: steps of every kind, each acknowledged before the next.

use std::fmt::Write;
use std::ops::ControlFlow;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use nightmail::queue::redrive::{self, Redrive};
use nightmail::queue::unique::{Mode, Unique};
use nightmail::queue::{Options, ReceiptHandle, Receive, Send, settle};
use nightmail::store::record::{Fifo, Owner, RunRecord};
use nightmail::store::{Snapshot, Store};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::oneshot;

use super::disk::Machine;
use super::watch::{Sight, Viewer, Watch};
use crate::slices::{commit_from, make_queues, malformed, page, start_run, user};
use crate::support::{World, forever};

const FIFO: &str = "steps.fifo";

/// Chooses the length of a text.
pub(super) type Length = fn(&mut StdRng) -> usize;

/// Any length; one text in fifty makes a group that is larger than a segment of the log.
pub(super) fn any_length(rng: &mut StdRng) -> usize {
    let large = rng.random_ratio(1, 50).then(|| rng.random_range(12_000..16_000));
    large.unwrap_or_else(|| rng.random_range(1..60) * rng.random_range(1..60))
}

/// Such a length that every group fits into a segment.
pub(super) fn short_length(rng: &mut StdRng) -> usize {
    rng.random_range(1..20) * rng.random_range(1..60)
}

pub(super) struct Workload {
    rng: StdRng,
    pub(super) world: World,
    machine: Arc<Machine>,
    watch: Arc<Watch>,
    length: Length,
    handles: Vec<ReceiptHandle>,
    redrive: Option<u64>,
    /// The run whose users are fetched.
    run: Option<RunRecord>,
    /// How many runs were started.
    runs: u32,
    /// Messages of the full target that are deleted next.
    taken: Vec<ReceiptHandle>,
}

impl Workload {
    /// Makes the queues that the steps use.
    pub(super) async fn around(machine: &Arc<Machine>, store: Store, seed: u64, length: Length) -> Self {
        let watch = Arc::new(Watch::over(store.clone()));
        let world = World::around(store);
        world.make_orders().await;
        let fifo = Some(Fifo { content_based_deduplication: true, ..Fifo::default() });
        world.queues().ensure(FIFO, &Options { fifo, ..forever() }).await.unwrap();
        make_queues(world.queues(), Options { messages_max: Some(12), ..forever() }, forever()).await;
        machine.watch(watch.clone());
        let (rng, machine) = (StdRng::seed_from_u64(seed), machine.clone());
        let (handles, taken) = (Vec::new(), Vec::new());
        Self { rng, world, machine, watch, length, handles, redrive: None, run: None, runs: 0, taken }
    }

    /// Runs a step; every fourth one is watched.
    pub(super) async fn run_step(&mut self) {
        if self.rng.random_ratio(1, 4) {
            self.watch.start();
        }
        self.step().await;
        self.watch.answer();
        self.watch.stop();
    }

    /// Ends the watch; returns what was seen.
    pub(super) fn end(&self) -> Vec<Sight> {
        self.watch.end()
    }

    async fn step(&mut self) {
        match self.rng.random_range(0..100) {
            0..8 => self.send_to_fifo().await,
            8..14 => self.send_with_extras().await,
            14..21 => self.send().await,
            21..25 => self.commit_slice().await,
            25..32 => self.send_in_one_group().await,
            32..56 => self.receive().await,
            56..66 => {
                if let Some(handle) = self.handle() {
                    // A FIFO queue's handle may have expired: then nothing is written.
                    let _ = self.world.queues().delete(handle).await;
                }
            }
            66..90 => self.settle().await,
            90..93 => self.start_redrive().await,
            93..97 => self.carry_redrive_on().await,
            _ => self.world.pass(self.rng.random_range(1..90)),
        }
    }

    fn text(&mut self) -> String {
        let length = (self.length)(&mut self.rng);
        let word = self.rng.random_range(b'a'..=b'z');
        String::from_utf8(vec![word; length]).unwrap()
    }

    async fn send(&mut self) {
        let count = self.rng.random_range(1..5);
        let delay = Duration::from_secs(self.rng.random_range(0..2) * 30);
        let message = |text: String| Send { delay: Some(delay), ..Send::text(text) };
        let messages = (0..count).map(|_| message(self.text())).collect();
        self.world.queues().send_all("orders", messages).await.unwrap();
    }

    async fn send_to_fifo(&mut self) {
        let group = Some(self.rng.random_range(0..3_u8).to_string());
        let message = Send { group, ..Send::text(self.text()) };
        self.world.queues().send(FIFO, message).await.unwrap();
    }

    /// Groups, priorities, expiries and unique keys on a standard queue.
    async fn send_with_extras(&mut self) {
        let mode = [Mode::Simple, Mode::KeepLast, Mode::Throttle(Duration::from_secs(30))][self.rng.random_range(0..3)];
        let unique = Some(Unique { key: self.rng.random_range(0..3_u8).to_string(), mode });
        let message = Send {
            group: self.rng.random_bool(0.5).then(|| "fair".to_owned()),
            priority: self.rng.random_range(0..3),
            unique: unique.filter(|_| self.rng.random_bool(0.7)),
            expires_at: self.rng.random_bool(0.3).then(|| self.world.now().wall.after(Duration::from_secs(100))),
            ..Send::text(self.text())
        };
        self.world.queues().send("orders", message).await.unwrap();
    }

    /// Three steps of different callers that share a commit, because they wait for the writer together, and one that only
    /// reads what they wrote: it is in the next group, which runs while theirs is being made durable.
    async fn send_in_one_group(&mut self) {
        self.watch.start();
        let texts = [self.rng.random::<u32>(), self.rng.random(), self.rng.random()].map(|number| number.to_string());
        let queues = self.world.queues();
        let [a, b, c] = texts.map(|text| queues.send("orders", Send::text(text)));
        let ((first, first_runs, first_ends), (last, last_runs, last_ends)) = (self.gate(), self.gate());
        let group = async {
            // The writer takes what waits before it runs a group. So the others may come only once it is at work: none
            // of them can then be in the group of the first step.
            first_runs.await.unwrap();
            tokio::join!(biased; a, b, c, last, release(first_ends))
        };
        let next = async {
            last_runs.await.unwrap();
            tokio::join!(biased; self.read(), release(last_ends))
        };
        let (_, (a, b, c, ..), _) = tokio::join!(first, group, next);
        for sent in [a, b, c] {
            sent.unwrap();
        }
    }

    /// A step that holds the writer: the step, the signal that it runs, and what ends it when it is dropped.
    fn gate(&self) -> (impl Future<Output = ()>, oneshot::Receiver<()>, mpsc::Sender<()>) {
        let ((begin, runs), (end, gate)) = (oneshot::channel(), mpsc::channel());
        let held = self.world.step(move |_| {
            let _ = begin.send(());
            let _ = gate.recv();
            Ok(())
        });
        (async { held.await.unwrap() }, runs, end)
    }

    /// A step that only reads; its answer shows the last id.
    async fn read(&self) {
        let last = self.world.step(|tx| Ok(tx.meta()?.get(&LAST_ID.to_owned())?)).await.unwrap();
        let content = meta_line(LAST_ID, last.unwrap());
        self.watch.keep(Sight { calls: self.machine.calls(), content, by: Viewer::ReadingStep });
        self.watch.answer();
    }

    /// A slice of a users page: its users, a letter, rows and the cursor in one commit. The target holds 12 messages;
    /// when it is full, some are taken, and deleted in the next such step.
    async fn commit_slice(&mut self) {
        if !self.taken.is_empty() {
            self.world.queues().delete_batch(std::mem::take(&mut self.taken)).await.unwrap();
            return;
        }
        let Some(run) = self.run.take().filter(|run| run.fan_out.finished_at.is_none()) else {
            self.runs += 1;
            self.run = Some(start_run(&self.world, &self.runs.to_string()).await);
            return;
        };
        let (first, is_last) = (run.fan_out.pages * 5, self.rng.random_bool(0.2));
        let users = (first..first + 5).map(user).chain([malformed(&format!(r#"{{"id":"x{first}"}}"#))]);
        let next = (!is_last).then(|| format!("page-{}", run.fan_out.pages + 1));
        self.run = Some(match commit_from(&self.world, &run, 0, page(users, next.as_deref())).await {
            Ok(slice) => slice.run,
            Err(_) => {
                self.taken = self.world.take("users", 10).await.into_iter().map(|message| message.handle).collect();
                run
            }
        });
    }

    async fn receive(&mut self) {
        let queue = ["dead", FIFO, "orders", "orders", "orders"][self.rng.random_range(0..5)];
        let owner = if self.rng.random_bool(0.5) { Owner::Worker } else { Owner::Client };
        let what = Receive { max: self.rng.random_range(1..6), visibility: Some(Duration::from_secs(60)), owner };
        let taken = self.world.receive(queue, what).await.unwrap().messages;
        self.handles.extend(taken.into_iter().map(|message| message.handle));
    }

    fn handle(&mut self) -> Option<ReceiptHandle> {
        if self.handles.is_empty() {
            return None;
        }
        let at = self.rng.random_range(0..self.handles.len());
        Some(self.handles.swap_remove(at))
    }

    async fn settle(&mut self) {
        let Some(handle) = self.handle() else { return };
        let world = &self.world;
        match self.rng.random_range(0..5) {
            0 => drop(world.step(move |tx| settle::done(tx, handle)).await.unwrap()),
            1 => drop(world.retry(handle).await),
            2 | 3 => drop(world.move_to_dlq(handle, "404").await),
            _ => drop(world.defer(handle).await),
        }
    }

    async fn start_redrive(&mut self) {
        let dead = Redrive { from: "dead".into(), ..Redrive::default() };
        // Refused while one runs, or when there is nothing to redrive: then nothing is written.
        if let Ok(id) = self.world.queues().start_redrive(dead).await {
            self.redrive = Some(id);
        }
    }

    async fn carry_redrive_on(&mut self) {
        let Some(id) = self.redrive else { return };
        let (now, observer) = (self.world.now(), self.world.observer.clone());
        let carried = self.world.step(move |tx| redrive::step(tx, &*observer, id, 2, now)).await;
        if carried.is_err() {
            self.redrive = None;
        }
    }
}

/// The row of `meta` that moves with nearly every step.
const LAST_ID: &str = "last-id";

/// Ends a gate, once the steps that were polled before wait for the writer.
async fn release(gate: mpsc::Sender<()>) {
    tokio::task::yield_now().await;
    drop(gate);
}

fn meta_line(row: &str, number: u64) -> String {
    format!("meta {row:?} {number:?}\n")
}

/// Everything that the store holds, as text. The rows of `meta` about the log itself move with each opening.
pub(super) fn whole(snapshot: &Snapshot) -> String {
    let mut out = String::new();
    macro_rules! add {
        ($($table:ident: $range:expr;)+) => {
            $(snapshot.$table().unwrap().scan($range, |key, record| {
                // Writing to a String cannot fail.
                let _ = writeln!(out, "{} {key:?} {record:?}", stringify!($table));
                ControlFlow::Continue(())
            }).unwrap();)+
        };
    }
    let words = || String::new()..=char::MAX.to_string();
    snapshot
        .meta()
        .unwrap()
        .scan(words(), |key, number| {
            if !["generation", "sequence", "log-open"].contains(&key.as_str()) {
                out.push_str(&meta_line(&key, number));
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    let (long, short) = (u64::MAX, u32::MAX);
    add! {
        queues: 0..=short;
        queue_names: words();
        counts: 0..=short;
        bodies: 0..=long;
        states: (0, 0)..=(short, long);
        ready: (0, 0, 0)..=(short, short, long);
        groups: (0, [0; 16])..=(short, [u8::MAX; 16]);
        grouped: (0, [0; 16], 0, 0)..=(short, [u8::MAX; 16], short, long);
        expiries: (0, 0, 0)..=(short, long, long);
        dedup: (0, [0; 16])..=(short, [u8::MAX; 16]);
        dedup_times: (0, 0, [0; 16])..=(short, long, [u8::MAX; 16]);
        uniques: (0, [0; 16])..=(short, [u8::MAX; 16]);
        timed: (0, 0, 0)..=(short, long, long);
        history: (0, 0)..=(long, short);
        redrives: 0..=long;
        redrive_totals: 0..=long;
    }
    out
}
