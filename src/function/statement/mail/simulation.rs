//! A night of mails to a relay that limits them and tells nobody, on a clock that is a number: for the tests of whatever must
//! cope with it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use super::aimd::Sign;
use super::domains::Domains;
use super::pace::Pace;
use super::refusals::Refusals;

/// At most so many mails are begun in a second.
const FULL_SPEED: f64 = 400.0;
/// A message that was refused waits so long when no limit is known, or it was refused before.
const DEFERRAL_PAUSE: f64 = 30.0;

/// What the relay does.
#[derive(Clone, Copy)]
pub(crate) struct Relay<'a> {
    /// It takes so many mails a second, from when on ...
    pub(super) limits: &'a [(f64, f64)],
    /// ... and saves up so many; more are refused.
    pub(super) depth: f64,
    /// What its refusals say.
    pub(super) sign: Sign,
    /// This share of the mails is refused whatever their rate.
    pub(super) by_chance: f64,
    /// One recipient of so many is refused whenever it is tried.
    pub(super) dead: Option<u64>,
    /// The recipients are of so many domains.
    pub(super) domains: u64,
    /// The median of how long a dialogue takes, and the deviation of its logarithm.
    pub(super) dialogue: (f64, f64),
}

impl<'a> Relay<'a> {
    /// A token bucket.
    pub(crate) const fn bucket(limits: &'a [(f64, f64)], depth: f64) -> Self {
        let dialogue = (0.04, 0.0);
        Self { limits, depth, sign: Sign::Load, by_chance: 0.0, dead: None, domains: 1, dialogue }
    }
}

/// Numbers between 0 and 1 that look random and are the same each time.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Of the log-normal distribution.
    fn dialogue(&mut self, (median, deviation): (f64, f64)) -> f64 {
        let normal = (0..12).map(|_| self.next()).sum::<f64>() - 6.0;
        median * (normal * deviation).exp()
    }
}

struct Bucket {
    tokens: f64,
    at: f64,
}

impl Bucket {
    fn takes(&mut self, now: f64, per_second: f64, depth: f64) -> bool {
        self.tokens = (self.tokens + (now - self.at) * per_second).min(depth);
        self.at = now;
        let takes = self.tokens >= 1.0;
        self.tokens -= f64::from(u8::from(takes));
        takes
    }
}

/// What came of sending for so long: what was accepted, what an oracle would have sent, and refusals.
pub(crate) struct Night {
    pub(crate) accepted: u64,
    pub(crate) oracle: f64,
    pub(crate) refused: u64,
    /// The moment of each accepted mail.
    pub(crate) times: Vec<f64>,
}

/// What the daemon does.
struct Sender {
    relay: Pace,
    domains: Domains,
    refusals: Refusals,
    /// When each refused message comes again, in milliseconds, and the messages never tried.
    waiting: BinaryHeap<Reverse<(u64, u64)>>,
    fresh: u64,
}

impl Sender {
    fn next(&mut self, now: f64) -> u64 {
        let is_ready = |Reverse((at, _)): &Reverse<(u64, u64)>| *at as f64 / 1000.0 <= now;
        if self.waiting.peek().is_some_and(is_ready) {
            return self.waiting.pop().unwrap().0.1;
        }
        self.fresh += 1;
        self.fresh
    }

    /// When the next mail may begin after one of this domain.
    fn distance(&self, domain: &str, now: Duration) -> f64 {
        let of_domain = self.domains.of(domain).and_then(|domain| domain.pace.per_second(now));
        let slowest = self.relay.per_second(now).into_iter().chain(of_domain).fold(FULL_SPEED, f64::min);
        1.0 / slowest
    }

    fn accepted(&self, domain: &str, now: Duration, took: f64) {
        let took = Duration::from_secs_f64(took);
        self.relay.accepted(now, took);
        if let Some(domain) = self.domains.of(domain) {
            domain.pace.accepted(now, took);
        }
    }

    fn refused(&mut self, (message, domain): (u64, &str), sign: Sign, now: Duration, random: f64) {
        let times = self.refusals.count(&message.to_string());
        let mut wait = super::refusals::wait(times).map_or(DEFERRAL_PAUSE, |wait| wait.as_secs_f64());
        if times == 1 {
            let limited = self.domains.refused(domain, sign, now, &self.relay);
            let pace = limited.as_ref().map_or(&self.relay, |domain| &domain.pace);
            if pace.is_limited() {
                wait = pace.slot(now, Duration::ZERO, random).as_secs_f64();
            }
        }
        self.waiting.push(Reverse((((now.as_secs_f64() + wait) * 1000.0) as u64, message)));
    }
}

/// Sends as fast as the found limits let, at most 400 a second, with more messages than there is time for.
pub(crate) fn send(relay: &Relay<'_>, seconds: f64) -> Night {
    let mut sender = Sender {
        relay: Pace::new(None),
        domains: Domains::new(&std::collections::BTreeMap::new()),
        refusals: Refusals::default(),
        waiting: BinaryHeap::new(),
        fresh: 0,
    };
    let (mut bucket, mut chance) = (Bucket { tokens: relay.depth, at: 0.0 }, Chance(7));
    let mut night = Night { accepted: 0, oracle: relay.depth, refused: 0, times: Vec::new() };
    // By their microsecond: when the reply comes, the message, whether it was accepted, and when it was begun.
    let mut replies = BinaryHeap::<Reverse<(u64, u64, bool, u64)>>::new();
    for (index, (from, per_second)) in relay.limits.iter().enumerate() {
        let until = relay.limits.get(index + 1).map_or(seconds, |(until, _)| *until);
        night.oracle += (until - from) * per_second;
    }
    let domain_of = |message: u64| format!("d{}.example", message % relay.domains);
    let (mut now, mut next) = (1.0, 1.0);
    while now < seconds + 1.0 {
        let is_due = |Reverse((at, ..)): &Reverse<(u64, u64, bool, u64)>| *at as f64 / 1e6 <= now;
        while replies.peek().is_some_and(is_due) {
            let Reverse((at, message, took, begun)) = replies.pop().unwrap();
            let domain = domain_of(message);
            match took {
                true => sender.accepted(&domain, Duration::from_micros(at), (at - begun) as f64 / 1e6),
                false => sender.refused((message, &domain), relay.sign, Duration::from_micros(at), chance.next()),
            }
        }
        while now >= next {
            let limit = relay.limits.iter().rev().find(|(from, _)| *from + 1.0 <= now).unwrap().1;
            let message = sender.next(now);
            let is_refused =
                relay.dead.is_some_and(|every| message.is_multiple_of(every)) || chance.next() < relay.by_chance;
            let takes = !is_refused && bucket.takes(now, limit, relay.depth);
            night.accepted += u64::from(takes);
            night.refused += u64::from(!takes);
            if takes {
                night.times.push(now - 1.0);
            }
            let micros = (now * 1e6) as u64;
            let took = (chance.dialogue(relay.dialogue) * 1e6) as u64;
            replies.push(Reverse((micros + took, message, takes, micros)));
            next = next.max(now - 0.001) + sender.distance(&domain_of(message), Duration::from_secs_f64(now));
        }
        now += 0.001;
    }
    night
}
