//! The options of the endpoint.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::num::NonZeroU32;

use super::{AccessKey, TlsOptions};

/// The options of the endpoint.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The certificate; connections are in the clear when `None`.
    pub tls: Option<TlsOptions>,
    /// The region in ARNs.
    pub region: String,
    /// The account number in ARNs and queue URLs: 12 digits.
    pub account: String,
    /// What queue URLs begin with, e.g. `https://sqs.example.com`; the request's own scheme and host when `None`.
    pub url: Option<String>,
    /// Who may call.
    pub access: Access,
    /// The most requests of one key, or of all callers without keys, in a second; no limit when `None`.
    pub requests_per_second: Option<NonZeroU32>,
    /// The queues of the configuration, which clients may not delete or change: the file says what they are.
    pub configured: BTreeSet<String>,
}

/// Who may call.
#[derive(Clone, Debug)]
pub enum Access {
    /// Everybody who reaches the address, which is a loopback one. Signatures are not looked at.
    Anyone,
    /// Who signs with one of these keys.
    Keys(Vec<AccessKey>),
}
