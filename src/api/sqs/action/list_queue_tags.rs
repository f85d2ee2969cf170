//! ListQueueTags.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::super::call::{Call, Operation};
use super::super::error::Error;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Request {
    queue_url: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Answer {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    tags: BTreeMap<String, String>,
}

impl Operation for Request {
    type Answer = Answer;

    async fn run(self, call: &Call<'_>) -> Result<Answer, Error> {
        Ok(Answer { tags: call.queue(self.queue_url.as_ref())?.tags })
    }
}
