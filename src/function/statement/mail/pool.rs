//! A bounded pool of sessions with one relay.
//!
//! Owns these promises: at most `connections` dialogues at once, of a recipient domain too; no more mails in a second than the
//! limits allow; a session is parked only after the relay has accepted a mail; and a dialogue that has begun is never
//! cancelled by its caller's end. Must not know what a mail contains.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::connection::{Connection, OutgoingMail};
use super::domains::{Domain, Domains, Inside};
use super::fault::{Excess, SendFault, SmtpFailure, Step, Undelivered};
use super::pace::{self, Pace};
use super::refusals::{self, Refusals};
use super::relay::Relay;
use crate::base::{Calls, Clock, Destination, Failure, Timestamp};
use crate::function::silence::{Silences, Wait};
use crate::function::timings::Stopwatch;
use crate::function::{EffectFlag, EffectInProgress, PaceView, Quota};

/// The reaper checks parked sessions no more often than this, so that a tiny `idle_max` does not make it spin.
const REAP_INTERVAL_MIN: Duration = Duration::from_millis(50);

/// So far ahead of their turns attempts for a limited domain may begin.
const AHEAD: Duration = Duration::from_secs(1);

/// The sessions with one relay.
pub(super) struct Pool {
    relay: Relay,
    clock: Arc<dyn Clock>,
    /// One permit for each session in a dialogue, held until QUIT is over. tokio's semaphore is fair: first come, first
    /// served.
    permits: Arc<Semaphore>,
    /// How fast mails follow one another.
    pace: Pace,
    /// The recipient domains that have limits.
    domains: Domains,
    /// The messages that the relay refused.
    refusals: Refusals,
    /// The dialogues that wait for the relay.
    silences: Arc<Silences>,
    /// Dialogues that ended with a mail.
    dialogues: Stopwatch,
    /// Sessions that are open but unused. They hold no permit.
    parked: Mutex<Parked>,
}

#[derive(Default)]
struct Parked {
    /// Idle sessions with the monotonic time at which each was parked, the latest last.
    sessions: Vec<(Connection, Duration)>,
    /// Whether a reaper runs: set when the first session is parked, cleared when the reaper finds none left.
    has_reaper: bool,
}

impl Pool {
    pub(super) fn new(relay: Relay, clock: Arc<dyn Clock>) -> Arc<Self> {
        let permits = Arc::new(Semaphore::new(relay.options.connections.min(Semaphore::MAX_PERMITS)));
        let (pace, domains) = (Pace::new(relay.options.per_second), Domains::new(&relay.options.domains));
        let silences = Silences::new(Arc::clone(&clock));
        let (refusals, dialogues, parked) = (Refusals::default(), Stopwatch::default(), Mutex::default());
        Arc::new(Self { relay, clock, permits, pace, domains, refusals, silences, dialogues, parked })
    }

    /// Sends one mail to the relay and returns its final reply. If the future is dropped while it waits for a free
    /// session, nothing is sent. Once the dialogue has begun, it runs to its end without the caller, unless its effect is
    /// aborted before the final dot.
    ///
    /// # Errors
    /// [`Undelivered`]; all faults but `Unknown` mean that the relay has not accepted the mail.
    pub(super) async fn send(
        self: &Arc<Self>,
        outgoing: OutgoingMail,
        begin_within: Duration,
        effect: &EffectFlag,
    ) -> Result<String, Undelivered> {
        let before = self.clock.monotonic() + begin_within;
        let domain = self.domains.of(outgoing.to.domain());
        let of_domain = self.room_of(domain.as_deref(), before).await?;
        let permit = Arc::clone(&self.permits).acquire_owned();
        let left = before.saturating_sub(self.clock.monotonic());
        let Ok(permit) = tokio::time::timeout(left, permit).await else { return Err(self.busy()) };
        let permit = (permit.expect("the semaphore is never closed"), of_domain);
        // Looked at first, so that no session is opened in vain.
        if !self.pace.has_turn(before) {
            return Err(too_fast().classify(&self.relay.address()));
        }
        // A task of its own: a dialogue that is dropped after the final dot would leave it unknown whether the mail was
        // accepted, and dropping is what happens to the caller at its time limit and in a drain.
        let (answer, ended) = oneshot::channel();
        let (pool, effect) = (Arc::clone(self), effect.start());
        tokio::spawn(async move {
            Box::pin(pool.dialogue((outgoing, domain, before), answer, effect)).await;
            drop(permit);
        });
        // The sender is dropped unused only when the dialogue panicked. How far it came is unknown: assume the worst.
        ended.await.unwrap_or_else(|_| {
            let failure = SmtpFailure::broken(Step::EndOfData, "lost", "the dialogue ended without an answer");
            Err(Undelivered { verdict: None, ..failure.classify(&self.relay.address()) })
        })
    }

