//! Refusals of the queues in the words of SQS: as they were recorded from AWS, else the queue's own.

use crate::queue;
use crate::store;

use super::error::{Code, Error};

const CHARACTERS: &str = "Invalid characters found. Valid unicode characters are #x9 | #xA | #xD | #x20 to #xD7FF | \
                          #xE000 to #xFFFD | #x10000 to #x10FFFF";

impl From<queue::Error> for Error {
    fn from(error: queue::Error) -> Self {
        let (code, message) = code_and_message(&error);
        Self { code, message: message.unwrap_or_else(|| error.to_string()) }
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        queue::Error::from(error).into()
    }
}

/// The code, and AWS's text where it is known.
fn code_and_message(error: &queue::Error) -> (Code, Option<String>) {
    use queue::Error as E;
    match error {
        E::NotFound { .. } | E::Gone(_) => of(Error::no_queue()),
        E::Name(_) => {
            let text = "Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length";
            of(Error::invalid(text))
        }
        E::BodyEmpty => of(Error::missing("MessageBody")),
        E::GroupMissing(_) => of(Error::missing("MessageGroupId")),
        E::DeduplicationMissing(_) => of(Error::invalid(
            "The queue should either have ContentBasedDeduplication enabled or MessageDeduplicationId provided explicitly",
        )),
        E::TooLarge { max, .. } => of(Error::invalid(format!(
            "One or more parameters are invalid. Reason: Message must be shorter than {max} bytes."
        ))),
        E::BatchTooLong { bytes, max } => of(Error::new(
            Code::BatchRequestTooLong,
            format!("Batch requests cannot be longer than {max} bytes. You have sent {bytes} bytes."),
        )),
        E::Characters { what: "body", .. } => (Code::InvalidMessageContents, Some(CHARACTERS.into())),
        E::Characters { .. } => of(Error::invalid(CHARACTERS)),
        E::Attribute { name, why } => of(Error::invalid(format!("Message (user) attribute '{name}': {why}"))),
        E::Identifier { what, got } => of(Error::value(
            what,
            got,
            format_args!("{what} can only include alphanumeric and punctuation characters. 1 to 128 in length."),
        )),
        E::OnlyOnFifo { what, .. } | E::NotOnFifo { what, .. } => of(Error::invalid(format!(
            "The parameter {what} is invalid. Reason: The request include parameter that is not valid for this queue type."
        ))),
        E::OutOfRange { what, min, max, got } => {
            of(Error::value(what, got, format_args!("Must be between {min} and {max}, if provided.")))
        }
        _ => (code(error), message(error)),
    }
}

/// The codes of what is refused whatever the message says.
const fn code(error: &queue::Error) -> Code {
    use queue::Error as E;
    match error {
        E::OverLimit { .. } => Code::OverLimit,
        E::Full { .. } | E::ChangedMeanwhile(_) => Code::RequestThrottled,
        E::DiskFull { .. } => Code::ServiceUnavailable,
        E::Exists { .. } => Code::QueueNameExists,
        E::DeletedRecently(_) => Code::QueueDeletedRecently,
        E::PurgeInProgress(_) => Code::PurgeQueueInProgress,
        E::ReceiptHandle(_) => Code::ReceiptHandleIsInvalid,
        E::NotInFlight => Code::MessageNotInflight,
        E::RedriveNotFound(_) => Code::ResourceNotFound,
        E::Store(_) => Code::InternalError,
        _ => Code::InvalidParameterValue,
    }
}

fn message(error: &queue::Error) -> Option<String> {
    use queue::Error as E;
    let text = match error {
        E::Exists { what, .. } => {
            return Some(format!(
                "A queue already exists with the same name and a different value for attribute {what}"
            ));
        }
        E::PurgeInProgress(queue) => {
            return Some(format!("Only one PurgeQueue operation on {queue} is allowed every 60 seconds."));
        }
        E::DeletedRecently(_) => {
            "You must wait 60 seconds after deleting a queue before you can create another with the same name."
        }
        E::NotDeadLetterQueue(_) => "Source queue must be configured as a Dead Letter Queue.",
        E::RedriveRunning { .. } => {
            "There is already a task running. Only one active task is allowed for a source queue arn at a given time."
        }
        E::RedriveNotFound(_) => "Task does not exist.",
        E::Store(_) => "The store cannot answer; see the daemon's log.",
        _ => return None,
    };
    Some(text.into())
}

fn of(error: Error) -> (Code, Option<String>) {
    (error.code, Some(error.message))
}
