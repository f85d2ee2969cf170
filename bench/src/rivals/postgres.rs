//! A table in PostgreSQL: insert, then `FOR UPDATE SKIP LOCKED` with a delete in the same transaction.

use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use nightmail::base::Clock;
use tokio::process::Command;
use tokio_postgres::{NoTls, Statement};

use super::clients::{ByClients, Client, Queue};
use super::server::{self, Server};
use super::side::Started;
use crate::load;

const MAKE: &str = "CREATE TABLE messages (id bigserial PRIMARY KEY, body bytea NOT NULL)";
const SEND: &str = "INSERT INTO messages (body) VALUES ($1)";
const TAKE: &str = "DELETE FROM messages WHERE id = \
    (SELECT id FROM messages ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING body";
/// What a client waits when nothing is there.
const PAUSE: Duration = Duration::from_millis(5);
/// PostgreSQL refuses to run as root.
const UNPRIVILEGED: [&str; 2] = ["postgres", "nobody"];

pub(crate) struct Postgres {
    server: Server,
}

pub(crate) struct Connection {
    client: tokio_postgres::Client,
    send: Statement,
    take: Statement,
}

pub(crate) async fn start(clock: &Arc<dyn Clock>) -> anyhow::Result<Started<ByClients<Postgres>>> {
    let places = places();
    let (initdb, program) = (server::find("initdb", &places)?, server::find("postgres", &places)?);
    let version = server::version(&program, "--version").await?;
    let version = version.split_whitespace().nth(2).unwrap_or(&version).to_owned();
    let dir = server::dir()?;
    let owner = owner()?;
    if let Some((user, group)) = owner {
        chown(dir.path(), Some(user), Some(group))?;
    }
    let run = |program: &Path| {
        let mut command = Command::new(program);
        command.current_dir(dir.path());
        if let Some((user, group)) = owner {
            command.uid(user).gid(group);
        }
        command
    };
    let data = dir.path().join("data");
    let made = run(&initdb).args(["--username=bench", "--auth=trust", "--pgdata"]).arg(&data).output().await?;
    ensure!(made.status.success(), "initdb failed: {}", String::from_utf8_lossy(&made.stderr));
    let mut command = run(&program);
    command.arg("-D").arg(&data).arg("-k").arg(dir.path()).args(["-h", "", "-c", "synchronous_commit=on"]);
    command.args(["-c", "fsync=on"]);
    let mut server = Server::start("PostgreSQL", dir, &mut command)?;
    let socket = server.dir().to_owned();
    let client = server.ready(async || open(&socket).await).await?;
    client.batch_execute(MAKE).await?;
    Ok(Started { version, side: ByClients::new(Postgres { server }, clock.clone()) })
}

/// Debian keeps the server of each version apart.
fn places() -> Vec<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    versions.map(|version| version.path().join("bin")).collect()
}

/// Who runs the server when this process is root's.
fn owner() -> anyhow::Result<Option<(u32, u32)>> {
    if !rustix::process::getuid().is_root() {
        return Ok(None);
    }
    let users = std::fs::read_to_string("/etc/passwd")?;
    let fields = |name: &str| users.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|f| f[0] == name);
    let user = UNPRIVILEGED.iter().find_map(|name| fields(name)).context("there is no user but root")?;
    Ok(Some((user[2].parse()?, user[3].parse()?)))
}

async fn open(socket: &Path) -> anyhow::Result<tokio_postgres::Client> {
    let mut config = tokio_postgres::Config::new();
    let (client, connection) = config.host_path(socket).user("bench").dbname("postgres").connect(NoTls).await?;
    // It ends with its client; what fails is told to the client's calls.
    tokio::spawn(connection);
    Ok(client)
}

impl Queue for Postgres {
    type Client = Connection;

    fn pid(&self) -> u32 {
        self.server.pid()
    }

    async fn connect(&self) -> anyhow::Result<Connection> {
        let client = open(self.server.dir()).await?;
        let (send, take) = (client.prepare(SEND).await?, client.prepare(TAKE).await?);
        Ok(Connection { client, send, take })
    }

    async fn end(self) -> anyhow::Result<()> {
        self.server.end().await
    }
}

impl Client for Connection {
    async fn send(&mut self, body: Bytes) -> anyhow::Result<()> {
        let inserted = self.client.execute(&self.send, &[&&body[..]]).await?;
        ensure!(inserted == 1, "PostgreSQL inserted {inserted} rows for a message");
        Ok(())
    }

    async fn take(&mut self) -> anyhow::Result<Option<u64>> {
        let transaction = self.client.transaction().await?;
        let Some(row) = transaction.query_opt(&self.take, &[]).await? else {
            transaction.rollback().await?;
            tokio::time::sleep(PAUSE).await;
            return Ok(None);
        };
        transaction.commit().await?;
        Ok(Some(load::number(row.get::<_, &[u8]>(0))?))
    }
}
