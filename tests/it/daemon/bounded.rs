//! A fan-out into a bounded queue, with the pools, the bank and a store, and test functions instead of statements.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use nightmail::base::attempt::AttemptEnd;
use nightmail::base::{Backoff, Outcome, Report, SystemClock};
use nightmail::function::statement::{Users, UsersOptions};
use nightmail::function::{Function, Invocation, upstream};
use nightmail::queue::{Options, Queues, Send};
use nightmail::run::report::{self, RunState};
use nightmail::run::{self, Ledger, Start};
use nightmail::schedule::{FanOut, FanOutOptions};
use nightmail::store::{self, Store, Tx};
use nightmail::work::pool::Drain;
use nightmail::work::{Breakers, Options as PoolOptions, Pool};
use nightmail_demo::bank::{self, Bank};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::harness::{assert_recounted, listener, messages, until};
use crate::slices::make_queues;
use crate::support::forever;

/// Counts the messages of each user.
#[derive(Debug, Default)]
struct Collect(Mutex<BTreeMap<String, u32>>);

impl Function for Collect {
    fn call(&self, invocation: Invocation) -> BoxFuture<'_, Report> {
        Box::pin(async move {
            let body: serde_json::Value = serde_json::from_slice(&invocation.body).unwrap();
            let id = body["user"]["id"].as_str().unwrap_or("none").to_owned();
            *self.0.lock().unwrap().entry(id).or_default() += 1;
            Outcome::done().into()
        })
    }
}

struct Rig {
    _dir: TempDir,
    queues: Queues,
    run: u64,
    drain: Drain,
    collected: Arc<Collect>,
    pools: Vec<JoinHandle<Result<(), nightmail::queue::Error>>>,
    users: Users,
    bank: bank::Handle,
    _end_bank: DropGuard,
}

impl Rig {
    /// As [`Rig::bounded`], with a target that holds 50 messages.
    async fn new(users: u32) -> Self {
        Self::bounded(users, Options { messages_max: Some(50), ..forever() }).await
    }

