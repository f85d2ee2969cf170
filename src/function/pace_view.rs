//! A limit of the rate of mails, as lists show it.

use serde::{Deserialize, Serialize};

use crate::base::Timestamp;

/// What limits the mails to a relay, or through it to a recipient domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaceView {
    /// The relay, by host and port.
    pub relay: String,
    /// The recipient domain; `None` for all mails of the relay.
    pub domain: Option<String>,
    /// The configured limit of a second.
    pub per_second: Option<u32>,
    /// The configured connections of a domain.
    pub connections: Option<usize>,
    /// Mails an hour that were found to be accepted; `None` while nothing is refused.
    pub found_per_hour: Option<u64>,
    /// Mails that were refused because there were too many, since the daemon started.
    pub refusals: u64,
    /// The last of them.
    pub last_refusal: Option<Timestamp>,
}
