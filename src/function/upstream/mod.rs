//! HTTP calls to the team's own services with every limit set, and the classes of their faults.
//!
//! Owns limits, retries within one call and the classes of faults. Must not know what the responses mean.

mod client;
mod fault;
mod link;
mod options;
#[cfg(test)]
pub(crate) mod stub;

pub use client::{Answer, Client};
pub use fault::{Fault, RETRY_AFTER_MAX};
pub use options::Options;
