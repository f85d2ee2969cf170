//! What responses show: the daemon, schedules and ticks, redrives, the findings of a check. Fields are added, never
//! renamed.

use serde::{Deserialize, Serialize};

use crate::base::Timestamp;
use crate::store::check::Finding;

/// The daemon in a few figures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The version of the responding binary.
    pub version: String,
    /// The id of the responding process.
    pub pid: u32,
    /// Whether that is the daemon, rather than the CLI on its own.
    pub is_daemon: bool,
    /// The time by its clock.
    pub now: Timestamp,
    /// When the daemon started to answer.
    #[serde(default)]
    pub started_at: Option<Timestamp>,
}

/// A schedule as lists show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduleView {
    /// Its name.
    pub name: String,
    /// Its rule in plain English.
    pub rule: String,
    /// Its zone.
    pub timezone: String,
    /// The next due moments.
    pub next: Vec<Timestamp>,
    /// The newest decided ones: the moment and the decision.
    pub past: Vec<(Timestamp, String)>,
    /// The next ones of those in the future that a clock which was ahead has decided.
    #[serde(default)]
    pub ahead: Vec<AheadTick>,
}

/// A tick in the future that a clock which was ahead has decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AheadTick {
    /// The moment.
    pub scheduled_for: Timestamp,
    /// When it was decided, by that clock.
    pub decided_at: Timestamp,
    /// The decision.
    pub decision: String,
    /// Set when the decision does not count; otherwise a run came of it, and the tick does not fire again.
    pub is_void: bool,
}

/// The result of [`super::Request::ForgetTicks`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForgottenTicks {
    /// Decisions removed.
    pub forgotten: u64,
    /// Ticks that stay, because a run came of each.
    pub with_run: u64,
}

/// A redrive as lists show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedriveView {
    /// Its number.
    pub id: u64,
    /// The dead-letter queue.
    pub from: String,
    /// `running`, `completed`, `cancelled` or `failed`.
    pub state: String,
    /// Letters moved so far.
    pub moved: u64,
    /// When it was started.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Why it failed.
    pub why: Option<String>,
    /// Of the letters moved: how many were done since.
    #[serde(default)]
    pub succeeded: u64,
    /// How many died again.
    #[serde(default)]
    pub failed: u64,
    /// Set when it takes back the letters of that redrive.
    #[serde(default)]
    pub undoes: Option<u64>,
}

/// What a check of the store or of a run found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    /// How many rows were checked.
    pub rows: u64,
    /// How many faults were found.
    pub total: u64,
    /// The first 1,000 of them.
    pub findings: Vec<Finding>,
}
