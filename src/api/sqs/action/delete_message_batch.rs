//! DeleteMessageBatch: up to ten messages, each of which is deleted or refused on its own.

use serde::Deserialize;

use super::super::batch::{self, Answer, Done, Handled};
use super::super::call::{Call, Operation};
use super::super::error::Error;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Request {
    queue_url: Option<String>,
    entries: Option<Vec<Entry>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    id: Option<String>,
    receipt_handle: Option<String>,
}

impl Operation for Request {
    type Answer = Answer<Done>;

    async fn run(self, call: &Call<'_>) -> Result<Answer<Done>, Error> {
        let queue = call.queue(self.queue_url.as_ref())?;
        let entries = self.entries.unwrap_or_default();
        let ids = batch::check_ids("DeleteMessageBatchRequestEntry", entries.iter().map(|entry| entry.id.as_ref()))?;
        let mut handled = Handled::default();
        for entry in &entries {
            handled.add(call.handle(&queue, entry.receipt_handle.as_ref()));
        }
        let deleted = match handled.sound.is_empty() {
            true => Vec::new(),
            false => call.queues().delete_batch(handled.sound.clone()).await?,
        };
        let texts = entries.iter().map(|entry| entry.receipt_handle.as_ref());
        let results = handled.join(deleted, texts, |error, text| call.with_handle(error, text));
        Ok(Answer::done(ids, results))
    }
}
