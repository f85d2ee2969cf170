//! Exit codes, after `sysexits.h`, so that scripts and systemd can tell faults apart.

use std::process::ExitCode;

use crate::api::control::Failure;
use crate::api::control::request::FailureKind;
use crate::config;
use crate::daemon;
use crate::store;

/// How a command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: done.
    Ok,
    /// 1: refused: an unknown name, a value out of range, a run that exists.
    Refused,
    /// 2: `status` found something that needs a person; a forecast does not fit.
    Degraded,
    /// 64: the command line is wrong.
    Usage,
    /// 65: a check found that the store contradicts itself, or a document differs from the one that was mailed.
    Data,
    /// 69: the daemon cannot be reached, or one is running where none may.
    Unavailable,
    /// 70: something broke that must not.
    Internal,
    /// 74: the store failed; what was being written may or may not be there.
    Storage,
    /// 77: this user may not use the control socket or the store.
    Denied,
    /// 78: the configuration is wrong.
    Config,
    /// 130: Ctrl-C ended the command; what it had begun goes on in the daemon.
    Interrupted,
}

impl Exit {
    /// The code itself.
    pub const fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Refused => 1,
            Self::Degraded => 2,
            Self::Usage => 64,
            Self::Data => 65,
            Self::Unavailable => 69,
            Self::Internal => 70,
            Self::Storage => 74,
            Self::Denied => 77,
            Self::Config => 78,
            Self::Interrupted => 130,
        }
    }

    /// The exit code of an error, by its type.
    pub(super) fn of(error: &anyhow::Error) -> Self {
        if error.is::<config::Errors>() {
            return Self::Config;
        }
        if error.is::<Unsound>() || error.is::<Differs>() {
            return Self::Data;
        }
        if error.is::<Late>() {
            return Self::Degraded;
        }
        if error.is::<Interrupted>() {
            return Self::Interrupted;
        }
        if let Some(failure) = error.downcast_ref::<Failure>() {
            return match failure.kind {
                FailureKind::Request => Self::Refused,
                FailureKind::Store => Self::Storage,
                FailureKind::Unreachable => Self::Unavailable,
                FailureKind::Denied => Self::Denied,
            };
        }
        if let Some(error) = error.downcast_ref::<daemon::Error>() {
            return match error {
                daemon::Error::Store(error) => Self::of_store(error),
                daemon::Error::Functions(_) | daemon::Error::Callback { .. } => Self::Config,
                daemon::Error::Socket(_) | daemon::Error::Sqs(_) => Self::Unavailable,
                daemon::Error::Queue(_) | daemon::Error::Run(_) => Self::Storage,
                daemon::Error::Broken { .. } => Self::Internal,
            };
        }
        match error.downcast_ref::<store::Error>() {
            Some(error) => Self::of_store(error),
            None => Self::Refused,
        }
    }

    const fn of_store(error: &store::Error) -> Self {
        match error {
            store::Error::Locked { .. } => Self::Unavailable,
            store::Error::Denied { .. } => Self::Denied,
            _ => Self::Storage,
        }
    }
}

/// A document that was made again is another one than was mailed; it is written all the same.
#[derive(Debug, thiserror::Error)]
#[error(
    "it differs from the document that was mailed, whose SHA-256 is {0} (the letterhead or the version changed since)"
)]
pub(super) struct Differs(pub(super) String);

/// A check of the store found something; its findings are printed.
#[derive(Debug, thiserror::Error)]
#[error("the store has {faults} (restore a backup; \"the store contradicts itself\" in docs/operating.md says how)")]
pub(super) struct Unsound {
    /// How many, with the noun.
    pub(super) faults: String,
}

/// A run will not have ended at its deadline, as far as can be told; the forecast is printed.
#[derive(Debug, thiserror::Error)]
#[error("it does not fit: it ends {by} after the deadline ({bound_by} holds it up)")]
pub(super) struct Late {
    /// By how much.
    pub(super) by: String,
    /// What holds it up.
    pub(super) bound_by: String,
}

/// Ctrl-C ended the command; says what goes on without it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Interrupted(pub(super) String);

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}
