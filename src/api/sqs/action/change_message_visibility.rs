//! ChangeMessageVisibility.

use std::time::Duration;

use serde::Deserialize;

use super::super::call::{Call, Nothing, Operation};
use super::super::error::Error;

const SECONDS_MAX: u64 = 43_200;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Request {
    queue_url: Option<String>,
    receipt_handle: Option<String>,
    visibility_timeout: Option<i64>,
}

impl Operation for Request {
    type Answer = Nothing;

    async fn run(self, call: &Call<'_>) -> Result<Nothing, Error> {
        let queue = call.queue(self.queue_url.as_ref())?;
        let handle = call.handle(&queue, self.receipt_handle.as_ref())?;
        let timeout = timeout(self.visibility_timeout)?;
        let changed = call.queues().change_visibility(handle, timeout).await;
        changed.map_err(|error| call.with_handle(error, self.receipt_handle.as_ref()))?;
        Ok(Nothing {})
    }
}

/// The new timeout.
pub(super) fn timeout(seconds: Option<i64>) -> Result<Duration, Error> {
    let given = seconds.ok_or_else(|| Error::missing("VisibilityTimeout"))?;
    let seconds = u64::try_from(given).ok().filter(|seconds| *seconds <= SECONDS_MAX);
    let reason = format_args!("Must be between 0 and {SECONDS_MAX}, if provided.");
    seconds.map(Duration::from_secs).ok_or_else(|| Error::value("VisibilityTimeout", given, reason))
}
