//! How many calls were made, and how long they took.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A sum over calls that succeeded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Calls {
    /// How many.
    pub count: u64,
    /// How long they took together, in microseconds.
    pub total_us: u64,
}

impl Calls {
    /// How long one took, on average; `None` when there was none.
    pub fn mean(self) -> Option<Duration> {
        self.total_us.checked_div(self.count).map(Duration::from_micros)
    }

    /// Those since an earlier sum.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Self {
        let count = self.count.saturating_sub(earlier.count);
        Self { count, total_us: self.total_us.saturating_sub(earlier.total_us) }
    }

    /// Both together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self { count: self.count + other.count, total_us: self.total_us + other.total_us }
    }
}
