//! Redis Streams with an append-only file that is synced before each answer (`appendfsync always`).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::redis::AsyncCommands;
use ::redis::aio::MultiplexedConnection;
use ::redis::streams::{StreamReadOptions, StreamReadReply};
use anyhow::{Context, ensure};
use bytes::Bytes;
use nightmail::base::Clock;
use tokio::process::Command;

use super::clients::{ByClients, Client, Queue};
use super::server::{self, Server};
use super::side::Started;
use crate::load;

const STREAM: &str = "bench";
const GROUP: &str = "workers";
/// How long a read waits for a message; under the client's own limit of half a second.
const WAIT_MS: usize = 200;

pub(crate) struct Redis {
    server: Server,
    socket: PathBuf,
}

pub(crate) struct Connection(MultiplexedConnection);

pub(crate) async fn start(clock: &Arc<dyn Clock>) -> anyhow::Result<Started<ByClients<Redis>>> {
    let (version, server, socket) = serve().await?;
    let mut connection = connect(&socket).await?;
    let () = connection.xgroup_create_mkstream(STREAM, GROUP, "0").await?;
    Ok(Started { version, side: ByClients::new(Redis { server, socket }, clock.clone()) })
}

/// A Redis that syncs each write, on a socket of its own.
pub(crate) async fn serve() -> anyhow::Result<(String, Server, PathBuf)> {
    let program = server::find("redis-server", &[])?;
    let version = server::version(&program, "--version").await?;
    let version = version.split_whitespace().find_map(|word| word.strip_prefix("v=")).unwrap_or(&version).to_owned();
    let dir = server::dir()?;
    let socket = dir.path().join("socket");
    let mut command = Command::new(program);
    command.args(["--port", "0", "--appendonly", "yes", "--appendfsync", "always", "--save", "", "--unixsocket"]);
    command.arg(&socket).arg("--dir").arg(dir.path());
    let mut server = Server::start("Redis", dir, &mut command)?;
    server.ready(async || connect(&socket).await).await?;
    Ok((version, server, socket))
}

async fn connect(socket: &Path) -> anyhow::Result<MultiplexedConnection> {
    let client = ::redis::Client::open(format!("redis+unix://{}", socket.display()))?;
    Ok(client.get_multiplexed_async_connection().await?)
}

impl Queue for Redis {
    type Client = Connection;

    fn pid(&self) -> u32 {
        self.server.pid()
    }

    async fn connect(&self) -> anyhow::Result<Connection> {
        Ok(Connection(connect(&self.socket).await?))
    }

    async fn end(self) -> anyhow::Result<()> {
        self.server.end().await
    }
}

impl Client for Connection {
    async fn send(&mut self, body: Bytes) -> anyhow::Result<()> {
        let id: Option<String> = self.0.xadd(STREAM, "*", &[("body", &body[..])]).await?;
        ensure!(id.is_some(), "Redis gives a message no id");
        Ok(())
    }

    async fn take(&mut self) -> anyhow::Result<Option<u64>> {
        let options = StreamReadOptions::default().group(GROUP, "worker").count(1).block(WAIT_MS);
        let found: Option<StreamReadReply> = self.0.xread_options(&[STREAM], &[">"], &options).await?;
        let message = found.and_then(|mut found| found.keys.pop()).and_then(|mut key| key.ids.pop());
        let Some(message) = message else { return Ok(None) };
        let body: Vec<u8> = message.get("body").context("a message has no body")?;
        let acknowledged: u64 = self.0.xack(STREAM, GROUP, &[&message.id]).await?;
        ensure!(acknowledged == 1, "Redis does not know the message that it gave");
        Ok(Some(load::number(&body)?))
    }
}
