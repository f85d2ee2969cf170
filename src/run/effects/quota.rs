//! What may be mailed through a relay in a day. Mails are counted by the hour in which their intents are written, in the
//! same commit, so that no restart forgets one; a mail that the relay refuses afterwards counts too.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::base::Timestamp;
use crate::function::Quota;
use crate::store::{self, Snapshot, Tx};

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

/// What may be mailed through a relay, and what was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// Mails in any 24 hours.
    pub per_day: u64,
    /// Mails that were begun, by hour since 1970; those that still count.
    pub hours: BTreeMap<u64, u64>,
}

/// No estimate looks further ahead: 400 days.
const HOURS_AHEAD_MAX: u64 = 24 * 400;

impl Allowance {
    /// What of the relay's quota is used at this moment.
    ///
    /// # Errors
    /// A storage fault.
    pub fn of(snapshot: &Snapshot, relay: &str, per_day: u64, now: Timestamp) -> Result<Self, store::Error> {
        let range = (relay.to_owned(), oldest(now))..=(relay.to_owned(), hour(now) + 1);
        let rows = snapshot.mail_quotas()?.first(range, usize::MAX)?;
        Ok(Self { per_day, hours: rows.into_iter().map(|((_, hour), count)| (hour, count)).collect() })
    }

    /// When so many mails have gone from that moment on at this rate; `None` when that is more than 400 days ahead.
    pub fn ends_at(&self, from: Timestamp, mails: u64, per_second: f64) -> Option<Timestamp> {
        let (mut hours, mut left, mut at_ms) = (self.hours.clone(), mails as f64, from.as_millis());
        for hour in hour(from)..hour(from) + HOURS_AHEAD_MAX {
            let used: u64 = hours.range((hour + 1).saturating_sub(HOURS)..=hour).map(|(_, count)| count).sum();
            let free = self.per_day.saturating_sub(used) as f64;
            let by_time = ((hour + 1) * HOUR - at_ms) as f64 / 1000.0 * per_second;
            let sent = left.min(free).min(by_time);
            left -= sent;
            if left < 0.5 {
                return Some(Timestamp::from_millis(at_ms + (sent * 1000.0 / per_second) as u64));
            }
            *hours.entry(hour).or_default() += sent as u64;
            at_ms = (hour + 1) * HOUR;
        }
        None
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
