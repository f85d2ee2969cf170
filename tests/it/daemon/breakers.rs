//! Pools and circuit breakers: only pools and a store, with functions whose destination a test takes away.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use nightmail::base::{
    AttemptEnd, Backoff, Clock, Contact, Destination, Effect, Failure, LeaseTime, ManualClock, Outcome, Report,
    SystemClock, Timestamp, Verdict,
};
use nightmail::function::{Function, Invocation};
use nightmail::queue::stats::Stats;
use nightmail::queue::{Queues, Receive, Send, catalog, stats};
use nightmail::run::Ledger;
use nightmail::store::record::Owner;
use nightmail::store::{self, Store};
use nightmail::work::pool::Drain;
use nightmail::work::{BreakerState, BreakerView, Breakers, Options, Pool, Quarantine};
use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::harness::{messages, until};
use crate::support::{START, dying_after, forever};

fn relay() -> Destination {
    Destination::new("relay", "mail.example:587")
}

fn report(outcome: Outcome, verdict: Verdict) -> Report {
    Report { outcome, contacts: vec![Contact { destination: relay(), verdict }] }
}

fn answered() -> Report {
    report(Outcome::done(), Verdict::Answered)
}

fn refused() -> Report {
    let why = Failure::new("smtp", "relay", "refused", "connection refused");
    let verdict = Verdict::Unreachable { needs_operator: false, why: "connection refused".into() };
    report(Outcome::Deferred { why, after: None }, verdict)
}

/// The relay asks for a pause of a minute.
fn throttled() -> Report {
    report(refused().outcome, Verdict::Throttled { after: Some(Duration::from_secs(60)) })
}

fn server_error() -> Report {
    let why = Failure::new("http", "account", "500", "oops");
    report(Outcome::Retry { why, after: None, effect: Effect::None }, Verdict::ServerError)
}

/// One call: the message's text, and whether the breaker was open.
type Called = (String, bool);

/// A function of which a test says how each message ends.
struct Fake {
    destinations: Vec<Destination>,
    answer: Box<dyn Fn(&str) -> Report + std::marker::Send + Sync>,
    breakers: Breakers,
    calls: Mutex<Vec<Called>>,
    /// Calls under way while the breaker is open, and the most of them at one time.
    open_calls: Mutex<(usize, usize)>,
}

impl fmt::Debug for Fake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fake")
    }
}

impl Function for Fake {
    fn call(&self, invocation: Invocation) -> BoxFuture<'_, Report> {
        Box::pin(async move {
            let text = String::from_utf8(invocation.body.to_vec()).unwrap();
            let is_open = state(&self.breakers) != BreakerState::Closed;
            self.calls.lock().unwrap().push((text.clone(), is_open));
            if is_open {
                let mut open = self.open_calls.lock().unwrap();
                *open = (open.0 + 1, open.1.max(open.0 + 1));
            }
            tokio::task::yield_now().await;
            if text == "hangs" {
                std::future::pending::<()>().await;
            }
            let report = (self.answer)(&text);
            if is_open {
                self.open_calls.lock().unwrap().0 -= 1;
            }
            report
        })
    }

    fn destinations(&self) -> Vec<Destination> {
        self.destinations.clone()
    }
}

fn view(breakers: &Breakers) -> BreakerView {
    breakers.views().pop().unwrap()
}

fn state(breakers: &Breakers) -> BreakerState {
    breakers.views().pop().map_or(BreakerState::Closed, |view| view.state)
}

/// A store with queues `orders` and `dead`, and pools on it.
struct World {
    _dir: TempDir,
    queues: Queues,
    breakers: Breakers,
    quarantine: Quarantine,
    drain: Drain,
    pools: Vec<JoinHandle<Result<(), nightmail::queue::Error>>>,
}

