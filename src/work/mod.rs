//! The worker pool: takes messages from a queue, calls the function, settles the outcome.
//!
//! Floor 4, and the only room that knows apalis: our queue is an apalis `Backend`, an attempt is a tower service.
//! Leases, counts and acknowledgements live in the store's transactions, never in apalis.

pub mod attempt;
pub mod backend;
mod exchange;
pub mod options;
pub mod pool;
mod settle;

pub use options::Options;
pub use pool::Pool;
