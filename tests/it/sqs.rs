//! The SQS endpoint of the real daemon, driven by AWS's own clients. The clients' programs are in `tests/clients`.

mod access;
mod clients;
mod tls;
mod wire;

use std::net::SocketAddr;

use crate::harness::{Harness, Inner};

/// A daemon whose SQS endpoint listens on a free port.
pub(super) struct Endpoint {
    pub(super) daemon: Inner,
    /// Holds the directory of the store.
    _harness: Harness,
    pub(super) address: SocketAddr,
}

impl Endpoint {
    /// One that looks at no signatures.
    pub(super) async fn start() -> Self {
        let mut harness = Harness::with_users(0).await;
        harness.set_key("API__SQS__AUTH", "none");
        Self::of(harness).await
    }

    /// One with the settings of that harness.
    pub(super) async fn of(mut harness: Harness) -> Self {
        harness.set_key("API__SQS__LISTEN", "127.0.0.1:0");
        let daemon = harness.daemon().await;
        let address = daemon.sqs.expect("the endpoint is on");
        Self { daemon, _harness: harness, address }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}
