//! What may be mailed through a relay in a day. Mails are counted by the hour in which their intents are written, in the
//! same commit, so that no restart forgets one; a mail that the relay refuses afterwards counts too.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::base::Timestamp;
use crate::function::Quota;
use crate::store::{self, Tx};

const HOUR: u64 = 3_600_000;
/// The hours that reach into the last 24 hours, the present one included.
const HOURS: u64 = 25;

/// The quotas that one step draws on.
#[derive(Debug, Default)]
pub(super) struct Quotas(BTreeMap<String, Used>);

#[derive(Debug)]
struct Used {
    /// By hour since 1970, the oldest first: those that count. The next hour does too, since a clock may be put back a little;
    /// later ones are of a clock that was wrong.
    hours: BTreeMap<u64, u64>,
    /// What this step adds to the present hour.
    added: u64,
}

impl Quotas {
    /// How long nothing of the quota is free; `None` when one mail more may go.
    ///
    /// # Errors
    /// A storage fault.
    pub(super) fn wait(
        &mut self,
        tx: &mut Tx<'_>,
        quota: &Quota,
        now: Timestamp,
    ) -> Result<Option<Duration>, store::Error> {
        let used = self.used(tx, &quota.relay, now)?;
        let mut left = used.hours.values().sum::<u64>() + used.added;
        if left < quota.per_day {
            return Ok(None);
        }
        for (hour, count) in &used.hours {
            left -= count;
            if left < quota.per_day {
                let free_at = Timestamp::from_millis((hour + HOURS) * HOUR);
                return Ok(Some(free_at.since(now).max(Duration::from_secs(1))));
            }
        }
        Ok(Some(Duration::from_secs(3600) * HOURS as u32))
    }

    /// Counts a mail that may go.
    pub(super) fn count(&mut self, quota: &Quota) {
        if let Some(used) = self.0.get_mut(&quota.relay) {
            used.added += 1;
        }
    }

    /// Writes down what was counted, and forgets hours that count no more.
    ///
    /// # Errors
    /// A storage fault.
    pub(super) fn finish(self, tx: &mut Tx<'_>, now: Timestamp) -> Result<(), store::Error> {
        let hour = hour(now);
        for (relay, used) in self.0.into_iter().filter(|(_, used)| used.added > 0) {
            let key = (relay, hour);
            let before = tx.mail_quotas()?.get(&key)?;
            if before.is_none() {
                for hours in [0..=oldest(now) - 1, hour + 2..=u64::MAX] {
                    let range = (key.0.clone(), *hours.start())..=(key.0.clone(), *hours.end());
                    for (old, _) in tx.mail_quotas()?.first(range, FORGOTTEN_MAX)? {
                        tx.mail_quotas()?.remove(&old)?;
                    }
                }
            }
            tx.mail_quotas()?.insert(&key, &(before.unwrap_or(0) + used.added))?;
        }
        Ok(())
    }

    fn used(&mut self, tx: &mut Tx<'_>, relay: &str, now: Timestamp) -> Result<&Used, store::Error> {
        if !self.0.contains_key(relay) {
            let range = (relay.to_owned(), oldest(now))..=(relay.to_owned(), hour(now) + 1);
            let rows = tx.mail_quotas()?.first(range, usize::MAX)?;
            let hours = rows.into_iter().map(|((_, hour), count)| (hour, count)).collect();
            self.0.insert(relay.to_owned(), Used { hours, added: 0 });
        }
        Ok(&self.0[relay])
    }
}

/// A step forgets at most this many hours.
const FORGOTTEN_MAX: usize = 100;

fn hour(now: Timestamp) -> u64 {
    now.as_millis() / HOUR
}

/// The first hour that counts.
fn oldest(now: Timestamp) -> u64 {
    (hour(now) + 1).saturating_sub(HOURS).max(1)
}
