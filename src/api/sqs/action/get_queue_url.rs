//! GetQueueUrl.

use serde::{Deserialize, Serialize};

use super::super::call::{Call, Operation};
use super::super::error::Error;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Request {
    queue_name: Option<String>,
    #[serde(rename = "QueueOwnerAWSAccountId")]
    owner: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Answer {
    queue_url: String,
}

impl Operation for Request {
    type Answer = Answer;

    async fn run(self, call: &Call<'_>) -> Result<Answer, Error> {
        let name = self.queue_name.filter(|name| !name.is_empty()).ok_or_else(|| Error::missing("QueueName"))?;
        call.check(&name)?;
        if self.owner.is_some_and(|owner| owner != call.options().account) {
            return Err(Error::no_queue());
        }
        let queue = call.queues().queue(&name)?;
        Ok(Answer { queue_url: call.url(&queue.name) })
    }
}
