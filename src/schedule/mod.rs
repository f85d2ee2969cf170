//! Cron, calendars, misfires, ticks and fan-out: when something is due, and what became of each due moment.
//!
//! Floor 4. The only room that knows apalis-cron and croner. Knows no worker and no wire protocol.

pub mod misfire;
pub mod options;
pub mod params;
pub mod rule;
