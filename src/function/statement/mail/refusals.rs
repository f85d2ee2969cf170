//! How often the relay refused each message for a reason that may be too many mails: a message speaks once, and one that is
//! refused again and again waits longer and longer.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Twice as many messages are remembered; the oldest are forgotten.
const REMEMBERED: usize = 50_000;
/// A message that was refused for the third time comes again after this, and after twice as long at each time ...
const AGAIN: Duration = Duration::from_secs(60);
/// ... up to this.
const AGAIN_MAX: Duration = Duration::from_secs(900);

/// The refused messages.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<Generations>);

/// Refusals by a message's hash. Two of the same hash share them: one of them waits longer.
#[derive(Debug, Default)]
struct Generations {
    young: HashMap<u64, u32>,
    old: HashMap<u64, u32>,
}

impl Refusals {
    /// Counts one more refusal of the message and returns how many there were.
    pub(super) fn count(&self, message_id: &str) -> u32 {
        let mut hasher = DefaultHasher::new();
        message_id.hash(&mut hasher);
        let key = hasher.finish();
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.young.len() >= REMEMBERED {
            counts.old = std::mem::take(&mut counts.young);
        }
        let before = counts.old.remove(&key).unwrap_or_default();
        let count = counts.young.entry(key).or_insert(before);
        *count = count.saturating_add(1);
        *count
    }
}

/// How long a message waits at least that was refused so often; `None` for the pause of every deferral.
pub(super) fn wait(times: u32) -> Option<Duration> {
    let doublings = times.checked_sub(3)?.min(10);
    Some((AGAIN * (1 << doublings)).min(AGAIN_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_counted_by_message_and_the_oldest_are_forgotten() {
        let refusals = Refusals::default();
        assert_eq!([refusals.count("a"), refusals.count("a"), refusals.count("b")], [1, 2, 1]);
        (0..REMEMBERED).for_each(|number| assert_eq!(refusals.count(&number.to_string()), 1));
        assert_eq!(refusals.count("a"), 3);
        (0..3 * REMEMBERED).for_each(|number| assert_eq!(refusals.count(&format!("new {number}")), 1));
        assert_eq!(refusals.count("b"), 1);
    }

    #[test]
    fn a_message_that_is_refused_again_and_again_waits_longer_and_longer() {
        let seconds = |times| wait(times).map(|wait| wait.as_secs());
        assert_eq!(
            [1, 2, 3, 4, 5, 9, 1000].map(seconds),
            [None, None, Some(60), Some(120), Some(240), Some(900), Some(900)]
        );
    }
}
