//! The circuit breakers of all destinations, shared by the pools whose functions call them.
//!
//! Owns the lock around the breakers, the one log line per change of state and the wake-up of dispatchers. The rules
//! are `Breaker`'s. No lock is held across an await.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::base::{Clock, Contact, Destination, LeaseTime, Now, Timestamp, units};

use super::breaker::{Admission, Breaker, Change, Outage, Voter};

/// All circuit breakers of a process. Clones share them.
#[derive(Clone, Debug)]
pub struct Breakers(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    clock: Arc<dyn Clock>,
    /// One breaker for each destination that a function names; none is ever removed.
    breakers: Mutex<BTreeMap<Destination, Breaker>>,
    /// How many of them are open; written under the lock, read without it on the way of every message.
    open: AtomicUsize,
    /// When the process began: it does not know of outages before.
    began: LeaseTime,
    /// Changes whenever a dispatcher that was refused may be admitted: its value is a number that only grows.
    changed: watch::Sender<u64>,
}

/// A breaker as lists show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakerView {
    /// Its destination: `relay mail.example:587`.
    pub destination: String,
    /// Closed, open, or open with a probe under way.
    pub state: BreakerState,
    /// Since when it is open, by the wall clock.
    pub since: Option<Timestamp>,
    /// When the next message probes it, by the wall clock; in the past when one is due and there is no message.
    pub next_try: Option<Timestamp>,
    /// What the last failed call said.
    pub cause: Option<String>,
    /// Whether that can be mended by an operator alone.
    pub needs_operator: bool,
}

/// The state of a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BreakerState {
    /// The destination works, as far as is known.
    Closed,
    /// It is away: nothing is received for it until the next probe.
    Open,
    /// It is away, and one message is trying it.
    Probing,
}

impl Breakers {
    /// No breakers yet: pools add those of their functions.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let (changed, _) = watch::channel(0);
        let began = clock.lease();
        Self(Arc::new(Shared { clock, breakers: Mutex::default(), open: AtomicUsize::new(0), began, changed }))
    }

    /// The breakers of the destinations of one function that runs `concurrency` attempts at once. Call it once for each
    /// function, before the first message: the thresholds depend on all functions of a destination.
    pub(super) fn gate(&self, destinations: Vec<Destination>, concurrency: usize) -> Gate {
        let mut breakers = self.lock();
        for destination in &destinations {
            breakers.entry(destination.clone()).or_default().add_concurrency(concurrency);
        }
        drop(breakers);
        Gate { breakers: self.clone(), destinations: destinations.into() }
    }

    /// All breakers, sorted by destination.
    pub fn views(&self) -> Vec<BreakerView> {
        let now = self.0.clock.now();
        let view = |(destination, breaker): (&Destination, &Breaker)| {
            let outage = breaker.outage();
            BreakerView {
                destination: destination.to_string(),
                state: match outage {
                    None => BreakerState::Closed,
                    Some(outage) if outage.is_probing => BreakerState::Probing,
                    Some(_) => BreakerState::Open,
                },
                since: outage.map(|outage| now.wall_of(outage.since)),
                next_try: outage.map(|outage| now.wall_of(outage.due)),
                cause: outage.map(|outage| cause(destination, outage).to_owned()),
                needs_operator: outage.is_some_and(|outage| outage.needs_operator),
            }
        };
        self.lock().iter().map(view).collect()
    }

    /// Makes the next message try the destination at once, or all destinations that are away. It is named as
    /// [`BreakerView::destination`] says. Returns those that are away; `None` when no destination has that name.
    pub fn probe_now(&self, destination: Option<&str>) -> Option<Vec<String>> {
        let now = self.0.clock.lease();
        let mut breakers = self.lock();
        let is_meant = |known: &Destination| destination.is_none_or(|name| known.to_string() == name);
        let mut meant = breakers.iter_mut().filter(|(known, _)| is_meant(known)).peekable();
        if destination.is_some() && meant.peek().is_none() {
            return None;
        }
        let away = meant.filter_map(|(known, breaker)| breaker.probe_now(now).then(|| known.to_string())).collect();
        self.wake(&breakers);
        Some(away)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Destination, Breaker>> {
        // Every change under the lock is complete in itself, so a poisoned lock guards valid data.
        self.0.breakers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the dispatchers that wait; only under the lock, so that versions and states agree. Returns the version.
    fn wake(&self, _: &MutexGuard<'_, BTreeMap<Destination, Breaker>>) -> u64 {
        self.0.changed.send_modify(|version| *version += 1);
        *self.0.changed.borrow()
    }
}

/// The breakers of one function's destinations. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct Gate {
    breakers: Breakers,
    destinations: Arc<[Destination]>,
}

