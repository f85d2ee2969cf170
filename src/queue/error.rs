//! Why a queue refuses a call.

use std::time::Duration;

use crate::base::{Fingerprint, limit, units};
use crate::store;

/// Why a queue refuses a call.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// There is no queue of that name.
    #[error("queue {name:?} not found (known: {known})")]
    NotFound {
        /// The name asked for.
        name: String,
        /// The existing queues.
        known: String,
    },
    /// The queue was deleted during the call.
    #[error("queue number {0} is gone (it was deleted while the call was under way)")]
    Gone(u32),
    /// The name does not fit SQS's grammar.
    #[error(
        "queue name {0:?}: must be 1 to {max} of A-Z a-z 0-9 _ -, with .fifo at the end on FIFO queues alone",
        max = limit::QUEUE_NAME_CHARS_MAX
    )]
    Name(String),
    /// The body is empty.
    #[error("message body is empty (SQS wants at least one character)")]
    BodyEmpty,
    /// The message exceeds the queue's size limit.
    #[error(
        "message has {bytes} bytes (text and attributes), queue {queue:?} takes {max} (send a reference to the data, or raise message_max, which may be 1MiB, or max_bytes)"
    )]
    TooLarge {
        /// The queue.
        queue: String,
        /// The size of the message.
        bytes: usize,
        /// The queue's limit.
        max: u32,
    },
    /// The messages of a batch together exceed SQS's size limit.
    #[error("batch has {bytes} bytes, at most {max} go in one (send it in parts)")]
    BatchTooLong {
        /// The size of all messages.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// A text is not UTF-8, or has characters that SQS does not allow.
    #[error(
        "message {what} has a character that SQS does not take at byte {at} (allowed: UTF-8 without control characters other than tab, line feed and carriage return)"
    )]
    Characters {
        /// The text.
        what: &'static str,
        /// Where.
        at: usize,
    },
    /// A message attribute does not fit SQS's rules.
    #[error("message attribute {name:?}: {why}")]
    Attribute {
        /// Its name.
        name: String,
        /// The rule.
        why: &'static str,
    },
    /// A group's or deduplication id does not fit SQS's rules.
    #[error("{what} {got:?}: must be 1 to 128 letters, digits and punctuation marks of ASCII")]
    Identifier {
        /// Which id.
        what: &'static str,
        /// The value given.
        got: String,
    },
    /// A FIFO queue's message needs a group.
    #[error("queue {0:?} is a FIFO queue: MessageGroupId is missing")]
    GroupMissing(String),
    /// A FIFO queue's message needs a deduplication id.
    #[error(
        "queue {0:?} is a FIFO queue: MessageDeduplicationId is missing (give one, or set content_based_deduplication on the queue)"
    )]
    DeduplicationMissing(String),
    /// A parameter that FIFO queues do not allow.
    #[error("queue {queue:?} is a FIFO queue and takes no {what} for a message ({why})")]
    NotOnFifo {
        /// The queue.
        queue: String,
        /// The parameter.
        what: &'static str,
        /// What to do instead.
        why: &'static str,
    },
    /// A parameter that only FIFO queues allow.
    #[error("queue {queue:?} is a standard queue and takes no {what} (only FIFO queues do)")]
    OnlyOnFifo {
        /// The queue.
        queue: String,
        /// The parameter.
        what: &'static str,
    },
    /// The queue's own limit is reached.
    #[error("queue {queue:?} is full: it takes {max} {what} (wait until some are done, or raise max_{what})")]
    Full {
        /// The queue.
        queue: String,
        /// `messages` or `bytes`.
        what: &'static str,
        /// The limit.
        max: u64,
    },
    /// An imported message is older than the queue keeps messages.
    #[error(
        "message {message_id} is older than the {} for which queue {queue:?} keeps messages (raise its retention)",
        units::show_duration(*retention)
    )]
    Outlived {
        /// Its id at its source.
        message_id: String,
        /// The queue.
        queue: String,
        /// The queue's retention.
        retention: Duration,
    },
    /// The queue was purged less than a minute ago.
    #[error("queue {0:?} was purged less than 60 seconds ago (SQS's rule; wait until they are over)")]
    PurgeInProgress(String),
    /// Too many messages of the queue are in flight.
    #[error(
        "queue {queue:?} has {max} messages in flight, which is SQS's limit (delete some, or wait for their timeout)"
    )]
    OverLimit {
        /// The queue.
        queue: String,
        /// The limit.
        max: u64,
    },
    /// The visibility timeout of a FIFO queue's message has run out.
    #[error("receipt handle {0:?} has expired (the visibility timeout ran out; receive the message again)")]
    HandleExpired(String),
    /// There is a queue of that name with other attributes.
    #[error("queue {name:?} exists with another {what} (change it there, or choose another name)")]
    Exists {
        /// The queue.
        name: String,
        /// The attribute.
        what: String,
    },
    /// Somebody else changed the queue in the middle of the call.
    #[error("queue {0:?} was changed by somebody else meanwhile (try again)")]
    ChangedMeanwhile(String),
    /// A queue of that name was deleted less than 60 seconds ago.
    #[error("queue {0:?} was deleted less than 60 seconds ago (wait before you make it again)")]
    DeletedRecently(String),
    /// A queue and its dead-letter queue or redrive destination are of different kinds.
    #[error("queue {from:?} and queue {to:?} must both be FIFO queues or both standard ones")]
    Kinds {
        /// Where messages come from.
        from: String,
        /// Where they would go.
        to: String,
    },
    /// A queue's dead letters cannot go there.
    #[error("queue {from:?} cannot send its dead letters to {to:?}: {why}")]
    DeadLetterQueue {
        /// The source.
        from: String,
        /// The dead-letter queue that it names.
        to: String,
        /// The rule.
        why: &'static str,
    },
    /// A FIFO queue's attributes contradict each other.
    #[error("FifoThroughputLimit perMessageGroupId needs DeduplicationScope messageGroup (set that too, or perQueue)")]
    Throughput,
    /// The dead-letter queue does not allow that source.
    #[error("queue {to:?} takes no dead letters of queue {from:?} (see its redrive_allow)")]
    NotAllowed {
        /// The source.
        from: String,
        /// The dead-letter queue.
        to: String,
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
        /// The least free space at which the queue takes messages, with its unit.
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
    #[error("message is not in flight (it was given back or is held by a worker; receive it again)")]
    NotInFlight,
    /// The message of a receipt handle is not there any more.
    #[error("receipt handle {0:?}: its message does not exist any more (it was deleted, or moved to another queue)")]
    NotThere(String),
    /// The source of a redrive is not a dead-letter queue.
    #[error("queue {0:?} is not a dead-letter queue (no queue names it in dead_letter_queue)")]
    NotDeadLetterQueue(String),
    /// The destination of a redrive is its source.
    #[error("queue {0:?} cannot be driven back to itself (name another destination, or none for each letter's source)")]
    RedriveToItself(String),
    /// The text is not a preview's token.
    #[error(
        "as-of {0:?} is not a token that a preview of this store gave (copy the whole token that `nightmail redrive --preview` shows)"
    )]
    Token(String),
    /// The token is of a preview of another queue or selection.
    #[error(
        "as-of: this token belongs to a preview of another queue or selection (give the same queue and conditions as the preview did, or make a new preview)"
    )]
    TokenOfAnother,
    /// No letter has that fingerprint.
    #[error("fingerprint {got}: no letter in queue {queue:?} has it (known: {known})")]
    UnknownFingerprint {
        /// The dead-letter queue.
        queue: String,
        /// The fingerprint asked for.
        got: Fingerprint,
        /// Some of those that letters have.
        known: String,
    },
    /// No letter belongs to that run.
    #[error("run {got}: no letter in queue {queue:?} belongs to it (known: {known})")]
    UnknownRun {
        /// The dead-letter queue.
        queue: String,
        /// The run asked for.
        got: u64,
        /// Some of those that letters belong to.
        known: String,
    },
    /// Letters were selected, and there are none such.
    #[error(
        "nothing to redrive: none of the {letters} letters in queue {queue:?} matches (see `nightmail dead {queue}`)"
    )]
    NothingMatches {
        /// The dead-letter queue.
        queue: String,
        /// How many letters it has.
        letters: u64,
    },
    /// A redrive from the queue is running.
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
