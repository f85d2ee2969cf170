//! The interface between the worker pool and the functions that it calls.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::{EffectFlag, Effects, PaceView, Timings};
use crate::base::{Destination, LeaseTime, MessageId, Report};

/// What a message or a tick makes happen. One value serves all workers at once.
pub trait Function: Send + Sync + fmt::Debug {
    /// Processes one message and reports how it ended and what it learned about its destinations. The pool limits its time: when the limit passes, the future is dropped at an await
    /// point, so everything that it holds must be safe to drop there.
    fn call(&self, invocation: Invocation) -> BoxFuture<'_, Report>;

    /// Everything outside that the function calls, each once. While the circuit breaker of one of them is open, no
    /// message is received for the function but probes.
    fn destinations(&self) -> Vec<Destination> {
        Vec::new()
    }

    /// How long each destination has been silent in the middle of a call: the longest current wait for a reply. One
    /// entry for each destination that something waits for now.
    fn silences(&self) -> Vec<(Destination, Duration)> {
        Vec::new()
    }

    /// The limits of the rate of its calls that hold now, those that are worth telling.
    fn paces(&self) -> Vec<PaceView> {
        Vec::new()
    }

    /// How long its steps took so far; `None` for a function that does not measure them.
    fn timings(&self) -> Option<Timings> {
        None
    }

    /// How much longer than its time limit an attempt may take, because an effect that was begun within the limit must
    /// not be cancelled. Such a function begins no effect after [`Invocation::deadline`].
    fn overtime(&self) -> Duration {
        Duration::ZERO
    }

    /// Whether a drain ends its attempts at once instead of waiting for them: they are dropped at an await point, and
    /// their messages go back uncharged. For work that commits its progress and has no effect outside the store.
    fn ends_with_drain(&self) -> bool {
        false
    }
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
    pub received_at: LeaseTime,
    /// When the attempt's time limit ends. No irreversible effect may begin after it.
    pub deadline: LeaseTime,
    /// The handle of this receive, as SQS gives it.
    pub receipt_handle: String,
    /// Where the function says that its effect may have happened. One that never does leaves no doubt when its attempt
    /// is cut off.
    pub effect: EffectFlag,
    /// Where it writes down an effect before it may happen.
    pub effects: Arc<dyn Effects>,
}
