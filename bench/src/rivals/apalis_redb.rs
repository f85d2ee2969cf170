//! apalis-redb: another queue over redb, in this process, with its default durability (each commit is synced). Its own
//! worker takes the messages and acknowledges them when the handler has returned.

use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, anyhow};
use apalis::prelude::{BoxDynError, Data, ParallelizeExt, TaskSink, WorkerBuilder, WorkerBuilderExt};
use apalis_redb::{Connection, RedbStorage};
use nightmail::base::Clock;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::arrivals::Arrivals;
use super::server;
use super::side::{Side, Started};
use crate::load::{self, BODY_BYTES};

/// The messages are text there, since its wire format is JSON.
type Storage = RedbStorage<String>;

pub(crate) struct ApalisRedb {
    connection: Connection,
    clock: Arc<dyn Clock>,
    /// Removed in the end.
    _dir: TempDir,
    /// Workers so far; each has a name of its own.
    workers: u32,
}

/// What the handler needs.
#[derive(Clone)]
struct Books {
    arrivals: Arc<Mutex<Arrivals>>,
    all: CancellationToken,
}

pub(crate) async fn start(clock: &Arc<dyn Clock>) -> anyhow::Result<Started<ApalisRedb>> {
    let dir = server::dir()?;
    let connection = apalis_redb::connect(dir.path().join("tasks.redb")).await?;
    let side = ApalisRedb { connection, clock: clock.clone(), _dir: dir, workers: 0 };
    Ok(Started { version: "0.1, in process".into(), side })
}

impl Side for ApalisRedb {
    fn pid(&self) -> u32 {
        std::process::id()
    }

    async fn produce(&mut self, producers: usize, numbers: Range<u64>) -> anyhow::Result<Duration> {
        let storage = Storage::new(self.connection.clone());
        let share = (numbers.end - numbers.start).div_ceil(producers as u64);
        let began = self.clock.monotonic();
        let mut tasks = JoinSet::new();
        for producer in 0..producers as u64 {
            let (mut storage, numbers) = (storage.clone(), numbers.clone());
            tasks.spawn(async move {
                let first = numbers.start + producer * share;
                for number in first..numbers.end.min(first + share) {
                    let body = String::from_utf8(load::numbered(number, BODY_BYTES).to_vec())?;
                    storage.push(body).await.map_err(|error| anyhow!("{error}"))?;
                }
                anyhow::Ok(())
            });
        }
        while let Some(end) = tasks.join_next().await {
            end??;
        }
        Ok(self.clock.monotonic() - began)
    }

    async fn consume(&mut self, consumers: usize, numbers: Range<u64>) -> anyhow::Result<Duration> {
        let all = CancellationToken::new();
        let books = Books { arrivals: Arc::new(Mutex::new(Arrivals::expect(numbers)?)), all: all.clone() };
        self.workers += 1;
        let worker = WorkerBuilder::new(format!("worker-{}", self.workers))
            .backend(Storage::new(self.connection.clone()))
            .data(books)
            .concurrency(consumers)
            .parallelize(tokio::spawn)
            .build(handle);
        let began = self.clock.monotonic();
        let stop = all.clone();
        let mut running = std::pin::pin!(worker.run_until(async move {
            stop.cancelled().await;
            Ok::<(), apalis::prelude::WorkerError>(())
        }));
        tokio::select! {
            () = all.cancelled() => {}
            end = &mut running => return Err(anyhow!("the worker ended by itself: {end:?}")),
        }
        let took = self.clock.monotonic() - began;
        running.await.context("the worker does not end well")?;
        Ok(took)
    }

    async fn end(self) -> anyhow::Result<()> {
        Ok(())
    }
}

async fn handle(body: String, books: Data<Books>) -> Result<(), BoxDynError> {
    let number = load::number(body.as_bytes())?;
    if books.arrivals.lock().expect("nothing panics with the lock").came(number)? {
        books.all.cancel();
    }
    Ok(())
}
