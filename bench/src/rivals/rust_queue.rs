//! RustQueue over its redb storage, in this process, with `immediate` durability: each push, pull and acknowledgement is
//! a commit of its own that is synced before it answers.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use nightmail::base::Clock;
use rustqueue::RustQueue;
use serde_json::Value;
use tempfile::TempDir;

use super::clients::{ByClients, Client, Queue};
use super::server;
use super::side::Started;
use crate::load;

const QUEUE: &str = "bench";
/// Every message has a name there.
const JOB: &str = "message";
/// What a client waits when nothing is there.
const PAUSE: Duration = Duration::from_millis(5);

pub(crate) struct Embedded {
    queue: RustQueue,
    /// Removed in the end.
    _dir: TempDir,
}

pub(crate) async fn start(clock: &Arc<dyn Clock>) -> anyhow::Result<Started<ByClients<Embedded>>> {
    let dir = server::dir()?;
    // A redb storage without write coalescing is the durability that its configuration calls `immediate`.
    let queue = RustQueue::redb(dir.path().join("rustqueue.redb"))?.build()?;
    let side = ByClients::new(Embedded { queue, _dir: dir }, clock.clone());
    Ok(Started { version: "0.3, in process".into(), side })
}

impl Queue for Embedded {
    type Client = RustQueue;

    fn pid(&self) -> u32 {
        std::process::id()
    }

    async fn connect(&self) -> anyhow::Result<RustQueue> {
        Ok(self.queue.clone())
    }

    async fn end(self) -> anyhow::Result<()> {
        Ok(())
    }
}

impl Client for RustQueue {
    async fn send(&mut self, body: Bytes) -> anyhow::Result<()> {
        let text = String::from_utf8(body.to_vec())?;
        self.push(QUEUE, JOB, Value::String(text), None).await?;
        Ok(())
    }

    async fn take(&mut self) -> anyhow::Result<Option<u64>> {
        let Some(taken) = self.pull(QUEUE, 1).await?.pop() else {
            tokio::time::sleep(PAUSE).await;
            return Ok(None);
        };
        self.ack(taken.id, None).await?;
        let text = taken.data.as_str().context("a message is not text")?;
        Ok(Some(load::number(text.as_bytes())?))
    }
}
