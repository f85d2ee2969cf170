//! The stop in three stages: no new messages, a grace period for running attempts, then the rest are cancelled and
//! their messages released.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::queue;
use crate::work::pool::Drain;

/// After the grace period, releasing the messages of cancelled attempts may take this long.
const ABORT_GRACE: Duration = Duration::from_secs(5);

/// After the last attempt, closing the store takes less than this.
const CLOSE_GRACE: Duration = Duration::from_secs(10);

/// The longest time from the signal to the end of the process.
pub(super) fn longest(grace: Duration) -> Duration {
    grace + ABORT_GRACE + CLOSE_GRACE
}

/// Stops the pools. `force`, a second signal, ends the grace period early.
pub(super) async fn drain(
    pools: &mut JoinSet<Result<(), queue::Error>>,
    signals: &Drain,
    grace: Duration,
    force: &CancellationToken,
) {
    signals.stop.cancel();
    tokio::select! {
        () = all(pools) => return,
        () = tokio::time::sleep(grace) => tracing::warn!("the drain's grace is over; attempts in hand go back to their queues"),
        () = force.cancelled() => tracing::warn!("told to stop at once; attempts in hand go back to their queues"),
    }
    signals.abort.cancel();
    if tokio::time::timeout(ABORT_GRACE, all(pools)).await.is_err() {
        tracing::error!("some attempts could not be given back; they count as lost at the next start");
    }
}

async fn all(pools: &mut JoinSet<Result<(), queue::Error>>) {
    while let Some(end) = pools.join_next().await {
        match end {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!("a pool ended with: {error}"),
            Err(error) => tracing::error!("a pool broke: {error}"),
        }
    }
}
