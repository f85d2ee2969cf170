//! How one attempt ended: the result of every function, whatever its kind.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Fingerprint;

/// Error texts are cut to this many bytes before they are stored.
pub const FAILURE_TEXT_BYTES_MAX: usize = 1024;

/// What went wrong, classified so that the same fault groups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The kind of fault: `http`, `smtp`, `data`, `render`, `timeout`, `panic`, `crash`.
    pub kind: String,
    /// Where it happened: `users`, `account`, `relay`, `statement`.
    pub place: String,
    /// The code within kind and place: `404`, `550`, `balance-mismatch`.
    pub code: String,
    /// For people: names the thing, the value, the limit and the remedy.
    pub text: String,
}

impl Failure {
    /// Classifies a fault; `text` is cut at [`FAILURE_TEXT_BYTES_MAX`] and its control characters are escaped.
    pub fn new(kind: &str, place: &str, code: impl fmt::Display, text: impl fmt::Display) -> Self {
        Self { kind: kind.into(), place: place.into(), code: code.to_string(), text: printable(&text.to_string()) }
    }

    /// The fingerprint of this class of fault; it does not depend on the text.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.kind, &self.place, &self.code)
    }

    /// The class in words, e.g. `http account 404`.
    pub fn class(&self) -> String {
        format!("{} {} {}", self.kind, self.place, self.code)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.class(), self.text)
    }
}

/// Escapes control characters and cuts at a character boundary, so that a text from outside is one bounded log line.
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(FAILURE_TEXT_BYTES_MAX));
    for c in text.chars() {
        if out.len() + c.len_utf8() > FAILURE_TEXT_BYTES_MAX {
            out.push('…');
            break;
        }
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

/// The outcome of one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The work is done; the message is deleted.
    Done(DeliveryProof),
    /// A transient fault: try again after the back-off, or after `after` when the other side asked for a delay.
    Retry {
        /// What went wrong.
        why: Failure,
        /// Wait this long instead of the back-off.
        after: Option<Duration>,
        /// Whether the effect (the mail) may have happened anyway.
        effect: Effect,
    },
    /// A permanent fault: another attempt cannot help, so the message goes to the dead-letter queue at once.
    Dead {
        /// What went wrong.
        why: Failure,
    },
    /// Not the message's fault (a full relay, a drain): tried again, and no attempt is charged.
    Deferred {
        /// Why the work could not be done now.
        why: Failure,
        /// Wait this long; the pool's default when `None`.
        after: Option<Duration>,
    },
}

impl Outcome {
    /// Done, without proof.
    pub fn done() -> Self {
        Self::Done(DeliveryProof::default())
    }

    /// The failure; `None` when done.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Done(_) => None,
            Self::Retry { why, .. } | Self::Dead { why } | Self::Deferred { why, .. } => Some(why),
        }
    }

    /// The outcome's name in lists and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Done(_) => "done",
            Self::Retry { .. } => "retry",
            Self::Dead { .. } => "dead",
            Self::Deferred { .. } => "deferred",
        }
    }
}

/// Whether a failed attempt may have had its effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It had none.
    None,
    /// Unknown: the attempt was cut off after the request was sent and before the reply.
    Unknown,
}

/// The proof that the work was done; it is written to the run's ledger in the commit that deletes the message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryProof {
    /// The relay's reply to the mail, e.g. `250 2.0.0 queued as 1234`.
    pub reply: Option<String>,
    /// The Message-ID of the mail.
    pub message_id: Option<String>,
    /// SHA-256 of the document, in hex.
    pub document_sha256: Option<String>,
}
