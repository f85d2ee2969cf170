//! NATS JetStream: a work-queue stream on files that syncs each message (`sync_interval: always`).

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use async_nats::jetstream::consumer::{PullConsumer, pull};
use async_nats::jetstream::stream::{RetentionPolicy, StorageType};
use async_nats::jetstream::{self, stream};
use bytes::Bytes;
use futures_util::StreamExt;
use nightmail::base::Clock;
use tokio::process::Command;

use super::clients::{ByClients, Client, Queue};
use super::server::{self, Server};
use super::side::Started;
use crate::load;

const SUBJECT: &str = "bench";
const CONSUMER: &str = "workers";
const WAIT: Duration = Duration::from_millis(200);

pub(crate) struct Nats {
    server: Server,
    address: String,
}

pub(crate) struct Connection {
    context: jetstream::Context,
    consumer: PullConsumer,
}

pub(crate) async fn start(clock: &Arc<dyn Clock>) -> anyhow::Result<Started<ByClients<Nats>>> {
    let program = server::find("nats-server", &[server::repository().join("target/rivals/python/bin")])?;
    let version = server::version(&program, "--version").await?.replace("nats-server: v", "");
    let dir = server::dir()?;
    let port = server::free_port()?;
    let settings = dir.path().join("nats.conf");
    let store = dir.path().join("store");
    let text = format!(
        "listen: \"127.0.0.1:{port}\"\njetstream {{ store_dir: \"{}\", sync_interval: always }}\n",
        store.display()
    );
    std::fs::write(&settings, text)?;
    let mut server = Server::start("NATS", dir, Command::new(program).arg("-c").arg(settings))?;
    let address = format!("127.0.0.1:{port}");
    let context = server.ready(async || context(&address).await).await?;
    let config = stream::Config {
        name: SUBJECT.into(),
        retention: RetentionPolicy::WorkQueue,
        storage: StorageType::File,
        ..stream::Config::default()
    };
    let stream = context.create_stream(config).await?;
    let config = pull::Config { durable_name: Some(CONSUMER.into()), ..pull::Config::default() };
    stream.create_consumer(config).await?;
    Ok(Started { version, side: ByClients::new(Nats { server, address }, clock.clone()) })
}

async fn context(address: &str) -> anyhow::Result<jetstream::Context> {
    Ok(jetstream::new(async_nats::connect(address).await?))
}

impl Queue for Nats {
    type Client = Connection;

    fn pid(&self) -> u32 {
        self.server.pid()
    }

    async fn connect(&self) -> anyhow::Result<Connection> {
        let context = context(&self.address).await?;
        let stream = context.get_stream(SUBJECT).await?;
        let consumer = stream.get_consumer(CONSUMER).await.map_err(|error| anyhow!("{error}"))?;
        Ok(Connection { context, consumer })
    }

    async fn end(self) -> anyhow::Result<()> {
        self.server.end().await
    }
}

impl Client for Connection {
    async fn send(&mut self, body: Bytes) -> anyhow::Result<()> {
        self.context.publish(SUBJECT, body).await?.await?;
        Ok(())
    }

    async fn take(&mut self) -> anyhow::Result<Option<u64>> {
        let mut found = self.consumer.fetch().max_messages(1).expires(WAIT).messages().await?;
        let Some(message) = found.next().await else { return Ok(None) };
        let message = message.map_err(|error| anyhow!("{error}")).context("a fetch failed")?;
        // With an answer, as the others' acknowledgements have one.
        message.double_ack().await.map_err(|error| anyhow!("{error}"))?;
        Ok(Some(load::number(&message.payload)?))
    }
}
