//! The options of one function's pool.

use std::time::Duration;

use crate::base::Backoff;

/// The checked settings of one function's pool.
#[derive(Clone, Debug)]
pub struct Options {
    /// The function's name in `config.toml`.
    pub function: String,
    /// The queue that it receives from.
    pub queue: String,
    /// At most this many concurrent attempts: 1 to 1024.
    pub concurrency: usize,
    /// One attempt may take this long.
    pub timeout: Duration,
    /// How long a message stays invisible after a failure.
    pub backoff: Backoff,
    /// How long a message stays invisible after a deferral that names no time.
    pub deferral_pause: Duration,
    /// A message that has been deferred for this long goes to the dead-letter queue.
    pub deferral_max: Duration,
}