    /// Opens a session of its own up to the login and ends it; says what the relay answered.
    ///
    /// # Errors
    /// What is wrong, and the remedy.
    pub(super) async fn probe(&self) -> Result<String, Failure> {
        match self.relay.open(&self.silences.begin()).await {
            Ok(session) => {
                let answered = self.relay.describe(&session);
                session.quit().await;
                Ok(answered)
            }
            Err(failure) => Err(failure.classify(&self.relay.address()).fault.failure().clone()),
        }
    }

    /// The relay, for the contacts.
    pub(super) fn destination(&self) -> Destination {
        Destination::new("relay", &self.relay.address())
    }

    /// What each mail is charged to.
    pub(super) fn quota(&self) -> Option<Quota> {
        self.relay.options.per_day.map(|per_day| Quota { relay: self.relay.address(), per_day })
    }

    /// How long the dialogues that ended with a mail took.
    pub(super) fn dialogues(&self) -> Calls {
        self.dialogues.calls()
    }

    /// How long the dialogue whose relay has been silent for longest waits for it; `None` without a dialogue.
    pub(super) fn longest_silence(&self) -> Option<Duration> {
        self.silences.longest()
    }

    /// A dialogue that has begun ends within this time, whatever the relay does.
    pub(super) fn dialogue_max(&self) -> Duration {
        self.relay.options.limits.dialogue_max()
    }

    /// The failure when no session came free in time. Nothing was sent to the relay, so no attempt is charged.
    fn busy(&self) -> Undelivered {
        let connections = self.relay.options.connections;
        let relay = self.relay.address();
        let text = format!(
            "no connection to relay {relay} came free within the function's time limit (raise relay.connections, now \
             {connections}, or lower the function's concurrency)"
        );
        let fault = SendFault::Deferred(Failure::new("smtp", "relay", "busy", text));
        Undelivered { fault, verdict: None }
    }

    /// One mail from MAIL FROM to the final reply. The caller gets the result before QUIT, so that a slow QUIT delays
    /// no attempt. The permit is released after it, so that the relay never sees more than `connections` in use.
    async fn dialogue(
        self: Arc<Self>,
        (outgoing, domain, before): (OutgoingMail, Option<Arc<Domain>>, Duration),
        answer: oneshot::Sender<Result<String, Undelivered>>,
        effect: EffectInProgress,
    ) {
        let (used, result) = tokio::select! {
            biased;
            // The dialogue is dropped in front of its final dot, and its connection with it: nothing was accepted.
            () = effect.aborted() => return,
            delivered = self.deliver((&outgoing, domain.as_deref(), before), &effect) => delivered,
        };
        let finished = match (used, result) {
            (Some(session), Ok(reply)) => {
                let spent = self.park_unless_spent(session);
                // Parked before the reply is passed on: the caller's next mail can use the session at once. The send
                // fails only when the caller was dropped.
                let _ = answer.send(Ok(reply));
                spent
            }
            (used, Err(failure)) => {
                // A session is not reused after an error. After a refusal it gets a QUIT; a broken one is dropped,
                // because any further command could be misread as part of the mail.
                let finished = used.filter(|_| failure.is_in_step());
                let undelivered = self.classify(failure, &outgoing);
                if !matches!(undelivered.fault, SendFault::Unknown(_)) {
                    effect.refused();
                }
                // A QUIT is no part of the effect.
                drop(effect);
                let _ = answer.send(Err(undelivered));
                finished
            }
            (None, Ok(_)) => unreachable!("a reply comes from a session"),
        };
        if let Some(session) = finished {
            session.quit().await;
        }
    }

    /// Uses a parked session or opens one. A parked session that fails before the relay has accepted any command of
    /// this mail is replaced once: relays close idle sessions, and that is no fault of the mail.
    async fn deliver(
        &self,
        (outgoing, domain, before): (&OutgoingMail, Option<&Domain>, Duration),
        effect: &EffectInProgress,
    ) -> (Option<Connection>, Result<String, SmtpFailure>) {
        let wait = self.silences.begin();
        if let Some(mut session) = self.take() {
            match self.in_turn(&mut session, (outgoing, domain, before), &wait, effect).await {
                Err(failure) if failure.is_stale() => drop(session),
                result => return (Some(session), result),
            }
        }
        match self.relay.open(&wait).await {
            Ok(mut session) => {
                let result = self.in_turn(&mut session, (outgoing, domain, before), &wait, effect).await;
                (Some(session), result)
            }
            Err(failure) => (None, Err(failure)),
        }
    }

