//! A bounded pool of sessions with one relay.
//!
//! Owns three promises: at most `connections` sessions at once, a session is parked only after a mail's final good
//! reply, and a dialogue that has begun is never cancelled from outside. Must not know what a mail holds.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};

use super::SendFault;
use super::connection::{Connection, Letter, Relay};
use super::fault::{Step, Stop};
use crate::base::{Clock, Failure};

/// The reaper looks at parked sessions no more often than this.
const REAP_INTERVAL_MIN: Duration = Duration::from_millis(50);

/// The sessions with one relay.
pub(super) struct Pool {
    relay: Relay,
    clock: Arc<dyn Clock>,
    /// One permit a session in a dialogue; tokio's semaphore serves waiters in their order.
    permits: Arc<Semaphore>,
    parked: Mutex<Parked>,
}

#[derive(Default)]
struct Parked {
    /// Sessions between two mails with the monotonic time of their parking, the latest last.
    sessions: Vec<(Connection, Duration)>,
    /// Whether a reaper runs: set when the first session is parked, cleared by the reaper when none is left.
    reaped: bool,
}

impl Pool {
    pub(super) fn new(relay: Relay, clock: Arc<dyn Clock>) -> Arc<Self> {
        let permits = Arc::new(Semaphore::new(relay.options.connections.min(Semaphore::MAX_PERMITS)));
        Arc::new(Self { relay, clock, permits, parked: Mutex::default() })
    }

    /// Hands one mail to the relay; returns its final reply. Dropping the future while it waits for a free session
    /// sends nothing; later the dialogue goes on to its end without the caller.
    pub(super) async fn send(self: &Arc<Self>, letter: Letter, begin_within: Duration) -> Result<String, SendFault> {
        let permit = Arc::clone(&self.permits).acquire_owned();
        let Ok(permit) = tokio::time::timeout(begin_within, permit).await else { return Err(self.busy()) };
        let permit = permit.expect("the semaphore is never closed");
        let (answer, ended) = oneshot::channel();
        let pool = Arc::clone(self);
        tokio::spawn(async move {
            Box::pin(pool.dialogue(letter, answer)).await;
            drop(permit);
        });
        ended.await.unwrap_or_else(|_| {
            let stop = Stop::broken(Step::Dot, "lost", "the dialogue ended without an answer");
            Err(stop.into_fault(&self.relay.address()))
        })
    }

    /// Session, EHLO and AUTH, three commands, the final dot at twice the limit, and a moment to spare. A parked session
    /// that proves dead costs one command more.
    pub(super) fn dialogue_max(&self) -> Duration {
        let options = &self.relay.options;
        options.connect_timeout + options.command_timeout * 6 + Duration::from_secs(2)
    }

    /// Nothing was said to the relay: the mail can wait without being charged.
    fn busy(&self) -> SendFault {
        let connections = self.relay.options.connections;
        let relay = self.relay.address();
        let text = format!(
            "no connection to relay {relay} came free within the function's time limit (raise relay.connections, now \
             {connections}, or lower the function's concurrency)"
        );
        SendFault::Deferred(Failure::new("smtp", "relay", "busy", text))
    }

    /// One mail from MAIL FROM to the final reply. The answer is given before the goodbye, the permit after it.
    async fn dialogue(self: Arc<Self>, letter: Letter, answer: oneshot::Sender<Result<String, SendFault>>) {
        let (used, result) = self.deliver(&letter).await;
        let fault = |stop: Stop| stop.into_fault(&self.relay.address());
        let finished = match (used, result) {
            (Some(session), Ok(reply)) => {
                let spent = self.park_unless_spent(session);
                // Nobody waits any more when the caller was dropped.
                let _ = answer.send(Ok(reply));
                spent
            }
            (used, Err(stop)) => {
                let finished = used.filter(|_| stop.is_in_step());
                let _ = answer.send(Err(fault(stop)));
                finished
            }
            (None, Ok(_)) => unreachable!("a reply comes from a session"),
        };
        if let Some(session) = finished {
            session.quit().await;
        }
    }

    /// Uses a parked session or opens one; a parked one that proves dead before anything was taken is replaced once.
    async fn deliver(&self, letter: &Letter) -> (Option<Connection>, Result<String, Stop>) {
        let limit = self.relay.options.command_timeout;
        if let Some(mut session) = self.take() {
            match session.deliver(letter, limit).await {
                Err(stop) if stop.is_stale() => drop(session),
                result => return (Some(session), result),
            }
        }
        match self.relay.open().await {
            Ok(mut session) => {
                let result = session.deliver(letter, limit).await;
                (Some(session), result)
            }
            Err(stop) => (None, Err(stop)),
        }
    }

    /// The latest parked session that is not too old; the others keep ageing until the reaper comes.
    fn take(&self) -> Option<Connection> {
        let (session, since) = self.parked().sessions.pop()?;
        (self.clock.monotonic().saturating_sub(since) < self.relay.options.idle_max).then_some(session)
    }

    /// Parks the session for the next mail, or gives it back when it has delivered its share.
    fn park_unless_spent(self: &Arc<Self>, session: Connection) -> Option<Connection> {
        if session.mails >= self.relay.options.mails_per_connection {
            return Some(session);
        }
        let mut parked = self.parked();
        parked.sessions.push((session, self.clock.monotonic()));
        if !parked.reaped {
            parked.reaped = true;
            tokio::spawn(reap(Arc::downgrade(self), self.relay.options.idle_max.max(REAP_INTERVAL_MIN)));
        }
        None
    }

    /// Takes out what has been parked too long; the second value says whether any is left.
    fn expired(&self) -> (Vec<Connection>, bool) {
        let now = self.clock.monotonic();
        let idle_max = self.relay.options.idle_max;
        let mut parked = self.parked();
        let young = |since: Duration| now.saturating_sub(since) < idle_max;
        let (kept, old): (Vec<_>, Vec<_>) = parked.sessions.drain(..).partition(|(_, since)| young(*since));
        parked.sessions = kept;
        parked.reaped = !parked.sessions.is_empty();
        (old.into_iter().map(|(session, _)| session).collect(), parked.reaped)
    }

    fn parked(&self) -> MutexGuard<'_, Parked> {
        // Each change is whole in itself, so a panic elsewhere leaves nothing half done.
        self.parked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("relay", &self.relay).finish_non_exhaustive()
    }
}

/// Closes sessions that nobody needs any more; ends with the last one, or with the pool.
async fn reap(pool: Weak<Pool>, interval: Duration) {
    loop {
        tokio::time::sleep(interval).await;
        let Some(pool) = pool.upgrade() else { return };
        let (old, any_left) = pool.expired();
        drop(pool);
        futures_util::future::join_all(old.into_iter().map(Connection::quit)).await;
        if !any_left {
            return;
        }
    }
}
