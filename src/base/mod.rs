//! Values without I/O that every room speaks in: time, ids, units, limits, back-off, fingerprints and outcomes.
//!
//! Floor 0. Knows no other room and opens nothing; [`clock::SystemClock`] is the one place that reads a clock.

pub mod attempt;
pub mod backoff;
pub mod clock;
pub mod fingerprint;
pub mod id;
pub mod limit;
pub mod outcome;
pub mod units;

pub use attempt::{Attempt, AttemptEnd};
pub use backoff::Backoff;
pub use clock::{Clock, ManualClock, SystemClock, Timestamp};
pub use fingerprint::Fingerprint;
pub use id::MessageId;
pub use outcome::{Effect, Failure, Outcome};
