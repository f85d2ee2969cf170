//! The records of what others are to be told about runs.

use serde::{Deserialize, Serialize};

use crate::base::{MessageId, Timestamp};

use super::postcard::postcard_records;

/// What happened to a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum EventKind {
    /// A recipient's message died, or the fan-out's, for the first time.
    FirstDeath,
    /// All users are fetched, and every recipient has an end.
    End,
}

/// Something that happened to a run and is owed to somebody. The row is written with what it announces and goes when nobody
/// is owed it any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRecord {
    /// Its id, the same at every try and for every target.
    pub id: MessageId,
    /// The run.
    pub run: u64,
    /// The run's schedule.
    pub schedule: String,
    /// What happened.
    pub kind: EventKind,
    /// When it was noticed.
    pub at: Timestamp,
    /// What is sent, as JSON.
    pub body: String,
    /// Who has not got it yet.
    pub owed: Vec<Owed>,
}

/// One target of an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owed {
    /// `queue`, `url` or `command`.
    pub target: String,
    /// Tries that failed.
    pub attempts: u32,
    /// It is not tried before this moment.
    pub next_at: Timestamp,
}

/// What was announced of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announced {
    /// Its first death.
    pub first_death: bool,
    /// The mails that were sent at its end; `None` before, and once a redrive or a resolution has opened it again.
    pub end: Option<u64>,
}

postcard_records!(1: EventRecord, Announced);
