//! How one of the team's services is called.

use std::time::Duration;

use secrecy::SecretString;

use crate::base::Backoff;

/// How to call one of the team's services.
#[derive(Clone, Debug)]
pub struct Options {
    /// A connection must be established within this time.
    pub connect_timeout: Duration,
    /// One call, body included, must end within this time.
    pub timeout: Duration,
    /// A response's body may have this many bytes after decompression.
    pub response_bytes_max: u64,
    /// Sent as `Authorization: Bearer …`.
    pub token: Option<SecretString>,
    /// Sent with every call.
    pub headers: Vec<(String, SecretString)>,
    /// Temporary faults are retried this many times within one call.
    pub retries: u32,
    /// How long to wait between those tries.
    pub backoff: Backoff,
}
