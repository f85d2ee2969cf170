//! The records that are written now and then, in postcard behind a version byte.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::base::outcome::Receipt;
use crate::base::{Attempt, Fingerprint, MessageId, Timestamp};

use super::Record;

/// A queue: its name, attributes and age.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueRecord {
    /// The number that keys carry; never used twice.
    pub id: u32,
    /// The name that users see.
    pub name: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// See [`QueueAttributes`].
    pub attributes: QueueAttributes,
}

/// The attributes of a queue in stored units.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueAttributes {
    /// Milliseconds.
    pub visibility_timeout_ms: u64,
    /// Milliseconds.
    pub delay_ms: u64,
    /// Milliseconds; `None` keeps messages for ever.
    pub retention_ms: Option<u64>,
    /// Milliseconds.
    pub receive_wait_ms: u64,
    /// Bytes.
    pub message_bytes_max: u32,
    /// The dead-letter queue's name and the receive count at which a message goes there.
    pub redrive: Option<(String, u32)>,
}

/// One execution of a schedule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Its number, counted from 1.
    pub id: u64,
    /// The schedule that it belongs to.
    pub schedule: String,
    /// The fan-out function that fetches its users.
    pub function: String,
    /// The identifying parameters.
    pub params: BTreeMap<String, String>,
    /// The tick that started it, or the moment of a start by hand.
    pub scheduled_for: Timestamp,
    /// When it was started.
    pub started_at: Timestamp,
    /// How far the fan-out is.
    pub fan_out: FanOutProgress,
}

/// The fan-out's durable cursor: it moves in the commit that holds the page's messages.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FanOutProgress {
    /// Pages committed so far.
    pub pages: u32,
    /// Where the next page is, as the users source wrote it down; `None` before the first page.
    pub next: Option<String>,
    /// Set in the commit of the last page.
    pub finished_at: Option<Timestamp>,
}

/// One recipient of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecipientRecord {
    /// The user's id; for a malformed record its page and index.
    pub user: String,
    /// How the recipient stands.
    pub state: RecipientState,
    /// When that was written.
    pub updated_at: Timestamp,
    /// Attempts that a dying process left unfinished: each may have mailed.
    pub interrupted: u32,
}

/// How a recipient stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RecipientState {
    /// The message is in a queue.
    Open,
    /// The relay took the mail.
    Sent(Receipt),
    /// The message is in a dead-letter queue.
    Dead(Fingerprint),
    /// The message was purged, expired or deleted without an outcome.
    Withdrawn(String),
}

impl RecipientState {
    /// The state in one word, as lists show it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Sent(_) => "sent",
            Self::Dead(_) => "dead",
            Self::Withdrawn(_) => "withdrawn",
        }
    }
}

/// One due moment of a schedule, and what was decided about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TickRecord {
    /// When it was decided.
    pub decided_at: Timestamp,
    /// What was decided.
    pub verdict: TickVerdict,
}

/// What was decided about a tick.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TickVerdict {
    /// It started this run.
    Fired {
        /// The run's number.
        run: u64,
    },
    /// The schedule was first seen, or its rule was edited, at this moment; ticks before it are not its own.
    Known,
    /// It started nothing.
    Skipped {
        /// The reason, for people.
        why: String,
    },
}

/// The move of letters from a dead-letter queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedriveRecord {
    /// Its number.
    pub id: u64,
    /// The dead-letter queue.
    pub from: u32,
    /// Where the letters go; each one's source when `None`.
    pub to: Option<u32>,
    /// Only letters whose last failure has this fingerprint.
    pub fingerprint: Option<Fingerprint>,
    /// Only these messages; all when empty.
    pub ids: Vec<MessageId>,
    /// At most this many letters per second.
    pub per_second: Option<u32>,
    /// Letters with a later sequence number came after the start and stay.
    pub last: u64,
    /// Letters up to this sequence number were looked at.
    pub done: u64,
    /// Letters moved so far.
    pub moved: u64,
    /// When it was started.
    pub started_at: Timestamp,
    /// How it stands.
    pub state: RedriveState,
}

/// How a redrive stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RedriveState {
    /// It goes on, also after a restart.
    Running,
    /// All letters of its set were moved.
    Completed {
        /// When.
        at: Timestamp,
    },
    /// Somebody stopped it; what was moved stays moved.
    Cancelled {
        /// When.
        at: Timestamp,
    },
    /// It could not go on.
    Failed {
        /// When.
        at: Timestamp,
        /// Why.
        why: String,
    },
}

const VERSION: u8 = 1;

fn encode<T: Serialize>(record: &T) -> Vec<u8> {
    postcard::to_extend(record, vec![VERSION]).expect("these records hold nothing that postcard cannot write")
}

fn decode<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Result<T, String> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => postcard::from_bytes(rest).map_err(|error| error.to_string()),
        Some((version, _)) => Err(format!("version {version}, this build knows {VERSION}")),
        None => Err("no bytes".into()),
    }
}

macro_rules! postcard_records {
    ($($record:ty),+ $(,)?) => {$(
        impl Record for $record {
            fn encode(&self) -> Vec<u8> {
                encode(self)
            }
            fn decode(bytes: &[u8]) -> Result<Self, String> {
                decode(bytes)
            }
        }
    )+};
}

postcard_records!(Attempt, QueueRecord, RecipientRecord, RedriveRecord, RunRecord, TickRecord);
