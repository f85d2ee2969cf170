//! The exchange of one pool: what the attempts came to goes into the store and new messages come out of it, as many at
//! a time as ended together, in one commit. A commit costs about as much processor time as half a statement.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{OptionFuture, join_all};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span};

use crate::base::Timestamp;
use crate::queue::receive::VISIBILITY_MAX;
use crate::queue::{self, Door, Receive, Received, Receiving, Settled, settle};
use crate::store::record::Owner;

use super::Options;
use super::settle::{End, settle};

/// One exchange takes at most this many messages each way.
const GROUP_MAX: usize = 256;
/// An attempt that ended waits this long for company, and only while others are in work. A crash in this time leaves
/// the attempt in doubt, so it is short beside the dialogue with a relay.
const COMPANY_WAIT: Duration = Duration::from_millis(5);
/// A lease outlives the function's time limit by this much, for the settling.
const LEASE_MARGIN: Duration = Duration::from_secs(30);

/// A message on its way through the pool, and the place that it takes up.
#[derive(Clone, Debug)]
pub(super) struct Delivery {
    /// The message.
    pub(super) message: Received,
    /// Given back when the attempt is about to be settled.
    pub(super) place: Arc<OwnedSemaphorePermit>,
}

/// An attempt that is over.
#[derive(Debug)]
pub(super) struct Finished {
    /// What was worked on, and the place that it still takes up.
    pub(super) delivery: Delivery,
    /// What it came to.
    pub(super) end: End,
    /// When.
    pub(super) at: Timestamp,
    /// Its span, so that what is said of it later stands in its context.
    pub(super) span: Span,
}

/// Between the store and the attempts of one function.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) door: Door,
    pub(super) options: Arc<Options>,
    /// The queue's number.
    pub(super) queue: u32,
    /// One for each attempt at once. They outlive a worker that has to be built anew, so that the bound always holds.
    pub(super) places: Arc<Semaphore>,
    /// An attempt is cut off after this time.
    pub(super) time_limit: Duration,
    /// What the attempts came to; ends when the worker and all its attempts are gone.
    pub(super) finished: mpsc::Receiver<Finished>,
}

/// Why the exchange has something to do.
#[expect(clippy::large_enum_variant, reason = "one at a time, on the stack of one loop")]
enum Reason {
    /// An attempt is over.
    Finished(Finished),
    /// There may be messages to receive.
    Messages,
    /// No more messages are to be taken.
    Closing,
    /// The last attempt is settled and no more can come.
    Over,
}

impl Exchange {
    /// Runs until the last attempt is settled and no more can come, or until the store stops. From `stop` on, or once
    /// the worker is gone, no more messages are taken.
    pub(super) async fn run(
        mut self,
        deliveries: mpsc::Sender<Delivery>,
        stop: CancellationToken,
    ) -> Result<(), queue::Error> {
        let mut changed = self.door.store().subscribe(u64::from(self.queue));
        let mut look_at = Some(Timestamp::ZERO);
        // Without it the worker ends, and with its last attempt `finished` ends.
        let mut deliveries = Some(deliveries);
        loop {
            let group = match self.reason(deliveries.as_ref(), &stop, &mut changed, look_at).await {
                Reason::Finished(first) => self.company(first).await,
                Reason::Messages => Vec::new(),
                Reason::Closing => {
                    deliveries = None;
                    continue;
                }
                Reason::Over => return Ok(()),
            };
            // The steps of both go to the writer together, so that they are one commit as a rule.
            let settled = self.settle(group);
            match &deliveries {
                Some(deliveries) if !stop.is_cancelled() => {
                    changed.mark_unchanged();
                    let ((), received) = tokio::join!(settled, self.receive());
                    look_at = self.deliver(received?, deliveries).await?;
                }
                _ => settled.await,
            }
        }
    }

