//! The daemon: wiring, start, drain, logging, and what it tells systemd.
//!
//! Floor 7. Everything that opens the outside world is given to it by `cli` or by a test.

pub mod drain;
pub mod error;
pub mod functions;
pub mod logging;
pub mod notify;
pub mod progress;
pub mod serve;
pub mod space;
pub mod upkeep;

pub use error::Error;
pub use serve::{Daemon, run};
