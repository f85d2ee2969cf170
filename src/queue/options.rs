//! The attributes of a queue, by SQS's names, with SQS's limits.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::limit;
use crate::store::record::{Fifo, RedriveAllow, Scope};

use super::Error;

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

/// The least `message_bytes_max`, in bytes.
const MESSAGE_BYTES_MIN: u64 = 1024;
/// The most queues that a `redrive_allow` names.
const ALLOWED_MAX: usize = 10;

/// Checks every attribute against SQS's limits.
///
/// # Errors
/// [`Error::OutOfRange`] with the first one that is out of its range; [`Error::Throughput`].
pub(super) fn check(options: &Options) -> Result<(), Error> {
    let seconds = |what, min: u64, max: u64, span: Duration| match span {
        span if span < Duration::from_secs(min) || span > Duration::from_secs(max) => {
            Err(Error::OutOfRange { what, min, max, got: span.as_secs() })
        }
        _ => Ok(()),
    };
    let number = |what, min: u64, max: u64, got: u64| match (min..=max).contains(&got) {
        true => Ok(()),
        false => Err(Error::OutOfRange { what, min, max, got }),
    };
    seconds("VisibilityTimeout", 0, 43_200, options.visibility_timeout)?;
    seconds("DelaySeconds", 0, 900, options.delay)?;
    seconds("ReceiveMessageWaitTimeSeconds", 0, 20, options.receive_wait)?;
    if let Some(retention) = options.retention {
        seconds("MessageRetentionPeriod", 60, 1_209_600, retention)?;
    }
    let bytes_max = limit::BODY_BYTES_MAX as u64;
    number("MaximumMessageSize", MESSAGE_BYTES_MIN, bytes_max, u64::from(options.message_bytes_max))?;
    if let Some(redrive) = &options.redrive {
        number("maxReceiveCount", 1, 1000, u64::from(redrive.max_receive_count))?;
    }
    if let RedriveAllow::Only(sources) = &options.redrive_allow {
        number("sourceQueueArns", 0, ALLOWED_MAX as u64, sources.len() as u64)?;
    }
    match options.fifo {
        Some(fifo) if fifo.throughput_limit == Scope::Group && fifo.deduplication_scope != Scope::Group => {
            Err(Error::Throughput)
        }
        _ => Ok(()),
    }
}
