//! What purges, deletions and new delays leave to do, and messages whose time has come: a few rows at a time, so that
//! others go on meanwhile.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::store::Tx;

use super::leaving::TOPIC;
use super::purge::{self, ENTRIES_MAX, Rest};
use super::{Error, Queues, catalog, delay, receive};

/// Between two steps others have the writer for themselves for this long.
const REST: Duration = Duration::from_millis(1);
/// How often [`Queues::keep_shown`] looks for messages that are due.
const LOOK_EVERY: Duration = Duration::from_secs(1);

impl Queues {
    /// Purges a queue; returns how many messages it had. [`Queues::remove_purged`] removes their rows.
    ///
    /// # Errors
    /// See [`purge::purge`].
    pub async fn purge(&self, queue: &str) -> Result<u64, Error> {
        let (queue, now) = (queue.to_owned(), self.now());
        self.store().write(move |tx| purge::purge(tx, &queue, now)).await
    }

    /// Deletes a queue with all its messages; returns how many it had. The name is gone at once.
    /// [`Queues::remove_purged`] removes their rows.
    ///
    /// # Errors
    /// The queue does not exist, or the store failed.
    pub async fn delete_queue(&self, name: &str) -> Result<u64, Error> {
        let (name, now) = (name.to_owned(), self.now());
        self.store().write(move |tx| catalog::delete(tx, &name, now)).await
    }

    /// Removes the rows of purged messages and deleted queues; returns how many messages.
    ///
    /// # Errors
    /// The store failed.
    pub async fn remove_purged(&self) -> Result<u64, Error> {
        let mut removed = 0;
        for rows in self.store().read(purge::left).await? {
            let mut rest = Some(Rest::ALL);
            while let Some(from) = rest {
                let (now, observer) = (self.now(), self.observer());
                let one = move |tx: &mut Tx<'_>| purge::step(tx, &*observer, rows, from, now);
                let (count, next) = self.store().write::<_, Error, _>(one).await?;
                removed += count;
                rest = next;
                tokio::time::sleep(REST).await;
            }
        }
        let forgettable = self.store().read(catalog::forgettable).await?;
        for part in forgettable.chunks(ENTRIES_MAX) {
            let part = part.to_vec();
            self.store().write::<_, Error, _>(move |tx| Ok(catalog::forget(tx, &part)?)).await?;
        }
        Ok(removed)
    }

    /// What purges, deletions and new delays leave to do, whenever there is something, until `shutdown` is cancelled.
    ///
    /// # Errors
    /// The store failed.
    pub async fn work_off(self, shutdown: CancellationToken) -> Result<(), Error> {
        let mut changed = self.store().subscribe(TOPIC);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                done = async { self.apply_delays().await?; self.remove_purged().await } => {
                    let removed = done?;
                    if removed > 0 {
                        tracing::info!(removed, "purged messages were removed from the store");
                    }
                }
            }
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                _ = changed.changed() => {}
            }
        }
    }

    /// Makes messages ready whose delay or lease has run out, also where nobody receives, until `shutdown` is cancelled: a
    /// queue's counts move with that write, so that nobody has to look at the messages to tell how many are ready.
    ///
    /// # Errors
    /// The store failed.
    pub async fn keep_shown(self, shutdown: CancellationToken) -> Result<(), Error> {
        while shutdown.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_some() {
            match shutdown.run_until_cancelled(self.show_due()).await {
                Some(shown) => shown?,
                None => break,
            }
        }
        Ok(())
    }

    /// Makes all messages ready that are due.
    ///
    /// # Errors
    /// The store failed.
    pub async fn show_due(&self) -> Result<(), Error> {
        let now = self.now();
        for queue in self.store().read(move |snapshot| catalog::with_due(snapshot, now.lease)).await? {
            loop {
                let now = self.now();
                let one = move |tx: &mut Tx<'_>| match tx.queue(queue)?.filter(|queue| queue.deleted_at.is_none()) {
                    Some(queue) => receive::show_due(tx, &queue, now),
                    None => Ok(false),
                };
                if !self.store().write(one).await? {
                    break;
                }
                tokio::time::sleep(REST).await;
            }
        }
        Ok(())
    }

    /// Applies new delays of FIFO queues to the messages that are there.
    async fn apply_delays(&self) -> Result<(), Error> {
        let queues = self.store().read(catalog::list).await?;
        for queue in queues.into_iter().filter(|queue| queue.delays_from.is_some()).map(|queue| queue.id) {
            loop {
                let now = self.now();
                if !self.store().write(move |tx| delay::step(tx, queue, now)).await? {
                    break;
                }
                tokio::time::sleep(REST).await;
            }
        }
        Ok(())
    }
}
