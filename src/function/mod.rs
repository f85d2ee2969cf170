//! What a message makes happen: the trait that the worker pool calls, and the functions that are built in.
//!
//! Layer 2. Knows values only: no store, no queue, no run. What a function needs from higher layers is passed in.

pub mod call;
pub mod effect;
pub mod effects;
pub mod error;
pub mod pace_view;
mod silence;
pub mod statement;
pub mod timings;
pub mod tls;
mod unreachable;
pub mod upstream;

pub use call::{Function, Invocation};
pub use effect::{EffectFlag, EffectInProgress};
pub use effects::{Effects, Intent, NoLedger, Permission, Quota, Stage};
pub use error::Error;
pub use pace_view::PaceView;
pub use timings::Timings;
