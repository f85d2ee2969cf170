//! The handle of the open store that the modules share.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, ThreadId};

use redb::Database;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::checkpoint::{Checkpointer, Progress};
use super::committer::{Appender, Committer, HANDED_OVER_MAX, View, stop};
use super::disk::Disks;
use super::exclusive::ExclusiveStore;
use super::hints::Hints;
use super::hold::Holds;
use super::layers::{Base, Layers};
use super::lock::{self, Lock};
use super::log::Position;
use super::step::{Nudge, PendingStep, Signals, Step};
use super::writer::Writer;
use super::{Error, Options, Snapshot, Tx};

/// The open store. Clones share it. Dropping the last one blocks: it commits the pending steps, closes the file and
/// releases the lock.
#[derive(Clone)]
pub struct Store {
    /// Steps for the writer; bounded, so that callers wait when the disk is slow. Declared before `open`, and therefore
    /// dropped before it: the writer ends when the last sender is gone.
    steps: mpsc::Sender<Box<dyn PendingStep>>,
    /// Callers that are about to send more steps.
    holds: Arc<Holds>,
    signals: Arc<Signals>,
    /// Counts commits; incremented by the writer.
    commits: Arc<AtomicU64>,
    /// Counts refused steps that had written; incremented by the writer.
    roll_backs: Arc<AtomicU64>,
    /// Counts the log's syncs.
    syncs: Arc<AtomicU64>,
    progress: Arc<Progress>,
    /// The fault that stopped the store; set once, by whichever thread met it first.
    stopped: watch::Receiver<Option<Error>>,
    /// What readers see.
    view: Arc<View>,
    /// Closed with the last clone.
    open: Arc<Open>,
}

/// What the last clone closes, in this order.
struct Open {
    /// Joined first, because it holds the file too. `None` only while closing.
    writer: Option<JoinHandle<()>>,
    /// The log's thread, which the writer joins.
    appender: ThreadId,
    /// `None` only while closing.
    db: Option<Arc<Database>>,
    /// The file, as its options name it.
    path: PathBuf,
    /// Held by the backup that is being made.
    backups: tokio::sync::Mutex<()>,
    /// Released last, after the file is closed; `None` on a [`Disk`] that was passed in.
    _lock: Option<Lock>,
}

impl Drop for Open {
    fn drop(&mut self) {
        // A step or result that holds the last clone drops it on one of the store's own threads, which cannot join
        // itself.
        let here = std::thread::current().id();
        let writer = self.writer.take().filter(|writer| ![writer.thread().id(), self.appender].contains(&here));
        // A panic of the writer has already failed its callers.
        let _ = writer.map(JoinHandle::join);
        // redb panics on some damaged pages; nobody is left to report that to.
        let db = self.db.take();
        let _ = catch_unwind(AssertUnwindSafe(|| drop(db)));
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("stopped", &*self.stopped.borrow()).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the store, or creates it when there is no file yet; takes the lock of its directory.
    ///
    /// # Errors
    /// [`Error::Locked`] names the holder; [`Error::Damaged`] and [`Error::Newer`] leave the file as it is.
    pub fn open(options: &Options) -> Result<Self, Error> {
        Self::start(ExclusiveStore::open(options)?, options)
    }

    /// The same, but waits for commands that read the store, for at most [`lock::WAIT_MAX`].
    ///
    /// # Errors
    /// As [`Store::open`].
    pub async fn open_when_free(options: &Options) -> Result<Self, Error> {
        lock::when_free(options.purpose, lock::WAIT_MAX, || Self::open(options)).await
    }

    /// Opens the store on disks that the caller passes in, or creates it when they are empty; takes no lock. The paths in
    /// the options appear only in errors.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_on(disks: Disks, options: &Options) -> Result<Self, Error> {
        Self::start(ExclusiveStore::open_on(disks, options)?, options)
    }

