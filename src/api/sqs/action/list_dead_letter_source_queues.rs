//! ListDeadLetterSourceQueues: the queues that name this one in their RedrivePolicy.

use serde::{Deserialize, Serialize};

use crate::queue::catalog;
use crate::store::Snapshot;

use super::super::call::{Call, Operation};
use super::super::error::Error;
use super::page::page;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Request {
    queue_url: Option<String>,
    next_token: Option<String>,
    max_results: Option<i64>,
}

#[derive(Debug, Serialize)]
pub(super) struct Answer {
    /// In lower case, as in SQS's model.
    #[serde(rename = "queueUrls")]
    queue_urls: Vec<String>,
    #[serde(rename = "NextToken", skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

impl Operation for Request {
    type Answer = Answer;

    async fn run(self, call: &Call<'_>) -> Result<Answer, Error> {
        let queue = call.queue(self.queue_url.as_ref())?;
        let sources = move |snapshot: &Snapshot| catalog::sources(snapshot, &queue.name);
        let names = call.queues().store().read(sources).await?;
        let (names, next_token) = page(names, self.max_results, self.next_token.as_ref())?;
        Ok(Answer { queue_urls: names.iter().map(|name| call.url(name)).collect(), next_token })
    }
}
