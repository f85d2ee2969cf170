//! Nightmail's own queue, in this process.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nightmail::base::Clock;
use tempfile::TempDir;

use super::clients::{ByClients, Client, Queue};
use super::server;
use super::side::Started;
use crate::engine::Engine;
use crate::load;

/// What a client waits when nothing is there.
const PAUSE: Duration = Duration::from_millis(5);

pub(crate) struct Ours {
    engine: Engine,
    /// Removed in the end.
    _dir: TempDir,
}

pub(crate) async fn start(clock: &Arc<dyn Clock>) -> anyhow::Result<Started<ByClients<Ours>>> {
    let dir = server::dir()?;
    let engine = Engine::open(dir.path(), clock).await?;
    let version = format!("{}, in process", env!("CARGO_PKG_VERSION"));
    Ok(Started { version, side: ByClients::new(Ours { engine, _dir: dir }, clock.clone()) })
}

impl Queue for Ours {
    type Client = Engine;

    fn pid(&self) -> u32 {
        std::process::id()
    }

    async fn connect(&self) -> anyhow::Result<Engine> {
        Ok(self.engine.clone())
    }

    async fn end(self) -> anyhow::Result<()> {
        Ok(())
    }
}

impl Client for Engine {
    async fn send(&mut self, body: Bytes) -> anyhow::Result<()> {
        Self::send(self, body).await
    }

    async fn take(&mut self) -> anyhow::Result<Option<u64>> {
        let Some(message) = self.receive(1).await?.pop() else {
            tokio::time::sleep(PAUSE).await;
            return Ok(None);
        };
        self.delete(message.handle).await?;
        Ok(Some(load::number(&message.body)?))
    }
}
