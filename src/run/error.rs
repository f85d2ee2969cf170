//! Why a run cannot be started or shown.

use crate::{queue, store};

/// Why a run cannot be started or shown.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// A run with these identifying parameters was started before.
    #[error(
        "{identity} was started before as run {id} (a run happens once for its identifying parameters: see `nightmail run show {id}`)"
    )]
    Exists {
        /// Schedule and parameters.
        identity: String,
        /// The earlier run.
        id: u64,
    },
    /// The run does not exist.
    #[error("run {0} not found (see `nightmail run list`)")]
    NotFound(u64),
    /// A queue refused a call.
    #[error(transparent)]
    Queue(#[from] queue::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
}