    async fn reason(
        &mut self,
        deliveries: Option<&mpsc::Sender<Delivery>>,
        stop: &CancellationToken,
        changed: &mut watch::Receiver<u64>,
        look_at: Option<Timestamp>,
    ) -> Reason {
        let messages = async {
            // Places also come back without an outcome, when an attempt panics outside of its layers.
            drop(self.places.acquire().await);
            tokio::select! {
                _ = changed.changed() => {}
                () = self.door.until(look_at) => {}
            }
        };
        tokio::select! {
            biased;
            Some(()) = OptionFuture::from(deliveries.map(|deliveries| closing(stop, deliveries))) => Reason::Closing,
            finished = self.finished.recv() => finished.map_or(Reason::Over, Reason::Finished),
            () = messages, if deliveries.is_some() => Reason::Messages,
        }
    }

    /// The first attempt with those that end soon after it: half of all that may be in work at once, or what comes
    /// within [`COMPANY_WAIT`].
    async fn company(&mut self, first: Finished) -> Vec<Finished> {
        let mut group = vec![first];
        let enough = (self.options.concurrency / 2).clamp(1, GROUP_MAX);
        let wait_is_over = tokio::time::sleep(COMPANY_WAIT);
        tokio::pin!(wait_is_over);
        while group.len() < GROUP_MAX {
            if let Ok(next) = self.finished.try_recv() {
                group.push(next);
                continue;
            }
            let places_taken = self.options.concurrency.saturating_sub(self.places.available_permits());
            if group.len() >= enough.min(places_taken) {
                break;
            }
            tokio::select! {
                Some(next) = self.finished.recv() => group.push(next),
                () = &mut wait_is_over => break,
            }
        }
        group
    }

    /// Settles a group; its places are free at once, for what is received in the same commit.
    fn settle(&self, group: Vec<Finished>) -> impl Future<Output = ()> + use<> {
        let settled = group.into_iter().map(|finished| {
            let Finished { delivery: Delivery { message, place }, end, at, span } = finished;
            drop(place);
            let (door, options) = (self.door.clone(), self.options.clone());
            let name = end.name();
            let settled = async move {
                match settle(&door, &options, message, end, at).await {
                    Ok(Settled::Fenced) => {
                        tracing::warn!(end = name, "the message was taken from this attempt meanwhile");
                    }
                    Ok(settled) => tracing::trace!(?settled, "settled"),
                    Err(error) => tracing::error!("the attempt could not be settled: {error}"),
                }
            };
            settled.instrument(span)
        });
        join_all(settled).map(drop)
    }

    /// Receives as many messages as there are places free.
    async fn receive(&self) -> Result<Catch, queue::Error> {
        let free = u32::try_from(self.places.available_permits().min(GROUP_MAX)).expect("it is at most a few hundred");
        let Ok(places) = self.places.clone().try_acquire_many_owned(free) else { return Ok(Catch::default()) };
        if free == 0 {
            return Ok(Catch::default());
        }
        let visibility = (self.time_limit + LEASE_MARGIN).min(VISIBILITY_MAX);
        let what = Receive { max: places.num_permits(), visibility: Some(visibility), owner: Owner::Worker };
        let found = self.door.receive_now(self.queue, what).await?;
        Ok(Some((found, places)))
    }

    /// Hands the messages to the worker; answers when to look for more.
    async fn deliver(
        &self,
        catch: Catch,
        deliveries: &mpsc::Sender<Delivery>,
    ) -> Result<Option<Timestamp>, queue::Error> {
        let Some((found, mut places)) = catch else { return Ok(Some(Timestamp::ZERO)) };
        for message in found.messages {
            let place = places.split(1).expect("no more messages were asked for than places were taken");
            let delivery = Delivery { message, place: Arc::new(place) };
            if let Err(unwanted) = deliveries.send(delivery).await {
                let handle = unwanted.0.message.handle;
                self.door.store().write(move |tx| settle::release(tx, handle)).await.map(drop)?;
            }
        }
        let is_used_up = places.num_permits() == 0;
        Ok(if is_used_up { Some(Timestamp::ZERO) } else { found.next_visible_at })
    }
}

/// What a receive found, with the places that were free for it.
type Catch = Option<(Receiving, OwnedSemaphorePermit)>;

/// Ends when no more messages are to be taken.
async fn closing(stop: &CancellationToken, deliveries: &mpsc::Sender<Delivery>) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = deliveries.closed() => {}
    }
}
