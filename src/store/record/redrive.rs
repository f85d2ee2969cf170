//! The record of a redrive: which letters, where to, how fast, how far.

use serde::{Deserialize, Serialize};

use crate::base::{Fingerprint, MessageId, Timestamp};

use super::Record;
use super::postcard::{decode, encode};

/// A redrive of letters from a dead-letter queue, or the undo of one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedriveRecord {
    /// Its number.
    pub id: u64,
    /// The dead-letter queue.
    pub from: u32,
    /// The destination; each letter's own source when `None`.
    pub to: Option<u32>,
    /// Which letters to move.
    pub selection: Selection,
    /// Letters that entered the queue after this number of the store's series stay.
    pub as_of: u64,
    /// How many letters matched when the redrive began.
    pub matching: u64,
    /// At most this many letters per second.
    pub per_second: Option<u32>,
    /// Set for a canary redrive, which moves growing steps and checks each; all at once when `None`.
    pub canary: Option<Canary>,
    /// Set for an undo: the redrive that it undoes.
    pub undoes: Option<u64>,
    /// The last sequence number of the scan.
    pub last: u64,
    /// The queue being scanned: the dead-letter queue; an undo scans all queues.
    pub at_queue: u32,
    /// The scan's cursor: letters up to this sequence number are done.
    pub done: u64,
    /// Letters moved so far.
    pub moved: u64,
    /// When it was started.
    pub started_at: Timestamp,
    /// Its state.
    pub state: RedriveState,
}

/// Selects letters of a dead-letter queue: those that meet every condition set here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selection {
    /// Their last failure has this fingerprint.
    #[serde(default)]
    pub fingerprint: Option<Fingerprint>,
    /// Their ids are among these; sorted, all letters when empty.
    #[serde(default)]
    pub ids: Vec<MessageId>,
    /// They died at this moment or later.
    #[serde(default)]
    pub died_from: Option<Timestamp>,
    /// They died before this moment.
    #[serde(default)]
    pub died_before: Option<Timestamp>,
    /// They have a message attribute of this name and text value.
    #[serde(default)]
    pub attribute: Option<(String, String)>,
    /// They belong to this run.
    #[serde(default)]
    pub run: Option<u64>,
    /// The text of their last failure contains this.
    #[serde(default)]
    pub error_contains: Option<String>,
}

/// A canary redrive: a few letters, then ten times as many, and so on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Canary {
    /// The share of the first step, in thousandths of the letters, 1 to 1000.
    pub first_permille: u32,
    /// The redrive stops when more than this share of the finished letters died again, in thousandths.
    pub failed_permille_max: u32,
    /// How many letters may be moved before the next check.
    pub allowed: u64,
}

/// The state of a redrive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RedriveState {
    /// It is running; it continues after a restart.
    Running,
    /// All letters of its selection were moved.
    Completed {
        /// When.
        at: Timestamp,
    },
    /// It was cancelled; what was moved stays moved.
    Cancelled {
        /// When.
        at: Timestamp,
    },
    /// It could not continue, or too many of its letters died again.
    Failed {
        /// When.
        at: Timestamp,
        /// Why.
        why: String,
    },
    /// It could not continue, because a queue that it needs is gone.
    QueueGone {
        /// When.
        at: Timestamp,
        /// Which letter, and which queue.
        why: String,
    },
}

const VERSION: u8 = 2;

/// The record of version 1.
#[derive(Deserialize)]
struct RedriveRecord1 {
    id: u64,
    from: u32,
    to: Option<u32>,
    fingerprint: Option<Fingerprint>,
    ids: Vec<MessageId>,
    per_second: Option<u32>,
    last: u64,
    done: u64,
    moved: u64,
    started_at: Timestamp,
    state: RedriveState,
}

impl From<RedriveRecord1> for RedriveRecord {
    fn from(old: RedriveRecord1) -> Self {
        Self {
            id: old.id,
            from: old.from,
            to: old.to,
            selection: Selection { fingerprint: old.fingerprint, ids: old.ids, ..Selection::default() },
            as_of: old.id,
            matching: old.moved,
            per_second: old.per_second,
            canary: None,
            undoes: None,
            last: old.last,
            at_queue: old.from,
            done: old.done,
            moved: old.moved,
            started_at: old.started_at,
            state: old.state,
        }
    }
}

impl Record for RedriveRecord {
    fn encode(&self) -> Vec<u8> {
        encode(VERSION, self)
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        match bytes.first() {
            Some(1) => decode::<RedriveRecord1>(1, bytes).map(Self::from),
            _ => decode(VERSION, bytes),
        }
    }
}
