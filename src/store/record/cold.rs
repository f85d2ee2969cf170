//! The records that are written now and then, in postcard behind a version byte.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::base::outcome::Receipt;
use crate::base::{Attempt, Fingerprint, Timestamp};

use super::postcard::postcard_records;

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

postcard_records!(1: Attempt, RecipientRecord, RunRecord, TickRecord);
