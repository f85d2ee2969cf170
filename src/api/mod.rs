//! The interfaces to the outside: today the control socket that the CLI uses.
//!
//! Layer 5. Calls the modules below it and owns none of their rules.

pub mod control;
