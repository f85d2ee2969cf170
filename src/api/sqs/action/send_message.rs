//! SendMessage.

use serde::Deserialize;

use super::super::call::{Call, Operation};
use super::super::error::Error;
use super::super::message::{NewMessage, Receipt};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Request {
    queue_url: Option<String>,
    #[serde(flatten)]
    message: NewMessage,
}

impl Operation for Request {
    type Answer = Receipt;

    async fn run(self, call: &Call<'_>) -> Result<Receipt, Error> {
        let name = call.name(self.queue_url.as_ref())?;
        let (send, digests) = self.message.into_send(&name, call.sender())?;
        let sent = call.queues().send(&name, send).await?;
        Ok(Receipt::new(&name, sent, digests))
    }
}
