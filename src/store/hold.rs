//! Lets the steps of one caller share a commit. An idle writer starts with the first step that arrives; it would commit
//! that one alone, and the rest after it, at twice the cost.

use std::pin::pin;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The writer waits for the holders for at most this long. A first poll takes some microseconds, unless its thread is
/// taken off the processor.
const WAIT_MAX: Duration = Duration::from_millis(1);

/// Who is about to send more steps.
#[derive(Debug, Default)]
pub(super) struct Holds {
    count: Mutex<usize>,
    changed: Condvar,
}

/// One of them, until it is dropped.
struct Hold<'h>(&'h Holds);

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        *self.0.lock() -= 1;
        self.0.changed.notify_one();
    }
}

impl Holds {
    /// Runs the work to its end. The steps that it sends when it is polled for the first time are there before the writer
    /// begins a group with one of them, unless that poll takes longer than the writer waits.
    pub(super) async fn together<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        let mut is_first = true;
        std::future::poll_fn(|context| {
            let _hold = std::mem::take(&mut is_first).then(|| self.hold());
            work.as_mut().poll(context)
        })
        .await
    }

    /// Waits, for a short time at most, until nobody holds.
    pub(super) fn wait(&self) {
        drop(self.changed.wait_timeout_while(self.lock(), WAIT_MAX, |count| *count > 0));
    }

    fn hold(&self) -> Hold<'_> {
        *self.lock() += 1;
        Hold(self)
    }

    fn lock(&self) -> MutexGuard<'_, usize> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::panic::AssertUnwindSafe;
    use std::task::Poll;

    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn only_the_first_poll_holds_the_writer() {
        let (holds, mut held) = (Holds::default(), Vec::new());
        let work = std::future::poll_fn(|context| {
            held.push(*holds.lock());
            context.waker().wake_by_ref();
            if held.len() < 3 { Poll::Pending } else { Poll::Ready(()) }
        });
        holds.together(work).await;
        assert_eq!(held, [1, 0, 0]);
    }

    #[tokio::test]
    async fn work_that_panics_holds_nobody_up() {
        let holds = Holds::default();
        let broken = AssertUnwindSafe(holds.together(async { panic!("broken on purpose") })).catch_unwind().await;
        assert!(broken.is_err());
        assert_eq!(*holds.lock(), 0);
    }
}
