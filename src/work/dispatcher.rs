//! The dispatcher of one pool: settles finished attempts, writes the intents of running ones and receives new messages,
//! batched into one commit. A commit costs about as much processor time as half a statement, so one commit per message
//! would be too expensive. Owns batching and permits. Must not know what a function does.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{OptionFuture, join_all};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span};

use crate::base::{Contact, LeaseTime, Now};
use crate::function::EffectFlag;
use crate::queue::receive::{Position, VISIBILITY_MAX};
use crate::queue::{self, Receive, Received, Receiving, Settled, settle};
use crate::run::effects::{AttemptEffects, PendingIntents};
use crate::store::record::{Owner, Suspicion};

use super::breakers::{Pass, Probe};
use super::options::LEASE_MARGIN;
use super::quarantine::{InWork, Quarantine, Turn};
use super::settle::{End, Settler, tell};

/// One commit settles at most this many attempts and receives at most this many messages.
const BATCH_MAX: usize = 256;
/// Finished attempts and those that wait for their intents are batched for at most this long, and only while others are
/// still running. A crash within this time leaves the outcome of a finished attempt unknown, and an intent holds a
/// connection to the relay meanwhile, so it is short compared with an SMTP dialogue.
const LINGER: Duration = Duration::from_millis(5);

/// A message in the pool and the permit that it holds.
#[derive(Clone, Debug)]
pub(super) struct Delivery {
    /// The message.
    pub(super) message: Received,
    /// Released just before the attempt is settled. Shared, because apalis needs tasks that can be cloned.
    pub(super) permit: Arc<OwnedSemaphorePermit>,
    /// Whether the attempt's effect may have happened; shared with the function.
    pub(super) effect: EffectFlag,
    /// The ledger of effects for this attempt; shared with the function.
    pub(super) effects: AttemptEffects,
    /// Its record in the quarantine; shared with the messages that were received with it.
    pub(super) in_work: Arc<InWork>,
    /// Set when the message probes destinations that are away. Returned with the permit.
    pub(super) probe: Option<Arc<Probe>>,
}

/// A finished attempt that is not settled yet.
#[derive(Debug)]
pub(super) struct Finished {
    /// The message of the attempt, and the permit that it still holds.
    pub(super) delivery: Delivery,
    /// How it ended.
    pub(super) end: End,
    /// What it learned about its destinations.
    pub(super) contacts: Vec<Contact>,
    /// Whether the destination of the last contact was away when it ended.
    pub(super) was_away: bool,
    /// When it ended.
    pub(super) at: Now,
    /// The attempt's span; the log lines of the settling belong to it.
    pub(super) span: Span,
}

/// Connects the store with the attempts of one function.
#[derive(Debug)]
pub(super) struct Dispatcher {
    pub(super) settler: Settler,
    /// The queue's id in the store.
    pub(super) queue: u32,
    /// How far the queue was received. Probes begin behind it, because what stands before it was tried already, and go
    /// on behind the last probe.
    pub(super) position: Position,
    /// Set when a probe found nothing but suspects: the next one may take a suspect.
    pub(super) has_only_suspects: bool,
    /// Decides between ordinary messages and suspects; shared by all pools.
    pub(super) quarantine: Quarantine,
    /// Whether the queue's suspects cannot be received now, because it is paused; looked at again when it changes.
    pub(super) is_paused: bool,
    /// One permit for each concurrent attempt. They are the pool's and survive a rebuild of the worker: attempts of the
    /// old worker still count against the limit.
    pub(super) permits: Arc<Semaphore>,
    /// An attempt is cancelled after this time.
    pub(super) time_limit: Duration,
    /// Finished attempts; closed when the worker and all its attempts are gone.
    pub(super) finished: mpsc::Receiver<Finished>,
    /// Running attempts that wait until their intent is on disk.
    pub(super) intents: PendingIntents,
}

/// Why the dispatcher's loop woke up.
#[expect(clippy::large_enum_variant, reason = "one at a time, on the stack of one loop")]
enum Wakeup {
    /// An attempt finished.
    Finished(Finished),
    /// An attempt waits for its intent.
    Intent,
    /// A permit is free and there may be messages to receive.
    Messages,
    /// A drain began or the worker is gone: no more messages are received.
    Closing,
    /// The last attempt is settled and no more can start.
    Over,
}

