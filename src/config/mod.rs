//! `config.toml` to checked settings: every fault at once, each with its field, value, limit, remedy and line.
//!
//! Layer 6. Raw TOML becomes a tree with source locations ([`load`] → `document`). Environment variables override its
//! keys (`environment`). The tree is validated against the list of all keys (`validate`, `schema`). The modules' own
//! options are built from the result (`queues`, `functions`, `mail`, `schedules`, `callbacks`). It starts nothing and keeps no
//! secret in a message.

mod api;
mod callbacks;
mod document;
mod environment;
mod finding;
mod functions;
mod keys;
mod load;
mod mail;
mod queues;
mod reference;
mod schedules;
mod schema;
mod secret;
mod settings;
mod source;
mod syntax;
mod validate;
mod value_type;
mod values;

#[cfg(test)]
mod tests;

pub use environment::Environment;
pub use finding::{Errors, Finding};
pub use load::{CONFIG_BYTES_MAX, EXAMPLE, find, load, load_text};
pub use reference::reference;
pub use settings::{CallbackOptions, DaemonOptions, Entry, FunctionSettings, Kind, LogFormat, LogOptions, Settings};
pub use source::{Excerpt, Origin};
