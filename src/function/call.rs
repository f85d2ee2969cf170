//! The door between the worker pool and whatever does the work.

use std::fmt;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::base::{MessageId, Outcome, Timestamp};

/// What a message or a tick makes happen. One value serves all workers at once.
pub trait Function: Send + Sync + fmt::Debug {
    /// Works on one message. The pool limits its time: when the limit passes, the future is dropped at an await
    /// point, so whatever it holds must be safe to drop there.
    fn call(&self, invocation: Invocation) -> BoxFuture<'_, Outcome>;
}

/// One call of a function with one message.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// The message's id.
    pub message_id: MessageId,
    /// The queue it was received from.
    pub queue: String,
    /// The message's body, at most [`crate::base::limit::BODY_BYTES_MAX`] bytes.
    pub body: Bytes,
    /// The run that owns the message, if any.
    pub run: Option<u64>,
    /// SQS's receive count, this receive included.
    pub receive_count: u32,
    /// When it was received.
    pub received_at: Timestamp,
}
