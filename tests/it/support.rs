//! What the tests share: a world with a store, a clock and an observer, and the checks that must hold after each step.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use nightmail::base::{Clock, Failure, LeaseTime, ManualClock, Now, Timestamp};
use nightmail::queue::receive::Receiving;
use nightmail::queue::settle::{self, Ended, Settled};
use nightmail::queue::{
    Error, Observer, Options, Queues, ReceiptHandle, Receive, Received, RedrivePolicy, RunMessage, Send, Transition,
};
use nightmail::queue::{catalog, dump, purge, stats};
use nightmail::run::effects::Intents;
use nightmail::store::record::{Counts, GroupRecord, LetterClass, MessageState, Owner, Phase, QueueRecord, Suspicion};
use nightmail::store::{self, Disk, Snapshot, Store, Tx};
use redb::{Database, ReadableDatabase, TableDefinition};
use tempfile::TempDir;

/// The files of a store that hold its content.
pub(crate) const FILES: [&str; 3] = ["nightmail.redb", "nightmail.log0", "nightmail.log1"];
/// The segments of the log.
pub(crate) const LOGS: [&str; 2] = [FILES[1], FILES[2]];

/// 2026-11-01T00:00:00Z, when every world begins.
pub(crate) const START: Timestamp = Timestamp::from_secs(1_793_491_200);
/// The same on both clocks.
pub(crate) const START_NOW: Now = Now { wall: START, lease: LeaseTime::from_millis(START.as_millis()) };

/// Records each transition with the message's text.
#[derive(Debug, Default)]
pub(crate) struct Recorder(Mutex<Vec<String>>);

impl Recorder {
    /// The transitions since the last call.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

impl Observer for Recorder {
    fn on_transition(
        &self,
        tx: &mut Tx<'_>,
        message: RunMessage,
        transition: Transition<'_>,
        _: Timestamp,
    ) -> Result<(), store::Error> {
        let transition = match transition {
            Transition::Died(_) => "died".to_owned(),
            Transition::Redriven => "redriven".to_owned(),
            Transition::Withdrawn(why) => format!("withdrawn: {why}"),
            Transition::TakenBack => "taken back".to_owned(),
        };
        let body = tx.bodies()?.get(&message.body)?.expect("a message has a body");
        assert_eq!((body.run, body.recipient), (message.run, message.recipient));
        self.0.lock().unwrap().push(format!("{} {transition}", String::from_utf8_lossy(&body.bytes)));
        Ok(())
    }
}

/// A store in a directory of its own, a clock that stands still, and an observer.
pub(crate) struct World {
    pub(crate) dir: TempDir,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) observer: Arc<Recorder>,
    /// `None` only while reopening.
    queues: Option<Queues>,
}

