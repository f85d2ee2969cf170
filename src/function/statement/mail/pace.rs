//! How fast mails may follow one another: `relay.per_second`.

use std::num::NonZeroU32;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::sleep;

/// Mails are this much further apart than the limit asks for, in percent: the relay counts when they arrive, and the way
/// there takes one a little longer than the next.
const MARGIN: u32 = 2;

/// Gives out turns at even distances, the first at once.
#[derive(Debug)]
pub(super) struct Pace {
    distance: Duration,
    /// The next turn that nobody has, on the clock whose moments the callers give.
    next: Mutex<Duration>,
}

impl Pace {
    /// At most so many turns in any second.
    pub(super) fn new(per_second: NonZeroU32) -> Self {
        let distance = Duration::from_secs(1) * (100 + MARGIN) / 100 / per_second.get();
        Self { distance, next: Mutex::default() }
    }

    /// Whether a turn is left before that moment.
    pub(super) fn has_turn(&self, before: Duration) -> bool {
        *self.next() <= before
    }

    /// Returns true when it is the caller's turn, those who ask first first; false at once when its turn would come after
    /// `before`, and then it has taken none. A turn whose caller goes away while it waits is not given to another one.
    pub(super) async fn turn(&self, now: Duration, before: Duration) -> bool {
        let turn = self.take(now, before);
        if let Some(turn) = turn {
            sleep(turn.saturating_sub(now)).await;
        }
        turn.is_some()
    }

    fn take(&self, now: Duration, before: Duration) -> Option<Duration> {
        let mut next = self.next();
        let turn = now.max(*next);
        if turn > before {
            return None;
        }
        *next = turn + self.distance;
        Some(turn)
    }

    fn next(&self) -> MutexGuard<'_, Duration> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_second_has_more_turns_than_the_limit_and_few_are_wasted() {
        let pace = Pace::new(NonZeroU32::new(50).unwrap());
        let (mut now, mut turns) = (Duration::from_secs(7), Vec::new());
        for asked in 0..500 {
            turns.push(pace.take(now, now + Duration::from_secs(60)).unwrap());
            // Now and then nobody asks for a while: what is missed is not made up for by a burst.
            if asked % 100 == 99 {
                now = turns[asked] + Duration::from_millis(700);
            }
        }
        for (at, turn) in turns.iter().enumerate() {
            let within = turns[at..].iter().filter(|other| **other - *turn < Duration::from_secs(1)).count();
            assert!(within <= 50, "{within} from turn {at} on");
        }
        let took = *turns.last().unwrap() - turns[0];
        assert!(took < Duration::from_millis(500 * 21 + 4 * 700), "{took:?}");
    }

    #[test]
    fn who_would_come_too_late_takes_no_turn_from_those_who_ask_later() {
        let pace = Pace::new(NonZeroU32::new(2).unwrap());
        let now = Duration::from_secs(7);
        let second = now + Duration::from_secs(1);
        let taken = (0..100).filter(|_| pace.take(now, second).is_some()).count();
        assert_eq!(taken, 2);
        assert!(!pace.has_turn(second));
        let later = second + Duration::from_millis(100);
        assert!(pace.take(later, later).is_some(), "the hundred that were refused hold nobody up");
    }
}
