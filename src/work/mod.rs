//! The worker pool.

pub mod options;

pub use options::Options;
