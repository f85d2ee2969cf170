//! SendMessageBatch: up to ten messages, each of which is sent or refused on its own.

use serde::{Deserialize, Serialize};

use crate::queue::catalog::FIFO_SUFFIX;

use super::super::batch::{self, Answer};
use super::super::call::{Call, Operation};
use super::super::error::Error;
use super::super::message::{NewMessage, Receipt};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Request {
    queue_url: Option<String>,
    entries: Option<Vec<NewMessage>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Done {
    id: String,
    #[serde(flatten)]
    receipt: Receipt,
}

impl Operation for Request {
    type Answer = Answer<Done>;

    async fn run(self, call: &Call<'_>) -> Result<Answer<Done>, Error> {
        let name = call.name(self.queue_url.as_ref())?;
        let entries = self.entries.unwrap_or_default();
        let ids = batch::check_ids("SendMessageBatchRequestEntry", entries.iter().map(|entry| entry.id.as_ref()))?;
        // As AWS: without a group nothing of the batch is looked at, whatever the other entries are.
        if name.ends_with(FIFO_SUFFIX) && entries.iter().any(|entry| !entry.has_group()) {
            return Err(Error::invalid("The request must contain the parameter MessageGroupId."));
        }
        let (mut sends, mut results) = (Vec::new(), Vec::new());
        for entry in entries {
            results.push(match entry.into_send(&name, call.sender()) {
                Ok((send, digests)) => {
                    sends.push(send);
                    Ok(digests)
                }
                Err(error) => Err(error),
            });
        }
        // Of those that read, each is sent or refused on its own.
        let sent = match sends.is_empty() {
            true => Vec::new(),
            false => call.queues().send_batch(&name, sends).await?,
        };
        let mut sent = sent.into_iter();
        let done = |(id, digests): (&String, Result<_, Error>)| {
            let digests = digests?;
            let sent = sent.next().expect("each message that was given has a result")?;
            Ok(Done { id: id.clone(), receipt: Receipt::new(&name, sent, digests) })
        };
        let results = ids.iter().zip(results).map(done).collect();
        Ok(Answer::of(ids, results))
    }
}