    fn start(store: ExclusiveStore, options: &Options) -> Result<Self, Error> {
        let ExclusiveStore { db, log, present, lock } = store;
        let db = Arc::new(db);
        let layers = Layers::of(Base::open(&db)?);
        let view = Arc::new(View::new(Arc::new(layers.clone())));
        let (steps, pending) = mpsc::channel::<Box<dyn PendingStep>>(options.waiting_max);
        let (ran, groups) = std::sync::mpsc::sync_channel(HANDED_OVER_MAX);
        let (checkpoints_sender, checkpoints) = std::sync::mpsc::channel();
        let (stopped_sender, stopped) = watch::channel(None);
        let (signals, commits) = (Arc::<Signals>::default(), Arc::<AtomicU64>::default());
        let (roll_backs, syncs, holds) = <(Arc<AtomicU64>, Arc<AtomicU64>, Arc<Holds>)>::default();
        let (under_way, progress) =
            (Arc::<AtomicUsize>::default(), Arc::new(Progress::starting_at(log.end().sequence)));
        let (space, claim) = (log.space(), log.end());
        let committer = Arc::new(Mutex::new(Committer {
            log,
            view: view.clone(),
            signals: signals.clone(),
            syncs: syncs.clone(),
            checkpoints: Some(checkpoints_sender),
            progress: progress.clone(),
            stopped: stopped_sender.clone(),
            failed: None,
        }));
        let appender = Appender { groups, committer: committer.clone(), under_way: under_way.clone() };
        let end = Ending { stopped: stopped_sender.clone(), progress: progress.clone() };
        let appender = thread("store-log", end.clone(), move || appender.run());
        let appender_id = appender.thread().id();
        // Not a sender of its own: the writer ends when the last handle is gone.
        let weak = steps.downgrade();
        let wake = move || {
            // When the channel is full, the writer is about to look anyway.
            let _ = weak.upgrade().map(|steps| steps.try_send(Box::new(Nudge)));
        };
        let checkpointer = Checkpointer {
            db: db.clone(),
            path: options.path.clone(),
            checkpoints,
            progress: progress.clone(),
            present,
            wake,
        };
        let writer = Writer {
            db: db.clone(),
            path: options.path.clone(),
            pending,
            holds: holds.clone(),
            group_max: options.group_max,
            layers,
            hints: Hints::default(),
            commits: commits.clone(),
            roll_backs: roll_backs.clone(),
            stopped: stopped_sender,
            last: Position { generation: claim.generation + 1, ..claim },
            space,
            frozen_through: claim,
            covered: None,
            progress: progress.clone(),
            committer,
            under_way,
            ran,
            appender,
            checkpointer: thread("store-checkpoint", end.clone(), move || checkpointer.run()),
        };
        let writer = thread("store-writer", end, move || writer.run());
        let (writer, path, backups) = (Some(writer), options.path.clone(), tokio::sync::Mutex::default());
        let open = Arc::new(Open { writer, appender: appender_id, db: Some(db), path, backups, _lock: lock });
        Ok(Self { steps, holds, signals, commits, roll_backs, syncs, progress, stopped, view, open })
    }

    /// Runs a step in the next group and returns its result once it is on disk. A step whose caller is gone by then (a
    /// dropped future) is skipped; one that has run stays when its caller goes away before the answer.
    ///
    /// # Errors
    /// The step's own error, or a storage fault: then the store has stopped, and whether the step was committed is
    /// unknown.
    pub async fn write<T, E, F>(&self, step: F) -> Result<T, E>
    where
        F: FnOnce(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let (caller, answer) = oneshot::channel();
        if self.steps.send(Box::new(Step::new(step, caller))).await.is_err() {
            return Err(self.stop_reason().into());
        }
        answer.await.unwrap_or_else(|_| Err(self.stop_reason().into()))
    }

    /// Runs this work, whose steps belong together: all that it sends when it is polled for the first time share a commit,
    /// as a rule.
    pub async fn together<T>(&self, work: impl Future<Output = T>) -> T {
        self.holds.together(work).await
    }