impl World {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (clock, observer) = (ManualClock::new(START), Arc::new(Recorder::default()));
        let mut world = Self { dir, clock, observer, queues: None };
        world.open();
        world
    }

    /// A world around a store outside `dir`; the store is not reopened.
    pub(crate) fn around(store: Store) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (clock, observer) = (ManualClock::new(START), Arc::new(Recorder::default()));
        let queues = Some(Queues::new(store, clock.clone(), observer.clone()));
        Self { dir, clock, observer, queues }
    }

    /// A world with queue `orders`, whose letters go to `dead` at the third receive.
    pub(crate) async fn with_orders() -> Self {
        let world = Self::new();
        world.make_orders().await;
        world
    }

    /// Makes queue `orders`, whose letters go to `dead` at the third receive.
    pub(crate) async fn make_orders(&self) {
        self.queues().ensure("dead", &forever()).await.unwrap();
        self.queues().ensure("orders", &dying_after(3)).await.unwrap();
    }

    fn open(&mut self) {
        let store = Store::open(&self.options()).unwrap();
        self.queues = Some(Queues::new(store, self.clock.clone(), self.observer.clone()));
    }

    pub(crate) fn options(&self) -> store::Options {
        let path = self.dir.path().join("nightmail.redb");
        store::Options { cache_bytes: 1 << 20, log_bytes: 1 << 20, ..store::Options::at(path) }
    }

    /// Closes the store.
    pub(crate) fn close(&mut self) {
        self.queues = None;
    }

    /// Closes the store and opens it again, as a restart of the daemon does.
    pub(crate) async fn reopen(&mut self) {
        self.close();
        self.clock.restart();
        self.open();
        self.queues().end_worker_leases(&BTreeSet::new()).await.unwrap();
    }

    /// The same after a crash, with a function that works on `orders`: what was in work there is suspect.
    pub(crate) async fn crash(&mut self) {
        self.crash_serving("orders").await;
    }

    /// As [`World::crash`], with a function that works on `queue`.
    pub(crate) async fn crash_serving(&mut self, queue: &str) {
        self.close();
        self.clock.restart();
        self.open();
        self.queues().end_worker_leases(&BTreeSet::from([queue.to_owned()])).await.unwrap();
    }

    /// Ends a worker's attempt as done.
    pub(crate) async fn done(&self, handle: ReceiptHandle) {
        assert!(self.step(move |tx| settle::done(tx, handle)).await.unwrap().is_some(), "it still held its message");
    }

    /// Receives the next suspect of `orders`, as the pool does.
    pub(crate) async fn work_suspect(&self) -> Option<Received> {
        self.receive_suspect(Suspicion::Alone).await
    }

    /// Receives the next suspect of `orders`, marked in that way.
    pub(crate) async fn receive_suspect(&self, suspicion: Suspicion) -> Option<Received> {
        self.queues().receive_suspect(self.queue("orders").id, Duration::from_secs(60), suspicion).await.unwrap()
    }

    pub(crate) fn queues(&self) -> &Queues {
        self.queues.as_ref().unwrap()
    }

    pub(crate) fn now(&self) -> Now {
        self.clock.now()
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        self.queues().store().snapshot().unwrap()
    }

    pub(crate) fn pass(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    pub(crate) fn queue(&self, name: &str) -> QueueRecord {
        catalog::look_up(&self.snapshot(), name).unwrap()
    }

    /// Sends a message of run 1, so that the observer is told about it.
    pub(crate) async fn send(&self, queue: &str, text: &str) {
        let message = Send { run: 1, ..Send::text(text.to_owned()) };
        self.queues().send(queue, message).await.unwrap();
    }

    pub(crate) async fn receive(&self, queue: &str, what: Receive) -> Result<Receiving, Error> {
        self.queues().receive_now(self.queue(queue).id, what).await
    }

    /// Purges a queue and waits until its rows are removed.
    pub(crate) async fn purge(&self, queue: &str) -> Result<u64, Error> {
        let purged = self.queues().purge(queue).await;
        self.queues().remove_purged().await.unwrap();
        purged
    }

    /// Receives as a client does; the visibility timeout is the queue's, 30 s.
    pub(crate) async fn take(&self, queue: &str, max: usize) -> Vec<Received> {
        self.receive(queue, Receive::for_client(max)).await.unwrap().messages
    }

    pub(crate) async fn take_one(&self, queue: &str) -> Received {
        self.take(queue, 1).await.pop().expect("a message to receive")
    }

    /// Receives as a worker does, with a lease of 60 s.
    pub(crate) async fn work(&self, queue: &str) -> Received {
        let what = Receive { max: 1, visibility: Some(Duration::from_secs(60)), owner: Owner::Worker };
        self.receive(queue, what).await.unwrap().messages.pop().expect("a message to work on")
    }

    /// A worker's attempt fails and is tried again at once.
    pub(crate) async fn retry(&self, handle: ReceiptHandle) -> Settled {
        let (ended, observer) = (self.ended("500"), self.observer.clone());
        self.step(move |tx| settle::retry(tx, &*observer, handle, &ended, Duration::ZERO)).await.unwrap()
    }

    /// A worker's attempt fails for good, with that code.
    pub(crate) async fn move_to_dlq(&self, handle: ReceiptHandle, code: &str) -> Settled {
        let (ended, observer) = (self.ended(code), self.observer.clone());
        self.step(move |tx| settle::move_to_dlq(tx, &*observer, handle, &ended, Duration::from_secs(5))).await.unwrap()
    }

    /// A worker's attempt is deferred for a minute; after an hour of deferrals the message dies.
    pub(crate) async fn defer(&self, handle: ReceiptHandle) -> Settled {
        let (ended, observer) = (self.ended("421"), self.observer.clone());
        let (wait, at_most) = (Duration::from_secs(60), Duration::from_secs(3600));
        self.step(move |tx| settle::defer(tx, &*observer, handle, &ended, wait, at_most)).await.unwrap()
    }

    /// Runs one step of a test's own.
    pub(crate) async fn step<T, F>(&self, step: F) -> Result<T, Error>
    where
        F: FnOnce(&mut Tx<'_>) -> Result<T, Error> + std::marker::Send + 'static,
        T: std::marker::Send + 'static,
    {
        self.queues().store().write(step).await
    }

    pub(crate) fn ended(&self, code: &str) -> Ended {
        Ended { function: "statement".into(), why: failure(code), at: self.now() }
    }

    /// Dumps the queue, after checking that all books balance.
    pub(crate) fn dump(&self, queue: &str) -> String {
        self.check();
        dump::dump(&self.snapshot(), queue, self.now()).unwrap()
    }

    /// Checks the books, and that no step was refused after it had written.
    pub(crate) fn check(&self) {
        assert_eq!(self.queues().store().roll_backs(), 0, "a step was refused after it had written");
        self.check_books();
    }

    /// Checks every index and count against the states; each message must be in the indexes of its phase and no others.
    pub(crate) fn check_books(&self) {
        let (snapshot, now) = (self.snapshot(), self.now());
        let mut bodies = followers(&snapshot);
        for rows in purge::left(&snapshot).unwrap() {
            bodies.extend(check_rows(&snapshot, rows).iter().map(|(_, state)| state.body));
        }
        for queue in catalog::list(&snapshot).unwrap() {
            let states = check_rows(&snapshot, queue.rows);
            for (_, state) in &states {
                assert!(bodies.insert(state.body), "body {} belongs to two messages", state.body);
            }
            check_counts(&snapshot, &queue, &states, now);
        }
        let stored = snapshot.bodies().unwrap().first(0..=u64::MAX, usize::MAX).unwrap();
        assert_eq!(stored.iter().map(|(id, _)| *id).collect::<BTreeSet<_>>(), bodies, "a body without a message");
        let history = snapshot.history().unwrap().first((0, 0)..=(u64::MAX, u32::MAX), usize::MAX).unwrap();
        for ((body, number), attempt) in history {
            assert!(bodies.contains(&body), "history of a message that is gone");
            assert_eq!(number, attempt.number);
        }
    }
}

fn is_suspect(state: &MessageState) -> bool {
    state.suspicion == Suspicion::Suspect
}

/// Checks the indexes of the messages under that row number, and returns their states.
fn check_rows(snapshot: &Snapshot, rows: u32) -> Vec<((u32, u64), MessageState)> {
    let states = snapshot.states().unwrap().first((rows, 0)..=(rows, u64::MAX), usize::MAX).unwrap();
    check_indexes(snapshot, rows, &states);
    check_letters(snapshot, rows, &states);
    states
}

/// Checks the index of dead letters, and their counters, against the states and histories.
fn check_letters(snapshot: &Snapshot, rows: u32, states: &[((u32, u64), MessageState)]) {
    let (mut letters, mut groups) = (Vec::new(), BTreeMap::new());
    for ((_, sequence), state) in states.iter().filter(|(_, state)| state.source != 0) {
        let last = snapshot.history().unwrap().last((state.body, 0)..=(state.body, u32::MAX)).unwrap();
        let last = last.map(|(_, attempt)| attempt);
        let class = LetterClass::of(last.as_ref()).0;
        let died_at = last.map_or(state.sent_at, |last| last.ended_at);
        letters.push((rows, class, died_at.as_millis(), *sequence));
        *groups.entry((rows, class, state.source)).or_insert(0) += 1;
    }
    letters.sort_unstable();
    let all = (rows, 0, 0, 0)..=(rows, u64::MAX, u64::MAX, u64::MAX);
    let index = snapshot.letters().unwrap().first(all, usize::MAX).unwrap();
    assert_eq!(index.into_iter().map(|(key, ())| key).collect::<Vec<_>>(), letters, "the letters are out of step");
    let all = (rows, 0, 0)..=(rows, u64::MAX, u32::MAX);
    let counters = snapshot.letter_groups().unwrap().first(all, usize::MAX).unwrap();
    assert_eq!(counters, groups.into_iter().collect::<Vec<_>>(), "the groups of letters are out of step");
}

fn check_indexes(snapshot: &Snapshot, queue: u32, states: &[((u32, u64), MessageState)]) {
    let (mut ready, mut timed, mut expiries, mut suspects) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for ((_, sequence), state) in states {
        match state.phase {
            Phase::Ready if is_suspect(state) => suspects.push((queue, state.attempts_charged, *sequence)),
            Phase::Ready if state.group.is_some() => {}
            Phase::Ready => ready.push(((queue, state.priority, *sequence), *sequence)),
            Phase::Delayed | Phase::InFlight => timed.push((queue, state.visible_at.as_millis(), *sequence)),
        }
        if state.expires_at != Timestamp::ZERO && state.phase != Phase::InFlight && state.source == 0 {
            expiries.push((queue, state.expires_at.as_millis(), *sequence));
        }
        let is_owned = state.owner != Owner::Nobody;
        // A client stays the owner of what ran out of time, until the next receive.
        let ran_out = state.phase == Phase::Ready && state.owner == Owner::Client;
        assert_eq!(is_owned && !ran_out, state.phase == Phase::InFlight, "an owner is of a message in flight");
    }
    ready.extend(groups(snapshot, queue, states));
    ready.sort_unstable();
    timed.sort_unstable();
    expiries.sort_unstable();
    suspects.sort_unstable();
    let all = (queue, 0, 0)..=(queue, u32::MAX, u64::MAX);
    let index = snapshot.suspects().unwrap().first(all, usize::MAX).unwrap();
    assert_eq!(index.into_iter().map(|(key, ())| key).collect::<Vec<_>>(), suspects, "the suspects are out of step");
    let index = snapshot.ready().unwrap().first((queue, 0, 0)..=(queue, u32::MAX, u64::MAX), usize::MAX).unwrap();
    let index: Vec<_> = index.into_iter().map(|(row, shown)| (row, shown.0.unwrap_or(row.2))).collect();
    assert_eq!(index, ready, "the ready index is out of step");
    let all = (queue, 0, 0)..=(queue, u64::MAX, u64::MAX);
    let index = snapshot.timed().unwrap().first(all, usize::MAX).unwrap();
    assert_eq!(index.into_iter().map(|(key, ())| key).collect::<Vec<_>>(), timed, "the timed index is out of step");
    let all = (queue, 0, 0)..=(queue, u64::MAX, u64::MAX);
    let index = snapshot.expiries().unwrap().first(all, usize::MAX).unwrap();
    assert_eq!(index.into_iter().map(|(key, ())| key).collect::<Vec<_>>(), expiries, "the expiries are out of step");
}

/// A row of the ready index and the message that it stands for.
type Shown = ((u32, u32, u64), u64);

/// Checks the groups of a queue against its states; returns what each has in the ready index: its first message,
/// unless it is a FIFO queue's group with a held message before it. A group has a row unless there is nothing to count: a
/// standard queue's delayed messages are not counted.
fn groups(snapshot: &Snapshot, queue: u32, states: &[((u32, u64), MessageState)]) -> Vec<Shown> {
    let mut members: BTreeMap<[u8; 16], Vec<(u64, &MessageState)>> = BTreeMap::new();
    for ((_, sequence), state) in states {
        if let Some(group) = state.group {
            members.entry(group.id).or_default().push((*sequence, state));
        }
    }
    let (mut shown, mut counted) = (Vec::new(), 0);
    for (id, members) in &members {
        let is_ordered = members[0].1.group.unwrap().is_ordered;
        let is_first = |state: &MessageState| state.phase != Phase::Ready || is_suspect(state);
        let is_held = |state: &MessageState| is_ordered && is_first(state) && state.receive_count > 0;
        let waits = |state: &MessageState| match state.phase {
            Phase::Ready if is_suspect(state) => false,
            Phase::Ready => true,
            Phase::Delayed => is_ordered && state.receive_count == 0,
            Phase::InFlight => false,
        };
        let mut waiting: Vec<_> = members.iter().filter(|(_, state)| waits(state)).collect();
        waiting.sort_by_key(|(sequence, state)| (state.priority, *sequence));
        let held: Vec<u64> =
            members.iter().filter(|(_, state)| is_held(state)).map(|(sequence, _)| *sequence).collect();
        let is_free = |sequence: u64| held.first().is_none_or(|first| sequence < *first);
        let head = waiting.first().filter(|(sequence, state)| is_free(*sequence) && state.phase == Phase::Ready);
        let row = snapshot.groups().unwrap().get(&(queue, *id)).unwrap();
        counted += usize::from(row.is_some());
        assert_ne!(row, Some(GroupRecord::default()), "a group's row counts something");
        let row = row.unwrap_or_default();
        let in_flight = members.iter().filter(|(_, state)| state.phase == Phase::InFlight).count() as u64;
        let head = head.map(|(sequence, state)| (state.priority, *sequence)).unwrap_or_default();
        let expected = (in_flight, held.len() as u64, waiting.len() as u64, head);
        assert_eq!((row.in_flight, row.held, row.waiting, row.head), expected, "a group's row");
        assert_eq!(row.held_known, held, "the held messages of a group");
        let all = (queue, *id, 0, 0)..=(queue, *id, u32::MAX, u64::MAX);
        let index = snapshot.grouped().unwrap().first(all, usize::MAX).unwrap();
        let index: Vec<_> = index.into_iter().map(|((_, _, priority, sequence), ())| (priority, sequence)).collect();
        let waiting: Vec<_> = waiting.iter().map(|(sequence, state)| (state.priority, *sequence)).collect();
        assert_eq!(index, waiting, "a group's index is out of step");
        shown.extend((head.1 != 0).then_some(((queue, head.0, head.1.max(row.turn)), head.1)));
    }
    let rows = snapshot.groups().unwrap().first((queue, [0; 16])..=(queue, [u8::MAX; 16]), usize::MAX).unwrap();
    assert_eq!(rows.len(), counted, "a group without messages has no row");
    shown
}

/// The bodies that wait for the end of the message that holds their unique key.
fn followers(snapshot: &Snapshot) -> BTreeSet<u64> {
    let all = (0, [0; 16])..=(u32::MAX, [u8::MAX; 16]);
    let uniques = snapshot.uniques().unwrap().first(all, usize::MAX).unwrap();
    for ((queue, key), row) in &uniques {
        let holder = snapshot.states().unwrap().get(&(row.queue, row.sequence)).unwrap();
        let unique = holder.expect("a unique key is held by a message that is there").unique;
        assert_eq!(unique.map(|unique| (unique.queue, unique.key)), Some((*queue, *key)));
    }
    uniques.into_iter().filter_map(|(_, row)| row.follower).map(|follower| follower.body).collect()
}

fn check_counts(snapshot: &Snapshot, queue: &QueueRecord, states: &[((u32, u64), MessageState)], now: Now) {
    let mut counts = Counts::default();
    let (mut shown, mut shown_bytes): (BTreeMap<Seen, u64>, u64) = (BTreeMap::new(), 0);
    for (_, state) in states {
        *match state.phase {
            Phase::Ready => &mut counts.ready,
            Phase::Delayed => &mut counts.delayed,
            Phase::InFlight => &mut counts.in_flight,
        } += 1;
        counts.bytes += u64::from(state.size_bytes);
        let is_hidden = state.phase != Phase::Ready && state.visible_at > now.lease;
        let phase = match state.phase {
            Phase::InFlight if is_hidden => Seen::InFlight,
            Phase::Delayed if is_hidden => Seen::Delayed,
            _ => Seen::Ready,
        };
        if !is_expired(state, queue, now) {
            *shown.entry(phase).or_default() += 1;
            shown_bytes += u64::from(state.size_bytes);
        }
    }
    let keys = (queue.id, [0; 16])..=(queue.id, [u8::MAX; 16]);
    for follower in
        snapshot.uniques().unwrap().first(keys, usize::MAX).unwrap().into_iter().filter_map(|(_, row)| row.follower)
    {
        if queue.purged.is_some_and(|purge| follower.body < purge.before) {
            continue;
        }
        counts.followers += 1;
        counts.follower_bytes += u64::from(follower.size_bytes);
    }
    let stored = snapshot.counts().unwrap().get(&queue.rows).unwrap().unwrap_or_default();
    assert_eq!(stored, counts, "counts of {}", queue.name);
    let stats = stats::stats(snapshot, queue, now).unwrap();
    let of = |phase| shown.get(&phase).copied().unwrap_or(0);
    let expected = (of(Seen::Ready), of(Seen::Delayed), of(Seen::InFlight), counts.followers);
    assert_eq!((stats.ready, stats.delayed, stats.in_flight, stats.followers), expected, "stats of {}", queue.name);
    assert_eq!(stats.bytes, shown_bytes + counts.follower_bytes, "bytes of {}", queue.name);
}

/// Statistics leave it out, although no sweep has removed it yet.
fn is_expired(state: &MessageState, queue: &QueueRecord, now: Now) -> bool {
    let retention = queue.attributes.retention_ms.map(Duration::from_millis);
    let expires = state.expires_at != Timestamp::ZERO && state.source == 0 && state.phase != Phase::InFlight;
    retention.is_some_and(|retention| state.sent_at.after(retention) <= now.wall)
        || (expires && state.expires_at <= now.wall)
}

/// A phase as statistics count it at the present time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Seen {
    Ready,
    Delayed,
    InFlight,
}