    /// One mail over an open session, when its turn comes: what the relay counts begins here.
    async fn in_turn(
        &self,
        session: &mut Connection,
        (outgoing, domain, before): (&OutgoingMail, Option<&Domain>, Duration),
        wait: &Wait,
        effect: &EffectInProgress,
    ) -> Result<String, SmtpFailure> {
        if !pace::turn(&self.pace, domain.map(|domain| &domain.pace), &*self.clock, before).await {
            return Err(too_fast());
        }
        let _begun = domain.map(Domain::begin);
        let begun = self.clock.monotonic();
        let reply = session.deliver(outgoing, &self.relay.options.limits, wait, effect).await?;
        let (now, took) = (self.clock.monotonic(), self.clock.monotonic() - begun);
        self.dialogues.add(took);
        self.pace.accepted(now, took);
        if let Some(domain) = domain {
            domain.pace.accepted(now, took);
        }
        Ok(reply)
    }

    /// Lets an attempt begin that will mail this domain, or says after what time it shall come again: of a domain that is
    /// limited only as many begin as have a turn soon. Others would hold all attempts while they wait for their turns. Where
    /// nearly all messages are of that domain, they wait in their attempts, since nobody else needs those.
    pub(super) fn admit(&self, domain: &str, receive_count: u32) -> Result<Option<Inside>, Duration> {
        let domain = self.domains.of(domain);
        if receive_count <= 1 {
            self.domains.count(domain.as_deref());
        }
        let is_limited = |domain: &Arc<Domain>| domain.pace.is_limited() || domain.limits.connections.is_some();
        let Some(domain) = domain.filter(is_limited) else { return Ok(None) };
        let now = self.clock.monotonic();
        let half = (self.relay.options.connections / 2).max(1);
        let waiting = match domain.pace.per_second(now) {
            Some(rate) if !self.domains.is_most(&domain) => {
                ((rate * AHEAD.as_secs_f64()).ceil() as usize).saturating_add(1).min(half)
            }
            _ => usize::MAX,
        };
        let max = domain.limits.connections.map_or(usize::MAX, |connections| connections.saturating_add(1));
        match domain.enter(waiting, max) {
            Some(inside) => Ok(Some(inside)),
            None => {
                let mean = self.dialogues.calls().mean().unwrap_or(AHEAD);
                let each = mean / domain.limits.connections.unwrap_or(half) as u32;
                Err(domain.pace.slot(now, each, rand::random()))
            }
        }
    }

    /// Waits until the mail's domain has a connection and, nearly, a turn for it, before one of the relay's is taken.
    async fn room_of(
        &self,
        domain: Option<&Domain>,
        before: Duration,
    ) -> Result<Option<OwnedSemaphorePermit>, Undelivered> {
        let Some(domain) = domain else { return Ok(None) };
        let now = self.clock.monotonic();
        let permit = match &domain.permits {
            Some(permits) => {
                let permit = Arc::clone(permits).acquire_owned();
                let Ok(permit) = tokio::time::timeout(before.saturating_sub(now), permit).await else {
                    return Err(self.busy());
                };
                Some(permit.expect("the semaphore is never closed"))
            }
            None => None,
        };
        let now = self.clock.monotonic();
        let wait = pace::until_domain(&self.pace, &domain.pace, now);
        if now + wait > before {
            return Err(too_fast().classify(&self.relay.address()));
        }
        tokio::time::sleep(wait).await;
        Ok(permit)
    }

    /// Classifies the failure, and slows down what has too many mails. A message has a say in that once, by its first
    /// refusal, and comes again in the turn of those that were put back; later it waits longer, so that it takes no turns
    /// of those that were never tried.
    fn classify(&self, failure: SmtpFailure, outgoing: &OutgoingMail) -> Undelivered {
        let excess = failure.excess();
        let mut undelivered = failure.classify(&self.relay.address());
        let Some(excess) = excess else { return undelivered };
        let after = match self.refusals.count(&outgoing.intent.message_id) {
            1 => self.slow_down(excess, outgoing.to.domain()),
            times => refusals::wait(times),
        };
        undelivered.fault = match (undelivered.fault, after) {
            (SendFault::Deferred(why), Some(after)) => SendFault::Throttled { why, after },
            (fault, _) => fault,
        };
        undelivered
    }

    /// Takes in a message's first refusal. Returns when its turn will come; `None` when no limit holds it up.
    fn slow_down(&self, excess: Excess, domain: &str) -> Option<Duration> {
        let now = self.clock.monotonic();
        let limited = match excess {
            Excess::OfDomain(sign) => self.domains.refused(domain, sign, now, &self.pace),
            Excess::OfRelay(sign) => {
                self.pace.refused(now, sign, None);
                None
            }
        };
        let pace = limited.as_ref().map_or(&self.pace, |domain| &domain.pace);
        pace.is_limited().then(|| pace.slot(now, Duration::ZERO, rand::random()))
    }

