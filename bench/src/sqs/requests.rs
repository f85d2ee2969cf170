//! Requests that are made and signed before anything is measured.

use std::sync::Arc;

use bytes::Bytes;
use hyper::http::request::Parts;
use hyper::http::{HeaderValue, Request};
use nightmail::api::sqs::{Credentials, sign};
use nightmail::base::Clock;
use serde_json::{Value, json};

/// The queue of all requests.
pub(crate) const QUEUE: &str = "bench";
const QUEUE_URL: &str = "/000000000000/bench";
/// The key that the daemon is configured with.
pub(crate) const KEY_ID: &str = "AKIABENCH";
pub(crate) const SECRET: &str = "the bench's secret";
const REGION: &str = "us-east-1";
/// Signed with every request; neither the daemon, which looks at keys instead, nor the stub compares it.
const HOST: HeaderValue = HeaderValue::from_static("127.0.0.1");

/// A request that can be sent again and again.
#[derive(Clone)]
pub(crate) struct Prepared {
    pub(crate) head: Parts,
    pub(crate) body: Bytes,
}

/// Signs requests as an SDK does.
#[derive(Clone)]
pub(crate) struct Signer {
    credentials: Credentials,
    clock: Arc<dyn Clock>,
}

impl Signer {
    pub(crate) fn new(clock: &Arc<dyn Clock>) -> Self {
        let credentials = Credentials { id: KEY_ID.into(), secret: SECRET.into(), token: None };
        Self { credentials, clock: clock.clone() }
    }

    /// A call of the JSON protocol.
    pub(crate) fn prepare(&self, action: &str, parameters: &Value) -> anyhow::Result<Prepared> {
        let body = Bytes::from(serde_json::to_vec(parameters)?);
        let request = Request::post("/")
            .header("host", HOST)
            .header("content-type", "application/x-amz-json-1.0")
            .header("content-length", body.len())
            .header("x-amz-target", format!("AmazonSQS.{action}"))
            .body(())?;
        let (mut head, ()) = request.into_parts();
        sign(&mut head, &body, (&self.credentials, REGION), self.clock.now().wall)?;
        Ok(Prepared { head, body })
    }

    pub(crate) fn create(&self) -> anyhow::Result<Prepared> {
        self.prepare("CreateQueue", &json!({"QueueName": QUEUE}))
    }

    pub(crate) fn send(&self, body: &str) -> anyhow::Result<Prepared> {
        self.prepare("SendMessage", &json!({"QueueUrl": QUEUE_URL, "MessageBody": body}))
    }

    pub(crate) fn send_batch(&self, bodies: &[&str]) -> anyhow::Result<Prepared> {
        let entry = |(id, body): (usize, &&str)| json!({"Id": id.to_string(), "MessageBody": body});
        let entries: Vec<Value> = bodies.iter().enumerate().map(entry).collect();
        self.prepare("SendMessageBatch", &json!({"QueueUrl": QUEUE_URL, "Entries": entries}))
    }

    pub(crate) fn receive(&self, max: usize, wait_seconds: u64) -> anyhow::Result<Prepared> {
        let parameters = json!({"QueueUrl": QUEUE_URL, "MaxNumberOfMessages": max, "WaitTimeSeconds": wait_seconds, "VisibilityTimeout": 600});
        self.prepare("ReceiveMessage", &parameters)
    }

    pub(crate) fn delete(&self, handle: &str) -> anyhow::Result<Prepared> {
        self.prepare("DeleteMessage", &json!({"QueueUrl": QUEUE_URL, "ReceiptHandle": handle}))
    }

    pub(crate) fn delete_batch(&self, handles: &[String]) -> anyhow::Result<Prepared> {
        let entry = |(id, handle): (usize, &String)| json!({"Id": id.to_string(), "ReceiptHandle": handle});
        let entries: Vec<Value> = handles.iter().enumerate().map(entry).collect();
        self.prepare("DeleteMessageBatch", &json!({"QueueUrl": QUEUE_URL, "Entries": entries}))
    }
}
