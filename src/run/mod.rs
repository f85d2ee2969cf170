//! Runs and their ledger: one row per recipient, created in the commit of the page that names the recipient.
//!
//! Layer 3. Knows queues, not schedules: starting runs and working on their messages belong to the modules above.

pub mod accept;
pub mod again;
pub mod check;
pub mod control;
pub mod deadline;
pub mod effects;
pub mod erase;
pub mod error;
pub mod eta;
pub mod fold;
pub mod forecast;
pub mod ledger;
pub mod measured;
pub mod message;
mod named;
pub mod note;
pub mod notifications;
pub mod pace;
pub mod phases;
pub mod refetch;
pub mod report;
mod resend;
pub mod resolve;
pub mod start;
pub mod suppression;
pub mod verify;

pub use accept::Accept;
pub use again::{Again, Resent};
pub use control::{Decision, RunState, decide};
pub use effects::OnUnknown;
pub use erase::{Erase, Erased};
pub use error::Error;
pub use eta::{Estimates, Eta};
pub use forecast::{Forecast, SendingLimits};
pub use ledger::Ledger;
pub use refetch::{Refetch, refetch};
pub use report::Report;
pub use resolve::{Resolution, Resolve};
pub use start::{Start, identity, start};
pub use suppression::Suppression;
