//! Rarely written records, in postcard behind a version byte.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::base::outcome::DeliveryProof;
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
    /// The progress of the fan-out.
    pub fan_out: FanOutProgress,
}

/// The fan-out's durable cursor, updated in the commit that writes the page's messages.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FanOutProgress {
    /// Pages committed so far.
    pub pages: u32,
    /// The users source's token of the next page; `None` before the first page.
    pub next: Option<String>,
    /// Set in the commit of the last page.
    pub finished_at: Option<Timestamp>,
}

/// One recipient of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecipientRecord {
    /// The user's id; for a malformed record its page and index.
    pub user: String,
    /// The recipient's state.
    pub state: RecipientState,
    /// When the state last changed.
    pub updated_at: Timestamp,
    /// Attempts that did not finish: each may have sent its mail.
    pub interrupted: u32,
}

/// The state of a recipient.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RecipientState {
    /// The message is in a queue.
    Open,
    /// The relay accepted the mail.
    Sent(DeliveryProof),
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
    /// The schedule was first seen, or its rule was edited, at this moment; ticks before it are not due.
    Known,
    /// It did not start a run.
    Skipped {
        /// The reason, for people.
        why: String,
    },
}

postcard_records!(1: Attempt, RecipientRecord, RunRecord, TickRecord);
