//! The record of how fast a run goes, and how it stands to its deadline.

use serde::{Deserialize, Serialize};

use crate::base::{Calls, Timestamp};

use super::postcard::postcard_records;

/// How a run stands to its deadline, and what was measured of it. Written by the daemon in the background: when its standing
/// changes, when it has ended, and now and then between. A run that none of that was written of has no row.
///
/// A change of its fields raises its version, describes the bytes in `docs/format.md` and keeps the old version readable; new
/// variants of [`DeadlineState`] come last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunPace {
    /// `None` when the schedule has none. It follows the configuration until the run has ended.
    pub deadline: Option<RunDeadline>,
    /// When every recipient was first seen to have an end; a redrive does not change it.
    pub ended_at: Option<Timestamp>,
    /// What was measured while its messages were worked on.
    pub measured: Measured,
}

/// A deadline, and how the run stands to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunDeadline {
    /// When every recipient must have an end.
    pub at: Timestamp,
    /// How the run stands to it.
    pub state: DeadlineState,
    /// Since when.
    pub since: Timestamp,
}

/// How a run stands to its deadline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeadlineState {
    /// It is under way, and nothing speaks against it.
    #[default]
    OnTime,
    /// It is under way, and will probably miss it.
    AtRisk,
    /// It had not ended then.
    Missed,
    /// It ended in time.
    Met,
}

/// Sums over the time in which a run's messages were worked on: not while a destination was away or the run was held, and
/// not its last few recipients, who wait for retries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measured {
    /// Recipients that ended.
    pub ended: u64,
    /// How long that took, in milliseconds.
    pub span_ms: u64,
    /// Processor time of the whole daemon in it, in milliseconds.
    pub cpu_ms: u64,
    /// Calls of the account API.
    pub account: Calls,
    /// Documents that were made.
    pub document: Calls,
    /// Dialogues with the relay that ended with a mail.
    pub mail: Calls,
    /// What the configuration allowed.
    pub limits: MeasuredLimits,
}

/// The limits under which something was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeasuredLimits {
    /// Messages in work at once.
    pub concurrency: u32,
    /// Connections to the relay.
    pub connections: u32,
    /// Mails in a second.
    pub per_second: Option<u32>,
}

postcard_records!(1: RunPace);
