//! How long the steps of a function take: sums since the process began, for forecasts. Counting costs two additions a call.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::base::Calls;

/// How long the steps of a statement took, those that succeeded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// Calls of the account API.
    pub account: Calls,
    /// Documents.
    pub document: Calls,
    /// Dialogues with the relay, from MAIL FROM to the reply to the final dot.
    pub mail: Calls,
}

/// Adds up how long one step takes.
#[derive(Debug, Default)]
pub(in crate::function) struct Stopwatch {
    count: AtomicU64,
    total_us: AtomicU64,
}

impl Stopwatch {
    /// One more took so long.
    pub(in crate::function) fn add(&self, took: Duration) {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.total_us.fetch_add(took.as_micros() as u64, Ordering::Relaxed);
    }

    /// The sum so far.
    pub(in crate::function) fn calls(&self) -> Calls {
        Calls { count: self.count.load(Ordering::Relaxed), total_us: self.total_us.load(Ordering::Relaxed) }
    }
}
