//! PurgeQueue: the messages are gone at once, their rows are removed in the background, also over a restart.

use serde::Deserialize;

use super::super::call::{Call, Nothing, Operation};
use super::super::error::Error;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Request {
    queue_url: Option<String>,
}

impl Operation for Request {
    type Answer = Nothing;

    async fn run(self, call: &Call<'_>) -> Result<Nothing, Error> {
        let queue = call.queue(self.queue_url.as_ref())?;
        call.queues().purge(&queue.name).await?;
        Ok(Nothing {})
    }
}