/// How many messages may be received for a function now.
#[derive(Debug)]
pub(super) enum Pass {
    /// Any number.
    All,
    /// One, which carries this.
    Probe(Probe),
    /// None, until this moment or until the breakers change from this version, whatever comes first.
    Wait {
        /// When the next probe is due; `None` while one is under way.
        until: Option<LeaseTime>,
        /// See [`Gate::changed`].
        version: u64,
    },
}

impl Gate {
    /// Asks before each receive. Cheap while no breaker is open.
    pub(super) fn admit(&self) -> Pass {
        // A breaker that opens at this moment is seen at the next receive: a few messages more find nobody.
        if self.breakers.0.open.load(Ordering::Acquire) == 0 {
            return Pass::All;
        }
        let now = self.breakers.0.clock.lease();
        let mut breakers = self.breakers.lock();
        let version = *self.breakers.0.changed.borrow();
        let (mut away, mut until, mut is_busy) = (Vec::new(), None, false);
        for destination in self.destinations.iter() {
            match breakers.get_mut(destination).map_or(Admission::All, |breaker| breaker.admit(now)) {
                Admission::All => {}
                Admission::Probe => away.push(destination.clone()),
                Admission::At(due) => until = until.max(Some(due)),
                Admission::Busy => is_busy = true,
            }
        }
        // One message tries all destinations of the function that are away, so all of them must be due.
        if is_busy {
            return Pass::Wait { until: None, version };
        }
        if until.is_some() {
            return Pass::Wait { until, version };
        }
        if away.is_empty() {
            return Pass::All;
        }
        for destination in &away {
            breakers.entry(destination.clone()).or_default().begin_probe();
        }
        Pass::Probe(Probe { breakers: self.breakers.clone(), away })
    }

    /// Returns once the breakers have changed since that version.
    pub(super) async fn changed(&self, version: u64) {
        // The sender lives as long as `self`, so this ends only with a change.
        let _ = self.breakers.0.changed.subscribe().wait_for(|now| *now != version).await;
    }

    /// Takes in what an attempt learned. `probe` is what its message carried.
    pub(super) fn record(&self, contacts: &[Contact], voter: Voter, probe: Option<&Probe>) {
        if contacts.is_empty() {
            return;
        }
        let now = self.breakers.0.clock.now();
        let mut changes = Vec::new();
        let mut breakers = self.breakers.lock();
        for (index, Contact { destination, verdict }) in contacts.iter().enumerate() {
            let Some(breaker) = breakers.get_mut(destination) else { continue };
            let is_probe = probe.is_some_and(|probe| probe.away.contains(destination));
            // The last contact has ended just now; an earlier one may have been at any time since the attempt began.
            let not_before = if index + 1 == contacts.len() { now.lease } else { voter.not_before };
            let voter = Voter { is_probe, not_before, ..voter };
            let change = breaker.record(voter, verdict, now.lease, rand::random());
            if let Some(change) = change {
                changes.push((destination, change, breaker.outage().cloned()));
            }
        }
        if !changes.is_empty() {
            let open = breakers.values().filter(|breaker| breaker.outage().is_some()).count();
            self.breakers.0.open.store(open, Ordering::Release);
            self.breakers.wake(&breakers);
        }
        drop(breakers);
        for (destination, change, outage) in changes {
            tell(destination, &change, outage.as_ref(), now);
        }
    }

    /// Whether the destination of the last contact is away: the call that decided an attempt that failed.
    pub(super) fn is_away(&self, contacts: &[Contact]) -> bool {
        if self.breakers.0.open.load(Ordering::Acquire) == 0 {
            return false;
        }
        let last = contacts.last();
        last.is_some_and(|last| self.breakers.lock().get(&last.destination).is_some_and(|it| it.outage().is_some()))
    }

