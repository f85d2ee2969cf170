//! The circuit breaker of one destination: closed, open, or open with a probe under way.
//!
//! A pure state machine: time is an argument and nothing is logged. It decides from the verdicts of attempts whether
//! the destination is away, and when a single message may try it again. Must not know pools or outcomes.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use crate::base::outcome::printable;
use crate::base::{LeaseTime, MessageId, Verdict};
use crate::queue::Received;

/// So many attempts that found no session, a throttled one or no reply open the breaker; fewer when the functions that
/// use the destination run fewer at once. A session that only an operator can bring about opens it at once.
const AWAY_VOTES: usize = 5;
/// So many messages whose first charged failure is a server error open the breaker, when nothing is answered between
/// them. With fewer, the fault is taken to be the messages' own.
const SERVER_ERROR_VOTES: usize = 10;
/// The wait before the first probe.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The waits between probes double up to this.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// A destination that asks for a longer pause is probed after this nevertheless: it may name a day by mistake.
const PAUSE_MAX: Duration = Duration::from_secs(300);
/// When our own quota is used up, it is asked again after this: an operator may have put the clock right meanwhile.
const QUOTA_PAUSE_MAX: Duration = Duration::from_secs(3600);
/// A wait is shortened by up to this share at random, so that breakers that opened together do not stay in step.
const JITTER: f64 = 0.1;
/// A message whose failure is charged votes once within this time, unless it was answered since.
const VOTE_LASTS: Duration = Duration::from_secs(3600);
/// The breaker remembers this many of these votes.
const VOTES_MAX: usize = 256;
/// The breaker remembers this many past outages.
const OUTAGES_MAX: usize = 64;

/// The breaker of one destination.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    /// How many attempts the functions that use the destination run at once.
    concurrency: usize,
    /// The attempts that failed since the last answer; emptied when the breaker opens or an answer comes.
    votes: Vec<(MessageId, Class)>,
    /// Messages whose charged failure was a vote, and when: until they are answered or [`VOTE_LASTS`] has passed.
    /// Without it a message that can never succeed would open the breaker again and again, and never be charged.
    voted: VecDeque<(MessageId, LeaseTime)>,
    /// Set while the breaker is open.
    outage: Option<Outage>,
    /// Beginning and end of past outages, the oldest first.
    past: VecDeque<(LeaseTime, LeaseTime)>,
}

/// An open breaker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outage {
    /// When it opened.
    pub(super) since: LeaseTime,
    /// What the last failed contact said.
    pub(super) cause: String,
    /// Whether that can be mended by an operator alone.
    pub(super) needs_operator: bool,
    /// Whether it is our own quota that is used up.
    is_of_quota: bool,
    /// When the next probe is due.
    pub(super) due: LeaseTime,
    /// Whether a probe is under way.
    pub(super) is_probing: bool,
    /// The wait after the next failed probe.
    wait: Duration,
    /// Set once this outage was reported as one that needs an operator.
    was_operator_told: bool,
    /// Set when someone was refused because of the probe under way.
    is_wanted: bool,
}

/// What a vote counts towards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Away,
    ServerError,
}

/// The attempt behind a verdict.
#[derive(Clone, Copy, Debug)]
pub(super) struct Voter {
    /// Its message.
    pub(super) message: MessageId,
    /// Attempts charged to the message, this one included.
    pub(super) attempts_charged: u32,
    /// The contact was not before this moment.
    pub(super) not_before: LeaseTime,
    /// Whether it was the probe of this destination.
    pub(super) is_probe: bool,
}

impl Voter {
    /// The attempt at that message, so far as no probe.
    pub(super) fn of(message: &Received) -> Self {
        Self {
            message: message.message_id,
            attempts_charged: message.attempts_charged,
            not_before: message.received_at,
            is_probe: false,
        }
    }
}

/// A change of state, to be logged once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It opened.
    Opened {
        /// How many messages failed.
        messages: usize,
        /// Whether they were deferred; otherwise their first attempts are charged.
        are_deferred: bool,
    },
    /// It was open already, and by now the cause needs an operator.
    NeedsOperator,
    /// It closed.
    Closed {
        /// How long it was open.
        away: Duration,
    },
}

