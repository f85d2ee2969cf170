//! A RabbitMQ quorum queue on one node, with publisher confirms.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use futures_util::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, ConnectionProperties, Consumer};
use nightmail::base::Clock;
use tokio::process::Command;

use super::clients::{ByClients, Client, Queue};
use super::server::{self, Server};
use super::side::Started;
use crate::load;

const QUEUE: &str = "bench";
/// Delivery mode of a message that is to be kept.
const PERSISTENT: u8 = 2;
const WAIT: Duration = Duration::from_millis(200);

pub(crate) struct RabbitMq {
    server: Server,
    address: String,
}

pub(crate) struct Connection {
    channel: Channel,
    /// From the first take on.
    consumer: Option<Consumer>,
    /// Closed when dropped.
    _connection: lapin::Connection,
}

pub(crate) async fn start(clock: &Arc<dyn Clock>) -> anyhow::Result<Started<ByClients<RabbitMq>>> {
    // Debian's own wrapper would change to another user; the script behind it does not.
    let program = server::find("rabbitmq-server", &["/usr/lib/rabbitmq/bin".into()])?;
    let script = program.canonicalize()?;
    let epmd = server::find("epmd", &[])?;
    let dir = server::dir()?;
    let (port, names, nodes) = (server::free_port()?, server::free_port()?, server::free_port()?);
    let settings = dir.path().join("rabbitmq.conf");
    std::fs::write(&settings, format!("listeners.tcp.1 = 127.0.0.1:{port}\n"))?;
    std::fs::write(dir.path().join("enabled_plugins"), "[].\n")?;
    // RabbitMQ would leave a name server behind; with one of ours it starts none.
    let epmd = Command::new(epmd)
        .args(["-address", "127.0.0.1", "-port", &names.to_string()])
        .kill_on_drop(true)
        .spawn()
        .context("epmd does not start")?;
    let mut command = Command::new(program);
    command
        .env("HOME", dir.path())
        .env("ERL_EPMD_PORT", names.to_string())
        .env("RABBITMQ_DIST_PORT", nodes.to_string())
        .env("RABBITMQ_NODENAME", "bench@localhost")
        .env("RABBITMQ_CONFIG_FILE", &settings)
        .env("RABBITMQ_CONF_ENV_FILE", dir.path().join("none"))
        .env("RABBITMQ_MNESIA_BASE", dir.path().join("data"))
        .env("RABBITMQ_LOG_BASE", dir.path().join("log"))
        .env("RABBITMQ_PID_FILE", dir.path().join("pid"))
        .env("RABBITMQ_ENABLED_PLUGINS_FILE", dir.path().join("enabled_plugins"))
        // So the script becomes the server instead of waiting for it.
        .env("RUNNING_UNDER_SYSTEMD", "true");
    let mut server = Server::start("RabbitMQ", dir, &mut command)?.with_companion(epmd);
    let address = format!("amqp://guest:guest@127.0.0.1:{port}/%2f");
    let connection = server.ready(async || connect(&address).await).await?;
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let mut kind = FieldTable::default();
    kind.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    connection.channel.queue_declare(QUEUE.into(), options, kind).await?;
    let version = version(&script);
    Ok(Started { version, side: ByClients::new(RabbitMq { server, address }, clock.clone()) })
}

/// Its files lie in a directory that is named for the version.
fn version(script: &Path) -> String {
    let mut names = script.iter().filter_map(|name| name.to_str()?.strip_prefix("rabbitmq_server-"));
    names.next_back().unwrap_or_default().to_owned()
}

async fn connect(address: &str) -> anyhow::Result<Connection> {
    let connection = lapin::Connection::connect(address, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    channel.basic_qos(1, BasicQosOptions::default()).await?;
    Ok(Connection { channel, consumer: None, _connection: connection })
}

impl Queue for RabbitMq {
    type Client = Connection;

    fn pid(&self) -> u32 {
        self.server.pid()
    }

    async fn connect(&self) -> anyhow::Result<Connection> {
        connect(&self.address).await
    }

    async fn end(self) -> anyhow::Result<()> {
        self.server.end().await
    }
}

impl Connection {
    async fn consumer(&mut self) -> anyhow::Result<&mut Consumer> {
        let consumer = match self.consumer.take() {
            Some(consumer) => consumer,
            None => {
                let options = BasicConsumeOptions::default();
                self.channel.basic_consume(QUEUE.into(), "".into(), options, FieldTable::default()).await?
            }
        };
        Ok(self.consumer.insert(consumer))
    }
}

impl Client for Connection {
    async fn send(&mut self, body: Bytes) -> anyhow::Result<()> {
        let kept = BasicProperties::default().with_delivery_mode(PERSISTENT);
        let options = BasicPublishOptions::default();
        let confirm = self.channel.basic_publish("".into(), QUEUE.into(), options, &body, kept).await?;
        ensure!(matches!(confirm.await?, Confirmation::Ack(None)), "RabbitMQ does not confirm a message");
        Ok(())
    }

    async fn take(&mut self) -> anyhow::Result<Option<u64>> {
        let consumer = self.consumer().await?;
        let Ok(delivery) = tokio::time::timeout(WAIT, consumer.next()).await else { return Ok(None) };
        let delivery = delivery.context("RabbitMQ ended the consumer")??;
        // The protocol has no answer to this.
        delivery.ack(BasicAckOptions::default()).await?;
        Ok(Some(load::number(&delivery.data)?))
    }
}