    /// A view that includes every step that has returned, and nothing that is not durable yet.
    ///
    /// # Errors
    /// Never, for now; a store elsewhere may have to be asked.
    pub fn snapshot(&self) -> Result<Snapshot, Error> {
        Ok(Snapshot::new(self.view.get()))
    }

    /// Reads a snapshot on a thread of its own: what may be more than a few rows must not hold up the other loops of
    /// the runtime. A read that was begun goes on when its caller is gone.
    ///
    /// # Errors
    /// The read's own error, or a storage fault.
    pub async fn read<T, E, F>(&self, read: F) -> Result<T, E>
    where
        F: FnOnce(&Snapshot) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let store = self.clone();
        match tokio::task::spawn_blocking(move || read(&store.snapshot()?)).await {
            Ok(answer) => answer,
            Err(fault) => match fault.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(Error::Stopped("the process is ending".into()).into()),
            },
        }
    }

    /// The store's file, as its options name it.
    pub fn path(&self) -> &Path {
        &self.open.path
    }

    /// Held by the backup that is being made.
    pub(super) fn backups(&self) -> &tokio::sync::Mutex<()> {
        &self.open.backups
    }

    /// How many commits this store has made since it was opened.
    pub fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    /// How many steps were refused after a write since it was opened. Their writes were rolled back, but each is a bug.
    pub fn roll_backs(&self) -> u64 {
        self.roll_backs.load(Ordering::Relaxed)
    }

    /// How many syncs of the log since then; groups that follow each other closely share one.
    pub fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }

    /// How many checkpoints since then; the commit of each has two syncs of redb's file.
    pub fn checkpoints(&self) -> u64 {
        self.progress.made.load(Ordering::Relaxed)
    }

    /// A counter that changes after each commit that signalled `topic`.
    pub fn subscribe(&self, topic: u64) -> watch::Receiver<u64> {
        self.signals.subscribe(topic)
    }

    /// Where those wait of whom each commit that signals `topic` wakes one, the one that has waited longest.
    pub fn subscribe_one(&self, topic: u64) -> Arc<Notify> {
        self.signals.subscribe_one(topic)
    }

    /// Waits until the store has stopped and returns the reason. Never ends while the store works.
    pub async fn stopped(&self) -> Error {
        let mut stopped = self.stopped.clone();
        // The writer thread owns the sender: when it is dropped without a reason, the writer has panicked.
        match stopped.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().expect("the wait ends only on a reason"),
            Err(_) => self.stop_reason(),
        }
    }

    fn stop_reason(&self) -> Error {
        match &*self.stopped.borrow() {
            Some(error) => Error::Stopped(error.to_string()),
            None => Error::Stopped("the writer ended unexpectedly".into()),
        }
    }
}

/// What tells the store's other threads, and its callers, that it has stopped.
#[derive(Clone)]
struct Ending {
    stopped: watch::Sender<Option<Error>>,
    progress: Arc<Progress>,
}

/// Starts one of the store's threads. Should it panic, the store stops, and no other thread goes on waiting for it.
fn thread<T: Send + 'static>(
    name: &'static str,
    end: Ending,
    run: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    let run = move || {
        catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
            let error = Error::Stopped(format!("the thread {name} ended by a panic"));
            stop(&end.stopped, &error);
            end.progress.fail(&error);
            resume_unwind(panic)
        })
    };
    let thread = std::thread::Builder::new().name(name.into()).spawn(run);
    thread.expect("the system starts one more thread at start-up")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_of_one_thread_stops_the_store_and_ends_every_wait() {
        let (stopped, seen) = watch::channel(None);
        let progress = Arc::new(Progress::starting_at(0));
        let waiting = std::thread::spawn({
            let progress = progress.clone();
            move || (progress.wait().err(), progress.wait_for(1).err())
        });
        let broken = thread("store-log", Ending { stopped, progress }, || panic!("broken on purpose"));
        broken.join().unwrap_err();
        let reason = Some(Error::Stopped("the thread store-log ended by a panic".into()));
        assert_eq!(waiting.join().unwrap(), (reason.clone(), reason.clone()));
        assert_eq!(*seen.borrow(), reason);
    }
}
