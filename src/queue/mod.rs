//! SQS semantics as pure steps over one store transaction, and the door that the rooms above use.
//!
//! Floor 2. A step takes `now` and a transaction, checks first and writes after. It knows neither runs nor functions:
//! whoever keeps books on messages is told through [`Witness`], inside the same transaction.

pub mod catalog;
pub mod check;
pub mod dead;
pub mod delete;
pub mod door;
pub mod error;
pub mod expire;
mod group;
pub mod options;
pub mod peek;
pub mod picture;
mod place;
pub mod purge;
pub mod receipt;
pub mod receive;
pub mod recent;
pub mod recover;
pub mod redrive;
pub mod send;
pub mod settle;
pub mod space;
pub mod stats;
mod tally;
pub mod unique;
pub mod valid;
pub mod visibility;
pub mod witness;

pub use door::Door;
pub use error::Error;
pub use options::{Options, RedrivePolicy};
pub use receipt::ReceiptHandle;
pub use receive::{Receive, Received, Receiving};
pub use send::{Send, Sent};
pub use settle::Settled;
pub use space::Space;
pub use stats::Stats;
pub use witness::{News, Witness};