/// Whether messages may be received for the destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// Any number.
    All,
    /// One, as a probe.
    Probe,
    /// None until this moment.
    At(LeaseTime),
    /// None until the probe under way has ended.
    Busy,
}

impl Breaker {
    /// Another function uses the destination, with so many attempts at once.
    pub(super) fn add_concurrency(&mut self, concurrency: usize) {
        self.concurrency += concurrency;
    }

    /// The outage, while the breaker is open.
    pub(super) fn outage(&self) -> Option<&Outage> {
        self.outage.as_ref()
    }

    /// Takes in what an attempt found. `jitter` is a random number in `0.0..1.0`.
    pub(super) fn record(&mut self, voter: Voter, verdict: &Verdict, now: LeaseTime, jitter: f64) -> Option<Change> {
        if *verdict == Verdict::Answered {
            return self.answered(voter, now);
        }
        match &mut self.outage {
            Some(outage) => outage.failed_again(voter.is_probe, verdict, now, jitter),
            None => self.vote(voter, verdict, now, jitter),
        }
    }

    fn answered(&mut self, voter: Voter, now: LeaseTime) -> Option<Change> {
        self.votes.clear();
        if !self.voted.is_empty() {
            self.voted.retain(|(voted, _)| *voted != voter.message);
        }
        // An attempt tells its contacts when it ends. One that began before the outage may have been answered before it.
        // One that was permitted before the quota was used up says nothing about the quota.
        let ends_it = |outage: &mut Outage| outage.since <= voter.not_before && (voter.is_probe || !outage.is_of_quota);
        let outage = self.outage.take_if(ends_it)?;
        if self.past.len() == OUTAGES_MAX
            && let Some((since, _)) = self.past.pop_front()
            && let Some(second) = self.past.front_mut()
        {
            // The time between the two oldest outages counts as one: this errs in favour of the messages.
            second.0 = since;
        }
        self.past.push_back((outage.since, now));
        Some(Change::Closed { away: now.since(outage.since) })
    }

    fn vote(&mut self, voter: Voter, verdict: &Verdict, now: LeaseTime, jitter: f64) -> Option<Change> {
        let class = if *verdict == Verdict::ServerError { Class::ServerError } else { Class::Away };
        let is_charged = matches!(verdict, Verdict::TimedOut | Verdict::ServerError);
        // Where no session was had, the message cannot be the cause: its next try is a vote too. Otherwise a run of three
        // would never open the breaker.
        let may_repeat = matches!(verdict, Verdict::Unreachable { .. } | Verdict::OverQuota { .. });
        let has_voted = self.votes.iter().any(|(message, _)| *message == voter.message);
        if is_charged && !self.is_first(voter, now) || has_voted && !may_repeat {
            return None;
        }
        self.votes.push((voter.message, class));
        if is_charged {
            self.voted.truncate(VOTES_MAX - 1);
            self.voted.push_front((voter.message, now));
        }
        let enough = match class {
            Class::Away if may_repeat && needs_operator(verdict) => 1,
            Class::Away if matches!(verdict, Verdict::OverQuota { .. }) => 1,
            Class::Away => AWAY_VOTES.min(self.concurrency.max(1)),
            Class::ServerError => SERVER_ERROR_VOTES,
        };
        let votes = || self.votes.iter().filter(|(_, other)| *other == class).map(|(message, _)| *message);
        if votes().count() < enough {
            return None;
        }
        let messages = votes().collect::<HashSet<_>>().len();
        self.votes.clear();
        self.outage = Some(Outage::new(verdict, now, jitter));
        Some(Change::Opened { messages, are_deferred: !is_charged })
    }

    /// Whether this is the message's first charged failure, as far as is known.
    fn is_first(&mut self, voter: Voter, now: LeaseTime) -> bool {
        while self.voted.back().is_some_and(|(_, at)| now.since(*at) > VOTE_LASTS) {
            self.voted.pop_back();
        }
        voter.attempts_charged <= 1 && self.voted.iter().all(|(message, _)| *message != voter.message)
    }

    /// Whether messages may be received. Someone who is refused because of a probe is remembered until
    /// [`Breaker::end_probe`].
    pub(super) fn admit(&mut self, now: LeaseTime) -> Admission {
        match &mut self.outage {
            None => Admission::All,
            Some(outage) if outage.is_probing => {
                outage.is_wanted = true;
                Admission::Busy
            }
            Some(outage) if outage.due > now => Admission::At(outage.due),
            Some(_) => Admission::Probe,
        }
    }