impl World {
    /// A message dies at its `max`-th charged failure.
    async fn new(clock: Arc<dyn Clock>, max: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&store::Options::at(dir.path().join("nightmail.redb"))).unwrap();
        let queues = Queues::new(store, clock.clone(), Arc::new(Ledger));
        queues.ensure("dead", &forever()).await.unwrap();
        queues.ensure("orders", &dying_after(max)).await.unwrap();
        queues.ensure("others", &dying_after(max)).await.unwrap();
        let breakers = Breakers::new(clock);
        let quarantine = Quarantine::new(BTreeMap::new());
        Self { _dir: dir, queues, breakers, quarantine, drain: Drain::default(), pools: Vec::new() }
    }

    async fn send(&self, queue: &str, texts: impl IntoIterator<Item = String>) {
        for text in texts {
            self.queues.send(queue, Send::text(text)).await.unwrap();
        }
    }

    /// Sends messages that were in work when a process died.
    async fn send_suspects(&mut self, number: u32) {
        self.send("orders", numbered("suspect", number)).await;
        let queue = catalog::look_up(&self.queues.store().snapshot().unwrap(), "orders").unwrap().id;
        let what = Receive { max: 10, visibility: Some(Duration::from_secs(60)), owner: Owner::Worker };
        assert_eq!(self.queues.receive_now(queue, what).await.unwrap().messages.len(), number as usize);
        self.queues.end_worker_leases(&BTreeSet::from(["orders".to_owned()])).await.unwrap();
        let next = self.queues.next_suspect(queue).unwrap().expect("all are suspects");
        self.quarantine = Quarantine::new(BTreeMap::from([(queue, next)]));
    }

    /// Starts a pool on the queue, whose function calls the relay.
    fn work(
        &mut self,
        queue: &str,
        concurrency: usize,
        answer: impl Fn(&str) -> Report + std::marker::Send + Sync + 'static,
    ) -> Arc<Fake> {
        self.work_with(queue, concurrency, vec![relay()], answer)
    }

    fn work_with(
        &mut self,
        queue: &str,
        concurrency: usize,
        destinations: Vec<Destination>,
        answer: impl Fn(&str) -> Report + std::marker::Send + Sync + 'static,
    ) -> Arc<Fake> {
        let function = Arc::new(Fake {
            destinations,
            answer: Box::new(answer),
            breakers: self.breakers.clone(),
            calls: Mutex::default(),
            open_calls: Mutex::default(),
        });
        let options = Options {
            function: "fake".into(),
            queue: queue.into(),
            concurrency,
            timeout: Duration::from_secs(3600),
            backoff: Backoff { first: Duration::from_millis(5), max: Duration::from_millis(20) },
            deferral_pause: Duration::from_millis(10),
            deferral_max: Duration::from_secs(60),
            on_unknown: nightmail::run::OnUnknown::Hold,
        };
        let pool = Pool::new(self.queues.clone(), options, function.clone(), self.drain.clone(), &self.breakers);
        self.pools.push(tokio::spawn(pool.with_quarantine(self.quarantine.clone()).run()));
        function
    }

    async fn until_open(&self) {
        until("an open breaker", async || (state(&self.breakers) == BreakerState::Open).then_some(())).await;
    }

    /// Waits until the queue is empty.
    async fn until_empty(&self, queue: &str) {
        until("an empty queue", async || (self.stats(queue).total() == 0).then_some(())).await;
    }

    fn stats(&self, queue: &str) -> Stats {
        let snapshot = self.queues.store().snapshot().unwrap();
        let queue = catalog::look_up(&snapshot, queue).unwrap();
        stats::stats(&snapshot, &queue, self.queues.now()).unwrap()
    }

    async fn stop(self) {
        self.drain.stop.cancel();
        self.drain.abort.cancel();
        for pool in self.pools {
            pool.await.unwrap().unwrap();
        }
    }
}

impl Fake {
    fn calls(&self) -> Vec<Called> {
        self.calls.lock().unwrap().clone()
    }

    async fn until_calls(&self, number: usize) {
        until("calls", async || (self.calls().len() >= number).then_some(())).await;
    }
}

