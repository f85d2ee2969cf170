//! The counts of a queue at one moment.

use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};

use crate::base::{Now, Timestamp};
use crate::store::Snapshot;
use crate::store::record::{Counts, MessageState, Pause, Phase, QueueRecord};

use super::{Error, state};

/// The counts of a queue at one moment. SQS calls these approximate; here they are exact, unless `is_more_ready`.
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
    /// Messages that wait for the end of the holder of their unique key (`KeepLast`).
    #[serde(default)]
    pub followers: u64,
    /// The bytes of all bodies.
    pub bytes: u64,
    /// The age of the oldest message in seconds.
    pub oldest_age_s: Option<u64>,
    /// The dead-letter queue.
    pub dead_letter_queue: Option<String>,
    /// Set while the queue is paused: by whom and since when.
    pub paused: Option<Pause>,
    /// Set for the moments after more than [`DUE_COUNTED_MAX`] messages became visible at once: until all of them are
    /// shown, the rest of them still count as delayed or in flight.
    #[serde(default)]
    pub is_more_ready: bool,
}

impl Stats {
    /// All messages of the queue.
    pub const fn total(&self) -> u64 {
        self.ready + self.delayed + self.in_flight + self.followers
    }
}

/// At most this many messages are looked at to tell how many of the delayed ones and those in flight are due. Receives
/// and [`super::Queues::keep_shown`] move those to the ready ones, so that as a rule there are few.
pub const DUE_COUNTED_MAX: u64 = 10_000;

/// Counts the messages of a queue, without those that have expired. A message whose delay or lease has run out counts as ready, even when no receive has
/// moved it to the ready index yet. Reads a few rows and those messages, at most [`DUE_COUNTED_MAX`].
///
/// # Errors
/// A storage fault.
pub fn stats(snapshot: &Snapshot, queue: &QueueRecord, now: Now) -> Result<Stats, Error> {
    let counts = snapshot.counts()?.get(&queue.rows)?.unwrap_or_default();
    let due = due(snapshot, queue.rows, counts, now)?;
    let (expired, oldest) = expired(snapshot, queue, now)?;
    Ok(Stats {
        name: queue.name.clone(),
        ready: (counts.ready + due.delayed + due.in_flight).saturating_sub(expired.ready),
        delayed: counts.delayed.saturating_sub(due.delayed + expired.delayed),
        in_flight: counts.in_flight.saturating_sub(due.in_flight + expired.in_flight),
        followers: counts.followers,
        bytes: (counts.bytes + counts.follower_bytes).saturating_sub(expired.bytes),
        oldest_age_s: oldest.map(|sent_at| now.wall.since(sent_at).as_secs()),
        dead_letter_queue: queue.attributes.redrive.as_ref().map(|(name, _)| name.clone()),
        paused: queue.paused.clone(),
        is_more_ready: due.is_more,
    })
}

/// At most this many expired messages of each kind are left out before the sweep removes them, every 30 seconds.
pub const EXPIRED_COUNTED_MAX: usize = 1000;

/// What has expired and is still there: it is received no more, and the next sweep removes it. Also when the oldest of
/// the others was sent.
fn expired(snapshot: &Snapshot, queue: &QueueRecord, now: Now) -> Result<(Counts, Option<Timestamp>), Error> {
    let states = snapshot.states()?;
    let (mut expired, mut oldest) = (Counts::default(), None);
    let mut add = |state: &MessageState| {
        let is_due = state.phase != Phase::Ready && state.visible_at <= now.lease;
        *state::slot(&mut expired, if is_due { Phase::Ready } else { state.phase }) += 1;
        expired.bytes += u64::from(state.size_bytes);
    };
    let mut seen = 0;
    states.scan((queue.rows, 0)..=(queue.rows, u64::MAX), |_, state| {
        if seen == EXPIRED_COUNTED_MAX || !state::outlived(&state, queue, now.wall) {
            oldest = Some(state.sent_at);
            return ControlFlow::Break(());
        }
        seen += 1;
        add(&state);
        ControlFlow::Continue(())
    })?;
    let range = (queue.rows, 0, 0)..=(queue.rows, now.wall.as_millis(), u64::MAX);
    for ((_, _, sequence), ()) in snapshot.expiries()?.first(range, EXPIRED_COUNTED_MAX)? {
        let state = states.get(&(queue.rows, sequence))?;
        if let Some(state) = state.filter(|state| !state::outlived(state, queue, now.wall)) {
            add(&state);
        }
    }
    Ok((expired, oldest))
}

/// Messages that are due, by the phase that they are still counted under.
#[derive(Default)]
struct Due {
    delayed: u64,
    in_flight: u64,
    /// Set when there are more than were looked at.
    is_more: bool,
}

fn due(snapshot: &Snapshot, queue: u32, counts: Counts, now: Now) -> Result<Due, Error> {
    let mut due = Due::default();
    let states = snapshot.states()?;
    let mut fault = None;
    let range = (queue, 0, 0)..=(queue, now.lease.as_millis(), u64::MAX);
    snapshot.timed()?.scan(range, |(_, _, sequence), ()| {
        if due.delayed + due.in_flight == DUE_COUNTED_MAX {
            due.is_more = true;
            return ControlFlow::Break(());
        }
        // The index does not tell the phase; without the other kind in the queue there is nothing to tell apart.
        let is_in_flight = match (counts.delayed, counts.in_flight) {
            (_, 0) => Ok(false),
            (0, _) => Ok(true),
            _ => states.get(&(queue, sequence)).map(|state| state.is_some_and(|state| state.phase == Phase::InFlight)),
        };
        match is_in_flight {
            Ok(true) => due.in_flight += 1,
            Ok(false) => due.delayed += 1,
            Err(error) => {
                fault = Some(error);
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    })?;
    fault.map_or(Ok(due), |fault| Err(fault.into()))
}
