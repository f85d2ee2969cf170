//! DeleteMessage.

use serde::Deserialize;

use super::super::call::{Call, Nothing, Operation};
use super::super::error::Error;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Request {
    queue_url: Option<String>,
    receipt_handle: Option<String>,
}

impl Operation for Request {
    type Answer = Nothing;

    async fn run(self, call: &Call<'_>) -> Result<Nothing, Error> {
        let queue = call.queue(self.queue_url.as_ref())?;
        let handle = call.handle(&queue, self.receipt_handle.as_ref())?;
        call.queues().delete(handle).await.map_err(|error| call.with_handle(error, self.receipt_handle.as_ref()))?;
        Ok(Nothing {})
    }
}
