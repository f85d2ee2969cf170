//! Nightmail's SQS endpoint in a process of its own, over HTTP. Sends are signed before the time begins; a delete is
//! signed when its receipt handle is known.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nightmail::base::Clock;
use tokio::task::JoinSet;

use super::clients::{ByClients, Client, Queue};
use super::side::{Side, Started};
use crate::load::{self, BODY_BYTES};
use crate::sqs::{Connection, Prepared, Server, Signer, messages};

/// What a client waits when nothing is there.
const PAUSE: Duration = Duration::from_millis(5);

pub(crate) struct OverHttp {
    consumers: ByClients<Endpoint>,
    address: std::net::SocketAddr,
    signer: Signer,
    clock: Arc<dyn Clock>,
}

pub(crate) struct Endpoint {
    server: Server,
    signer: Signer,
}

/// One producer or consumer.
pub(crate) struct HttpClient {
    connection: Connection,
    receive: Prepared,
    signer: Signer,
}

pub(crate) async fn start(clock: &Arc<dyn Clock>) -> anyhow::Result<Started<OverHttp>> {
    let (server, signer) = (Server::daemon(clock).await?, Signer::new(clock));
    let address = server.address;
    let consumers = ByClients::new(Endpoint { server, signer: signer.clone() }, clock.clone());
    let side = OverHttp { consumers, address, signer, clock: clock.clone() };
    Ok(Started { version: env!("CARGO_PKG_VERSION").into(), side })
}

impl Side for OverHttp {
    fn pid(&self) -> u32 {
        self.consumers.pid()
    }

    async fn produce(&mut self, producers: usize, numbers: Range<u64>) -> anyhow::Result<Duration> {
        let mut lists = vec![Vec::new(); producers];
        for (list, number) in (0..producers).cycle().zip(numbers) {
            let body = load::numbered(number, BODY_BYTES);
            lists[list].push(self.signer.send(std::str::from_utf8(&body)?)?);
        }
        let mut connected = Vec::new();
        for list in lists {
            connected.push((Connection::open(self.address).await?, list));
        }
        let began = self.clock.monotonic();
        let mut tasks = JoinSet::new();
        for (mut connection, list) in connected {
            tasks.spawn(async move {
                for request in &list {
                    connection.call(request).await?;
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
        self.consumers.consume(consumers, numbers).await
    }

    async fn end(self) -> anyhow::Result<()> {
        self.consumers.end().await
    }
}

impl Queue for Endpoint {
    type Client = HttpClient;

    fn pid(&self) -> u32 {
        self.server.pid()
    }

    async fn connect(&self) -> anyhow::Result<HttpClient> {
        let (connection, receive) = (Connection::open(self.server.address).await?, self.signer.receive(1, 0)?);
        Ok(HttpClient { connection, receive, signer: self.signer.clone() })
    }

    async fn end(self) -> anyhow::Result<()> {
        Ok(())
    }
}

impl Client for HttpClient {
    async fn send(&mut self, body: Bytes) -> anyhow::Result<()> {
        self.connection.call(&self.signer.send(std::str::from_utf8(&body)?)?).await.map(drop)
    }

    async fn take(&mut self) -> anyhow::Result<Option<u64>> {
        let answer = self.connection.call(&self.receive).await?;
        let Some(message) = messages(&answer)?.pop() else {
            tokio::time::sleep(PAUSE).await;
            return Ok(None);
        };
        self.connection.call(&self.signer.delete(&message.receipt_handle)?).await?;
        Ok(Some(load::number(message.body.as_bytes())?))
    }
}
