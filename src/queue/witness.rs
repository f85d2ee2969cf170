//! Whoever keeps books on messages hears of their ends inside the same transaction.

use crate::base::{Fingerprint, Timestamp};
use crate::store::record::Body;
use crate::store::{self, Tx};

/// What happened to a message that belongs to a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News<'a> {
    /// It went into a dead-letter queue.
    Died(Fingerprint),
    /// It came back from a dead-letter queue.
    Revived,
    /// It was removed without an outcome, for this reason: `purged`, `expired`, `deleted`.
    Withdrawn(&'a str),
    /// An attempt was left unfinished; it may have had its effect.
    Interrupted,
}

/// Keeps books on messages; the room `run` is one.
pub trait Witness: std::marker::Send + Sync + std::fmt::Debug {
    /// Hears the news. What it writes stands or falls with the step.
    ///
    /// # Errors
    /// A storage fault.
    fn hear(&self, tx: &mut Tx<'_>, body: &Body, news: News<'_>, now: Timestamp) -> Result<(), store::Error>;
}

/// Keeps no books.
#[derive(Clone, Copy, Debug)]
pub struct NoWitness;

impl Witness for NoWitness {
    fn hear(&self, _: &mut Tx<'_>, _: &Body, _: News<'_>, _: Timestamp) -> Result<(), store::Error> {
        Ok(())
    }
}
