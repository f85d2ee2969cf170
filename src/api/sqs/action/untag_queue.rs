//! UntagQueue.

use serde::Deserialize;

use super::super::call::{Call, Nothing, Operation};
use super::super::error::Error;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Request {
    queue_url: Option<String>,
    tag_keys: Option<Vec<String>>,
}

impl Operation for Request {
    type Answer = Nothing;

    async fn run(self, call: &Call<'_>) -> Result<Nothing, Error> {
        let name = call.name(self.queue_url.as_ref())?;
        let keys = self.tag_keys.filter(|keys| !keys.is_empty()).ok_or_else(|| Error::missing("TagKeys"))?;
        call.queues().untag(&name, keys).await?;
        Ok(Nothing {})
    }
}
