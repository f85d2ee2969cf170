//! Withdraws the messages of some recipients from all queues, dead letters included, a few at a time.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::store::record::{BodyHead, QueueRecord};
use crate::store::{self, Snapshot, Tx};

use super::ending::{self, Withdrawal};
use super::recall::{self, is_in_work};
use super::{Error, Queues, catalog, state};

/// Between two steps others have the writer for themselves for this long.
const REST: Duration = Duration::from_millis(1);

/// Recipients, each by its run and the key of its row.
pub type Recipients = BTreeSet<(u64, [u8; 16])>;

/// What became of the messages of some recipients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Withdrawn {
    /// Messages that were removed.
    pub removed: u64,
    /// Messages that are in work and stay.
    pub in_work: u64,
}

impl Queues {
    /// Withdraws all messages of those recipients but those in work. Looks at every message of every queue, a slice at a
    /// time.
    ///
    /// # Errors
    /// The store failed.
    pub async fn withdraw(&self, whose: &Recipients) -> Result<Withdrawn, Error> {
        let mut withdrawn = Withdrawn::default();
        for queue in self.store().read(catalog::list).await? {
            let mut from = Some(0);
            while let Some(start) = from {
                let (now, seen, of) = (self.now(), queue.clone(), whose.clone());
                let is_theirs = move |head: &BodyHead| of.contains(&(head.run, head.recipient));
                let find = move |snapshot: &Snapshot| recall::find(snapshot, &seen, start, is_theirs, now);
                let found = self.store().read::<_, store::Error, _>(find).await?;
                (withdrawn.in_work, from) = (withdrawn.in_work + found.in_work, found.next);
                if !found.messages.is_empty() {
                    withdrawn.removed += self.withdraw_some(&queue, found.messages, whose).await?;
                    tokio::time::sleep(REST).await;
                }
            }
        }
        Ok(withdrawn)
    }

    async fn withdraw_some(&self, queue: &QueueRecord, found: Vec<u64>, whose: &Recipients) -> Result<u64, Error> {
        let (now, observer, rows, of) = (self.now(), self.observer(), queue.rows, whose.clone());
        let step = move |tx: &mut Tx<'_>| {
            let mut removed = 0;
            for sequence in found {
                let key = (rows, sequence);
                let Some(state) = tx.states()?.get(&key)?.filter(|state| !is_in_work(state, now)) else { continue };
                let head = state::head(tx, &state)?;
                if of.contains(&(head.run, head.recipient)) {
                    ending::withdraw(tx, &*observer, key, &state, Withdrawal::Erased, now.wall)?;
                    removed += 1;
                }
            }
            Ok::<_, store::Error>(removed)
        };
        Ok(self.store().write(step).await?)
    }
}
