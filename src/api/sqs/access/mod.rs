//! Who may call: the keys of the configuration, their rights, and the signatures that prove a key.

mod pattern;
mod rights;
mod signature;

pub use rights::AccessKey;
pub(super) use rights::Caller;
pub use signature::{Credentials, sign};
pub(super) use signature::{SigningKeys, claim};
