//! Deletes messages that are older than their queue's retention, at regular intervals.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::queue::{self, Queues};

/// How often expired messages are deleted; a receive never returns an expired message in between.
const EXPIRE_EVERY: Duration = Duration::from_secs(30);

/// Runs until `shutdown`.
pub(super) async fn run(queues: Queues, shutdown: CancellationToken) -> Result<(), queue::Error> {
    loop {
        let removed = queues.expire().await?;
        if removed > 0 {
            tracing::info!(removed, "messages outlived their retention and were deleted");
        }
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = tokio::time::sleep(EXPIRE_EVERY) => {}
        }
    }
}
