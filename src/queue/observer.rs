//! The observer is notified of message transitions inside the same transaction.

use crate::base::{Failure, Fingerprint, MessageId, Timestamp};
use crate::store::record::{BodyHead, MessageState};
use crate::store::{self, Tx};

/// A message that belongs to a run, as an observer sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunMessage {
    /// The run.
    pub run: u64,
    /// The key of the recipient's row; zeros for the message that starts the fan-out.
    pub recipient: [u8; 16],
    /// Its inner id, the key of its body.
    pub body: u64,
    /// Its id.
    pub message_id: MessageId,
}

/// How a message died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Death<'a> {
    /// The class of the last failure.
    pub fingerprint: Fingerprint,
    /// The last failure; `None` when no attempt could be recorded.
    pub failure: Option<&'a Failure>,
    /// The name of the dead-letter queue.
    pub queue: &'a str,
}

/// The reason of messages that are removed because their run wants them no more.
pub const ABANDONED: &str = "abandoned";

/// What happened to a message that belongs to a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition<'a> {
    /// It moved to a dead-letter queue.
    Died(Death<'a>),
    /// It moved from a dead-letter queue back to its source.
    Redriven,
    /// It was removed without an outcome, for this reason: `purged`, `expired`, `deleted`, `erased`, [`ABANDONED`].
    Withdrawn(&'a str),
    /// It was removed because its run may not go on now, and is made again when the run may.
    TakenBack,
}

/// What may happen to a message of a run that could be received now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It may be received.
    Free,
    /// It stays in its queue; a receive looks at it again later.
    Waits,
    /// It is removed from its queue, and can be made again: [`Transition::TakenBack`].
    TakenBack,
    /// It is removed for good.
    Abandoned,
}

/// Follows the messages of runs; the module `run` implements it.
pub trait Observer: std::marker::Send + Sync + std::fmt::Debug {
    /// Called inside the message's transaction; its writes commit or roll back with it.
    ///
    /// # Errors
    /// A storage fault.
    fn on_transition(
        &self,
        tx: &mut Tx<'_>,
        message: RunMessage,
        transition: Transition<'_>,
        now: Timestamp,
    ) -> Result<(), store::Error>;

    /// What may happen to a message that could be received now. Asked before each receive of a message of a run.
    ///
    /// # Errors
    /// A storage fault.
    fn standing(&self, _: &mut Tx<'_>, _: RunMessage) -> Result<Standing, store::Error> {
        Ok(Standing::Free)
    }
}

/// An observer that does nothing.
#[derive(Clone, Copy, Debug)]
pub struct NoObserver;

impl Observer for NoObserver {
    fn on_transition(
        &self,
        _: &mut Tx<'_>,
        _: RunMessage,
        _: Transition<'_>,
        _: Timestamp,
    ) -> Result<(), store::Error> {
        Ok(())
    }
}

/// Notifies the observer when the message belongs to a run.
pub(super) fn notify(
    tx: &mut Tx<'_>,
    observer: &dyn Observer,
    state: &MessageState,
    transition: Transition<'_>,
    now: Timestamp,
) -> Result<(), store::Error> {
    match message(tx, state)? {
        Some(message) => observer.on_transition(tx, message, transition, now),
        None => Ok(()),
    }
}

/// The message as an observer sees it; `None` when it belongs to no run.
pub(super) fn message(tx: &mut Tx<'_>, state: &MessageState) -> Result<Option<RunMessage>, store::Error> {
    Ok(tx.bodies()?.head(&state.body)?.and_then(|head| of(state, &head)))
}

/// The same from the head of the message's body.
pub(super) fn of(state: &MessageState, head: &BodyHead) -> Option<RunMessage> {
    let BodyHead { run, recipient } = *head;
    (run != 0).then_some(RunMessage { run, recipient, body: state.body, message_id: state.message_id })
}
