//! What decisions about runs leave to do, whenever there is something, over restarts too.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::queue::Queues;
use crate::store::record::{RunControl, RunHold};
use crate::store::{self, Snapshot};

use super::super::Error;
use super::TOPIC;
use super::recall::{self, Recalled};
use super::send::{self, Sent};

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
    let mut worker = Worker { queues, targets, told: BTreeSet::new() };
    let mut look = LOOK_FIRST;
    loop {
        changed.mark_unchanged();
        let is_done = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            done = worker.round() => done?,
        };
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            _ = changed.changed() => look = LOOK_FIRST,
            () = tokio::time::sleep(look), if !is_done => look = (look * 2).min(LOOK_MAX),
        }
    }
}

struct Worker {
    queues: Queues,
    targets: BTreeMap<String, String>,
    /// The runs of which it was told that they cannot go on, each with the reason.
    told: BTreeSet<(u64, String)>,
}

impl Worker {
    /// Looks once at each run that has something left to do; returns whether nothing is left.
    async fn round(&mut self) -> Result<bool, store::Error> {
        let mut is_done = true;
        for (run, control) in self.queues.store().read(left).await? {
            is_done &= match control.hold {
                RunHold::None => self.send(run, &control).await?,
                _ => recall::recall(&self.queues, run, &control).await? == Recalled::All,
            };
        }
        Ok(is_done)
    }

    /// Sends what is not sent; returns whether all is.
    async fn send(&mut self, run: u64, control: &RunControl) -> Result<bool, store::Error> {
        let read = move |snapshot: &Snapshot| snapshot.runs()?.get(&run);
        let Some(record) = self.queues.store().read::<_, store::Error, _>(read).await? else { return Ok(true) };
        let sent = match self.targets.get(&record.function) {
            Some(target) => send::send(&self.queues, run, control, target).await,
            None => Err(Error::NoTarget { run, function: record.function }),
        };
        let why = match sent {
            Ok(Sent::All) => return Ok(true),
            Ok(Sent::Blocked(why)) => why,
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
    controls.retain(|(_, control)| match control.hold {
        RunHold::None => control.has_unsent,
        _ => control.has_queued,
    });
    Ok(controls)
}
