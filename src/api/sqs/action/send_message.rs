//! SendMessage.

use serde::Deserialize;

use super::super::call::{Call, Operation};
use super::super::error::Error;
use super::super::message::{NewMessage, Receipt};

#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub(super) struct Request(NewMessage);

impl Operation for Request {
    type Answer = Receipt;

    async fn run(self, call: &Call<'_>) -> Result<Receipt, Error> {
        let Self(message) = self;
        let name = call.name(message.queue_url.as_ref())?;
        let (send, digests) = message.into_send(&name, call.sender())?;
        let sent = call.queues().send(&name, send).await?;
        Ok(Receipt::new(&name, sent, digests))
    }
}
