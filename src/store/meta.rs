//! The names of the rows of `meta` that the store itself reads and writes.

/// The store's format.
pub(super) const FORMAT: &str = "format";
/// The store's random number; the log's segments name it too.
pub(super) const STORE: &str = "store";
/// The generation that redb holds all of.
pub(super) const GENERATION: &str = "generation";
/// The last frame that redb holds the writes of.
pub(super) const SEQUENCE: &str = "sequence";
/// Whether the log may hold what redb lacks.
pub(super) const LOG_OPEN: &str = "log-open";
/// There while the indexes that format 4 has added lack the rows of an earlier format.
pub(super) const UNINDEXED: &str = "unindexed";
/// The last id given out.
pub(super) const LAST_ID: &str = "last-id";
/// The last number given to a queue.
pub(super) const LAST_QUEUE: &str = "last-queue";
