//! Everything at once: 64 senders and 64 receivers with random timeouts, deletes, deaths, redrives, undos, calls that are
//! cancelled in the middle, and a store that is closed and opened again under them. In the end nothing that was
//! acknowledged is lost, nothing comes after its delete was acknowledged, FIFO groups were in order, and all books balance
//! each time that the store is closed.
//!
//! `NIGHTMAIL_TORTURE_SECONDS` sets how long it goes on, `NIGHTMAIL_SEED` what is drawn.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nightmail::base::SystemClock;
use nightmail::queue::observer::NoObserver;
use nightmail::queue::redrive::Redrive;
use nightmail::queue::{Error, Options, Queues, Receive, Received, RedrivePolicy, Send};
use nightmail::store::check::{self, Findings};
use nightmail::store::record::{Fifo, Owner};
use nightmail::store::{self, Snapshot, Store};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::RwLock;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::harness::say;
use crate::support::forever;

const SENDERS: u64 = 64;
const RECEIVERS: u64 = 64;
/// How long it goes on unless the environment says otherwise.
const SECONDS: u64 = 8;
const REOPEN_EVERY: Duration = Duration::from_millis(2500);
const QUEUES: [&str; 2] = ["plain", "ordered.fifo"];
const DEAD: [&str; 2] = ["dead", "dead.fifo"];
/// The longest visibility timeout that is drawn, in ms.
const VISIBILITY_MAX_MS: u64 = 1500;

/// What is known of one message, by the number in its text.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    is_sent: bool,
    /// When its delete was acknowledged, in turns of the clock below.
    deleted: Option<u64>,
    /// A delete was called and its answer never seen.
    may_be_deleted: bool,
}

/// A first receive from a FIFO queue: group, lease, and sequence number.
type First = (String, u64, u64);

struct Torture {
    /// `None` only while it is opened again.
    queues: RwLock<Option<Queues>>,
    path: PathBuf,
    known: Mutex<BTreeMap<u64, Known>>,
    /// Orders calls and acknowledgements.
    turns: AtomicU64,
    firsts: Mutex<Vec<First>>,
    stop: CancellationToken,
}

/// What is wrong in the store: records, indexes, counts.
fn findings(snapshot: &Snapshot) -> Vec<String> {
    let mut findings = Findings::default();
    check::records(snapshot, &mut findings).unwrap();
    nightmail::queue::check::check(snapshot, &mut findings).unwrap();
    findings.shown.iter().map(|finding| format!("{finding:?}")).collect()
}

/// Whether a handle is refused because its message went on meanwhile.
fn is_refused(error: &Error) -> bool {
    matches!(error, Error::HandleExpired(_) | Error::NotInFlight | Error::NotThere(_))
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text:?} is not a number")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_lost_doubled_or_out_of_order_whatever_happens_at_once() {
    let seed = number("NIGHTMAIL_SEED").unwrap_or_else(|| rand::rng().random_range(0..1_000_000_000));
    say(format_args!("NIGHTMAIL_SEED={seed}"));
    let dir = tempfile::tempdir().unwrap();
    let torture = Arc::new(Torture {
        queues: RwLock::new(None),
        path: dir.path().join("nightmail.redb"),
        known: Mutex::default(),
        turns: AtomicU64::new(1),
        firsts: Mutex::default(),
        stop: CancellationToken::new(),
    });
    torture.open(&mut *torture.queues.write().await).await;
    let mut tasks = JoinSet::new();
    for task in 0..SENDERS {
        tasks.spawn(torture.clone().send(task, StdRng::seed_from_u64(seed + task)));
    }
    for task in 0..RECEIVERS {
        tasks.spawn(torture.clone().receive(StdRng::seed_from_u64(seed + 1000 + task)));
    }
    tasks.spawn(torture.clone().redrive(StdRng::seed_from_u64(seed + 2000)));
    tasks.spawn(torture.clone().reopen());
    tokio::time::sleep(Duration::from_secs(number("NIGHTMAIL_TORTURE_SECONDS").unwrap_or(SECONDS))).await;
    torture.stop.cancel();
    while let Some(end) = tasks.join_next().await {
        end.unwrap();
    }
    torture.check().await;
}

