//! SQS semantics as pure steps over one transaction.

pub mod options;

pub use options::{Options, RedrivePolicy};
