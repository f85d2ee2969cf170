//! GetQueueAttributes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::queue;
use crate::queue::stats::{self, Stats};
use crate::store::record::QueueRecord;

use super::super::attributes;
use super::super::call::{Call, Operation};
use super::super::error::Error;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Request {
    queue_url: Option<String>,
    attribute_names: Option<Vec<String>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Answer {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    attributes: BTreeMap<&'static str, String>,
}

impl Operation for Request {
    type Answer = Answer;

    async fn run(self, call: &Call<'_>) -> Result<Answer, Error> {
        let queue = call.queue(self.queue_url.as_ref())?;
        let names = attributes::names(&self.attribute_names.unwrap_or_default(), &queue)?;
        let needs_counts = names.iter().any(|name| name.starts_with("Approximate"));
        let stats = if needs_counts { Some(count(call, &queue).await?) } else { None };
        let kept = call.queues().kept_attributes(queue.id)?;
        let value = |name| {
            let value = attributes::value(name, &queue, stats.as_ref(), call);
            Some((name, value.or_else(|| attributes::kept_value(name, &kept))?))
        };
        Ok(Answer { attributes: names.into_iter().filter_map(value).collect() })
    }
}

async fn count(call: &Call<'_>, queue: &QueueRecord) -> Result<Stats, queue::Error> {
    let (queue, now) = (queue.clone(), call.queues().now());
    call.queues().store().read(move |snapshot| stats::stats(snapshot, &queue, now)).await
}
