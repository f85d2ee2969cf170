//! The files on disk: tables, record encodings with versions, the log, group commit, opening.
//!
//! Layer 1, and the only module that knows redb. It stores records and knows nothing of their meaning: the rules are in
//! the steps of the modules above. The bytes are described in `docs/format.md`.

mod appender;
pub mod backup;
pub mod check;
mod checksum;
pub mod compact;
pub mod disk;
pub mod error;
pub mod holder;
pub mod key;
pub mod lock;
mod log;
pub mod open;
pub mod options;
mod pages;
pub mod record;
mod recover;
mod redo;
pub mod snapshot;
pub mod table;
pub mod tx;
mod upgrade;
pub mod writer;

pub use disk::Disk;
pub use error::Error;
pub use holder::{Holder, HolderKind, Purpose};
pub use open::Store;
pub use options::Options;
pub use record::Record;
pub use snapshot::Snapshot;
pub use tx::Tx;