    /// For how long in the time since `from` any destination of the function was away. All time before the process began
    /// counts as that: outages are not kept over a restart, and nobody was tried while no process ran.
    pub(super) fn away_since(&self, from: LeaseTime) -> Duration {
        let now = self.breakers.0.clock.lease();
        let breakers = self.breakers.lock();
        let known = self.destinations.iter().filter_map(|destination| breakers.get(destination));
        let mut outages: Vec<_> = known.flat_map(|breaker| breaker.outages(from, now)).collect();
        outages.extend(Some((from, self.breakers.0.began)).filter(|(from, began)| from < began));
        outages.sort_unstable();
        let (mut away, mut counted) = (Duration::ZERO, from);
        for (start, end) in outages {
            // Outages of two destinations may overlap, and count once.
            away += end.since(start.max(counted));
            counted = counted.max(end);
        }
        away
    }
}

/// The right to try the destinations of a function that are away: at most one exists for each of them. Dropping it
/// returns the right, whatever was found.
#[derive(Debug)]
pub(super) struct Probe {
    breakers: Breakers,
    away: Vec<Destination>,
}

impl Probe {
    /// Returns the right because there is no message to try with. Returns the version of the breakers, to wait for the
    /// next change: this return itself must not wake its own dispatcher, or two empty queues would wake each other for
    /// ever.
    pub(super) fn give_back(mut self) -> u64 {
        self.end()
    }

    fn end(&mut self) -> u64 {
        let mut breakers = self.breakers.lock();
        let mut is_wanted = false;
        for destination in std::mem::take(&mut self.away) {
            is_wanted |= breakers.get_mut(&destination).is_some_and(Breaker::end_probe);
        }
        if is_wanted { self.breakers.wake(&breakers) } else { *self.breakers.0.changed.borrow() }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        if !self.away.is_empty() {
            self.end();
        }
    }
}

/// Why it is away. Failures often begin with the destination, which every line and list names already.
fn cause<'a>(destination: &Destination, outage: &'a Outage) -> &'a str {
    let rest = outage.cause.strip_prefix(&destination.to_string()).and_then(|rest| rest.strip_prefix(": "));
    rest.unwrap_or(&outage.cause)
}

/// Logs a change of state.
fn tell(destination: &Destination, change: &Change, outage: Option<&Outage>, now: Now) {
    let (cause, wait) = match outage {
        Some(outage) => (cause(destination, outage), outage.due.since(now.lease)),
        None => ("", Duration::ZERO),
    };
    let wait = units::show_duration(Duration::from_secs_f64(wait.as_secs_f64().round().max(1.0)));
    let remedy = "mend it, then run `nightmail probe`, or wait for the next try";
    let needs_operator = outage.is_some_and(|outage| outage.needs_operator);
    match change {
        Change::Opened { messages, are_deferred } => {
            let messages = units::count(*messages, "message");
            let ended = if *are_deferred { "deferred" } else { "failed" };
            if needs_operator {
                tracing::error!("{destination} is away: {cause}; {messages} {ended}, next try in {wait} ({remedy})");
            } else {
                tracing::warn!("{destination} is away: {cause}; {messages} {ended}, next try in {wait}");
            }
        }
        Change::NeedsOperator => {
            tracing::error!("{destination} is still away: {cause}; next try in {wait} ({remedy})");
        }
        Change::Closed { away } => {
            let away = units::show_duration(*away);
            tracing::info!("{destination} answers again; it was away for {away}");
        }
    }
}

impl BreakerView {
    /// One line for people: `relay mail.example:587 away since 02:14, next try in 30 s`; `None` when it is closed.
    pub fn line(&self, now: Timestamp) -> Option<String> {
        let (since, due) = (self.since?, self.next_try?);
        let since = clock_time(since, now);
        let next = match (self.state, due.since(now)) {
            (BreakerState::Probing, _) => "one message tries it now".into(),
            (_, Duration::ZERO) => "the next message tries it".into(),
            (_, wait) => format!("next try in {}", units::show_duration(Duration::from_secs(wait.as_secs().max(1)))),
        };
        let operator = if self.needs_operator { ", needs an operator" } else { "" };
        Some(format!("{} away since {since}{operator}, {next}", self.destination))
    }
}

/// A past moment in the machine's time zone: the time of day, with the date when that is a day or more ago.
fn clock_time(moment: Timestamp, now: Timestamp) -> String {
    let format = if now.since(moment) < Duration::from_secs(24 * 3600) { "%H:%M" } else { "%Y-%m-%d %H:%M" };
    match moment.to_jiff() {
        Some(moment) => moment.to_zoned(jiff::tz::TimeZone::system()).strftime(format).to_string(),
        None => "never".into(),
    }
}

#[cfg(test)]
#[path = "breakers_tests.rs"]
pub(super) mod tests;
