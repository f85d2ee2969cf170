//! From templates and a PDF to a mail that the relay has accepted, or a fault that says what to do.
//!
//! `message` builds the bytes, `pool` holds the connections, `relay` opens them, `connection` runs the dialogue over a
//! `wire` that detects unexpected replies. Must not know what the mail is about.

mod connection;
mod fault;
mod mailer;
mod message;
mod pace;
mod pool;
mod relay;
#[cfg(test)]
pub(in crate::function) mod testing;
mod wire;

pub use fault::SendFault;
pub use mailer::{Mailer, MessageIds};
pub use message::Mail;
