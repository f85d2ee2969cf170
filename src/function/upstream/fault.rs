//! What went wrong with a call, and what that means for the message.

use std::time::Duration;

use crate::base::{Effect, Failure, Outcome, Timestamp};

/// A longer wait that the service asks for is shortened to this.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// A call without a usable response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    class: Class,
    failure: Failure,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Class {
    /// Another try cannot help.
    Permanent,
    /// Another try may help.
    Temporary,
    /// The other side asks for a pause.
    Throttled(Option<RetryAfter>),
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

    fn wait(self, now: Timestamp) -> Duration {
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
        Self { class: Class::Permanent, failure }
    }

    /// A temporary fault: another try may help.
    pub fn temporary(failure: Failure) -> Self {
        Self { class: Class::Temporary, failure }
    }

    /// The other side asks for a pause.
    pub(super) fn throttled(failure: Failure, retry_after: Option<RetryAfter>) -> Self {
        Self { class: Class::Throttled(retry_after), failure }
    }

    /// What went wrong.
    pub fn failure(&self) -> &Failure {
        &self.failure
    }

    /// Whether another try at once may help; a throttled call is not tried again at once.
    pub fn is_temporary(&self) -> bool {
        self.class == Class::Temporary
    }

    /// Whether another try cannot help.
    pub fn is_permanent(&self) -> bool {
        self.class == Class::Permanent
    }

    /// What this means for the message: dead, retry, or deferred for the time that the service asked for,
    /// at most [`RETRY_AFTER_MAX`]. `now` is what a `Retry-After` date is measured from.
    pub fn into_outcome(self, now: Timestamp) -> Outcome {
        let why = self.failure;
        match self.class {
            Class::Permanent => Outcome::Dead { why },
            Class::Temporary => Outcome::Retry { why, after: None, effect: Effect::None },
            Class::Throttled(retry_after) => {
                Outcome::Deferred { why, after: retry_after.map(|retry_after| retry_after.wait(now)) }
            }
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
