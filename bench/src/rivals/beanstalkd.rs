//! beanstalkd with its binlog and a sync after every write (`-f0`). Its protocol is a few lines of text, spoken here.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use nightmail::base::Clock;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::UnixStream;
use tokio::process::Command;

use super::clients::{ByClients, Client, Queue};
use super::server::{self, Server};
use super::side::Started;
use crate::load;

pub(crate) struct Beanstalkd {
    server: Server,
    socket: PathBuf,
}

pub(crate) struct Connection(BufStream<UnixStream>);

pub(crate) async fn start(clock: &Arc<dyn Clock>) -> anyhow::Result<Started<ByClients<Beanstalkd>>> {
    let program = server::find("beanstalkd", &[])?;
    let version = server::version(&program, "-v").await?;
    let dir = server::dir()?;
    let (socket, binlog) = (dir.path().join("socket"), dir.path().join("binlog"));
    std::fs::create_dir(&binlog)?;
    let mut command = Command::new(program);
    command.arg("-l").arg(format!("unix:{}", socket.display())).arg("-b").arg(binlog).arg("-f0");
    let mut server = Server::start("beanstalkd", dir, &mut command)?;
    server.ready(async || connect(&socket).await).await?;
    let version = version.replace("beanstalkd ", "");
    Ok(Started { version, side: ByClients::new(Beanstalkd { server, socket }, clock.clone()) })
}

async fn connect(socket: &Path) -> anyhow::Result<Connection> {
    Ok(Connection(BufStream::new(UnixStream::connect(socket).await?)))
}

impl Queue for Beanstalkd {
    type Client = Connection;

    fn pid(&self) -> u32 {
        self.server.pid()
    }

    async fn connect(&self) -> anyhow::Result<Connection> {
        connect(&self.socket).await
    }

    async fn end(self) -> anyhow::Result<()> {
        self.server.end().await
    }
}

impl Connection {
    async fn ask(&mut self, command: &str, body: Option<&[u8]>) -> anyhow::Result<String> {
        self.0.write_all(command.as_bytes()).await?;
        if let Some(body) = body {
            self.0.write_all(body).await?;
            self.0.write_all(b"\r\n").await?;
        }
        self.0.flush().await?;
        let mut answer = String::new();
        ensure!(self.0.read_line(&mut answer).await? > 0, "beanstalkd closed the connection");
        Ok(answer.trim_end().to_owned())
    }
}

impl Client for Connection {
    async fn send(&mut self, body: Bytes) -> anyhow::Result<()> {
        // Priority, delay and the time to run come before the size.
        let answer = self.ask(&format!("put 0 0 60 {}\r\n", body.len()), Some(&body)).await?;
        ensure!(answer.starts_with("INSERTED"), "beanstalkd answers a put with {answer:?}");
        Ok(())
    }

    async fn take(&mut self) -> anyhow::Result<Option<u64>> {
        let answer = self.ask("reserve-with-timeout 1\r\n", None).await?;
        let words: Vec<&str> = answer.split(' ').collect();
        let (id, bytes) = match words[..] {
            ["RESERVED", id, bytes] => (id.to_owned(), bytes.parse::<usize>()?),
            ["TIMED_OUT"] => return Ok(None),
            _ => bail!("beanstalkd answers a reserve with {answer:?}"),
        };
        let mut body = vec![0; bytes + 2];
        self.0.read_exact(&mut body).await.context("a message was cut off")?;
        let answer = self.ask(&format!("delete {id}\r\n"), None).await?;
        ensure!(answer == "DELETED", "beanstalkd answers a delete with {answer:?}");
        Ok(Some(load::number(&body)?))
    }
}
