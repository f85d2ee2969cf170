//! `config.toml` to checked settings: every fault at once, each with its field, value, limit, remedy and line.
//!
//! Floor 6. Raw TOML becomes a tree that knows its places ([`load`] → `document`), variables are laid over it
//! (`environment`), it is held against the list of all keys (`walk`, `key_list`), and the rooms' own options are built
//! from what is left (`queues`, `functions`, `mail`, `schedules`). It starts nothing and keeps no secret in a message.

mod document;
mod environment;
mod finding;
mod functions;
mod key_list;
mod keys;
mod load;
mod mail;
mod plausible;
mod queues;
mod reference;
mod schedules;
mod secret;
mod settings;
mod shape;
mod source;
mod values;
mod walk;

#[cfg(test)]
mod tests;

pub use environment::Environment;
pub use finding::{Errors, Excerpt, Finding};
pub use load::{CONFIG_BYTES_MAX, EXAMPLE, find, load, load_text};
pub use reference::reference;
pub use settings::{DaemonOptions, Entry, FunctionSettings, Kind, LogFormat, LogOptions, Origin, Settings};
