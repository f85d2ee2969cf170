//! Folds runs that ended long ago: the rows of their recipients go, with user records, resends and archived documents, and
//! their numbers stay.
//!
//! A run of which anything is open is kept: a recipient, a letter, a doubt, a resend, a message in any queue. Whatever names
//! a folded run is refused, since nobody knows any more whom it mailed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::base::Timestamp;
use crate::function::statement::archive::{self, Folder};
use crate::queue::{self, Queues, catalog, recall};
use crate::store::record::{Digest, RunControl, RunHold, RunRecord, RunTotals};
use crate::store::{self, Snapshot, Tx};

use super::Error;

/// One step removes about this many rows.
const STEP_ROWS: usize = 400;
/// Between two steps others have the writer for themselves for this long.
const REST: Duration = Duration::from_millis(1);

/// What is folded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Runs whose users were fetched longer ago than this.
    pub keep: Duration,
    /// The directory of the archive: the documents of a folded run go too.
    pub archive: PathBuf,
}

/// Folds the runs that ended long ago, and goes on with those whose folding was cut off; returns how many were folded. Stops
/// between two steps when `shutdown` is cancelled.
///
/// # Errors
/// The store failed; what was begun goes on at the next call.
pub async fn fold(queues: &Queues, options: &Options, shutdown: &CancellationToken) -> Result<u64, Error> {
    let (store, now, keep) = (queues.store(), queues.now().wall, options.keep);
    let archive = options.archive.clone();
    let (outdated, begun) = store.read(move |snapshot| find(snapshot, (keep, now), &archive)).await?;
    for run in begun {
        removed(run, remove_rows(queues, run, &options.archive, shutdown).await)?;
    }
    let mut folded = 0;
    for run in without_messages(queues, outdated).await? {
        if shutdown.is_cancelled() {
            break;
        }
        // Before its rows go: from here on whatever names it is refused.
        if store.write(move |tx: &mut Tx<'_>| mark(tx, run, now)).await? {
            if removed(run, remove_rows(queues, run, &options.archive, shutdown).await)? {
                tracing::info!(run, "the run was folded: its numbers stay, its recipients are not on record any more");
            }
            folded += 1;
        }
    }
    Ok(folded)
}

/// Whether a run's rows are removed. What is wrong with the documents of one run must not keep others: it is told, and tried
/// again at the next call.
fn removed(run: u64, result: Result<(), Error>) -> Result<bool, Error> {
    match result {
        Err(error @ Error::Archive(_)) => {
            tracing::error!(run, "the recipients of a folded run are still on record: {error}");
            Ok(false)
        }
        other => other.map(|()| true),
    }
}

/// The run when it is on record with its recipients.
///
/// # Errors
/// [`Error::NotFound`]; [`Error::Folded`].
pub(super) fn unfolded(run: Option<RunRecord>, id: u64) -> Result<RunRecord, Error> {
    match run {
        Some(run) if run.folded_at.is_none() => Ok(run),
        Some(_) => Err(Error::Folded(id)),
        None => Err(Error::NotFound(id)),
    }
}

/// Checks that a run which something names is not folded; it may be unknown.
///
/// # Errors
/// [`Error::Folded`]; a storage fault.
pub fn check(snapshot: &Snapshot, run: u64) -> Result<(), Error> {
    match snapshot.runs()?.get(&run)?.is_some_and(|run| run.folded_at.is_some()) {
        true => Err(Error::Folded(run)),
        false => Ok(()),
    }
}

/// The runs that may be folded as far as their own rows tell, and those that are folded and of which something is left: rows,
/// or documents, also of a copy that came later.
fn find(
    snapshot: &Snapshot,
    (keep, now): (Duration, Timestamp),
    archive: &Path,
) -> Result<(BTreeSet<u64>, Vec<u64>), store::Error> {
    let (totals, controls) = (snapshot.totals()?, snapshot.run_controls()?);
    let (mut outdated, mut begun) = (BTreeSet::new(), Vec::new());
    for (id, run) in snapshot.runs()?.first(0..=u64::MAX, usize::MAX)? {
        if run.folded_at.is_some() {
            let left = snapshot.recipients()?.first((id, [0; 16])..=(id, [0xff; 16]), 1)?;
            begun.extend((!left.is_empty() || archive::has_run(archive, id)).then_some(id));
        } else if is_old(&run, keep, now)
            && has_ended(&run, &totals.get(&id)?.unwrap_or_default(), &controls.get(&id)?.unwrap_or_default())
        {
            outdated.insert(id);
        }
    }
    Ok((outdated, begun))
}