    /// Takes the slot of the one probe. Only after [`Admission::Probe`].
    pub(super) fn begin_probe(&mut self) {
        if let Some(outage) = &mut self.outage {
            (outage.is_probing, outage.is_wanted) = (true, false);
        }
    }

    /// Returns the slot, whatever the probe found. Returns whether someone was refused meanwhile and must be woken.
    pub(super) fn end_probe(&mut self) -> bool {
        let Some(outage) = &mut self.outage else { return false };
        outage.is_probing = false;
        outage.is_wanted
    }

    /// Makes the next probe due at once. Returns whether the breaker is open.
    pub(super) fn probe_now(&mut self, now: LeaseTime) -> bool {
        let Some(outage) = &mut self.outage else { return false };
        outage.due = outage.due.min(now);
        true
    }

    /// The outages that reach into the time from `from` to `now`, cut to it.
    pub(super) fn outages(&self, from: LeaseTime, now: LeaseTime) -> impl Iterator<Item = (LeaseTime, LeaseTime)> + '_ {
        let present = self.outage.as_ref().map(|outage| (outage.since, now));
        let all = self.past.iter().copied().chain(present);
        all.map(move |(start, end)| (start.max(from), end.min(now))).filter(|(start, end)| start < end)
    }
}

impl Outage {
    fn new(verdict: &Verdict, now: LeaseTime, jitter: f64) -> Self {
        let needs_operator = needs_operator(verdict);
        let mut outage = Self {
            since: now,
            cause: cause(verdict),
            needs_operator,
            is_of_quota: matches!(verdict, Verdict::OverQuota { .. }),
            due: now,
            is_probing: false,
            wait: FIRST_WAIT,
            was_operator_told: needs_operator,
            is_wanted: false,
        };
        outage.postpone(verdict, now, jitter);
        outage
    }

    fn failed_again(&mut self, is_probe: bool, verdict: &Verdict, now: LeaseTime, jitter: f64) -> Option<Change> {
        self.cause = cause(verdict);
        self.needs_operator = needs_operator(verdict);
        self.is_of_quota = matches!(verdict, Verdict::OverQuota { .. });
        if is_probe {
            self.postpone(verdict, now, jitter);
        } else {
            // An attempt that was under way when the breaker opened: it brings no new wait, but a pause is respected.
            self.due = self.due.max(now.after(pause(verdict)));
        }
        if self.needs_operator && !self.was_operator_told {
            self.was_operator_told = true;
            return Some(Change::NeedsOperator);
        }
        None
    }

    /// Sets the next probe, and doubles the wait after it.
    fn postpone(&mut self, verdict: &Verdict, now: LeaseTime, jitter: f64) {
        let wait = self.wait.mul_f64(1.0 - JITTER * jitter.clamp(0.0, 1.0));
        self.due = now.after(wait.max(pause(verdict)));
        self.wait = (self.wait * 2).min(WAIT_MAX);
    }
}

/// The pause that the destination asked for.
fn pause(verdict: &Verdict) -> Duration {
    match verdict {
        Verdict::Throttled { after } => after.unwrap_or_default().min(PAUSE_MAX),
        Verdict::OverQuota { after } => (*after).min(QUOTA_PAUSE_MAX),
        _ => Duration::ZERO,
    }
}

fn needs_operator(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Unreachable { needs_operator: true, .. } | Verdict::Unauthorized { .. })
}

fn cause(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Unreachable { why, .. } | Verdict::Unauthorized { why } => printable(why),
        Verdict::Throttled { after: None } => "it asks for a pause".into(),
        Verdict::Throttled { after: Some(after) } => format!("it asks for a pause of {} s", after.as_secs()),
        Verdict::OverQuota { .. } => "its daily quota (relay.per_day) is used up".into(),
        Verdict::TimedOut => "no reply in time".into(),
        Verdict::ServerError => "it answers with server errors".into(),
        Verdict::Answered => "it answers".into(),
    }
}

#[cfg(test)]
#[path = "breaker_tests.rs"]
mod tests;
