//! Cron, misfires, ticks, fan-out.

pub mod options;
pub mod rule;

pub use options::{FanOutOptions, Misfire, Options};
