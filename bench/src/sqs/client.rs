//! One connection of plain hyper, as lean as a client can be.

use std::net::SocketAddr;

use anyhow::{Context, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::http::Request;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;

use super::requests::Prepared;

/// A connection that is kept alive.
pub(crate) struct Connection(SendRequest<Full<Bytes>>);

/// A message of an answer, as far as a bench looks at it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Message {
    pub(crate) receipt_handle: String,
    pub(crate) body: String,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        // It ends when the sender is dropped; what breaks it is also the sender's error.
        tokio::spawn(connection);
        Ok(Self(sender))
    }

    /// Sends it and returns the answer's body; an error unless it succeeded.
    pub(crate) async fn call(&mut self, request: &Prepared) -> anyhow::Result<Bytes> {
        let Prepared { head, body } = request.clone();
        self.0.ready().await?;
        let answer = self.0.send_request(Request::from_parts(head, Full::new(body))).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        ensure!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&body));
        Ok(body)
    }
}

/// The messages in the answer to a receive.
pub(crate) fn messages(answer: &Bytes) -> anyhow::Result<Vec<Message>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        #[serde(default)]
        messages: Vec<Message>,
    }
    let answer: Answer = serde_json::from_slice(answer).context("the answer to a receive does not read")?;
    Ok(answer.messages)
}
