//! TagQueue.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::super::call::{Call, Nothing, Operation};
use super::super::error::Error;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Request {
    queue_url: Option<String>,
    tags: Option<BTreeMap<String, String>>,
}

impl Operation for Request {
    type Answer = Nothing;

    async fn run(self, call: &Call<'_>) -> Result<Nothing, Error> {
        let name = call.name(self.queue_url.as_ref())?;
        let tags = self.tags.filter(|tags| !tags.is_empty()).ok_or_else(|| Error::missing("Tags"))?;
        call.queues().tag(&name, tags).await?;
        Ok(Nothing {})
    }
}
