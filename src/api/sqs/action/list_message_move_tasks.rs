//! ListMessageMoveTasks: the newest first. Redrives that were started otherwise stand there too.

use serde::{Deserialize, Serialize};

use crate::queue::{self, redrive};
use crate::store::record::{RedriveRecord, RedriveState};

use super::super::call::{Call, Operation};
use super::super::error::{Code, Error};
use super::move_task::Handle;

const RESULTS_MAX: i64 = 10;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Request {
    source_arn: Option<String>,
    max_results: Option<i64>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Answer {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    results: Vec<Task>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Task {
    /// Only of a running task, as in SQS.
    #[serde(skip_serializing_if = "Option::is_none")]
    task_handle: Option<String>,
    status: &'static str,
    source_arn: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    destination_arn: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_number_of_messages_per_second: Option<u32>,
    approximate_number_of_messages_moved: u64,
    approximate_number_of_messages_to_move: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure_reason: Option<String>,
    started_timestamp: u64,
}

impl Operation for Request {
    type Answer = Answer;

    async fn run(self, call: &Call<'_>) -> Result<Answer, Error> {
        let source_arn = self.source_arn.ok_or_else(|| Error::missing("SourceArn"))?;
        let source = call.queue_of_arn("SourceArn", &source_arn)?;
        let max = self.max_results.unwrap_or(1);
        if !(1..=RESULTS_MAX).contains(&max) {
            return Err(Error::value("MaxResults", max, format_args!("Must be between 1 and {RESULTS_MAX}.")));
        }
        let redrives = call.queues().store().read::<_, queue::Error, _>(redrive::list).await?;
        let is_its = |redrive: &RedriveRecord| redrive.from == source.id && redrive.undoes.is_none();
        let tasks = redrives.into_iter().filter(is_its).take(usize::try_from(max).unwrap_or(1));
        Ok(Answer { results: tasks.map(|redrive| task(redrive, &source_arn, call)).collect() })
    }
}

fn task(redrive: RedriveRecord, source_arn: &str, call: &Call<'_>) -> Task {
    let destination = redrive.to.and_then(|to| call.queues().queue_numbered(to).ok().flatten());
    let (status, failure_reason) = match redrive.state {
        RedriveState::Running => ("RUNNING", None),
        RedriveState::Completed { .. } => ("COMPLETED", None),
        RedriveState::Cancelled { .. } => ("CANCELLED", None),
        RedriveState::Failed { why, .. } => ("FAILED", Some(why)),
        // As recorded from AWS.
        RedriveState::QueueGone { .. } => ("FAILED", Some(Code::QueueDoesNotExist.query().to_owned())),
    };
    Task {
        task_handle: (status == "RUNNING").then(|| Handle::new(redrive.id, source_arn.to_owned()).to_text()),
        status,
        source_arn: source_arn.to_owned(),
        destination_arn: destination.map(|queue| call.arn(&queue.name)),
        max_number_of_messages_per_second: redrive.per_second,
        approximate_number_of_messages_moved: redrive.moved,
        approximate_number_of_messages_to_move: redrive.matching,
        failure_reason,
        started_timestamp: redrive.started_at.as_millis(),
    }
}