/// A fault of the account service with that code.
pub(crate) fn failure(code: &str) -> Failure {
    Failure::new("http", "account", code, "the account service refused")
}

/// SQS's defaults, but messages are kept for ever.
pub(crate) fn forever() -> Options {
    Options { retention: None, ..Options::default() }
}

/// As [`forever`], with `dead` as the dead-letter queue.
pub(crate) fn dying_after(max_receive_count: u32) -> Options {
    let redrive = Some(RedrivePolicy { dead_letter_queue: "dead".into(), max_receive_count });
    Options { redrive, ..forever() }
}

/// The texts of messages, in the order received.
pub(crate) fn texts(messages: &[Received]) -> Vec<String> {
    messages.iter().map(|message| String::from_utf8_lossy(&message.body).into_owned()).collect()
}

/// A table of the store in redb's terms.
pub(crate) const fn table(name: &str) -> TableDefinition<'_, &'static [u8], &'static [u8]> {
    TableDefinition::new(name)
}

/// Writes one row directly to redb, with a valid checksum.
pub(crate) fn tamper(path: &Path, name: &str, key: &[u8], value: &[u8]) {
    put(&Database::open(path).unwrap(), name, key, value);
}

/// [`tamper`] on a disk.
pub(crate) fn tamper_on(disk: Arc<dyn Disk>, name: &str, key: &[u8], value: &[u8]) {
    put(&Database::builder().create_with_backend(Backend(disk)).unwrap(), name, key, value);
}

