//! The worker pool: receives messages from a queue, calls the function and settles the outcome.
//!
//! Layer 4, and the only module that knows apalis: our queue is an apalis `Backend`, an attempt is a tower service.
//! Leases, counts and acknowledgements live in the store's transactions, never in apalis.

pub mod attempt;
pub mod backend;
mod breaker;
pub mod breakers;
mod dispatcher;
pub mod options;
pub mod pool;
mod quarantine;
mod settle;

pub use breakers::{BreakerState, BreakerView, Breakers};
pub use options::Options;
pub use pool::Pool;
pub use quarantine::Quarantine;
