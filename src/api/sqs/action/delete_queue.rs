//! DeleteQueue: the name is gone at once, the messages are removed in the background, also over a restart.

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
        let name = call.name(self.queue_url.as_ref())?;
        call.check_not_configured(&name, "deleted")?;
        call.queues().delete_queue(&name).await?;
        Ok(Nothing {})
    }
}