/// When the dispatcher looks for messages again, beside changes of the queue and of the quarantine.
#[derive(Clone, Copy, Debug)]
struct Look {
    /// At this moment; never by itself when `None`.
    at: Option<LeaseTime>,
    /// When the breakers change from this version; set while they let nothing through.
    breakers: Option<u64>,
}

impl Look {
    /// As soon as a permit is free.
    const NOW: Self = Self { at: Some(LeaseTime::ZERO), breakers: None };

    const fn at(moment: Option<LeaseTime>) -> Self {
        Self { at: moment, breakers: None }
    }
}

/// The result of one receive.
enum Batch {
    /// Messages, with the permits taken for them and their record in the quarantine; at most one when it is a
    /// probe.
    Received { found: Receiving, permits: OwnedSemaphorePermit, in_work: Arc<InWork>, probe: Option<Probe> },
    /// Nothing was received.
    None(Look),
}

impl Dispatcher {
    /// Runs until the last attempt is settled and no more can start, or until the store stops. After `stop`, or once
    /// the worker is gone, it receives no more messages.
    ///
    /// # Errors
    /// The store failed.
    pub(super) async fn run(
        mut self,
        deliveries: mpsc::Sender<Delivery>,
        stop: CancellationToken,
    ) -> Result<(), queue::Error> {
        let mut changed = self.settler.queues.store().subscribe(u64::from(self.queue));
        let mut quarantine = self.quarantine.changed();
        let mut look = Look::NOW;
        // Dropping the sender ends the worker. When its last attempt ends, `finished` closes and so does this loop.
        let mut deliveries = Some(deliveries);
        loop {
            let group = match self.next_wakeup(deliveries.as_ref(), &stop, (&mut changed, &mut quarantine), look).await
            {
                Wakeup::Finished(first) => self.collect_batch(vec![first]).await,
                Wakeup::Intent => self.collect_batch(Vec::new()).await,
                Wakeup::Messages => Vec::new(),
                Wakeup::Closing => {
                    deliveries = None;
                    continue;
                }
                Wakeup::Over => return Ok(()),
            };
            // Nothing is written before these futures are polled.
            let (settled, intended) = (self.settle(group), self.intents.write());
            let store = self.settler.queues.store().clone();
            match &deliveries {
                Some(deliveries) if !stop.is_cancelled() => {
                    // Before the receive, not after it: a message that is sent during the receive must wake the loop.
                    self.is_paused &= !changed.has_changed().unwrap_or(true);
                    changed.mark_unchanged();
                    quarantine.mark_unchanged();
                    let all = async { tokio::join!(settled, intended, self.receive()) };
                    let ((), (), received) = store.together(all).await;
                    look = self.deliver(received?, deliveries).await?;
                }
                _ => drop(store.together(async { tokio::join!(settled, intended) }).await),
            }
        }
    }

    async fn next_wakeup(
        &mut self,
        deliveries: Option<&mpsc::Sender<Delivery>>,
        stop: &CancellationToken,
        (changed, quarantine): (&mut watch::Receiver<u64>, &mut watch::Receiver<u64>),
        look: Look,
    ) -> Wakeup {
        let messages = async {
            // Waits on the semaphore itself: a permit also comes free without a `Finished`, when an attempt panics
            // outside its layers. The permit is dropped at once, because only `receive` may hold any.
            drop(self.permits.acquire().await);
            tokio::select! {
                _ = changed.changed() => {}
                _ = quarantine.changed() => {}
                () = self.settler.queues.until(look.at) => {}
                Some(()) = OptionFuture::from(look.breakers.map(|version| self.settler.gate.changed(version))) => {}
            }
        };
        tokio::select! {
            // A drain comes first, so that a full queue does not delay it. Finished attempts come before new messages:
            // settling them frees permits for the receive in the same commit.
            biased;
            Some(()) = OptionFuture::from(deliveries.map(|deliveries| closing(stop, deliveries))) => Wakeup::Closing,
            finished = self.finished.recv() => finished.map_or(Wakeup::Over, Wakeup::Finished),
            Some(()) = self.intents.next() => Wakeup::Intent,
            () = messages, if deliveries.is_some() => Wakeup::Messages,
        }
    }

