//! What the pool of one function can be told.

use std::time::Duration;

use crate::base::Backoff;

/// The checked settings of one function's pool.
#[derive(Clone, Debug)]
pub struct Options {
    /// The function's name in `config.toml`.
    pub function: String,
    /// The queue whose messages it takes.
    pub queue: String,
    /// At most this many messages in work at once: 1 to 1024.
    pub concurrency: usize,
    /// One attempt may take this long.
    pub timeout: Duration,
    /// How long a message waits after a failure.
    pub backoff: Backoff,
    /// How long a message waits after a deferral that names no time.
    pub deferral_pause: Duration,
    /// A message that was deferred for this long dies.
    pub deferral_max: Duration,
}
