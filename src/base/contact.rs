//! What an attempt learns about the destinations that it calls.
//!
//! A function reports its contacts beside its outcome; the circuit breakers are driven by them. Pure values: nothing
//! here knows a protocol.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::Outcome;

/// A relay, an API or an endpoint that attempts call. Functions that name an equal one share its circuit breaker.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Destination {
    /// `relay`, `account API`, `users API`.
    kind: &'static str,
    /// Host and port.
    address: Arc<str>,
}

impl Destination {
    /// The destination of that kind at `host:port`.
    pub fn new(kind: &'static str, address: &str) -> Self {
        Self { kind, address: address.into() }
    }
}

impl fmt::Display for Destination {
    /// As logs and `nightmail status` show it: `relay mail.example:587`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.address)
    }
}

/// What an attempt's calls to one destination came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contact {
    /// What was called.
    pub destination: Destination,
    /// What the last call says about the destination.
    pub verdict: Verdict,
}

impl Contact {
    /// Adds the contact to those of its attempt, in place of an earlier one with the same destination: a list has at
    /// most one contact for each destination, however many calls an attempt makes.
    pub fn add_to(self, contacts: &mut Vec<Self>) {
        contacts.retain(|earlier| earlier.destination != self.destination);
        contacts.push(self);
    }
}

/// What one call says about the destination's health. What it says about the message is the outcome's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It answered about this message, whatever the answer: it works.
    Answered,
    /// No session: the name, the connection, the greeting, TLS or the login failed. The message cannot be the cause.
    Unreachable {
        /// Whether waiting cannot mend it: an untrusted certificate, refused credentials, a name that does not exist.
        needs_operator: bool,
        /// What happened, on one line.
        why: String,
    },
    /// It answered and refused our credentials: HTTP 401, 407. An operator must mend that, unless the service says so of
    /// a single message.
    Unauthorized {
        /// What it said, on one line.
        why: String,
    },
    /// It asks for a pause: SMTP 421, HTTP 429, 503 with Retry-After.
    Throttled {
        /// For how long, when it says so.
        after: Option<Duration>,
    },
    /// Our own daily quota for it is used up: nothing may be sent before this time has passed.
    OverQuota {
        /// How long.
        after: Duration,
    },
    /// No reply in time, or the connection was lost before it.
    TimedOut,
    /// HTTP 5xx: the fault may be the service's, or what this message makes it do.
    ServerError,
}

/// What a function returns: the outcome, and what it learned about its destinations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// How the attempt ended.
    pub outcome: Outcome,
    /// One for each destination that was called, in the order of the last calls. When a call failed and so decided the
    /// outcome, it is the last one.
    pub contacts: Vec<Contact>,
}

impl From<Outcome> for Report {
    /// The report of an attempt that called nothing.
    fn from(outcome: Outcome) -> Self {
        Self { outcome, contacts: Vec::new() }
    }
}