impl Torture {
    async fn open(&self, queues: &mut Option<Queues>) {
        let options = store::Options { cache_bytes: 4 << 20, log_bytes: 4 << 20, ..store::Options::at(&self.path) };
        // A receive that is being undone may hold the store for a moment.
        let opened = async {
            loop {
                match Store::open(&options) {
                    Ok(store) => return store,
                    Err(store::Error::Locked { .. }) => tokio::time::sleep(Duration::from_millis(5)).await,
                    Err(error) => panic!("{error}"),
                }
            }
        };
        let store = tokio::time::timeout(Duration::from_secs(30), opened).await.expect("the store is let go");
        let opened = Queues::new(store, SystemClock::shared(), Arc::new(NoObserver));
        for (queue, dead) in QUEUES.into_iter().zip(DEAD) {
            let fifo = queue.ends_with(".fifo").then(Fifo::default);
            let redrive = Some(RedrivePolicy { dead_letter_queue: dead.into(), max_receive_count: 3 });
            opened.ensure(dead, &Options { fifo, ..forever() }).await.unwrap();
            opened.ensure(queue, &Options { fifo, redrive, ..forever() }).await.unwrap();
        }
        opened.end_worker_leases(&BTreeSet::new()).await.unwrap();
        *queues = Some(opened);
    }

    fn turn(&self) -> u64 {
        self.turns.fetch_add(1, Ordering::SeqCst)
    }

    /// Makes a call, and lets go of it in the middle in one of eight cases; `None` when its answer was not seen.
    async fn call<T, C>(&self, rng: &mut StdRng, call: impl FnOnce(Queues) -> C) -> Option<T>
    where
        C: Future<Output = Result<T, Error>>,
    {
        let queues = self.queues.read().await;
        let call = call(queues.clone().expect("it is open"));
        if rng.random_range(0..8) > 0 {
            return Some(call.await.unwrap());
        }
        let patience = Duration::from_micros(rng.random_range(0..3000));
        tokio::time::timeout(patience, call).await.ok().map(Result::unwrap)
    }

    async fn send(self: Arc<Self>, task: u64, mut rng: StdRng) {
        for n in 0.. {
            if self.stop.is_cancelled() {
                return;
            }
            let number = task * 1_000_000 + n;
            let (queue, text) = (QUEUES[rng.random_range(0..2)], number.to_string());
            let is_ordered = queue == QUEUES[1];
            let group = (is_ordered || rng.random_range(0..3) == 0).then(|| format!("g{}", task % 16));
            let deduplication_id = is_ordered.then(|| text.clone());
            let message = Send { group, deduplication_id, ..Send::text(text) };
            self.known.lock().unwrap().insert(number, Known::default());
            if self.call(&mut rng, |queues| async move { queues.send(queue, message).await }).await.is_some() {
                self.known.lock().unwrap().get_mut(&number).unwrap().is_sent = true;
            }
            tokio::time::sleep(Duration::from_millis(rng.random_range(0..20))).await;
        }
    }

    async fn receive(self: Arc<Self>, mut rng: StdRng) {
        while !self.stop.is_cancelled() {
            let queue = match rng.random_range(0..20) {
                0 => DEAD[rng.random_range(0..2)],
                _ => QUEUES[rng.random_range(0..2)],
            };
            let visibility = Some(Duration::from_millis(rng.random_range(0..VISIBILITY_MAX_MS)));
            let what = Receive { max: rng.random_range(1..=10), visibility, owner: Owner::Client };
            let wait = Duration::from_millis(rng.random_range(0..60));
            let began = self.turn();
            let found = self.call(&mut rng, |queues| async move { queues.receive(queue, what, wait).await }).await;
            for message in found.into_iter().flatten() {
                self.saw(&message, queue, began);
                self.end(&mut rng, &message).await;
            }
        }
    }

    /// Notes a receive that began at that turn.
    fn saw(&self, message: &Received, queue: &str, began: u64) {
        let number: u64 = std::str::from_utf8(&message.body).unwrap().parse().unwrap();
        let known = self.known.lock().unwrap()[&number];
        assert!(known.deleted.is_none_or(|at| at > began), "message {number} came after its delete was acknowledged");
        if queue == QUEUES[1] && message.receive_count == 1 {
            let group = message.envelope.group.clone().unwrap();
            self.firsts.lock().unwrap().push((group, message.handle.lease, message.handle.sequence));
        }
    }

