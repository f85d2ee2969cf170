//! What all requests share: the queues, the options, the key of receipt handles.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::base::LeaseTime;
use crate::queue::{self, Queues};

use super::Options;
use super::error::{Code, Error};
use super::receipt::Receipts;

/// The most bytes of all requests' bodies that are in memory at once.
const BODIES_BYTES_MAX: usize = 256 << 20;
/// A queue can be purged again after this time, as in SQS.
const PURGE_EVERY: Duration = Duration::from_secs(60);

/// What all requests share. Clones share it.
#[derive(Clone, Debug)]
pub struct Service(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    queues: Queues,
    options: Options,
    receipts: Receipts,
    /// Room for the bodies of requests, in bytes.
    bodies: Arc<Semaphore>,
    /// When each queue was last purged; entries older than [`PURGE_EVERY`] go at the next purge.
    purges: Mutex<HashMap<u32, LeaseTime>>,
}

impl Service {
    /// The service of these queues.
    ///
    /// # Errors
    /// The store failed.
    pub async fn new(queues: Queues, options: Options) -> Result<Self, queue::Error> {
        let receipts = Receipts::new(&queues.sealing_key().await?);
        let bodies = Arc::new(Semaphore::new(BODIES_BYTES_MAX));
        Ok(Self(Arc::new(Shared { queues, options, receipts, bodies, purges: Mutex::default() })))
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

    pub(super) fn bodies(&self) -> &Arc<Semaphore> {
        &self.0.bodies
    }

    /// Notes a purge of the queue, unless there was one a moment ago.
    pub(super) fn note_purge(&self, queue: u32, name: &str) -> Result<(), Error> {
        let now = self.queues().now().lease;
        let mut purges = self.0.purges.lock().unwrap_or_else(PoisonError::into_inner);
        purges.retain(|_, at| now.since(*at) < PURGE_EVERY);
        if purges.contains_key(&queue) {
            let text = format!("Only one PurgeQueue operation on {name} is allowed every 60 seconds.");
            return Err(Error::new(Code::PurgeQueueInProgress, text));
        }
        purges.insert(queue, now);
        Ok(())
    }
}
