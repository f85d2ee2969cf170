//! From templates and a PDF to a mail that the relay has accepted, or a fault that says what to do.
//!
//! `message` builds the bytes, `pool` holds the connections, `relay` opens them, `connection` runs the dialogue over a
//! `wire` that detects unexpected replies. `pace` gives out turns, by limits that are configured and by those that `aimd`
//! finds from the relay's replies; `domains` are the recipient domains that have some. Must not know what the mail is about.

mod aimd;
mod connection;
mod domains;
mod fault;
mod mailer;
mod message;
mod pace;
mod pool;
mod refusals;
mod relay;
#[cfg(test)]
pub(crate) mod simulation;
#[cfg(test)]
pub(in crate::function) mod testing;
mod wire;

pub use domains::DomainLimits;
pub use fault::SendFault;
pub use mailer::{Admission, Mailer, MessageIds};
pub use message::Mail;
