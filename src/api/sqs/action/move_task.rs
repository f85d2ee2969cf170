//! What the three actions on move tasks share. A move task is a redrive of a whole dead-letter queue.

use serde::{Deserialize, Serialize};

use super::super::error::Error;
use super::super::text;

/// A task's handle: JSON in base64, as SQS's is.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Handle {
    /// The redrive's number.
    pub(super) task_id: String,
    /// The dead-letter queue.
    pub(super) source_arn: String,
}

impl Handle {
    pub(super) fn new(redrive: u64, source_arn: String) -> Self {
        Self { task_id: redrive.to_string(), source_arn }
    }

    pub(super) fn to_text(&self) -> String {
        text::base64(&serde_json::to_vec(self).expect("a handle always serialises"))
    }

    pub(super) fn read(text: &str) -> Result<Self, Error> {
        let read = text::from_base64(text).and_then(|bytes| serde_json::from_slice(&bytes).ok());
        read.ok_or_else(|| Error::invalid("Value for parameter TaskHandle is invalid."))
    }
}