fn is_old(run: &RunRecord, keep: Duration, now: Timestamp) -> bool {
    let last = run.fan_out.finished_at.unwrap_or(run.started_at).max(run.started_at);
    last.after(keep) < now
}

/// Whether nothing of the run is open, and nobody has to decide about it.
fn has_ended(run: &RunRecord, totals: &RunTotals, control: &RunControl) -> bool {
    let is_decided = match control.hold {
        RunHold::None => run.fan_out.finished_at.is_some(),
        RunHold::Abandoned { .. } => true,
        RunHold::Stopped { .. }
        | RunHold::Fetching
        | RunHold::AwaitingRelease { .. }
        | RunHold::Rendering
        | RunHold::Remaking
        | RunHold::Braked { .. } => false,
    };
    let is_idle = !control.has_queued && !control.has_unsent && control.refetch.is_none();
    let open = totals.open() + totals.dead + totals.unknown + totals.resending + totals.resends_unknown;
    is_decided && is_idle && open == 0
}

/// Those of the runs of which no queue has a message, letters included.
async fn without_messages(queues: &Queues, mut runs: BTreeSet<u64>) -> Result<BTreeSet<u64>, queue::Error> {
    for queue in queues.store().read(catalog::list).await? {
        if runs.is_empty() {
            break;
        }
        let asked = runs.clone();
        let find = move |snapshot: &Snapshot| recall::runs_in(snapshot, &queue, &asked);
        let found = queues.store().read::<_, store::Error, _>(find).await?;
        runs.retain(|run| !found.contains(run));
    }
    Ok(runs)
}

/// Marks a run as folded unless something of it was opened meanwhile; returns whether it did.
fn mark(tx: &mut Tx<'_>, run: u64, now: Timestamp) -> Result<bool, store::Error> {
    let Some(record) = tx.runs()?.get(&run)?.filter(|record| record.folded_at.is_none()) else { return Ok(false) };
    let control = tx.run_controls()?.get(&run)?.unwrap_or_default();
    if !has_ended(&record, &tx.totals_of(run)?, &control) {
        return Ok(false);
    }
    tx.runs()?.insert(&run, &RunRecord { folded_at: Some(now), ..record })?;
    Ok(true)
}

/// Removes the rows of a folded run's recipients, and what belongs to them; their documents first, since the rows lead here
/// again when this breaks off.
async fn remove_rows(queues: &Queues, run: u64, archive: &Path, shutdown: &CancellationToken) -> Result<(), Error> {
    while !shutdown.is_cancelled() {
        let part = queues.store().read(move |snapshot| Part::first(snapshot, run)).await?;
        let is_over = part.recipients.is_empty();
        let (directory, users) = (archive.to_owned(), part.users.clone());
        let remove = move || match is_over {
            true => archive::remove_run(&directory, run),
            false => users.iter().try_for_each(|user| Folder::of(&directory, run, user).remove().map(drop)),
        };
        let removed = tokio::task::spawn_blocking(remove).await;
        let removed = removed.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        removed.map_err(|error: std::io::Error| Error::Archive(error.to_string()))?;
        if is_over {
            return Ok(());
        }
        queues.store().write(move |tx: &mut Tx<'_>| part.remove(tx)).await?;
        tokio::time::sleep(REST).await;
    }
    Ok(())
}

/// What one step removes.
#[derive(Default)]
struct Part {
    recipients: Vec<(u64, [u8; 16])>,
    effects: Vec<(u64, [u8; 16], Digest)>,
    /// The users' ids.
    users: Vec<String>,
}

impl Part {
    /// The first rows of the run that are left.
    fn first(snapshot: &Snapshot, run: u64) -> Result<Self, store::Error> {
        let (mut part, effects) = (Self::default(), snapshot.effects()?);
        for (key, row) in snapshot.recipients()?.first((run, [0; 16])..=(run, [0xff; 16]), STEP_ROWS / 2)? {
            let mails = effects.first((run, key.1, [0; 16])..=(run, key.1, [0xff; 16]), usize::MAX)?;
            part.effects.extend(mails.into_iter().map(|(mail, _)| mail));
            part.recipients.push(key);
            part.users.push(row.user);
            if 2 * part.recipients.len() + part.effects.len() >= STEP_ROWS {
                break;
            }
        }
        Ok(part)
    }

    fn remove(self, tx: &mut Tx<'_>) -> Result<(), store::Error> {
        for mail in &self.effects {
            tx.effects()?.remove(mail)?;
        }
        for key in &self.recipients {
            tx.user_records()?.remove(key)?;
            tx.recipients()?.remove(key)?;
        }
        Ok(())
    }
}
