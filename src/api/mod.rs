//! What speaks to the outside: today the control socket that the CLI uses.
//!
//! Floor 5. Knows all rooms below it and owns none of their rules.

pub mod control;
