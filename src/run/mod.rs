//! Runs and their ledger: one row per recipient, from the commit of the page that names it to its end.
//!
//! Floor 3. Knows queues, not schedules: who starts a run and who works on its messages is above.

pub mod check;
pub mod error;
pub mod ledger;
pub mod report;
pub mod start;

pub use error::Error;
pub use ledger::{Added, Ledger};
pub use report::Report;
pub use start::{Start, identity, start};