fn put(db: &Database, name: &str, key: &[u8], value: &[u8]) {
    let transaction = db.begin_write().unwrap();
    transaction.open_table(table(name)).unwrap().insert(key, sealed(name, key, value).as_slice()).unwrap();
    transaction.commit().unwrap();
}

/// The number in a row of `meta` that is in redb on that disk.
pub(crate) fn meta_on(disk: Arc<dyn Disk>, row: &str) -> u64 {
    let db = Database::builder().create_with_backend(Backend(disk)).unwrap();
    let stored = db.begin_read().unwrap().open_table(table("meta")).unwrap().get(row.as_bytes()).unwrap().unwrap();
    u64::from_be_bytes(*stored.value().first_chunk().unwrap())
}

/// A value with its checksum, as docs/format.md describes it.
pub(crate) fn sealed(table: &str, key: &[u8], value: &[u8]) -> Vec<u8> {
    sealed_in(table_number(table), key, value)
}

/// [`sealed`] in the table of that number.
pub(crate) fn sealed_in(table: u8, key: &[u8], value: &[u8]) -> Vec<u8> {
    let length = u32::try_from(key.len()).unwrap().to_be_bytes();
    let checksum = crc32c::crc32c(&[&[table], &length[..], key, value].concat());
    [value, &checksum.to_be_bytes()].concat()
}

