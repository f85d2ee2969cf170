//! Exponential back-off with full jitter, after the AWS architecture blog: sleep = random(0, min(max, first · 2ⁿ)).

use std::time::Duration;

/// How long a message waits between attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The upper bound of the first wait.
    pub first: Duration,
    /// No wait is longer than this.
    pub max: Duration,
}

impl Backoff {
    /// The upper bound of the wait after `failures` failures (1 = after the first).
    pub fn ceiling(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        self.first.saturating_mul(1_u32 << doublings).min(self.max)
    }

    /// The wait after `failures` failures with full jitter; `share` is a random number in `0.0..1.0`.
    pub fn wait(&self, failures: u32, share: f64) -> Duration {
        self.ceiling(failures).mul_f64(share.clamp(0.0, 1.0))
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first: Duration::from_secs(2), max: Duration::from_secs(900) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ceiling_doubles_up_to_the_maximum() {
        let backoff = Backoff { first: Duration::from_secs(2), max: Duration::from_secs(60) };
        let ceilings: Vec<u64> = (1..=7).map(|n| backoff.ceiling(n).as_secs()).collect();
        assert_eq!(ceilings, [2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(backoff.ceiling(u32::MAX).as_secs(), 60);
    }

    #[test]
    fn the_wait_is_a_share_of_the_ceiling() {
        let backoff = Backoff { first: Duration::from_secs(10), max: Duration::from_secs(60) };
        assert_eq!(backoff.wait(1, 0.5), Duration::from_secs(5));
        assert_eq!(backoff.wait(1, 7.0), Duration::from_secs(10));
    }
}
