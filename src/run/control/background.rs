//! What decisions about runs leave to do, whenever there is something, over restarts too.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::queue::Queues;
use crate::store::record::{RunControl, RunHold};
use crate::store::{self, Snapshot};

use super::super::Error;
use super::recall::{self, Recalled};
use super::send::{self, Cursor, Sent};
use super::{Stage, TOPIC, remake, stage};

/// After this what is in work, or has no room, is looked at again; twice as late each time, up to the latter.
const LOOK_FIRST: Duration = Duration::from_millis(100);
const LOOK_MAX: Duration = Duration::from_secs(10);

/// Does what is left to do until `shutdown` is cancelled. `targets` are the queues of the runs' messages, by the name of
/// the fan-out function.
///
/// # Errors
/// The store failed.
pub async fn work_off(
    queues: Queues,
    targets: BTreeMap<String, String>,
    shutdown: CancellationToken,
) -> Result<(), store::Error> {
    let mut changed = queues.store().subscribe(TOPIC);
    let mut worker = Worker { queues, targets, cursors: BTreeMap::new(), told: BTreeSet::new() };
    let mut look = LOOK_FIRST;
    loop {
        changed.mark_unchanged();
        let round = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            round = worker.round() => round?,
        };
        if round.has_sent {
            look = LOOK_FIRST;
        }
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            _ = changed.changed() => look = LOOK_FIRST,
            () = tokio::time::sleep(look), if !round.is_done => look = (look * 2).min(LOOK_MAX),
        }
    }
}

/// What a look at all runs came to.
struct Round {
    /// Nothing is left to do.
    is_done: bool,
    /// Messages were sent: there may be room for more soon.
    has_sent: bool,
}

struct Worker {
    queues: Queues,
    targets: BTreeMap<String, String>,
    /// How far the messages of runs are sent that go on. A run has one from its first step to its last.
    cursors: BTreeMap<u64, Cursor>,
    /// The runs of which it was told that they do not go on now, each with the reason.
    told: BTreeSet<(u64, String)>,
}

impl Worker {
    /// Looks once at each run that has something left to do.
    async fn round(&mut self) -> Result<Round, store::Error> {
        let mut round = Round { is_done: true, has_sent: false };
        let left = self.queues.store().read(left).await?;
        self.cursors.retain(|run, _| left.iter().any(|(left, _)| left == run));
        for (run, control) in left {
            if is_remaking(&control) {
                round.is_done &= remake::remake(&self.queues, run, &control).await? == Recalled::All;
            }
            if is_ending_refetch(&control) {
                round.is_done &= recall::end_refetch(&self.queues, run, &control).await? == Recalled::All;
            }
            round.is_done &= match stage(&control, None) {
                Stage::Mail | Stage::Render if control.has_unsent => {
                    let mut cursor = self.cursors.remove(&run).filter(|cursor| cursor.belongs_to(&control));
                    let cursor = cursor.get_or_insert_with(|| Cursor::new(&control));
                    let before = cursor.sent;
                    let is_done = self.send(run, cursor).await?;
                    round.has_sent |= cursor.sent > before;
                    self.cursors.insert(run, *cursor);
                    is_done
                }
                Stage::Mail | Stage::Render => true,
                Stage::Wait | Stage::Never if is_remaking(&control) => true,
                Stage::Wait | Stage::Never => recall::recall(&self.queues, run, &control).await? == Recalled::All,
            };
        }
        Ok(round)
    }

    /// Sends what is not sent; returns whether all is.
    async fn send(&mut self, run: u64, cursor: &mut Cursor) -> Result<bool, store::Error> {
        let read = move |snapshot: &Snapshot| snapshot.runs()?.get(&run);
        let Some(record) = self.queues.store().read::<_, store::Error, _>(read).await? else { return Ok(true) };
        let sent = match self.targets.get(&record.function) {
            Some(target) => send::send(&self.queues, run, cursor, target).await,
            None => Err(Error::NoTarget { run, function: record.function }),
        };
        let why = match sent {
            Ok(Sent::All) => return Ok(true),
            Ok(Sent::Blocked(why)) => {
                if self.told.insert((run, why.clone())) {
                    tracing::info!(run, "messages of open recipients wait for room: {why}");
                }
                return Ok(false);
            }
            Err(Error::Store(error)) => return Err(error),
            Err(error) => error.to_string(),
        };
        if self.told.insert((run, why.clone())) {
            tracing::warn!(run, "messages of open recipients are not queued yet: {why}");
        }
        Ok(false)
    }
}

/// The runs with something left to do.
fn left(snapshot: &Snapshot) -> Result<Vec<(u64, RunControl)>, store::Error> {
    let mut controls = snapshot.run_controls()?.first(0..=u64::MAX, usize::MAX)?;
    controls.retain(|(_, control)| match stage(control, None) {
        _ if is_ending_refetch(control) || is_remaking(control) => true,
        Stage::Mail | Stage::Render => control.has_unsent,
        Stage::Wait | Stage::Never => control.has_queued,
    });
    Ok(controls)
}

/// Whether statements that were made are to be forgotten.
fn is_remaking(control: &RunControl) -> bool {
    control.hold == RunHold::Remaking
}

/// Whether recipients that an abandoned refetch has added may not be withdrawn yet.
fn is_ending_refetch(control: &RunControl) -> bool {
    control.refetch.is_some_and(|refetch| refetch.abandoned_at.is_some())
}
