//! The daemon and the stub beside it, which answers what that daemon answered.

use std::sync::Arc;

use nightmail::base::Clock;
use tempfile::TempDir;

use super::client::{Connection, messages};
use super::requests::Signer;
use super::server::Server;
use super::stub;
use crate::load::{self, BODY_BYTES};

/// The messages of a batch.
pub(super) const BATCH: usize = 10;

pub(super) struct Pair {
    pub(super) daemon: Server,
    pub(super) stub: Server,
    /// Removed in the end.
    _dir: TempDir,
}

impl Pair {
    /// Starts both: each call is made once to the daemon, and the stub is given the answers.
    pub(super) async fn start(clock: &Arc<dyn Clock>, signer: &Signer) -> anyhow::Result<Self> {
        let daemon = Server::daemon(clock).await?;
        let mut connection = Connection::open(daemon.address).await?;
        let body = body(0)?;
        let sent = connection.call(&signer.send(&body)?).await?;
        let received = connection.call(&signer.receive(1, 0)?).await?;
        for message in messages(&received)? {
            connection.call(&signer.delete(&message.receipt_handle)?).await?;
        }
        let sent_batch = connection.call(&signer.send_batch(&[&*body; BATCH])?).await?;
        let received = connection.call(&signer.receive(BATCH, 0)?).await?;
        let handles: Vec<String> = messages(&received)?.into_iter().map(|message| message.receipt_handle).collect();
        let deleted = connection.call(&signer.delete_batch(&handles)?).await?;
        let answers = [
            ("SendMessage", sent),
            ("SendMessageBatch", sent_batch),
            ("ReceiveMessage", received),
            ("DeleteMessageBatch", deleted),
        ];
        let dir = tempfile::tempdir()?;
        let stub = stub::start(dir.path(), &answers).await?;
        Ok(Self { daemon, stub, _dir: dir })
    }
}

/// The text of a message.
pub(super) fn body(number: u64) -> anyhow::Result<String> {
    Ok(String::from_utf8(load::numbered(number, BODY_BYTES).to_vec())?)
}
