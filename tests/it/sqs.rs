//! The SQS endpoint of the real daemon, driven by AWS's own clients. The clients' programs are in `tests/clients`.

mod access;
mod clients;
mod idle;
mod import;
mod tls;
mod wire;

use std::net::SocketAddr;
use std::sync::Arc;

use nightmail::base::{Clock, SystemClock};

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
    pub(super) async fn of(harness: Harness) -> Self {
        Self::by(harness, SystemClock::shared()).await
    }

    /// The same with a clock of the test's.
    pub(super) async fn by(mut harness: Harness, clock: Arc<dyn Clock>) -> Self {
        harness.set_key("API__SQS__LISTEN", "127.0.0.1:0");
        let daemon = harness.daemon_by(clock).await;
        let address = daemon.sqs.expect("the endpoint is on");
        Self { daemon, _harness: harness, address }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}
