//! The daemon: wiring, start, drain, logging and notifications to systemd.
//!
//! Layer 7. `cli` or a test passes in everything that opens the outside world.

mod callbacks;
pub mod connect;
pub mod drain;
pub mod error;
pub mod functions;
pub mod logging;
pub mod notify;
mod outlook;
pub mod progress;
pub mod retention;
pub mod serve;
pub mod space;
pub mod trial;

pub use error::Error;
pub use serve::{Daemon, run};
