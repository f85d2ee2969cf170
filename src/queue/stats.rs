//! Exact counts of a queue at one moment.

use std::ops::ControlFlow;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::Now;
use crate::store::Snapshot;
use crate::store::record::{Pause, Phase, QueueRecord};

use super::Error;

/// The counts of a queue at one moment. SQS calls these approximate; here they are exact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// The queue's name.
    pub name: String,
    /// Messages that can be received now.
    pub ready: u64,
    /// Messages that become visible later.
    pub delayed: u64,
    /// Messages in flight.
    pub in_flight: u64,
    /// The bytes of all bodies.
    pub bytes: u64,
    /// The age of the oldest message in seconds.
    pub oldest_age_s: Option<u64>,
    /// The dead-letter queue.
    pub dead_letter_queue: Option<String>,
    /// Set while the queue is paused: by whom and since when.
    pub paused: Option<Pause>,
}

impl Stats {
    /// All messages of the queue.
    pub const fn total(&self) -> u64 {
        self.ready + self.delayed + self.in_flight
    }
}

/// Counts the messages of a queue. A message whose delay or lease has run out counts as ready, even when no receive has
/// moved it to the ready index yet.
///
/// # Errors
/// A storage fault.
pub fn stats(snapshot: &Snapshot, queue: &QueueRecord, now: Now) -> Result<Stats, Error> {
    let counts = snapshot.counts()?.get(&queue.id)?.unwrap_or_default();
    let (mut delayed_due, mut in_flight_due) = (0, 0);
    let states = snapshot.states()?;
    let mut missing = None;
    snapshot.timed()?.scan(
        (queue.id, 0, 0)..=(queue.id, now.lease.as_millis(), u64::MAX),
        |(_, _, sequence), ()| {
            match states.get(&(queue.id, sequence)) {
                Ok(Some(state)) if state.phase == Phase::InFlight => in_flight_due += 1,
                Ok(_) => delayed_due += 1,
                Err(error) => {
                    missing = Some(error);
                    return ControlFlow::Break(());
                }
            }
            ControlFlow::Continue(())
        },
    )?;
    if let Some(error) = missing {
        return Err(error.into());
    }
    let oldest = states.first((queue.id, 0)..=(queue.id, u64::MAX), 1)?;
    Ok(Stats {
        name: queue.name.clone(),
        ready: counts.ready + delayed_due + in_flight_due,
        delayed: counts.delayed.saturating_sub(delayed_due),
        in_flight: counts.in_flight.saturating_sub(in_flight_due),
        bytes: counts.bytes,
        oldest_age_s: oldest.first().map(|(_, state)| now.wall.since(state.sent_at)).as_ref().map(Duration::as_secs),
        dead_letter_queue: queue.attributes.redrive.as_ref().map(|(name, _)| name.clone()),
        paused: queue.paused.clone(),
    })
}
