//! The ledger of effects, as a function sees it.
//!
//! An effect that cannot be taken back, a mail, is written down before it may happen. The ledger itself belongs to a
//! higher layer and is given with each [`Invocation`](super::Invocation).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::base::Failure;

/// An effect that an attempt is about to have: run, recipient and purpose are its key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Intent {
    /// The run; zero outside of one, where nothing is written down.
    pub run: u64,
    /// The recipient's user id.
    pub user: String,
    /// The recipient's account.
    pub account: String,
    /// What tells a resend from the run's own mail; empty for the latter.
    pub purpose: String,
    /// The Message-ID of the mail.
    pub message_id: String,
    /// The address that is mailed.
    pub address: String,
    /// The daily quota that the mail is charged to; also outside of runs.
    pub quota: Option<Quota>,
    /// The SHA-256 of the document; when another one was made before the run's release, the mail is held.
    pub document: Option<[u8; 32]>,
}

/// How many mails a relay takes in any 24 hours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quota {
    /// The relay, by host and port; functions that name an equal one share what was used.
    pub relay: String,
    /// The number of mails, at least 1.
    pub per_day: u64,
}

/// Whether an effect may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// It may: the intent is on disk.
    Granted,
    /// It must not, because it has happened, or nobody knows whether it has: the message is to be deleted without it.
    Duplicate,
    /// Not now: another attempt is about to have it.
    InWork,
    /// Not now: its run may not go on.
    Held,
    /// Not by this attempt: another document was made and checked since it began.
    OtherDocument,
    /// It must not: its run was abandoned.
    Abandoned,
    /// It must not: its run was folded, and whom it mailed is not on record any more.
    Folded,
    /// It must not: the message was taken from this attempt.
    Lost,
    /// It must not: the address is on the suppression list.
    Suppressed,
    /// Not now: the relay's daily quota is used up, and nothing of it comes free before this time has passed.
    OverQuota(Duration),
}

/// What the run wants of an attempt now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The document is to be made, and not to be mailed: [`Outcome::Rendered`](crate::base::Outcome::Rendered).
    Render,
    /// The document is to be mailed.
    Mail {
        /// The SHA-256 of the document that was made for it before; no other may be mailed. `None` when none was made.
        sha256: Option<[u8; 32]>,
    },
    /// Nothing: the document is made, and must not be mailed yet.
    Wait,
}

/// The ledger of effects, for one attempt.
pub trait Effects: Send + Sync + fmt::Debug {
    /// Writes down, durably, that the effect may happen from now on, unless it must not.
    ///
    /// # Errors
    /// It could not be written down, so the effect must not happen.
    fn intend(&self, intent: Intent) -> BoxFuture<'_, Result<Permission, Failure>>;

    /// Why the address of the effect is not mailed; `None` when it may be. Asked before the work, which it spares; the
    /// intent is refused when the address comes onto the list meanwhile.
    ///
    /// # Errors
    /// The list cannot be read, so the effect must not happen.
    fn suppressed(&self, _: &Intent) -> Result<Option<String>, Failure> {
        Ok(None)
    }

    /// What the run wants of this attempt. Asked before the work; that nothing is mailed too early, the intent sees to.
    ///
    /// # Errors
    /// The ledger cannot be read, so the effect must not happen.
    fn stage(&self, _: &Intent) -> Result<Stage, Failure> {
        Ok(Stage::Mail { sha256: None })
    }

    /// The address has no mailbox, as the relay says: it comes onto the suppression list in the commit that settles the
    /// attempt.
    fn has_no_mailbox(&self, _address: &str, _why: &Failure) {}
}

/// Writes nothing down and permits everything: for what is mailed outside of runs, and for tests.
#[derive(Clone, Copy, Debug)]
pub struct NoLedger;

impl NoLedger {
    /// As an [`Invocation`](super::Invocation) has it.
    pub fn shared() -> Arc<dyn Effects> {
        Arc::new(Self)
    }
}

impl Effects for NoLedger {
    fn intend(&self, _: Intent) -> BoxFuture<'_, Result<Permission, Failure>> {
        async { Ok(Permission::Granted) }.boxed()
    }
}
