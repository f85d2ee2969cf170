//! How fast mails may follow one another: `relay.per_second`.

use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Mails are this much further apart than the limit asks for, in percent: the relay counts when they arrive, and the way
/// there takes one a little longer than the next.
const MARGIN: u32 = 2;

/// Gives out turns at even distances, the first at once.
#[derive(Debug)]
pub(super) struct Pace {
    distance: Duration,
    /// The next turn that nobody has.
    next: Mutex<Option<Instant>>,
}

impl Pace {
    /// At most so many turns in any second.
    pub(super) fn new(per_second: NonZeroU32) -> Self {
        let distance = Duration::from_secs(1) * (100 + MARGIN) / 100 / per_second.get();
        Self { distance, next: Mutex::default() }
    }

    /// Returns when it is the caller's turn; those who ask first have theirs first. A turn whose caller has gone away is
    /// not given to another one.
    pub(super) async fn turn(&self) {
        sleep_until(self.take(Instant::now())).await;
    }

    /// The turn of one who asks now.
    fn take(&self, now: Instant) -> Instant {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = next.map_or(now, |next| next.max(now));
        *next = Some(turn + self.distance);
        turn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_second_has_more_turns_than_the_limit_and_few_are_wasted() {
        let pace = Pace::new(NonZeroU32::new(50).unwrap());
        let (mut now, mut turns) = (Instant::now(), Vec::new());
        for asked in 0..500 {
            turns.push(pace.take(now));
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
}
