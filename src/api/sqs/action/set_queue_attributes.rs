//! SetQueueAttributes: changes the attributes that are given.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::super::attributes::{self, Purpose};
use super::super::call::{Call, Nothing, Operation};
use super::super::error::Error;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Request {
    queue_url: Option<String>,
    attributes: Option<BTreeMap<String, String>>,
}

impl Operation for Request {
    type Answer = Nothing;

    async fn run(self, call: &Call<'_>) -> Result<Nothing, Error> {
        let queue = call.queue(self.queue_url.as_ref())?;
        let attributes = self.attributes.filter(|given| !given.is_empty());
        let attributes = attributes.ok_or_else(|| Error::missing("Attribute.Name"))?;
        let is_fifo = queue.attributes.fifo.is_some();
        let given = attributes::given(&attributes, Purpose::Set { is_fifo }, call.options())?;
        if !given.changes_nothing() {
            call.check_not_configured(&queue.name, "changed")?;
        }
        call.queues().set_attributes(&queue.name, given).await?;
        Ok(Nothing {})
    }
}
