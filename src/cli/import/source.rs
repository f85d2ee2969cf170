//! A queue of another SQS endpoint, over the JSON protocol.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::http::request::Parts;
use rand::RngExt;
use secrecy::SecretString;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use url::Url;

use crate::api::control::import::Imported;
use crate::api::sqs::{Credentials, sign};
use crate::base::{SystemClock, Timestamp};
use crate::config::Environment;
use crate::function::tls;
use crate::store::record::{Attribute, AttributeValue};

/// A received message stays invisible there for so long: until it is imported and deleted.
const VISIBILITY: Duration = Duration::from_secs(300);
/// Beside the wait of a receive, a call must end within this time.
const CALL_WITHIN: Duration = Duration::from_secs(30);
/// A call that fails for a passing reason is tried this many more times.
const RETRIES: u32 = 6;
/// The longest wait before the first of them; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Of an answer that does not read, so much is shown.
const SHOWN_CHARS_MAX: usize = 300;

/// The queue, and who asks.
#[derive(Debug)]
pub(super) struct SourceQueue {
    url: Url,
    region: String,
    credentials: Credentials,
}

impl SourceQueue {
    /// The queue of that URL, with the keys of the environment.
    pub(super) fn new(url: &Url, region: Option<&str>, environment: &Environment) -> anyhow::Result<Self> {
        anyhow::ensure!(
            matches!(url.scheme(), "http" | "https") && url.has_host() && url.path().len() > 1,
            "{url} is not a queue's URL (such as https://sqs.eu-central-1.amazonaws.com/123456789012/orders)"
        );
        let of_host = || url.host_str().and_then(|host| host.strip_prefix("sqs.")?.strip_suffix(".amazonaws.com"));
        let set = || environment.get("AWS_REGION").or_else(|| environment.get("AWS_DEFAULT_REGION"));
        let region = region.or_else(of_host).or_else(set).unwrap_or("us-east-1").to_owned();
        let variable = |name: &'static str| {
            environment.get(name).map(str::to_owned).with_context(|| format!("{name} is not set (a key of the source)"))
        };
        let credentials = Credentials {
            id: variable("AWS_ACCESS_KEY_ID")?,
            secret: SecretString::from(variable("AWS_SECRET_ACCESS_KEY")?),
            token: environment.get("AWS_SESSION_TOKEN").map(SecretString::from),
        };
        Ok(Self { url: url.clone(), region, credentials })
    }
}

/// A message that was received there.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) message: Imported,
    /// What deletes it.
    pub(super) receipt_handle: String,
}

impl Found {
    /// The size of its text and its attributes.
    pub(super) fn bytes(&self) -> usize {
        let attributes = self.message.attributes.values().map(|attribute| attribute.value.as_bytes().len());
        self.message.body.len() + attributes.sum::<usize>()
    }
}

