//! Values without I/O that all modules share: time, ids, units, limits, back-off, fingerprints and outcomes.
//!
//! Layer 0. Knows no other module and does no I/O; [`clock::SystemClock`] is the one place that reads a clock.

pub mod attempt;
pub mod backoff;
pub mod calls;
pub mod clock;
pub mod contact;
pub mod fingerprint;
pub mod id;
pub mod limit;
pub mod outcome;
pub mod units;

pub use attempt::{Attempt, AttemptEnd};
pub use backoff::Backoff;
pub use calls::Calls;
pub use clock::{Clock, LeaseTime, ManualClock, Now, SystemClock, Timestamp};
pub use contact::{Contact, Destination, Report, Verdict};
pub use fingerprint::Fingerprint;
pub use id::MessageId;
pub use outcome::{Effect, Failure, LeftOutBy, Outcome, RenderedDocument};
