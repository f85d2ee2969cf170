//! Why the daemon does not start, or stopped by itself.

use crate::api::control::server;
use crate::api::sqs;
use crate::{function, queue, run, store};

/// Why the daemon does not start, or stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store does not open, or stopped.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A queue operation failed.
    #[error(transparent)]
    Queue(#[from] queue::Error),
    /// The scheduler stopped.
    #[error(transparent)]
    Run(#[from] run::Error),
    /// The control socket cannot be served.
    #[error(transparent)]
    Socket(#[from] server::Error),
    /// The SQS endpoint cannot be served.
    #[error(transparent)]
    Sqs(#[from] sqs::ListenError),
    /// Functions cannot be built from their settings.
    #[error("{}", list(.0))]
    Functions(Vec<FunctionFault>),
    /// What is told about the runs of a schedule cannot be sent.
    #[error("schedules.{schedule}: {reason}")]
    Callback {
        /// The schedule.
        schedule: String,
        /// What is wrong.
        reason: function::Error,
    },
    /// A loop that must not end has ended; the daemon restarts from disk.
    #[error("{part} ended unexpectedly: {reason}")]
    Broken {
        /// Which loop.
        part: &'static str,
        /// How.
        reason: String,
    },
}

/// A function that cannot be built from its settings.
#[derive(Debug, thiserror::Error)]
#[error("functions.{function}: {reason}")]
pub struct FunctionFault {
    /// Its name.
    pub function: String,
    /// What is wrong.
    pub reason: function::Error,
}

fn list(faults: &[FunctionFault]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