    /// Deletes a message, or changes its visibility, or leaves it.
    async fn end(&self, rng: &mut StdRng, message: &Received) {
        let (handle, number) = (message.handle, std::str::from_utf8(&message.body).unwrap().parse::<u64>().unwrap());
        match rng.random_range(0..10) {
            0..6 => {
                let delete = |queues: Queues| async move {
                    match queues.delete(handle).await {
                        Err(error) if is_refused(&error) => Ok(false),
                        deleted => deleted,
                    }
                };
                let deleted = self.call(rng, delete).await;
                let turn = self.turn();
                let mut known = self.known.lock().unwrap();
                let known = known.get_mut(&number).unwrap();
                match deleted {
                    Some(true) => known.deleted = Some(turn),
                    Some(false) => {}
                    None => known.may_be_deleted = true,
                }
            }
            6..8 => {
                let timeout = Duration::from_millis(rng.random_range(0..VISIBILITY_MAX_MS));
                let change = |queues: Queues| async move {
                    match queues.change_visibility(handle, timeout).await {
                        Err(error) if is_refused(&error) => Ok(()),
                        changed => changed,
                    }
                };
                self.call(rng, change).await;
            }
            _ => {}
        }
    }

    /// Drives letters back all the time, and undoes every third redrive.
    async fn redrive(self: Arc<Self>, mut rng: StdRng) {
        let never = CancellationToken::new();
        while !self.stop.is_cancelled() {
            tokio::time::sleep(Duration::from_millis(rng.random_range(50..400))).await;
            let queues = self.queues.read().await;
            let queues = queues.as_ref().expect("it is open");
            let from = DEAD[rng.random_range(0..2)].to_owned();
            let id = queues.start_redrive(Redrive { from, ..Redrive::default() }).await.unwrap();
            queues.drive(id, &never).await.unwrap();
            if rng.random_range(0..3) == 0 {
                let undo = queues.undo_redrive(id).await.unwrap();
                queues.drive(undo, &never).await.unwrap();
            }
        }
    }

    /// Closes the store and opens it again, and checks all its books each time.
    async fn reopen(self: Arc<Self>) {
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(REOPEN_EVERY) => {}
            }
            let mut queues = self.queues.write().await;
            let snapshot = queues.as_ref().expect("it is open").store().snapshot().unwrap();
            assert_eq!(findings(&snapshot), [""; 0], "the books do not balance");
            drop(snapshot);
            *queues = None;
            self.open(&mut queues).await;
        }
    }

    /// Takes out what is left, and looks whether each message has its one end.
    async fn check(&self) {
        let queues = self.queues.read().await.clone().expect("it is open");
        assert_eq!(findings(&queues.store().snapshot().unwrap()), [""; 0], "the books do not balance");
        tokio::time::sleep(Duration::from_millis(VISIBILITY_MAX_MS + 100)).await;
        let mut left = BTreeSet::new();
        for queue in QUEUES.into_iter().chain(DEAD) {
            loop {
                let what = Receive { max: 10, visibility: Some(Duration::from_secs(600)), owner: Owner::Client };
                let found = queues.receive(queue, what, Duration::from_millis(300)).await.unwrap();
                if found.is_empty() {
                    break;
                }
                for message in &found {
                    let number: u64 = std::str::from_utf8(&message.body).unwrap().parse().unwrap();
                    assert!(left.insert(number), "message {number} is there twice");
                }
                let handles = found.iter().map(|message| message.handle).collect();
                assert!(queues.delete_batch(handles).await.unwrap().into_iter().all(|deleted| deleted == Ok(true)));
            }
        }
        let known = self.known.lock().unwrap();
        let of = |is: fn(&Known) -> bool| known.iter().filter(move |(_, known)| is(known)).map(|(number, _)| *number);
        let ghosts: Vec<u64> = of(|known| known.deleted.is_some()).filter(|number| left.contains(number)).collect();
        assert_eq!(ghosts, [0; 0], "they are there although their delete was acknowledged");
        let kept = of(|known| known.is_sent && known.deleted.is_none() && !known.may_be_deleted);
        let lost: Vec<u64> = kept.filter(|number| !left.contains(number)).collect();
        assert_eq!(lost, [0; 0], "they were acknowledged and are gone");
        let (sent, deleted) = (of(|known| known.is_sent).count(), of(|known| known.deleted.is_some()).count());
        say(format_args!("{sent} sent, {deleted} deleted, {} left", left.len()));
        assert!(sent > 1000 && deleted > 500, "it was no torture: {sent} sent, {deleted} deleted");
        let mut firsts = self.firsts.lock().unwrap().clone();
        firsts.sort();
        let in_order = |pair: &[First]| pair[0].0 != pair[1].0 || pair[0].2 < pair[1].2;
        let wrong = firsts.windows(2).find(|pair| !in_order(pair));
        assert_eq!(wrong, None, "a group is out of order");
        let snapshot = queues.store().snapshot().unwrap();
        assert_eq!(findings(&snapshot), [""; 0], "the books do not balance");
    }
}
