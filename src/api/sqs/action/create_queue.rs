//! CreateQueue: makes a queue, or returns an existing one whose attributes are as given.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::super::attributes::{self, Purpose};
use super::super::call::{Call, Operation};
use super::super::error::Error;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Request {
    queue_name: Option<String>,
    attributes: Option<BTreeMap<String, String>>,
    #[serde(alias = "tags")]
    tags: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Answer {
    queue_url: String,
}

impl Operation for Request {
    type Answer = Answer;

    async fn run(self, call: &Call<'_>) -> Result<Answer, Error> {
        let name = self.queue_name.ok_or_else(|| Error::missing("QueueName"))?;
        call.check(&name)?;
        let given = attributes::given(&self.attributes.unwrap_or_default(), Purpose::Create, call.options())?;
        call.queues().create_given(&name, given, self.tags.unwrap_or_default()).await?;
        Ok(Answer { queue_url: call.url(&name) })
    }
}