/// Calls the endpoint.
#[derive(Debug)]
pub(super) struct Source {
    http: reqwest::Client,
    queue: SourceQueue,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Messages {
    #[serde(default)]
    messages: Vec<Message>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Message {
    message_id: String,
    receipt_handle: String,
    body: String,
    #[serde(default)]
    attributes: BTreeMap<String, String>,
    #[serde(default)]
    message_attributes: BTreeMap<String, MessageAttribute>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct MessageAttribute {
    data_type: String,
    string_value: Option<String>,
    binary_value: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Deleted {
    #[serde(default)]
    failed: Vec<Value>,
}

/// Why a call failed.
enum Fault {
    /// Another try may do better.
    Passing(anyhow::Error),
    Lasting(anyhow::Error),
}

impl Fault {
    fn into_error(self) -> anyhow::Error {
        match self {
            Self::Passing(error) | Self::Lasting(error) => error,
        }
    }
}

impl Source {
    pub(super) fn new(queue: SourceQueue) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls::client_config()?)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("nightmail/", env!("CARGO_PKG_VERSION")))
            .tcp_nodelay(true)
            .build()?;
        Ok(Self { http, queue })
    }

    /// Receives up to ten messages, and waits for so long when there is none.
    pub(super) async fn receive(&self, wait: Duration) -> anyhow::Result<Vec<Found>> {
        let request = json!({
            "QueueUrl": self.queue.url.as_str(),
            "MaxNumberOfMessages": 10,
            "WaitTimeSeconds": wait.as_secs(),
            "VisibilityTimeout": VISIBILITY.as_secs(),
            "MessageAttributeNames": ["All"],
            "AttributeNames": ["All"],
        });
        let received: Messages = self.call("ReceiveMessage", &request, wait + CALL_WITHIN).await?;
        received.messages.into_iter().map(Message::into_found).collect()
    }

    /// Deletes messages; returns how many are still there.
    pub(super) async fn delete(&self, handles: Vec<String>) -> anyhow::Result<usize> {
        if handles.is_empty() {
            return Ok(0);
        }
        let entry = |(at, handle)| json!({ "Id": format!("m{at}"), "ReceiptHandle": handle });
        let entries: Vec<Value> = handles.into_iter().enumerate().map(entry).collect();
        let request = json!({ "QueueUrl": self.queue.url.as_str(), "Entries": entries });
        let deleted: Deleted = self.call("DeleteMessageBatch", &request, CALL_WITHIN).await?;
        Ok(deleted.failed.len())
    }

    /// Calls an action; faults that pass are tried again.
    async fn call<T: DeserializeOwned>(&self, action: &str, request: &Value, within: Duration) -> anyhow::Result<T> {
        let mut pause = FIRST_PAUSE;
        for _ in 0..RETRIES {
            match self.try_call(action, request, within).await {
                Ok(answer) => return Ok(answer),
                Err(Fault::Lasting(error)) => return Err(error),
                Err(Fault::Passing(_)) => tokio::time::sleep(rand::rng().random_range(pause / 2..=pause)).await,
            }
            pause *= 2;
        }
        self.try_call(action, request, within).await.map_err(Fault::into_error)
    }

    async fn try_call<T: DeserializeOwned>(&self, action: &str, request: &Value, within: Duration) -> Result<T, Fault> {
        let (head, body) = self.signed(action, request).map_err(Fault::Lasting)?;
        let url = self.endpoint();
        let sent = self.http.post(url.clone()).headers(head.headers).body(body).timeout(within).send().await;
        let response = sent.map_err(|error| Fault::Passing(error.without_url().into()))?;
        let status = response.status();
        let body = response.bytes().await.map_err(|error| Fault::Passing(error.without_url().into()))?;
        if status.is_success() {
            let read = serde_json::from_slice(&body);
            return read.with_context(|| format!("{action} at {url}: {}", shown(&body))).map_err(Fault::Lasting);
        }
        let error = anyhow::anyhow!("{action} at {url} answered {status}: {}", shown(&body));
        let is_passing = status.is_server_error() || shown(&body).contains("Throttl");
        Err(if is_passing { Fault::Passing(error) } else { Fault::Lasting(error) })
    }

    /// Where the queue's endpoint is called.
    fn endpoint(&self) -> Url {
        let mut url = self.queue.url.clone();
        url.set_path("/");
        url
    }

    fn signed(&self, action: &str, request: &Value) -> anyhow::Result<(Parts, Bytes)> {
        let body = Bytes::from(serde_json::to_vec(request)?);
        let url = self.endpoint();
        let host = url.host_str().unwrap_or_default();
        let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let request = hyper::Request::post("/")
            .header("host", host)
            .header("content-type", "application/x-amz-json-1.0")
            .header("x-amz-target", format!("AmazonSQS.{action}"))
            .body(())?;
        let (mut head, ()) = request.into_parts();
        let now = SystemClock::shared().now().wall;
        sign(&mut head, &body, (&self.queue.credentials, &self.queue.region), now)?;
        Ok((head, body))
    }
}

impl Message {
    fn into_found(self) -> anyhow::Result<Found> {
        let system = |name: &str| self.attributes.get(name).cloned();
        let moment = |name: &str| {
            let millis = system(name).and_then(|millis| millis.parse().ok());
            millis.map_or(Timestamp::ZERO, Timestamp::from_millis)
        };
        let id = &self.message_id;
        let attributes = self.message_attributes.into_iter().map(|(name, attribute)| {
            let value = attribute.into_attribute().with_context(|| format!("attribute {name:?} of message {id}"))?;
            Ok((name, value))
        });
        // Without the receive of this import.
        let received = system("ApproximateReceiveCount").and_then(|count| count.parse::<u32>().ok()).unwrap_or(1);
        let receive_count = received.saturating_sub(1);
        let first_received_at = match receive_count {
            0 => Timestamp::ZERO,
            _ => moment("ApproximateFirstReceiveTimestamp"),
        };
        let message = Imported {
            message_id: id.clone(),
            attributes: attributes.collect::<anyhow::Result<_>>()?,
            trace_header: system("AWSTraceHeader"),
            sender: system("SenderId"),
            group: system("MessageGroupId"),
            sent_at: moment("SentTimestamp"),
            first_received_at,
            receive_count,
            body: self.body,
        };
        Ok(Found { message, receipt_handle: self.receipt_handle })
    }
}

impl MessageAttribute {
    fn into_attribute(self) -> anyhow::Result<Attribute> {
        let value = match (self.string_value, self.binary_value) {
            (Some(text), _) => AttributeValue::Text(text),
            (None, Some(bytes)) => AttributeValue::Binary(STANDARD.decode(bytes)?),
            (None, None) => anyhow::bail!("it has no value"),
        };
        Ok(Attribute { data_type: self.data_type, value })
    }
}

fn shown(body: &[u8]) -> String {
    String::from_utf8_lossy(body).chars().take(SHOWN_CHARS_MAX).collect()
}
