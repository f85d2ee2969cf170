//! The options of one schedule and of one fan-out.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::function::statement::UsersOptions;
use crate::store::record::{BrakeLimit, Gate, Guard};

use super::rule::Rule;

/// The checked settings of one `[schedules.<name>]`.
#[derive(Clone, Debug)]
pub struct Options {
    /// The schedule's name.
    pub name: String,
    /// When it is due, zone included.
    pub rule: Rule,
    /// What happens with ticks that were missed.
    pub misfire: Misfire,
    /// A missed tick that is found later than this after its moment does not fire.
    pub grace: Duration,
    /// The fan-out function that a tick starts.
    pub function: String,
    /// The run's identifying parameters, minijinja templates over `tick`.
    pub params: BTreeMap<String, String>,
    /// The bounds of a run's number of users; `None` when messages are sent while users are fetched.
    pub guard: Option<Guard>,
    /// What stops a run's sending by itself.
    pub brake: Option<BrakeLimit>,
    /// When a run must have ended, on the wall clock of the rule's zone.
    pub deadline: Option<jiff::civil::Time>,
    /// What must be right before a run's first mail.
    pub gate: Option<Gate>,
}

/// What happens with the ticks that came due while the daemon was down, stalled or its clock jumped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misfire {
    /// The latest missed tick fires once; the earlier ones are recorded as skipped.
    Once,
    /// Every missed tick fires, oldest first.
    All,
    /// Missed ticks are recorded as skipped.
    Skip,
}

/// The checked settings of one `kind = "fan-out"` function.
#[derive(Clone, Debug)]
pub struct FanOutOptions {
    /// The function's name in `config.toml`.
    pub name: String,
    /// The queue of its own messages: one for each tick, one for each malformed record.
    pub queue: String,
    /// The queue that gets one message per user.
    pub target: String,
    /// Where users come from.
    pub users: UsersOptions,
}
