//! What all requests share: the queues, the options, the key of receipt handles.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::base::LeaseTime;
use crate::queue::{self, Queues};

use super::Options;
use super::error::{Code, Error};
use super::receipt::Receipts;

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
        Ok(Self(Arc::new(Shared { queues, options, receipts, purges: Mutex::default() })))
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
