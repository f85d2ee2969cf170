//! The records of what others are to be told about runs.

use serde::{Deserialize, Serialize};

use crate::base::{MessageId, Timestamp};

use super::Record;
use super::pace::DeadlineState;
use super::postcard::{decode, encode, postcard_records};

/// What happened to a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum NotificationKind {
    /// A recipient's message died, or the fan-out's, for the first time.
    FirstDeath,
    /// All users are fetched, and every recipient has an end.
    End,
    /// Its number of users is out of bounds, and nothing is sent before an operator decides.
    AwaitingRelease,
    /// Its sending stopped by itself, because too many recipients failed.
    Braked,
    /// It will probably not have ended at its deadline.
    DeadlineAtRisk,
    /// It had not ended at its deadline.
    DeadlineMissed,
}

/// Something that happened to a run and is owed to somebody. The row is written with what it announces and goes when nobody
/// is owed it any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotificationRecord {
    /// Its id, the same at every try and for every target.
    pub id: MessageId,
    /// The run.
    pub run: u64,
    /// The run's schedule.
    pub schedule: String,
    /// What happened.
    pub kind: NotificationKind,
    /// When it was noticed.
    pub at: Timestamp,
    /// What is sent, as JSON.
    pub body: String,
    /// Who has not got it yet.
    pub owed: Vec<Owed>,
}

/// One target of a notification.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owed {
    /// `queue`, `url` or `command`.
    pub target: String,
    /// Tries that failed.
    pub attempts: u32,
    /// It is not tried before this moment.
    pub next_at: Timestamp,
}

/// What was announced of a run. A change of its fields raises `ANNOUNCED_VERSION`, describes the bytes in `docs/format.md`
/// and keeps the old version readable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announced {
    /// Its first death.
    pub first_death: bool,
    /// The mails that were sent at its end; `None` before, and once a redrive or a resolution has opened it again.
    pub end: Option<u64>,
    /// Since when it awaits its release or is braked, once that was announced.
    pub held: Option<Timestamp>,
    /// How it stood to its deadline, and since when, once that was announced.
    pub deadline: Option<(DeadlineState, Timestamp)>,
}

postcard_records!(1: NotificationRecord);

const ANNOUNCED_VERSION: u8 = 3;

/// The record of version 2: no run had a deadline.
#[derive(Deserialize)]
struct Announced2 {
    first_death: bool,
    end: Option<u64>,
    held: Option<Timestamp>,
}

impl From<Announced2> for Announced {
    fn from(Announced2 { first_death, end, held }: Announced2) -> Self {
        Self { first_death, end, held, deadline: None }
    }
}

/// The record of version 1: no run held itself.
#[derive(Deserialize)]
struct Announced1 {
    first_death: bool,
    end: Option<u64>,
}

impl From<Announced1> for Announced {
    fn from(Announced1 { first_death, end }: Announced1) -> Self {
        Announced2 { first_death, end, held: None }.into()
    }
}

impl Record for Announced {
    fn encode(&self) -> Vec<u8> {
        encode(ANNOUNCED_VERSION, self)
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        match bytes.first() {
            Some(1) => decode::<Announced1>(1, bytes).map(Self::from),
            Some(2) => decode::<Announced2>(2, bytes).map(Self::from),
            _ => decode(ANNOUNCED_VERSION, bytes),
        }
    }
}