    /// A bank with this many users, in pages of 500, a target with a limit, and a run that has begun.
    async fn bounded(users: u32, target: Options) -> Self {
        let (dir, end) = (tempfile::tempdir().unwrap(), CancellationToken::new());
        let options = bank::Options { users, page_size: 500, ..bank::Options::default() };
        let bank = Bank::start(listener().await, options, end.clone());
        let store = Store::open(&store::Options::at(dir.path().join("nightmail.redb"))).unwrap();
        let queues = Queues::new(store, SystemClock::shared(), Arc::new(Ledger));
        make_queues(&queues, target, forever()).await;
        let start = Start {
            schedule: "monthly".into(),
            function: "fan-out".into(),
            queue: "own".into(),
            params: BTreeMap::new(),
            scheduled_for: queues.now().wall,
            guard: None,
            brake: None,
            gate: None,
            note: String::new(),
        };
        let now = queues.now();
        let run = queues.store().write::<_, run::Error, _>(move |tx: &mut Tx<'_>| run::start(tx, &start, now));
        let run = run.await.unwrap();
        let users = Users::new(&users_options(bank.url("/users")), &[], SystemClock::shared()).unwrap();
        Self {
            _dir: dir,
            queues,
            run,
            drain: Drain::default(),
            collected: Arc::default(),
            pools: Vec::new(),
            users,
            bank,
            _end_bank: end.drop_guard(),
        }
    }

    fn report(&self) -> report::Report {
        report::report(&self.queues.store().snapshot().unwrap(), self.run).unwrap()
    }

    /// Starts the fan-out's pool.
    fn fan_out(mut self) -> Self {
        let options = FanOutOptions {
            name: "fan-out".into(),
            queue: "own".into(),
            target: "users".into(),
            users: users_options(String::new()),
        };
        let users = Users::new(&users_options("http://127.0.0.1:1/users".into()), &[], SystemClock::shared()).unwrap();
        let users = std::mem::replace(&mut self.users, users);
        let function = Arc::new(FanOut::new(options, users, self.queues.clone()));
        self.pool("fan-out", "own", 1, function);
        self
    }

    /// Starts the workers of the target.
    fn work(mut self) -> Self {
        let collected = self.collected.clone();
        self.pool("collect", "users", 8, collected);
        self
    }

    fn pool(&mut self, function: &str, queue: &str, concurrency: usize, called: Arc<dyn Function>) {
        let options = PoolOptions {
            function: function.into(),
            queue: queue.into(),
            concurrency,
            timeout: Duration::from_secs(600),
            backoff: Backoff::default(),
            deferral_pause: Duration::from_millis(50),
            // A deferral that counted would be the last one.
            deferral_max: Duration::from_millis(1),
            on_unknown: nightmail::run::OnUnknown::Hold,
        };
        let breakers = Breakers::new(SystemClock::shared());
        let pool = Pool::new(self.queues.clone(), options, called, self.drain.clone(), &breakers);
        self.pools.push(tokio::spawn(pool.run()));
    }

    /// Waits until every user was fetched and worked on, stops the pools, and checks that each came once.
    async fn end(mut self, users: u32) {
        until("all users", async || (self.report().fetched_at.is_some()).then_some(())).await;
        until("all work", async || messages(&self.queues, "users").is_empty().then_some(())).await;
        self.drain.stop.cancel();
        for pool in self.pools.drain(..) {
            pool.await.unwrap().unwrap();
        }
        let report = assert_recounted(&self.queues, self.run);
        assert_eq!((report.fetched, report.repeated, report.interrupted), (u64::from(users), 0, 0));
        let collected = self.collected.0.lock().unwrap();
        assert_eq!((collected.len(), collected.values().max()), (users as usize, Some(&1)), "each user exactly once");
        assert_eq!(messages(&self.queues, "letters").len(), 0);
        assert_eq!(self.queues.store().roll_backs(), 0);
    }
}

fn users_options(url: String) -> UsersOptions {
    let upstream = upstream::Options {
        connect_timeout: Duration::from_secs(30),
        timeout: Duration::from_secs(60),
        response_bytes_max: 1 << 24,
        token: None,
        headers: Vec::new(),
        retries: 3,
        backoff: Backoff::default(),
    };
    UsersOptions { url, upstream, items: None, next: None, cursor_param: "cursor".into(), pages_max: 100 }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_users_go_through_a_queue_of_fifty_while_workers_drain_it_and_each_comes_once() {
    const USERS: u32 = 2000;
    let rig = Rig::new(USERS).await.fan_out().work();
    let queue = || messages(&rig.queues, "users").len();
    until("the last page", async || {
        assert!(queue() <= 50, "the queue holds more than its limit");
        (rig.report().state != RunState::Fetching).then_some(())
    })
    .await;
    rig.end(USERS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fan_out_whose_target_stays_full_is_deferred_uncharged_for_as_long_as_it_takes() {
    const USERS: u32 = 120;
    let rig = Rig::new(USERS).await.fan_out();
    let fan_out = until("a second deferral", async || {
        let message = messages(&rig.queues, "own").pop()?;
        (message.history.len() >= 2).then_some(message)
    })
    .await;
    assert_eq!((rig.report().fetched, rig.report().state), (50, RunState::Fetching));
    for attempt in &fan_out.history {
        let why = attempt.failure.as_ref().unwrap();
        assert_eq!((attempt.end, why.class().as_str()), (AttemptEnd::Deferred, "store fan-out queue-full"));
        assert!(why.text.contains("queue \"users\" is full: it takes 50 messages"), "{}", why.text);
    }
    assert!(fan_out.attempts_charged <= 1, "only the attempt at hand is charged: {fan_out:?}");
    let refused = rig.queues.send("users", Send::text("{}")).await;
    assert!(refused.is_err(), "nobody else gets in either");
    rig.work().end(USERS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_page_is_fetched_while_one_is_committed_and_no_further_one() {
    const USERS: u32 = 2000;
    let rig = Rig::new(USERS).await.fan_out();
    until("the second page", async || (rig.bank.counts().users == 2).then_some(())).await;
    until("a full queue", async || (rig.report().fetched == 50).then_some(())).await;
    assert_eq!((rig.bank.counts().users, rig.report().state), (2, RunState::Fetching));
    rig.work().end(USERS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_of_bytes_holds_a_fan_out_back_as_one_of_messages_does() {
    const USERS: u32 = 600;
    const BYTES_MAX: u64 = 8000;
    let rig = Rig::bounded(USERS, Options { bytes_max: Some(BYTES_MAX), ..forever() }).await.fan_out().work();
    until("the last page", async || {
        let bytes: usize = messages(&rig.queues, "users").iter().map(|message| message.body.len()).sum();
        assert!(bytes as u64 <= BYTES_MAX, "{bytes} bytes");
        (rig.report().state != RunState::Fetching).then_some(())
    })
    .await;
    rig.end(USERS).await;
}