    /// Adds the attempts that finish soon, and lets those come that soon wait for their intents: until half of the
    /// concurrency waits for the commit, no other attempt is running, or the time is over.
    async fn collect_batch(&mut self, mut group: Vec<Finished>) -> Vec<Finished> {
        // Half, not all: the other half keeps the processors busy during the commit.
        let enough = (self.settler.options.concurrency / 2).clamp(1, BATCH_MAX);
        let wait_is_over = tokio::time::sleep(LINGER);
        tokio::pin!(wait_is_over);
        while group.len() < BATCH_MAX {
            // What has finished already joins the batch without regard to `enough`: it costs no wait.
            if let Ok(next) = self.finished.try_recv() {
                group.push(next);
                continue;
            }
            let waiting = group.len() + self.intents.count();
            // An attempt holds its permit until it is settled. As many that wait as permits are taken therefore mean that
            // no other attempt is running, and that waiting would be in vain.
            let permits_taken = self.settler.options.concurrency.saturating_sub(self.permits.available_permits());
            if waiting >= enough.min(permits_taken) {
                break;
            }
            tokio::select! {
                Some(next) = self.finished.recv() => group.push(next),
                Some(()) = self.intents.next() => {}
                () = &mut wait_is_over => break,
            }
        }
        group
    }

    /// Settles a batch. This call creates the steps; the returned future sends them to the writer.
    fn settle(&self, group: Vec<Finished>) -> impl Future<Output = ()> + use<> {
        let settled = group.into_iter().map(|finished| {
            let Finished { delivery, end, contacts, was_away, at, span } = finished;
            let Delivery { message, permit, effects, in_work, probe, .. } = delivery;
            // Released early, so that the receive in the same commit can use it. The limit is on running functions, and
            // this one has ended. The same goes for the probe, whose verdict is known by now.
            drop((permit, in_work, probe));
            // Looked at again: the attempts of one batch failed together, and the last of them may have opened it.
            let is_away = was_away || self.settler.gate.is_away(&contacts);
            span.in_scope(|| tell(&end, is_away, at.lease.since(message.received_at)));
            let settler = self.settler.clone();
            let name = end.name();
            let settled = async move {
                match settler.settle(message, &effects, end, is_away, at).await {
                    Ok(Settled::Fenced) => {
                        tracing::warn!(end = name, "the message was taken from this attempt meanwhile");
                    }
                    Ok(settled) => tracing::trace!(?settled, "settled"),
                    // Not returned: the other attempts of the batch must still be settled. When the store has stopped,
                    // the daemon ends, and its next start recovers the message.
                    Err(error) => tracing::error!("the attempt could not be settled: {error}"),
                }
            };
            settled.instrument(span)
        });
        join_all(settled).map(drop)
    }

    /// Receives at most as many messages as there are free permits; while a destination is away, one or none.
    async fn receive(&mut self) -> Result<Batch, queue::Error> {
        let free = u32::try_from(self.permits.available_permits().min(BATCH_MAX)).expect("it is at most a few hundred");
        // Only this function keeps permits, so those just counted are still free. They are taken before the receive: no
        // message may be in flight without a permit to run it.
        let Ok(permits) = self.permits.clone().try_acquire_many_owned(free) else { return Ok(Batch::None(Look::NOW)) };
        if free == 0 {
            return Ok(Batch::None(Look::NOW));
        }
        // The right to probe is held during the receive: no other function may begin a probe meanwhile.
        let probe = match self.settler.gate.admit() {
            Pass::All => None,
            Pass::Probe(probe) => Some(probe),
            Pass::Wait { until, version } => {
                // Suspects behind an open breaker block nobody. While a probe is under way it may be a suspect itself.
                if until.is_some() {
                    self.quarantine.block(self.queue);
                }
                return Ok(Batch::None(Look { at: until, breakers: Some(version) }));
            }
        };
        let is_blocked = self.is_paused || (probe.is_some() && !self.has_only_suspects);
        match self.quarantine.turn(self.queue, is_blocked, self.settler.queues.now().lease) {
            Turn::Ordinary(in_work) => {
                let found = self.receive_ordinary(permits.num_permits(), probe.is_some()).await?;
                Ok(Batch::Received { found, permits, in_work, probe })
            }
            Turn::Suspect { in_work, is_alone } => {
                let found = self.receive_suspect(&in_work, is_alone).await?;
                Ok(Batch::Received { found, permits, in_work, probe })
            }
            Turn::EndAlone(handle) => {
                self.settler.queues.store().write(move |tx| settle::end_alone(tx, handle)).await?;
                self.quarantine.alone_ended(handle);
                Ok(Batch::None(Look::NOW))
            }
            Turn::Wait(until) => Ok(Batch::None(Look { at: Some(until), breakers: probe.map(Probe::give_back) })),
        }
    }

