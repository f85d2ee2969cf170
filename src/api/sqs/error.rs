//! The errors of the API: AWS's codes, each with its two spellings and its status.

use std::fmt;

/// Why a call is refused, as the client reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Error {
    pub(super) code: Code,
    pub(super) message: String,
}

impl Error {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// A parameter that is not there.
    pub(super) fn missing(parameter: &str) -> Self {
        Self::new(Code::MissingParameter, format!("The request must contain the parameter {parameter}."))
    }

    /// A parameter with a wrong value.
    pub(super) fn value(parameter: &str, got: impl fmt::Display, reason: impl fmt::Display) -> Self {
        let text = format!("Value {got} for parameter {parameter} is invalid. Reason: {reason}");
        Self::new(Code::InvalidParameterValue, text)
    }

    /// A parameter with a wrong value, in words of its own.
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidParameterValue, message)
    }

    /// There is no such queue.
    pub(super) fn no_queue() -> Self {
        Self::new(Code::QueueDoesNotExist, "The specified queue does not exist.")
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])+ $name:ident: $json:literal, $query:literal, $status:literal;)+) => {
        /// A code of the API, under the name of SQS's model where it has one.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Code {
            $($(#[$doc])+ $name,)+
        }

        impl Code {
            /// The `__type` of the JSON protocol.
            pub(super) const fn json(self) -> &'static str {
                match self { $(Self::$name => $json,)+ }
            }

            /// The code of the Query protocol, which SDKs also show for the JSON protocol.
            pub(super) const fn query(self) -> &'static str {
                match self { $(Self::$name => $query,)+ }
            }

            /// The HTTP status.
            pub(super) const fn status(self) -> u16 {
                match self { $(Self::$name => $status,)+ }
            }
        }
    };
}

codes! {
    /// A batch has two entries with one id.
    BatchEntryIdsNotDistinct: "com.amazonaws.sqs#BatchEntryIdsNotDistinct", "AWS.SimpleQueueService.BatchEntryIdsNotDistinct", 400;
    /// The messages of a batch are too large together.
    BatchRequestTooLong: "com.amazonaws.sqs#BatchRequestTooLong", "AWS.SimpleQueueService.BatchRequestTooLong", 400;
    /// A batch without entries.
    EmptyBatchRequest: "com.amazonaws.sqs#EmptyBatchRequest", "AWS.SimpleQueueService.EmptyBatchRequest", 400;
    /// There is no such action.
    InvalidAction: "com.amazon.coral.service#UnknownOperationException", "InvalidAction", 400;
    /// The request names no key of the configuration.
    InvalidClientTokenId: "com.amazon.coral.service#UnrecognizedClientException", "InvalidClientTokenId", 403;
    /// The signature does not read.
    IncompleteSignature: "com.amazon.coral.service#IncompleteSignatureException", "IncompleteSignature", 400;
    /// The request is not signed.
    MissingAuthenticationToken: "com.amazon.coral.service#MissingAuthenticationTokenException", "MissingAuthenticationToken", 403;
    /// The request was signed too long ago, or for a moment still to come.
    RequestExpired: "com.amazon.coral.service#RequestExpired", "RequestExpired", 400;
    /// The signature is another one than the key gives.
    SignatureDoesNotMatch: "com.amazon.coral.service#InvalidSignatureException", "SignatureDoesNotMatch", 403;
    /// The queue's URL does not fit this endpoint.
    InvalidAddress: "com.amazonaws.sqs#InvalidAddress", "InvalidAddress", 400;
    /// An attribute that queues do not have.
    InvalidAttributeName: "com.amazonaws.sqs#InvalidAttributeName", "InvalidAttributeName", 400;
    /// A queue's attribute with a wrong value.
    InvalidAttributeValue: "com.amazonaws.sqs#InvalidAttributeValue", "InvalidAttributeValue", 400;
    /// An entry's id breaks the rules.
    InvalidBatchEntryId: "com.amazonaws.sqs#InvalidBatchEntryId", "AWS.SimpleQueueService.InvalidBatchEntryId", 400;
    /// A body has characters that are not allowed.
    InvalidMessageContents: "com.amazonaws.sqs#InvalidMessageContents", "InvalidMessageContents", 400;
    /// A parameter with a wrong value.
    InvalidParameterValue: "com.amazon.coral.service#InvalidParameterValueException", "InvalidParameterValue", 400;
    /// The store cannot answer.
    InternalError: "com.amazon.coral.service#InternalFailure", "InternalFailure", 500;
    /// The request does not read.
    MalformedInput: "com.amazon.coral.service#SerializationException", "MalformedInput", 400;
    /// The message of the handle is not in flight.
    MessageNotInflight: "com.amazonaws.sqs#MessageNotInflight", "AWS.SimpleQueueService.MessageNotInflight", 400;
    /// A parameter that is not there.
    MissingParameter: "com.amazon.coral.service#MissingRequiredParameterException", "MissingParameter", 400;
    /// A limit of SQS is reached.
    OverLimit: "com.amazonaws.sqs#OverLimit", "OverLimit", 403;
    /// The queue was purged a moment ago.
    PurgeQueueInProgress: "com.amazonaws.sqs#PurgeQueueInProgress", "AWS.SimpleQueueService.PurgeQueueInProgress", 403;
    /// The name was a queue's a moment ago.
    QueueDeletedRecently: "com.amazonaws.sqs#QueueDeletedRecently", "AWS.SimpleQueueService.QueueDeletedRecently", 400;
    /// There is no such queue.
    QueueDoesNotExist: "com.amazonaws.sqs#QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue", 400;
    /// There is such a queue with other attributes.
    QueueNameExists: "com.amazonaws.sqs#QueueNameExists", "QueueAlreadyExists", 400;
    /// The handle is none of this queue's.
    ReceiptHandleIsInvalid: "com.amazonaws.sqs#ReceiptHandleIsInvalid", "ReceiptHandleIsInvalid", 400;
    /// The request is too large, or came too slowly.
    RequestEntityTooLarge: "com.amazon.coral.service#RequestEntityTooLargeException", "RequestEntityTooLarge", 413;
    /// The queue takes no more messages now, or the caller calls too often.
    RequestThrottled: "com.amazonaws.sqs#RequestThrottled", "RequestThrottled", 400;
    /// A queue or task of a move is not there.
    ResourceNotFound: "com.amazonaws.sqs#ResourceNotFoundException", "ResourceNotFoundException", 404;
    /// The disk of the store has no room.
    ServiceUnavailable: "com.amazon.coral.service#ServiceUnavailableException", "ServiceUnavailable", 503;
    /// The caller may not do this.
    AccessDenied: "com.amazon.coral.service#AccessDeniedException", "AccessDenied", 403;
    /// A batch has more than ten entries.
    TooManyEntriesInBatchRequest: "com.amazonaws.sqs#TooManyEntriesInBatchRequest", "AWS.SimpleQueueService.TooManyEntriesInBatchRequest", 400;
    /// The operation is not allowed on this queue.
    UnsupportedOperation: "com.amazonaws.sqs#UnsupportedOperation", "AWS.SimpleQueueService.UnsupportedOperation", 400;
}

impl Code {
    /// Whose fault it is, as both protocols say it.
    pub(super) const fn fault(self) -> &'static str {
        if self.status() >= 500 { "Receiver" } else { "Sender" }
    }
}
