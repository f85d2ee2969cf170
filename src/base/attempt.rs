//! One try of one message by one worker, as its history keeps it.

use serde::{Deserialize, Serialize};

use super::{Failure, Fingerprint, Timestamp};

/// One try of one message. The history of a message is a list of these; it stays with the message into the
/// dead-letter queue and back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Which try this is, counted from 1 over the whole life of the message, redrives included.
    pub number: u32,
    /// The function that was called.
    pub function: String,
    /// When it was received.
    pub started_at: Timestamp,
    /// When it ended; for a lost attempt, when the loss was noticed.
    pub ended_at: Timestamp,
    /// How it ended.
    pub end: AttemptEnd,
    /// What went wrong, unless it ended well.
    pub failure: Option<Failure>,
}

impl Attempt {
    /// The fingerprint of this attempt's failure.
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        self.failure.as_ref().map(Failure::fingerprint)
    }
}

/// How an attempt ended, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AttemptEnd {
    /// It failed and the message is tried again.
    Retry,
    /// It failed for good.
    Dead,
    /// It was put off without being charged.
    Deferred,
    /// The process died, or the lease ran out, before the attempt ended.
    Lost,
}