    /// Receives messages that are no suspects: from the front of the queue, or one for a probe.
    async fn receive_ordinary(&mut self, max: usize, is_probe: bool) -> Result<Receiving, queue::Error> {
        let queues = &self.settler.queues;
        let what = Receive { max, visibility: Some(self.visibility()), owner: Owner::Worker };
        if !is_probe {
            return queues.receive_now(self.queue, what).await;
        }
        let found = queues.receive_after(self.queue, Receive { max: 1, ..what }, self.position).await?;
        self.has_only_suspects = found.messages.is_empty() && queues.next_suspect(self.queue)?.is_some();
        let next_visible_at = if self.has_only_suspects { Some(LeaseTime::ZERO) } else { found.next_visible_at };
        Ok(Receiving { next_visible_at, ..found })
    }

    /// Receives the queue's next suspect.
    async fn receive_suspect(&mut self, in_work: &InWork, is_alone: bool) -> Result<Receiving, queue::Error> {
        let suspicion = if is_alone { Suspicion::Alone } else { Suspicion::None };
        let found = self.settler.queues.receive_suspect(self.queue, self.visibility(), suspicion).await?;
        if let Some(message) = found.as_ref().filter(|_| is_alone) {
            in_work.is_alone(message.handle);
        }
        let next = self.settler.queues.next_suspect(self.queue)?;
        // A paused queue keeps its suspects: the next change of the queue may be its resumption.
        self.is_paused = found.is_none() && next.is_some();
        self.quarantine.update(self.queue, next);
        let next_visible_at = Some(LeaseTime::ZERO);
        Ok(Receiving { messages: found.into_iter().collect(), next_visible_at, ..Receiving::default() })
    }

    /// How long a received message stays invisible: an attempt is settled before its lease ends.
    fn visibility(&self) -> Duration {
        (self.time_limit + LEASE_MARGIN).min(VISIBILITY_MAX)
    }

    /// Hands the messages to the worker. Returns when to look for more.
    async fn deliver(&mut self, batch: Batch, deliveries: &mpsc::Sender<Delivery>) -> Result<Look, queue::Error> {
        let (found, mut permits, in_work, probe) = match batch {
            Batch::Received { found, permits, in_work, probe } => (found, permits, in_work, probe),
            Batch::None(look) => return Ok(look),
        };
        if let Some(probe) = probe {
            let Some(message) = found.messages.into_iter().next() else {
                return Ok(Look { at: found.next_visible_at, breakers: Some(probe.give_back()) });
            };
            (self.position, self.has_only_suspects) = (message.position(), false);
            let permit = Arc::new(permits.split(1).expect("a permit was taken before the receive"));
            let delivery = self.delivery(message, permit, in_work, Some(Arc::new(probe)));
            self.hand_over(delivery, deliveries).await?;
            return Ok(Look::NOW);
        }
        for message in found.messages {
            self.position = self.position.max(message.position());
            let permit = permits.split(1).expect("no more messages were asked for than permits were taken");
            let delivery = self.delivery(message, Arc::new(permit), in_work.clone(), None);
            self.hand_over(delivery, deliveries).await?;
        }
        // With every permit used there may be more messages right now: look again as soon as a permit is free. Unused
        // permits mean that nothing else is visible until `next_visible_at`.
        let is_used_up = permits.num_permits() == 0;
        Ok(if is_used_up { Look::NOW } else { Look::at(found.next_visible_at) })
    }

    fn delivery(
        &self,
        message: Received,
        permit: Arc<OwnedSemaphorePermit>,
        in_work: Arc<InWork>,
        probe: Option<Arc<Probe>>,
    ) -> Delivery {
        let effects = AttemptEffects::new(&self.settler.intents, &message, self.settler.options.on_unknown);
        Delivery { message, permit, effect: EffectFlag::default(), effects, in_work, probe }
    }

    async fn hand_over(&self, delivery: Delivery, deliveries: &mpsc::Sender<Delivery>) -> Result<(), queue::Error> {
        // The channel holds as many deliveries as there are permits, so this never waits. It fails when the worker is
        // gone; the message was not worked on and goes back without a charge.
        if let Err(unwanted) = deliveries.send(delivery).await {
            let handle = unwanted.0.message.handle;
            self.settler.queues.store().write(move |tx| settle::release(tx, handle)).await.map(drop)?;
        }
        Ok(())
    }
}

/// Returns when a drain has begun or the worker is gone.
async fn closing(stop: &CancellationToken, deliveries: &mpsc::Sender<Delivery>) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = deliveries.closed() => {}
    }
}
