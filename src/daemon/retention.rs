//! Deletes what is past its retention, at regular intervals: messages, decided ticks, ended redrives, and the recipients of
//! runs that ended long ago.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::base::Timestamp;
use crate::queue::{self, Queues};
use crate::run::{self, fold};
use crate::schedule::retention as ticks;
use crate::store::{self, Store, Tx};

/// How often expired messages are deleted; a receive never returns an expired message in between.
const EXPIRE_EVERY: Duration = Duration::from_secs(30);
/// How often runs that ended long ago are looked for.
const FOLD_EVERY: Duration = Duration::from_secs(3600);
/// Once in this many rounds old ticks and redrives are looked for: each hour, for finding them reads all of them.
const RECORDS_EVERY: u32 = 120;

/// Runs until `shutdown`. No runs are folded when `folding` is `None`.
pub(super) async fn run(
    queues: Queues,
    folding: Option<fold::Options>,
    shutdown: CancellationToken,
) -> Result<(), queue::Error> {
    // Beside each other: to fold a large run takes minutes, in which messages expire as ever.
    let folded = async {
        match folding {
            Some(options) => fold_runs(&queues, &options, &shutdown).await,
            None => Ok(()),
        }
    };
    tokio::try_join!(expire(&queues, &shutdown), folded).map(drop)
}

/// Deletes what outlived its retention, and old records, until `shutdown`.
async fn expire(queues: &Queues, shutdown: &CancellationToken) -> Result<(), queue::Error> {
    for round in (0..RECORDS_EVERY).cycle() {
        let removed = queues.expire().await?;
        if removed > 0 {
            tracing::info!(removed, "messages outlived their retention and were deleted");
        }
        if round == 0 {
            let redrives = queues.forget_redrives().await?;
            // Of deleted queues whose last letters are gone.
            queues.remove_purged().await?;
            let ticks = forget_ticks(queues.store(), queues.now().wall).await?;
            if redrives + ticks > 0 {
                tracing::info!(redrives, ticks, "old records were deleted");
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => break,
            () = tokio::time::sleep(EXPIRE_EVERY) => {}
        }
    }
    Ok(())
}

/// Folds runs each hour until `shutdown`. What fails outside of the store is tried again with the next round.
async fn fold_runs(queues: &Queues, options: &fold::Options, shutdown: &CancellationToken) -> Result<(), queue::Error> {
    while !shutdown.is_cancelled() {
        match fold::fold(queues, options, shutdown).await {
            Ok(_) => {}
            Err(run::Error::Store(error)) => return Err(error.into()),
            Err(run::Error::Queue(error)) => return Err(error),
            Err(error) => tracing::error!("runs are not folded: {error}"),
        }
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(FOLD_EVERY) => {}
        }
    }
    Ok(())
}

/// Deletes the ticks that are not kept any more; returns how many.
async fn forget_ticks(store: &Store, now: Timestamp) -> Result<u64, store::Error> {
    let mut removed = 0;
    for (schedule, upto) in store.read(move |snapshot| ticks::outdated(snapshot, now)).await? {
        loop {
            let schedule = schedule.clone();
            let count = store.write(move |tx: &mut Tx<'_>| ticks::remove(tx, &schedule, upto)).await?;
            removed += count as u64;
            if count < ticks::STEP_MAX {
                break;
            }
        }
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::base::SystemClock;
    use crate::queue::observer::NoObserver;
    use crate::store::Options;
    use crate::store::record::{TickRecord, TickVerdict};

    #[tokio::test]
    async fn old_ticks_go_when_the_daemon_starts() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&Options::at(dir.path().join("nightmail.redb"))).unwrap();
        let row = TickRecord { decided_at: Timestamp::ZERO, verdict: TickVerdict::Known };
        let step = move |tx: &mut Tx<'_>| {
            (1..=1200).try_for_each(|at| tx.ticks()?.insert(&("monthly".to_owned(), at), &row).map(drop))
        };
        store.write::<_, store::Error, _>(step).await.unwrap();
        let queues = Queues::new(store.clone(), SystemClock::shared(), Arc::new(NoObserver));
        let shutdown = CancellationToken::new();
        let mut loops = Box::pin(super::run(queues, None, shutdown.clone()));
        let all = ("monthly".to_owned(), 0)..=("monthly".to_owned(), u64::MAX);
        let left = || store.snapshot().unwrap().ticks().unwrap().first(all.clone(), 2000).unwrap().len();
        let gone = async {
            while left() > 1 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            end = &mut loops => panic!("{end:?}"),
            in_time = tokio::time::timeout(Duration::from_secs(30), gone) => in_time.expect("they go"),
        }
        shutdown.cancel();
        assert_eq!(loops.await, Ok(()));
        assert_eq!(left(), 1, "the newest stays");
    }
}
