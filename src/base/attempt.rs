//! One attempt at one message by one worker, as it is kept in the message's history.

use serde::{Deserialize, Serialize};

use super::{Failure, Fingerprint, Timestamp};

/// One attempt at one message. A message's history is a list of these; it stays with the message into the dead-letter
/// queue and back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// The attempt's number, counted from 1 over the whole life of the message, redrives included.
    pub number: u32,
    /// The function that was called.
    pub function: String,
    /// When the message was received.
    pub started_at: Timestamp,
    /// When it ended; for a lost attempt, when the loss was detected.
    pub ended_at: Timestamp,
    /// How it ended.
    pub end: AttemptEnd,
    /// What went wrong; `None` when nothing did.
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
    /// It was deferred and not charged.
    Deferred,
    /// The process died, or the lease ran out, before the attempt ended.
    Lost,
}