    /// The limits that hold now beside the relay's own configured ones: found ones, and those of domains.
    pub(super) fn paces(&self) -> Vec<PaceView> {
        let (now, wall) = (self.clock.monotonic(), self.clock.wall());
        let view = |pace: &Pace, domain: Option<&Domain>| {
            let found = pace.found(now);
            let ago = found.map(|found| now.saturating_sub(found.last));
            PaceView {
                relay: self.relay.address(),
                domain: domain.map(|domain| domain.name.clone()),
                per_second: domain
                    .map_or(self.relay.options.per_second, |domain| domain.limits.per_second)
                    .map(u32::from),
                connections: domain.and_then(|domain| domain.limits.connections),
                found_per_hour: found.and_then(|found| found.per_second).map(|rate| (rate * 3600.0).round() as u64),
                refusals: found.map_or(0, |found| found.refusals),
                last_refusal: ago
                    .map(|ago| Timestamp::from_millis(wall.as_millis().saturating_sub(ago.as_millis() as u64))),
            }
        };
        let domains = self.domains.all();
        let of_domains = domains.iter().map(|domain| view(&domain.pace, Some(domain)));
        let all = std::iter::once(view(&self.pace, None)).chain(of_domains);
        let is_shown = |view: &PaceView| {
            view.found_per_hour.is_some()
                || view.domain.is_some() && (view.per_second, view.connections) != (None, None)
        };
        all.filter(is_shown).collect()
    }

    /// The most recently parked session, if it is not too old. Last in, first out: the sessions that are not needed
    /// grow old, and the reaper closes them.
    fn take(&self) -> Option<Connection> {
        let (session, since) = self.parked().sessions.pop()?;
        // If the most recent one is too old, all others are too.
        (self.clock.monotonic().saturating_sub(since) < self.relay.options.idle_max).then_some(session)
    }

    /// Parks the session for the next mail, or returns it when it has sent `mails_per_connection` mails.
    fn park_unless_spent(self: &Arc<Self>, session: Connection) -> Option<Connection> {
        if session.mails >= self.relay.options.mails_per_connection {
            return Some(session);
        }
        let mut parked = self.parked();
        parked.sessions.push((session, self.clock.monotonic()));
        // A reaper runs only while a session is parked, and both the flag and the list are under one lock: no session
        // is parked without a reaper, and there are never two. The reaper holds the pool weakly and does not keep it
        // alive.
        if !parked.has_reaper {
            parked.has_reaper = true;
            tokio::spawn(reap(Arc::downgrade(self), self.relay.options.idle_max.max(REAP_INTERVAL_MIN)));
        }
        None
    }

    /// Removes the sessions that have been parked for too long; the second value says whether any is left.
    fn expired(&self) -> (Vec<Connection>, bool) {
        let now = self.clock.monotonic();
        let idle_max = self.relay.options.idle_max;
        let mut parked = self.parked();
        let young = |since: Duration| now.saturating_sub(since) < idle_max;
        let (kept, old): (Vec<_>, Vec<_>) = parked.sessions.drain(..).partition(|(_, since)| young(*since));
        parked.sessions = kept;
        parked.has_reaper = !parked.sessions.is_empty();
        (old.into_iter().map(|(session, _)| session).collect(), parked.has_reaper)
    }

    fn parked(&self) -> MutexGuard<'_, Parked> {
        // Every change under the lock is complete in itself, so a poisoned lock guards valid data.
        self.parked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("relay", &self.relay).finish_non_exhaustive()
    }
}

/// The failure of a mail whose turn would come after its attempt's time limit. It waits, uncharged and without an end.
fn too_fast() -> SmtpFailure {
    let text = "relay.per_second leaves this mail no turn within the function's time limit (lower the function's \
                concurrency, or raise its timeout)";
    SmtpFailure::Paced(Failure::new("smtp", "relay", "paced", text))
}

/// Closes sessions that have been idle for too long. Ends when none is parked, or when the pool is dropped.
async fn reap(pool: Weak<Pool>, interval: Duration) {
    loop {
        tokio::time::sleep(interval).await;
        let Some(pool) = pool.upgrade() else { return };
        let (old, any_left) = pool.expired();
        // Not held while the sessions close: a slow relay must not keep the pool alive.
        drop(pool);
        futures_util::future::join_all(old.into_iter().map(Connection::quit)).await;
        if !any_left {
            return;
        }
    }
}
