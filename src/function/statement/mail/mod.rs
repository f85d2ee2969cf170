//! From words and a PDF to a mail that the relay has taken, or a fault that says what that means.
//!
//! `message` builds the bytes, `pool` holds the connections, `connection` leads the dialogue over a `wire` that
//! notices when the relay falls out of step. Must not know what the mail is about.

mod connection;
mod fault;
mod mailer;
mod message;
mod pool;
#[cfg(test)]
pub(in crate::function) mod testing;
mod wire;

pub use fault::SendFault;
pub use mailer::{Mail, Mailer};