fn numbered(name: &str, number: u32) -> Vec<String> {
    (0..number).map(|index| format!("{name} {index}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_answers_every_message_with_500_kills_none_of_them() {
    let mut world = World::new(SystemClock::shared(), 2).await;
    world.send("orders", numbered("order", 60)).await;
    let is_broken = Arc::new(AtomicBool::new(true));
    let broken = is_broken.clone();
    let fake =
        world.work("orders", 24, move |_| if broken.load(Ordering::SeqCst) { server_error() } else { answered() });
    world.until_open().await;
    // One probe has failed when the next one is more than the first wait away.
    until("a failed probe", async || {
        let view = view(&world.breakers);
        (view.next_try?.since(view.since?) > Duration::from_millis(2500)).then_some(())
    })
    .await;
    let calls = fake.calls().len();
    assert!(calls <= 24 + 2, "{calls} calls: those under way, and a probe");
    is_broken.store(false, Ordering::SeqCst);
    assert_eq!(world.breakers.probe_now(None).unwrap().len(), 1);
    world.until_empty("orders").await;
    assert!(messages(&world.queues, "dead").is_empty());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_poison_account_among_good_ones_dies_after_its_attempts_and_stops_nobody() {
    let mut world = World::new(SystemClock::shared(), 3).await;
    world.send("orders", ["poison".to_owned()]).await;
    world.send("orders", numbered("good", 40)).await;
    let fake = world.work("orders", 2, |text| if text == "poison" { server_error() } else { answered() });
    world.until_empty("orders").await;
    let dead = messages(&world.queues, "dead");
    let charged = dead[0].history.iter().filter(|attempt| attempt.end != AttemptEnd::Deferred).count();
    assert_eq!((dead.len(), dead[0].body.as_str(), charged), (1, "poison", 3));
    assert!(fake.calls().iter().all(|(_, is_open)| !is_open));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_takes_a_message_that_was_not_tried_and_so_poison_in_front_holds_nobody() {
    let mut world = World::new(SystemClock::shared(), 2).await;
    world.send("orders", numbered("poison", 10)).await;
    world.send("orders", numbered("good", 5)).await;
    let fake = world.work("orders", 1, |text| if text.starts_with("poison") { server_error() } else { answered() });
    world.until_empty("orders").await;
    let probes: Vec<Called> = fake.calls().into_iter().filter(|(_, is_open)| *is_open).collect();
    assert_eq!(probes, [("good 0".to_owned(), true)]);
    assert_eq!(messages(&world.queues, "dead").len(), 10, "each of them failed twice at its own expense");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_rotate_over_the_messages() {
    let mut world = World::new(SystemClock::shared(), 2).await;
    world.send("orders", numbered("order", 3)).await;
    let is_away = Arc::new(AtomicBool::new(true));
    let away = is_away.clone();
    let fake = world.work("orders", 1, move |_| if away.load(Ordering::SeqCst) { refused() } else { answered() });
    for number in 1..=3 {
        fake.until_calls(number).await;
        world.until_open().await;
        if number == 3 {
            // Each waits for a second or two before it may be received again.
            until("three ready messages", async || {
                let ready = messages(&world.queues, "orders").into_iter().filter(|message| message.phase == "ready");
                (ready.count() == 3).then_some(())
            })
            .await;
        }
        world.breakers.probe_now(None);
    }
    fake.until_calls(4).await;
    let texts: Vec<String> = fake.calls().into_iter().map(|(text, _)| text).collect();
    assert_eq!(texts[..4], ["order 0", "order 1", "order 2", "order 0"]);
    is_away.store(false, Ordering::SeqCst);
    world.breakers.probe_now(None);
    world.until_empty("orders").await;
    assert!(messages(&world.queues, "dead").is_empty(), "four failures, and not one is charged");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pools_that_share_a_destination_probe_it_one_at_a_time_and_all_go_on_when_it_answers() {
    let mut world = World::new(SystemClock::shared(), 2).await;
    let is_away = Arc::new(AtomicBool::new(true));
    let (one, other) = (is_away.clone(), is_away.clone());
    for queue in ["orders", "others"] {
        world.send(queue, numbered("order", 20)).await;
    }
    let one = world.work("orders", 4, move |_| if one.load(Ordering::SeqCst) { refused() } else { answered() });
    let other = world.work("others", 4, move |_| if other.load(Ordering::SeqCst) { refused() } else { answered() });
    world.until_open().await;
    // What was received before the opening is no probe, also where its call had not begun by then.
    until("the attempts under way", async || {
        (world.stats("orders").in_flight + world.stats("others").in_flight == 0).then_some(())
    })
    .await;
    let calls = || one.calls().len() + other.calls().len();
    for fake in [&one, &other] {
        fake.open_calls.lock().unwrap().1 = 0;
    }
    for _ in 0..4 {
        let before = calls();
        world.breakers.probe_now(None);
        until("a probe", async || (calls() > before).then_some(())).await;
        world.until_open().await;
    }
    let most = [&one, &other].map(|fake| fake.open_calls.lock().unwrap().1);
    assert!(most[0].max(most[1]) == 1, "{most:?} at once");
    is_away.store(false, Ordering::SeqCst);
    world.breakers.probe_now(None);
    world.until_empty("orders").await;
    world.until_empty("others").await;
    assert!(messages(&world.queues, "dead").is_empty());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_that_panics_makes_way_for_the_next() {
    let mut world = World::new(SystemClock::shared(), 2).await;
    world.send("orders", numbered("order", 3)).await;
    let panics = AtomicU64::new(0);
    let fake = world.work("orders", 1, move |text| match text {
        "order 0" => match panics.fetch_add(1, Ordering::SeqCst) {
            0 => refused(),
            _ => answered(),
        },
        "order 1" => panic!("on purpose"),
        _ => answered(),
    });
    world.until_empty("orders").await;
    let probes: Vec<Called> = fake.calls().into_iter().filter(|(_, is_open)| *is_open).collect();
    assert_eq!(probes, [("order 1".to_owned(), true), ("order 2".to_owned(), true)]);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn suspects_whose_destination_is_away_block_nobody() {
    let mut world = World::new(SystemClock::shared(), 3).await;
    world.send_suspects(2).await;
    let is_away = Arc::new(AtomicBool::new(true));
    let away = is_away.clone();
    world.work("orders", 1, move |_| if away.load(Ordering::SeqCst) { throttled() } else { answered() });
    world.until_open().await;
    world.send("others", numbered("other", 20)).await;
    let others = world.work_with("others", 2, Vec::new(), |_| Outcome::done().into());
    // Suspects keep others out for up to 30 s, these not at all, although their next probe is a minute away.
    tokio::time::timeout(Duration::from_secs(15), world.until_empty("others")).await.unwrap();
    assert_eq!(others.calls().len(), 20);
    is_away.store(false, Ordering::SeqCst);
    world.breakers.probe_now(None);
    world.until_empty("orders").await;
    assert!(messages(&world.queues, "dead").is_empty(), "the suspects were tried and are done");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_only_suspects_are_left_one_of_them_probes() {
    let mut world = World::new(SystemClock::shared(), 3).await;
    world.send_suspects(2).await;
    world.send("others", ["opens it and dies".to_owned()]).await;
    let why = || Failure::new("data", "message", "malformed", "and the relay refused");
    // This pool does not wait for the suspects.
    world.quarantine = Quarantine::new(BTreeMap::new());
    world.work("others", 1, move |_| Report { outcome: Outcome::Dead { why: why() }, ..refused() });
    world.until_open().await;
    let queue = catalog::look_up(&world.queues.store().snapshot().unwrap(), "orders").unwrap().id;
    let next = world.queues.next_suspect(queue).unwrap().unwrap();
    world.quarantine = Quarantine::new(BTreeMap::from([(queue, next)]));
    let fake = world.work("orders", 4, |_| answered());
    tokio::time::timeout(Duration::from_secs(20), world.until_empty("orders")).await.unwrap();
    assert_eq!(fake.calls()[0], ("suspect 0".to_owned(), true));
    world.stop().await;
}

/// A clock that counts how often it is read.
#[derive(Debug)]
struct CountedClock {
    clock: Arc<ManualClock>,
    reads: AtomicU64,
}

impl Clock for CountedClock {
    fn wall(&self) -> Timestamp {
        self.clock.wall()
    }
    fn monotonic(&self) -> Duration {
        self.clock.monotonic()
    }
    fn lease(&self) -> LeaseTime {
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.clock.lease()
    }
}

impl CountedClock {
    fn new() -> Arc<Self> {
        Arc::new(Self { clock: ManualClock::new(START), reads: AtomicU64::new(0) })
    }

    /// How often it is read within 300 ms. Each round of a dispatcher's loop reads it, and a loop that spins makes about
    /// a thousand rounds a second.
    async fn reads(&self) -> u64 {
        let before = self.reads.load(Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(300)).await;
        self.reads.load(Ordering::SeqCst) - before
    }

    /// Lets pass what the start of a pool brings: a few rounds of 300 ms.
    async fn settled(&self) {
        for _ in 0..5 {
            if self.reads().await < 10 {
                return;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_pool_that_is_idle_does_not_spin() {
    let clock = CountedClock::new();
    let mut world = World::new(clock.clone(), 2).await;
    world.send("orders", ["hangs".to_owned(), "waits".to_owned()]).await;
    let fake = world.work("orders", 1, |_| answered());
    fake.until_calls(1).await;
    clock.settled().await;
    assert_eq!(clock.reads().await, 0, "nothing can be received before a permit is free");
    assert_eq!(fake.calls().len(), 1);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_whose_destination_is_away_does_not_spin() {
    let clock = CountedClock::new();
    let mut world = World::new(clock.clone(), 2).await;
    world.send("orders", numbered("order", 50)).await;
    let fake = world.work("orders", 4, |_| refused());
    fake.until_calls(4).await;
    // The clock stands still, so the probe that is due in a second never is, and is looked for each second.
    clock.settled().await;
    let reads = clock.reads().await;
    assert!(reads <= 10, "{reads} reads in 300 ms");
    assert!(fake.calls().len() <= 8, "{:?}", fake.calls());
    world.stop().await;
}
