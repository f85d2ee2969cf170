//! CancelMessageMoveTask: what was moved stays moved.

use serde::{Deserialize, Serialize};

use super::super::call::{Call, Operation};
use super::super::error::{Code, Error};
use super::move_task::Handle;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Request {
    task_handle: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Answer {
    approximate_number_of_messages_moved: u64,
}

impl Operation for Request {
    type Answer = Answer;

    async fn run(self, call: &Call<'_>) -> Result<Answer, Error> {
        let handle = Handle::read(&self.task_handle.ok_or_else(|| Error::missing("TaskHandle"))?)?;
        call.queue_of_arn("SourceArn", &handle.source_arn)?;
        let unknown = || Error::new(Code::ResourceNotFound, "Task does not exist.");
        let id = handle.task_id.parse().map_err(|_| unknown())?;
        Ok(Answer { approximate_number_of_messages_moved: call.queues().cancel_redrive(id).await? })
    }
}
