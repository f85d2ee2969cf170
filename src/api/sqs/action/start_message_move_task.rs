//! StartMessageMoveTask: drives the letters of a dead-letter queue back, or to another queue.

use serde::{Deserialize, Serialize};

use crate::queue::redrive::Redrive;

use super::super::call::{Call, Operation};
use super::super::error::Error;
use super::move_task::Handle;

/// SQS's highest rate.
const PER_SECOND_MAX: i64 = 500;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Request {
    source_arn: Option<String>,
    destination_arn: Option<String>,
    max_number_of_messages_per_second: Option<i64>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Answer {
    task_handle: String,
}

impl Operation for Request {
    type Answer = Answer;

    async fn run(self, call: &Call<'_>) -> Result<Answer, Error> {
        let source_arn = self.source_arn.ok_or_else(|| Error::missing("SourceArn"))?;
        let from = call.queue_of_arn("SourceArn", &source_arn)?;
        let to = self.destination_arn.map(|arn| call.queue_of_arn("DestinationArn", &arn)).transpose()?;
        let per_second = self.max_number_of_messages_per_second.map(per_second).transpose()?;
        let to = to.map(|queue| queue.name);
        let id = call.queues().start_redrive(Redrive { from: from.name, to, per_second, ..Redrive::default() }).await?;
        Ok(Answer { task_handle: Handle::new(id, source_arn).to_text() })
    }
}

fn per_second(given: i64) -> Result<u32, Error> {
    let rate = u32::try_from(given).ok().filter(|_| (1..=PER_SECOND_MAX).contains(&given));
    let reason = format_args!("Must be between 1 and {PER_SECOND_MAX}.");
    rate.ok_or_else(|| Error::value("MaxNumberOfMessagesPerSecond", given, reason))
}
