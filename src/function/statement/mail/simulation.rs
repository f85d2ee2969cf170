//! A night of mails to a relay that limits them and tells nobody, on a clock that is a number: for the tests of whatever must
//! cope with it.

use std::collections::VecDeque;
use std::time::Duration;

use super::aimd::{Accepted, Controller};

/// A relay that takes so many mails a second, of which it saves up some; more are refused.
struct Bucket {
    per_second: f64,
    depth: f64,
    tokens: f64,
    at: f64,
}

impl Bucket {
    fn new(per_second: f64, depth: f64) -> Self {
        Self { per_second, depth, tokens: depth, at: 0.0 }
    }

    fn fill(&mut self, now: f64) {
        self.tokens = (self.tokens + (now - self.at) * self.per_second).min(self.depth);
        self.at = now;
    }

    fn takes(&mut self, now: f64) -> bool {
        self.fill(now);
        let takes = self.tokens >= 1.0;
        self.tokens -= f64::from(u8::from(takes));
        takes
    }
}

/// What came of sending for so long to a relay whose limit changes: what was accepted, what an oracle would have sent, and
/// refusals.
pub(crate) struct Night {
    pub(crate) accepted: u64,
    pub(crate) oracle: f64,
    pub(crate) refused: u64,
    /// The moment of each accepted mail.
    pub(crate) times: Vec<f64>,
}

/// Sends as fast as the controller lets, at most 400 a second, with dialogues of 40 ms and more mails than there is time
/// for. `limits` are the relay's: from when on, mails a second.
pub(crate) fn send(limits: &[(f64, f64)], depth: f64, seconds: f64) -> Night {
    let (mut controller, accepted) = (Controller::default(), Accepted::default());
    let mut bucket = Bucket::new(limits[0].1, depth);
    let mut night = Night { accepted: 0, oracle: depth, refused: 0, times: Vec::new() };
    let mut replies: VecDeque<(f64, bool)> = VecDeque::new();
    let (mut now, mut next) = (1.0, 1.0);
    let end = seconds + now;
    for (index, (from, per_second)) in limits.iter().enumerate() {
        let until = limits.get(index + 1).map_or(seconds, |(until, _)| *until);
        night.oracle += (until - from) * per_second;
    }
    while now < end {
        while replies.front().is_some_and(|(at, _)| *at <= now) {
            let (at, took) = replies.pop_front().unwrap();
            let at = Duration::from_secs_f64(at);
            if took {
                accepted.add(at);
                controller.accepted(at, Duration::from_millis(40));
            } else {
                controller.refused(at, &accepted);
            }
        }
        if now >= next {
            let limit = limits.iter().rev().find(|(from, _)| *from + 1.0 <= now).unwrap().1;
            bucket.fill(now);
            bucket.per_second = limit;
            let takes = bucket.takes(now);
            night.accepted += u64::from(takes);
            night.refused += u64::from(!takes);
            if takes {
                night.times.push(now - 1.0);
            }
            replies.push_back((now + 0.04, takes));
            let rate = controller.per_second(Duration::from_secs_f64(now)).unwrap_or(400.0).min(400.0);
            next = next.max(now - 0.001) + 1.0 / rate;
        }
        now += 0.001;
    }
    night
}
