//! Why a queue refuses a call.

use crate::base::limit;
use crate::store;

/// Why a queue refuses a call.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// There is no queue of that name.
    #[error("queue {name:?} not found (known: {known})")]
    NotFound {
        /// The name asked for.
        name: String,
        /// The queues that there are.
        known: String,
    },
    /// The queue went away while the call was under way.
    #[error("queue number {0} is gone (it was deleted while the call was under way)")]
    Gone(u32),
    /// The name does not fit SQS's grammar.
    #[error("queue name {0:?}: must be 1 to {max} of A-Z a-z 0-9 _ -", max = limit::QUEUE_NAME_CHARS_MAX)]
    Name(String),
    /// The body has no byte.
    #[error("message body is empty (SQS wants at least one character)")]
    BodyEmpty,
    /// The body is larger than the queue takes.
    #[error(
        "message body has {bytes} bytes, queue {queue:?} takes {max} (send a reference to the data, or raise message_max, which may be 1MiB)"
    )]
    BodyTooLarge {
        /// The queue.
        queue: String,
        /// The size of the body.
        bytes: usize,
        /// The queue's limit.
        max: u32,
    },
    /// The body is not text, or has characters that SQS does not take.
    #[error(
        "message body has a character that SQS does not take at byte {at} (allowed: UTF-8 without control characters other than tab, line feed and carriage return)"
    )]
    BodyCharacters {
        /// Where.
        at: usize,
    },
    /// The disk of the store is nearly full.
    #[error(
        "queue {queue:?} takes no message now: {free} are free on the disk of the store, less than the {least} that are kept (free some space there; `nightmail compact` gives back what deleted messages took; or lower store.reserve)"
    )]
    DiskFull {
        /// The queue.
        queue: String,
        /// What is free, with its unit.
        free: String,
        /// The least at which the queue takes messages, with its unit.
        least: String,
    },
    /// A number is out of its range.
    #[error("{what}: must be {min} to {max} (got {got})")]
    OutOfRange {
        /// The parameter.
        what: &'static str,
        /// The least value.
        min: u64,
        /// The greatest value.
        max: u64,
        /// The value given.
        got: u64,
    },
    /// The receipt handle is not one that this store gave out.
    #[error("receipt handle {0:?} is invalid (use the one of the latest receive of the message)")]
    ReceiptHandle(String),
    /// The message is not in flight.
    #[error("message is not in flight (its visibility timeout ran out, or it was deleted)")]
    NotInFlight,
    /// The letters of the queue cannot be driven back.
    #[error("queue {0:?} is not a dead-letter queue (no queue names it in dead_letter_queue)")]
    NotDeadLetterQueue(String),
    /// The letters would stay where they are.
    #[error("queue {0:?} cannot be driven back to itself (name another destination, or none for each letter's source)")]
    RedriveToItself(String),
    /// A redrive of the queue is under way.
    #[error("redrive {id} of queue {queue:?} is still running (wait for it, or cancel it)")]
    RedriveRunning {
        /// The redrive.
        id: u64,
        /// The dead-letter queue.
        queue: String,
    },
    /// There is no such redrive.
    #[error("redrive {0} is not there or not running any more (see `nightmail redrives`)")]
    RedriveNotFound(u64),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
}
