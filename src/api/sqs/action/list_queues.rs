//! ListQueues.

use serde::{Deserialize, Serialize};

use crate::queue::{self, catalog};

use super::super::call::{Call, Operation};
use super::super::error::Error;
use super::page::page;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Request {
    queue_name_prefix: Option<String>,
    next_token: Option<String>,
    max_results: Option<i64>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Answer {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    queue_urls: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

impl Operation for Request {
    type Answer = Answer;

    async fn run(self, call: &Call<'_>) -> Result<Answer, Error> {
        let prefix = self.queue_name_prefix.unwrap_or_default();
        let queues = call.queues().store().read::<_, queue::Error, _>(catalog::list).await?;
        let names = queues
            .into_iter()
            .map(|queue| queue.name)
            .filter(|name| name.starts_with(&prefix) && call.caller.may_use(name))
            .collect();
        let (names, next_token) = page(names, self.max_results, self.next_token.as_ref())?;
        Ok(Answer { queue_urls: names.iter().map(|name| call.url(name)).collect(), next_token })
    }
}
