//! ChangeMessageVisibilityBatch: up to ten messages, each of which is changed or refused on its own.

use serde::Deserialize;

use super::super::batch::{self, Answer, Done, Handled};
use super::super::call::{Call, Operation};
use super::super::error::Error;
use super::change_message_visibility::timeout;

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
    visibility_timeout: Option<i64>,
}

impl Operation for Request {
    type Answer = Answer<Done>;

    async fn run(self, call: &Call<'_>) -> Result<Answer<Done>, Error> {
        let queue = call.queue(self.queue_url.as_ref())?;
        let entries = self.entries.unwrap_or_default();
        let ids = entries.iter().map(|entry| entry.id.as_ref());
        let ids = batch::check_ids("ChangeMessageVisibilityBatchRequestEntry", ids)?;
        let mut handled = Handled::default();
        for entry in &entries {
            let handle = call.handle(&queue, entry.receipt_handle.as_ref());
            handled.add(handle.and_then(|handle| Ok((handle, timeout(entry.visibility_timeout)?))));
        }
        let changed = match handled.sound.is_empty() {
            true => Vec::new(),
            false => call.queues().change_visibility_batch(handled.sound.clone()).await?,
        };
        let texts = entries.iter().map(|entry| entry.receipt_handle.as_ref());
        let results = handled.join(changed, texts, |error, text| call.with_handle(error, text));
        Ok(Answer::done(ids, results))
    }
}
