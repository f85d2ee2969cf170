//! What has to be done now and then: messages that outlived their retention are deleted.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::queue::{self, Door};

/// How often retention is looked after; a receive never hands out an expired message in between.
const EXPIRE_EVERY: Duration = Duration::from_secs(30);

/// Runs until `shutdown`.
pub(super) async fn run(door: Door, shutdown: CancellationToken) -> Result<(), queue::Error> {
    loop {
        let removed = door.expire().await?;
        if removed > 0 {
            tracing::info!(removed, "messages outlived their retention and were deleted");
        }
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = tokio::time::sleep(EXPIRE_EVERY) => {}
        }
    }
}
