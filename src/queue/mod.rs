//! SQS semantics as pure steps over one store transaction, and [`Queues`], the API for the modules above.
//!
//! Layer 2. A step takes `now` and a transaction; it checks first and writes after. It knows neither runs nor
//! functions: the module `run` follows messages through [`Observer`], inside the same transaction.

pub mod admission;
pub mod attributes;
mod background;
pub mod catalog;
pub mod check;
pub mod dead;
pub mod dedup;
mod delay;
pub mod delete;
pub mod dump;
mod ending;
pub mod erase;
pub mod error;
pub mod expire;
mod group;
mod holder;
pub mod import;
mod leaving;
mod letters;
mod line;
mod messages;
pub mod new_message;
pub mod observer;
pub mod options;
pub mod peek;
pub mod poll;
pub mod purge;
pub mod queues;
pub mod recall;
pub mod receipt;
pub mod receive;
pub mod recover;
pub mod redrive;
mod redrive_outcomes;
mod room;
pub mod send;
pub mod settle;
pub mod space;
mod state;
pub mod stats;
pub mod undo;
pub mod unique;
pub mod valid;
mod verdict;
pub mod visibility;

pub use admission::{Admission, Admitted, AdmittedLetter, LetterAdmission};
pub use attributes::Given;
pub use error::Error;
pub use new_message::{Send, Sent};
pub use observer::{ABANDONED, Death, Observer, RunMessage, Standing, Transition};
pub use options::{Options, RedrivePolicy};
pub use poll::Unanswered;
pub use queues::Queues;
pub use receipt::ReceiptHandle;
pub use receive::{Receive, Received, Receiving};
pub use settle::Settled;
pub use space::Space;
pub use stats::Stats;
