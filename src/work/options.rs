//! The options of one function's pool.

use std::time::Duration;

use crate::base::Backoff;
use crate::queue::receive::VISIBILITY_MAX;
use crate::run::OnUnknown;

/// A message's visibility timeout is the attempt's time limit plus this margin, which leaves time to settle it.
pub(super) const LEASE_MARGIN: Duration = Duration::from_secs(30);
/// No attempt whose effect cannot be taken back may take longer than this, overtime included: its message would be
/// received again while it runs, because no lease is longer than SQS's 12 hours.
pub const ATTEMPT_MAX: Duration = VISIBILITY_MAX.saturating_sub(LEASE_MARGIN);

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
    /// What happens to a message when nobody knows whether its effect happened.
    pub on_unknown: OnUnknown,
}
