//! The demo bank: a users API and an account API over HTTP, with faults on demand.
//!
//! Owns the server and its switches. Knows the population; nothing of queues, functions or mail.

mod behaviour;
mod plan;
mod routes;
mod users;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use axum::serve::ListenerExt;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use self::behaviour::{Behaviour, HUGE_BODY_BYTES};
pub use self::plan::{Fault, Malformed, Plan};
use super::fixtures::Fixtures;

/// A page never has more users, whatever is asked for.
pub const PAGE_USERS_MAX: u32 = 10_000;
/// How long open requests may take after the shutdown.
const SHUTDOWN_MAX: Duration = Duration::from_secs(2);

/// The options of a bank.
#[derive(Clone)]
pub struct Options {
    /// How many users it has.
    pub users: u32,
    /// The seed of the population.
    pub seed: u64,
    /// Users per page when the request does not say, 1 to [`PAGE_USERS_MAX`]; values outside are moved to the nearest.
    pub page_size: u32,
    /// The share of the well-formed users whose account answers with a [`Fault`] until [`Handle::fix`], 0.0 to 1.0.
    pub fail_share: f64,
    /// When set, every route but `/healthz` wants `Authorization: Bearer …` and answers 401 without it.
    pub token: Option<String>,
    /// Each answer of the users and account routes waits this long.
    pub latency: Option<Duration>,
    /// How many of the users are [`Malformed`] until [`Handle::fix`].
    pub malformed_users: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { users: 1000, seed: 1, page_size: 500, fail_share: 0.0, token: None, latency: None, malformed_users: 0 }
    }
}

/// A route group whose behaviour can be switched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// `/users`, `/users.jsonl` and `/users-link`.
    Users,
    /// `/accounts/{id}/transactions`.
    Account,
}

/// How many requests came in, those refused with 401 included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// `GET /users`.
    pub users: u64,
    /// `GET /users.jsonl`.
    pub users_jsonl: u64,
    /// `GET /users-link`.
    pub users_link: u64,
    /// `GET /accounts/{id}/transactions`.
    pub transactions: u64,
    /// `GET /healthz`.
    pub healthz: u64,
    /// `POST /admin/fix`.
    pub fix: u64,
    /// Any other path.
    pub unknown: u64,
    /// How many of all these were answered 401.
    pub unauthorized: u64,
}

/// The counters behind [`Counts`].
#[derive(Default)]
struct Counters {
    users: AtomicU64,
    users_jsonl: AtomicU64,
    users_link: AtomicU64,
    transactions: AtomicU64,
    healthz: AtomicU64,
    fix: AtomicU64,
    unknown: AtomicU64,
    unauthorized: AtomicU64,
}

/// What all requests share.
struct Shared {
    options: Options,
    fixtures: Fixtures,
    plan: Plan,
    address: SocketAddr,
    /// Set once by fix; never cleared.
    fixed: AtomicBool,
    /// Switched by the handle; users and account.
    behaviours: RwLock<[Behaviour; 2]>,
    counters: Counters,
    /// How often each user's account was asked for; only users whose account was.
    asked: Mutex<HashMap<u32, u64>>,
    /// Ends endless answers.
    shutdown: CancellationToken,
}

/// The demo bank.
pub struct Bank;

impl Bank {
    /// Serves on `listener` until `shutdown` is cancelled; must be called within a tokio runtime.
    pub fn start(listener: TcpListener, options: Options, shutdown: CancellationToken) -> Handle {
        let address = listener.local_addr().expect("a bound listener has an address");
        let plan = Plan::new(options.users, options.malformed_users, options.fail_share);
        let shared = Arc::new(Shared {
            fixtures: Fixtures::new(options.seed),
            plan,
            options,
            address,
            fixed: AtomicBool::new(false),
            behaviours: RwLock::default(),
            counters: Counters::default(),
            asked: Mutex::default(),
            shutdown: shutdown.clone(),
        });
        let (ended, end) = watch::channel(());
        let router = routes::router(Arc::clone(&shared));
        tokio::spawn(async move {
            let _ended_when_dropped = ended;
            serve(listener, router, shutdown).await;
        });
        Handle { shared, end }
    }
}

/// Serves until the shutdown, then waits briefly for open requests.
async fn serve(listener: TcpListener, router: axum::Router, shutdown: CancellationToken) {
    // A socket that does not take the option still works, only slower.
    let listener = listener.tap_io(|socket| drop(socket.set_nodelay(true)));
    let server = axum::serve(listener, router).with_graceful_shutdown(shutdown.clone().cancelled_owned());
    let late = async {
        shutdown.cancelled().await;
        tokio::time::sleep(SHUTDOWN_MAX).await;
    };
    tokio::select! {
        // axum's accept loop outlives every error of its listener.
        _ = server => {}
        () = late => {}
    }
}

/// Serves until `shutdown` is cancelled, for the stand-alone server; answers with the final counts.
pub async fn run_bank(listener: TcpListener, options: Options, shutdown: CancellationToken) -> Counts {
    let handle = Bank::start(listener, options, shutdown);
    handle.stopped().await;
    handle.counts()
}

/// A running bank; clones speak to the same one, and dropping them does not stop it.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
    end: watch::Receiver<()>,
}

impl Handle {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// The whole address of a path: `http://127.0.0.1:9700/users`.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.shared.address)
    }

    /// The population that it serves.
    pub fn fixtures(&self) -> Fixtures {
        self.shared.fixtures
    }

    /// Which users are malformed and which accounts fail, as long as nothing is fixed.
    pub fn plan(&self) -> &Plan {
        &self.shared.plan
    }

    /// Fixes every fault and every malformed user.
    pub fn fix(&self) {
        self.shared.fix();
    }

    /// Switches how a route group answers from the next request on.
    pub fn set(&self, route: Route, behaviour: Behaviour) {
        self.shared.behaviours.write().unwrap_or_else(PoisonError::into_inner)[route as usize] = behaviour;
    }

    /// The requests so far.
    pub fn counts(&self) -> Counts {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.shared.counters;
        Counts {
            users: count(&counters.users),
            users_jsonl: count(&counters.users_jsonl),
            users_link: count(&counters.users_link),
            transactions: count(&counters.transactions),
            healthz: count(&counters.healthz),
            fix: count(&counters.fix),
            unknown: count(&counters.unknown),
            unauthorized: count(&counters.unauthorized),
        }
    }

    /// How often the account of user number `index` was asked for, whatever the answer was.
    pub fn asked(&self, index: u32) -> u64 {
        self.shared.asked.lock().unwrap_or_else(PoisonError::into_inner).get(&index).copied().unwrap_or(0)
    }

    /// Waits for the end of the server; the listener is closed then.
    pub async fn stopped(&self) {
        // The other end says nothing: it is dropped with the server.
        let _ = self.end.clone().changed().await;
    }
}

impl Shared {
    fn fix(&self) {
        self.fixed.store(true, Ordering::SeqCst);
    }

    fn fixed(&self) -> bool {
        self.fixed.load(Ordering::SeqCst)
    }

    fn behaviour(&self, route: Route) -> Behaviour {
        self.behaviours.read().unwrap_or_else(PoisonError::into_inner)[route as usize]
    }
}

#[cfg(test)]
mod tests;
