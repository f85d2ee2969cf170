//! The attributes of a queue, by SQS's names, with SQS's limits.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::store::record::{Fifo, RedriveAllow};

/// The options of a queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// How long a received message stays invisible unless the receiver says otherwise: 0 s to 12 h.
    pub visibility_timeout: Duration,
    /// How long a sent message stays invisible unless the sender says otherwise: 0 s to 15 min.
    pub delay: Duration,
    /// How long a message is kept: 60 s to 14 d, or for ever (`None`).
    pub retention: Option<Duration>,
    /// How long a receive waits for a message unless the receiver says otherwise: 0 s to 20 s.
    pub receive_wait: Duration,
    /// The largest message: 1 KiB to 1 MiB.
    pub message_bytes_max: u32,
    /// The dead-letter queue and the receive count at which messages go there.
    pub redrive: Option<RedrivePolicy>,
    /// Which queues may name this one as their dead-letter queue.
    pub redrive_allow: RedriveAllow,
    /// Makes it a FIFO queue; its name then ends in `.fifo`.
    pub fifo: Option<Fifo>,
    /// The most messages that the queue holds; no limit when `None`.
    pub messages_max: Option<u64>,
    /// The most bytes that the queue holds, texts and attributes together; no limit when `None`.
    pub bytes_max: Option<u64>,
}

impl Default for Options {
    /// SQS's defaults.
    fn default() -> Self {
        Self {
            visibility_timeout: Duration::from_secs(30),
            delay: Duration::ZERO,
            retention: Some(Duration::from_secs(345_600)),
            receive_wait: Duration::ZERO,
            message_bytes_max: 1_048_576,
            redrive: None,
            redrive_allow: RedriveAllow::All,
            fifo: None,
            messages_max: None,
            bytes_max: None,
        }
    }
}

/// SQS's RedrivePolicy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedrivePolicy {
    /// The name of the dead-letter queue.
    pub dead_letter_queue: String,
    /// A message goes there at the receive that would exceed this count: 1 to 1000.
    pub max_receive_count: u32,
}
