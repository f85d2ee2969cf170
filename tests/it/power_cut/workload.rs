//! The workload of the power cut tests: steps of every kind, each acknowledged before the next.

use std::fmt::Write;
use std::ops::ControlFlow;
use std::time::Duration;

use nightmail::queue::redrive::{self, Redrive};
use nightmail::queue::unique::{Mode, Unique};
use nightmail::queue::{Options, ReceiptHandle, Receive, Send, settle};
use nightmail::store::Snapshot;
use nightmail::store::record::{Fifo, Owner, RunRecord};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::disk::{Bytes, Call, Change, LOG, Machine, STORE, apply};
use crate::slices::{commit_from, make_queues, malformed, page, start_run, user};
use crate::support::{World, forever};

const FIFO: &str = "steps.fifo";

/// The calls to the disks, and what the store held after each step.
#[derive(Clone, Debug)]
pub(super) struct Recording {
    /// The disks before the first step.
    pub(super) start: Bytes,
    pub(super) calls: Vec<Call>,
    /// The store's whole content: before the first step, and after each.
    pub(super) states: Vec<String>,
    /// The number of calls made when each step was answered.
    answered: Vec<usize>,
}

impl Recording {
    /// Runs a workload of at least that many steps, and of as many as make that many checkpoints: some faults are those
    /// of a checkpoint.
    pub(super) async fn make_with_checkpoints(seed: u64, steps: usize, checkpoints: usize) -> Self {
        for steps in (steps..20 * steps).step_by(steps) {
            let made = Self::make(seed, steps).await;
            if made.checkpoints() >= checkpoints {
                return made;
            }
        }
        panic!("the log never fills")
    }

    /// Runs a workload of that many steps.
    pub(super) async fn make(seed: u64, steps: usize) -> Self {
        let machine = Machine::holding(Bytes::default());
        let world = World::around(super::disk::open(&machine).unwrap());
        world.make_orders().await;
        let fifo = Some(Fifo { content_based_deduplication: true, ..Fifo::default() });
        world.queues().ensure(FIFO, &Options { fifo, ..forever() }).await.unwrap();
        make_queues(world.queues(), Options { messages_max: Some(12), ..forever() }, forever()).await;
        let start = machine.content();
        machine.take_calls();
        let rng = StdRng::seed_from_u64(seed);
        let (handles, taken) = (Vec::new(), Vec::new());
        let mut workload = Workload { rng, world, handles, redrive: None, run: None, runs: 0, taken };
        let (mut states, mut answered) = (vec![whole(&workload.world.snapshot())], Vec::new());
        for _ in 0..steps {
            workload.step().await;
            answered.push(machine.calls());
            states.push(whole(&workload.world.snapshot()));
        }
        workload.world.check();
        Self { start, calls: machine.take_calls(), states, answered }
    }

    /// The disks after the last step.
    pub(super) fn end(&self) -> Bytes {
        let mut bytes = self.start.clone();
        self.calls.iter().for_each(|call| apply(&mut bytes, call));
        bytes
    }

    /// The disks at the moment when the log holds most, and what the store held then.
    pub(super) fn with_the_fullest_log(&self) -> (Bytes, &str) {
        let log_bytes = |calls: usize| {
            let lap = self.calls[..calls].iter().rev().take_while(|call| !is_header(call));
            lap.filter_map(Call::log_write).map(|(offset, data)| offset + data.len()).max()
        };
        let step = (0..self.answered.len()).max_by_key(|step| log_bytes(self.answered[*step])).unwrap();
        let mut bytes = self.start.clone();
        self.calls[..self.answered[step]].iter().for_each(|call| apply(&mut bytes, call));
        (bytes, &self.states[step + 1])
    }

    /// How often the log started over.
    pub(super) fn checkpoints(&self) -> usize {
        self.calls.iter().filter(|call| is_header(call)).count()
    }

    /// How many steps were answered within the first calls.
    pub(super) fn acknowledged(&self, calls: usize) -> usize {
        self.answered.partition_point(|answered| *answered <= calls)
    }

    /// A fault: the log's disk claims to have synced, but has not.
    pub(super) fn forget_syncs(&mut self) {
        self.without_syncs(LOG, |_| false);
    }