/// The number of a table in docs/format.md.
pub(crate) fn table_number(name: &str) -> u8 {
    let found = described().into_iter().find(|(_, table)| *table == name);
    found.unwrap_or_else(|| panic!("docs/format.md has no table {name}")).0
}

/// The tables of docs/format.md with their numbers, of format 3.
pub(crate) static TABLES: LazyLock<Vec<(u8, &str)>> =
    LazyLock::new(|| described().into_iter().take(TABLES_COUNT).collect());

/// How many tables a store of format 3 has.
pub(crate) const TABLES_COUNT: usize = 23;

/// All tables of docs/format.md with their numbers.
fn described() -> Vec<(u8, &'static str)> {
    let tables = include_str!("../../docs/format.md").split_once("## Tables").unwrap().1;
    let tables = tables.split_once("Rows of `meta`").unwrap().0;
    let cells = tables.lines().map(|line| line.split('|').map(str::trim).collect::<Vec<_>>());
    cells.filter_map(|cells| Some((cells.get(1)?.parse().ok()?, cells.get(2)?.trim_matches('`')))).collect()
}

#[derive(Debug)]
struct Backend(Arc<dyn Disk>);

impl redb::StorageBackend for Backend {
    fn len(&self) -> std::io::Result<u64> {
        self.0.bytes()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.0.read(offset, out)
    }
    fn set_len(&self, bytes: u64) -> std::io::Result<()> {
        self.0.set_bytes(bytes)
    }
    fn sync_data(&self) -> std::io::Result<()> {
        self.0.sync()
    }
    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.0.write(offset, data)
    }
}

/// How many rows, or tables, of a store are not as they should be.
pub(crate) fn unsound(snapshot: &nightmail::store::Snapshot) -> u64 {
    let mut findings = nightmail::store::check::Findings::default();
    nightmail::store::check::records(snapshot, &mut findings).unwrap();
    findings.total
}

/// Writes each intent as it comes, as a pool with one attempt does.
pub(crate) fn intents(queues: &Queues) -> Intents {
    let (intents, mut pending) = Intents::new(queues);
    tokio::spawn(async move {
        while pending.next().await.is_some() {
            pending.write().await;
        }
    });
    intents
}

/// All files below a directory, whose directories may go meanwhile.
pub(crate) fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}
