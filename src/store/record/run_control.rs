//! The record of what operators decided about a run.

use serde::{Deserialize, Serialize};

use crate::base::Timestamp;

use super::postcard::postcard_records;

/// What operators decided about a run. Read at each receive of the run's messages, so it is small and stands beside the
/// run's own row; most runs have none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunControl {
    /// Why no mail of the run may begin.
    pub hold: RunHold,
    /// A number of the store's series, new at each decision. What goes on in the background ends with it.
    pub decision: u64,
    /// Whether messages of the run may still stand in queues although it is held. Set by a stop and by an abandonment;
    /// removed once a look through all queues has found none.
    pub has_queued: bool,
    /// Whether open recipients may be without a message although the run is not held. Set by a resumption; removed once a
    /// look through all recipients has found none.
    pub has_unsent: bool,
}

/// Why no mail of a run may begin.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum RunHold {
    /// It may.
    #[default]
    None,
    /// An operator stopped the run; it can be resumed.
    Stopped {
        /// When.
        at: Timestamp,
    },
    /// An operator abandoned the run; for good.
    Abandoned {
        /// When.
        at: Timestamp,
    },
}

postcard_records!(1: RunControl);
