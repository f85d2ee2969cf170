//! The interfaces to the outside: the control socket that the CLI uses, and the SQS endpoint.
//!
//! Layer 5. Calls the modules below it and owns none of their rules.

pub mod control;
pub mod sqs;