    /// A fault: every second commit lacks its sync.
    pub(super) fn skip_syncs(&mut self) {
        self.without_syncs(LOG, |nth| nth % 4 >= 2);
    }

    /// A fault: the log starts over before what redb holds is durable.
    pub(super) fn restart_before_durable(&mut self) {
        self.without_syncs(STORE, |_| false);
    }

    fn without_syncs(&mut self, disk: usize, is_kept: impl Fn(usize) -> bool) {
        let mut syncs = 0;
        for call in self.calls.iter_mut().filter(|call| call.is_sync_of(disk)) {
            syncs += 1;
            if !is_kept(syncs) {
                // It changes nothing and makes nothing durable.
                call.change = Change::Write { offset: 0, data: Vec::new() };
            }
        }
    }

    /// A fault: the log's header is durable before redb's checkpoint is.
    pub(super) fn header_first(&mut self) {
        let headers: Vec<usize> = (0..self.calls.len()).filter(|at| is_header(&self.calls[*at])).collect();
        for header in headers {
            let begin = self.calls[..header].iter().rposition(|call| call.disk == LOG).map_or(0, |at| at + 1);
            // Swap the header and its sync with the whole checkpoint.
            self.calls[begin..header + 2].rotate_right(2);
        }
    }

    /// A fault: a step is answered when its commit begins.
    pub(super) fn answer_early(&mut self) {
        let begins: Vec<usize> = std::iter::once(0).chain(self.answered.iter().copied()).collect();
        self.answered = begins[..begins.len() - 1].iter().map(|begin| begin + 1).collect();
    }

    /// A fault: a step is answered when its record is written but not yet synced.
    pub(super) fn answer_unsynced(&mut self) {
        let calls = &self.calls;
        let written =
            |answered: usize| calls[..answered].iter().rposition(|call| call.is_sync_of(LOG)).unwrap_or(answered);
        self.answered = self.answered.iter().map(|answered| written(*answered)).collect();
    }

    /// A fault: one step is split into two commits.
    pub(super) fn split_steps(&mut self) {
        let odd = |at: &usize| at % 2 == 1;
        self.answered = (0..self.answered.len()).filter(odd).map(|at| self.answered[at]).collect();
        self.states = (0..self.states.len()).filter(|at| !odd(at)).map(|at| self.states[at].clone()).collect();
    }
}

/// Whether the call writes one of the log's headers.
fn is_header(call: &Call) -> bool {
    call.log_write().is_some_and(|(offset, _)| offset < 8192)
}

struct Workload {
    rng: StdRng,
    world: World,
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
        let length = self.rng.random_range(1..60) * self.rng.random_range(1..60);
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

    /// Three steps of different callers that share a commit, because they wait for the writer together.
    async fn send_in_one_group(&mut self) {
        let (begin, has_begun) = tokio::sync::oneshot::channel();
        let (open, gate) = std::sync::mpsc::channel::<()>();
        let queues = self.world.queues();
        let closed = self.world.step(move |_| {
            let _ = begin.send(());
            let _ = gate.recv();
            Ok(())
        });
        let texts = [self.rng.random::<u32>(), self.rng.random(), self.rng.random()].map(|number| number.to_string());
        let [a, b, c] = texts.map(|text| queues.send("orders", Send::text(text)));
        let sends = async {
            // The writer takes what waits before it runs a group. So the three may come only once it is at work: none
            // of them can then be in the group of the first step.
            has_begun.await.unwrap();
            let open = async {
                tokio::task::yield_now().await;
                drop(open);
            };
            tokio::join!(biased; a, b, c, open)
        };
        let (closed, (a, b, c, ())) = tokio::join!(closed, sends);
        closed.unwrap();
        for sent in [a, b, c] {
            sent.unwrap();
        }
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
        let carried = self.world.step(move |tx| redrive::step(tx, &*observer, id, 2, now.wall)).await;
        if carried.is_err() {
            self.redrive = None;
        }
    }
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
            if !["applied", "closed"].contains(&key.as_str()) {
                let _ = writeln!(out, "meta {key:?} {number:?}");
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
