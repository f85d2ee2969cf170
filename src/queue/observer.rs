//! The observer is notified of message transitions inside the same transaction.

use crate::base::{Fingerprint, Timestamp};
use crate::store::record::Body;
use crate::store::{self, Tx};

/// What happened to a message that belongs to a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition<'a> {
    /// It moved to a dead-letter queue.
    Died(Fingerprint),
    /// It moved from a dead-letter queue back to its source.
    Redriven,
    /// It was removed without an outcome, for this reason: `purged`, `expired`, `deleted`.
    Withdrawn(&'a str),
    /// An attempt did not finish, or its message was taken from it; it may have had its effect.
    Interrupted,
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
        body: &Body,
        transition: Transition<'_>,
        now: Timestamp,
    ) -> Result<(), store::Error>;
}

/// An observer that does nothing.
#[derive(Clone, Copy, Debug)]
pub struct NoObserver;

impl Observer for NoObserver {
    fn on_transition(&self, _: &mut Tx<'_>, _: &Body, _: Transition<'_>, _: Timestamp) -> Result<(), store::Error> {
        Ok(())
    }
}
