//! What went wrong with a call, what that means for the message, and what it says about the service.

use std::time::Duration;

use crate::base::{Effect, Failure, Outcome, Timestamp, Verdict};

/// A longer wait that the service asks for is shortened to this.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// A call without a usable response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    class: Class,
    failure: Failure,
    /// What the call says about the service; `None` when nothing was called. Boxed, so that results stay small.
    verdict: Option<Box<Verdict>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Class {
    /// Another try cannot help.
    Permanent,
    /// Another try may help.
    Temporary,
    /// Not the message's fault: tried again later and not charged, after the wait that the service asked for.
    Deferred(Option<Duration>),
}

/// The value of a `Retry-After` header, RFC 9110 section 10.2.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RetryAfter {
    /// That long from now.
    Wait(Duration),
    /// Not before this moment.
    Until(Timestamp),
}

impl RetryAfter {
    /// Reads seconds or an HTTP date; anything else is as if the header were absent.
    pub(super) fn parse(header: &str) -> Option<Self> {
        let header = header.trim();
        if !header.is_empty() && header.bytes().all(|b| b.is_ascii_digit()) {
            return Some(Self::Wait(header.parse().map_or(RETRY_AFTER_MAX, Duration::from_secs)));
        }
        let moment = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(header).ok()?;
        Some(Self::Until(Timestamp::from_jiff(moment)))
    }

    /// How long that is from `now`, at most [`RETRY_AFTER_MAX`].
    pub(super) fn wait(self, now: Timestamp) -> Duration {
        let wait = match self {
            Self::Wait(wait) => wait,
            Self::Until(moment) => moment.since(now),
        };
        wait.min(RETRY_AFTER_MAX)
    }
}

impl Fault {
    /// A permanent fault: another try cannot help.
    pub fn permanent(failure: Failure) -> Self {
        Self { class: Class::Permanent, failure, verdict: None }
    }

    /// A temporary fault: another try may help.
    pub fn temporary(failure: Failure) -> Self {
        Self { class: Class::Temporary, failure, verdict: None }
    }

    /// The service asks for a pause.
    pub(super) fn throttled(failure: Failure, after: Option<Duration>) -> Self {
        Self { class: Class::Deferred(after), failure, verdict: Some(Box::new(Verdict::Throttled { after })) }
    }

    /// The service refuses our credentials.
    pub(super) fn unauthorized(failure: Failure) -> Self {
        let verdict = Verdict::Unauthorized { why: failure.text.clone() };
        Self { class: Class::Deferred(None), failure, verdict: Some(Box::new(verdict)) }
    }

    /// No session with the service: nothing that a message could change.
    pub(super) fn unreachable(failure: Failure, needs_operator: bool) -> Self {
        let verdict = Verdict::Unreachable { needs_operator, why: failure.text.clone() };
        Self { class: Class::Deferred(None), failure, verdict: Some(Box::new(verdict)) }
    }

    /// The same fault with what the call says about the service.
    #[must_use]
    pub(super) fn with(mut self, verdict: Verdict) -> Self {
        self.verdict = Some(Box::new(verdict));
        self
    }

    /// What went wrong.
    pub fn failure(&self) -> &Failure {
        &self.failure
    }

    /// Whether another try at once may help. A service that asks for a pause gets one, and one that cannot be reached
    /// is left to its circuit breaker: with tries of our own, each message of a large run would add its own.
    pub fn is_temporary(&self) -> bool {
        self.class == Class::Temporary
    }

    /// Whether another try cannot help.
    pub fn is_permanent(&self) -> bool {
        self.class == Class::Permanent
    }

    /// What the call says about the service; `None` when nothing was called.
    pub fn verdict(&self) -> Option<&Verdict> {
        self.verdict.as_deref()
    }

    /// What this means for the message: dead, retry, or deferred for the time that the service asked for.
    pub fn into_outcome(self) -> Outcome {
        let why = self.failure;
        match self.class {
            Class::Permanent => Outcome::Dead { why },
            Class::Temporary => Outcome::Retry { why, after: None, effect: Effect::None },
            Class::Deferred(after) => Outcome::Deferred { why, after },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date_and_never_longer_than_an_hour() {
        let now = Timestamp::from_secs(784_111_777); // Sun, 06 Nov 1994 08:49:37 GMT
        let wait = |header: &str| RetryAfter::parse(header).map(|retry_after| retry_after.wait(now).as_secs());
        assert_eq!(wait("120"), Some(120));
        assert_eq!(wait(" 0 "), Some(0));
        assert_eq!(wait("99999999999999999999999"), Some(3600));
        assert_eq!(wait("Sun, 06 Nov 1994 08:50:37 GMT"), Some(60));
        assert_eq!(wait("Sun, 06 Nov 1994 08:00:00 GMT"), Some(0));
        assert_eq!(wait("Tue, 01 Jan 2030 00:00:00 GMT"), Some(3600));
        for unusable in ["", "soon", "-5", "1.5"] {
            assert_eq!(wait(unusable), None, "{unusable:?}");
        }
    }
}
