//! The files on disk: tables, record encodings with versions, the log, group commit, opening.
//!
//! Layer 1, and the only module that knows redb. It stores records and knows nothing of their meaning: the rules are in
//! the steps of the modules above. The bytes are described in `docs/format.md`.

mod apply;
pub mod backup;
mod changes;
pub mod check;
mod checkpoint;
mod checksum;
mod committer;
pub mod compact;
pub mod disk;
pub mod error;
mod exclusive;
mod file_log;
pub mod format;
mod found_log;
mod frame;
#[doc(hidden)]
pub mod fuzzing;
mod guard;
mod hints;
mod hold;
pub mod holder;
pub mod key;
mod layers;
pub mod lock;
mod log;
mod memtable;
mod meta;
pub mod open;
pub mod options;
mod pages;
mod present;
pub mod record;
mod recover;
mod reindex;
mod segment;
pub mod snapshot;
mod step;
pub mod table;
mod table_id;
pub mod tx;
mod upgrade;
mod write_back;
mod writer;

pub use disk::{Disk, Disks};
pub use error::Error;
pub use holder::{Holder, HolderKind, Purpose};
pub use open::Store;
pub use options::Options;
pub use record::Record;
pub use snapshot::Snapshot;
pub use tx::Tx;
