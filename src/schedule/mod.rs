//! Cron rules, misfires, ticks and fan-out: when something is due, and what was decided about each due moment.
//!
//! Layer 4. The only module that knows apalis-cron and croner. Knows no worker and no wire protocol.

mod deadline;
pub mod fan_out;
pub mod misfire;
pub mod options;
pub mod params;
pub mod retention;
pub mod rule;
pub mod service;
pub mod tick;
pub mod watermark;

pub use fan_out::FanOut;
pub use options::{FanOutOptions, Misfire, Options};
pub use service::{Liveness, Service};
