//! What all requests share: the queues, the options, the key of receipt handles.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::queue::{self, Queues};

use super::Options;
use super::access::SigningKeys;
use super::rate::Rates;
use super::receipt::Receipts;

/// The most bytes of all requests' bodies that are in memory at once.
const BODIES_BYTES_MAX: usize = 256 << 20;

/// What all requests share. Clones share it.
#[derive(Clone, Debug)]
pub struct Service(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    queues: Queues,
    options: Options,
    receipts: Receipts,
    rates: Rates,
    signing_keys: SigningKeys,
    /// Room for the bodies of requests, in bytes.
    bodies: Arc<Semaphore>,
}

impl Service {
    /// The service of these queues.
    ///
    /// # Errors
    /// The store failed.
    pub async fn new(queues: Queues, options: Options) -> Result<Self, queue::Error> {
        let receipts = Receipts::new(&queues.sealing_key().await?);
        let bodies = Arc::new(Semaphore::new(BODIES_BYTES_MAX));
        let rates = Rates::new(&options);
        let signing_keys = SigningKeys::default();
        Ok(Self(Arc::new(Shared { queues, options, receipts, rates, signing_keys, bodies })))
    }

    pub(super) fn queues(&self) -> &Queues {
        &self.0.queues
    }

    pub(super) fn options(&self) -> &Options {
        &self.0.options
    }

    pub(super) fn receipts(&self) -> &Receipts {
        &self.0.receipts
    }

    pub(super) fn rates(&self) -> &Rates {
        &self.0.rates
    }

    pub(super) fn signing_keys(&self) -> &SigningKeys {
        &self.0.signing_keys
    }

    pub(super) fn bodies(&self) -> &Arc<Semaphore> {
        &self.0.bodies
    }
}
