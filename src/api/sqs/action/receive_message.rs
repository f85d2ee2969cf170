//! ReceiveMessage. A client that goes away while it waits, or before its answer begins, receives nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::queue::{Receive, Received, Unanswered};
use crate::store::record::Attribute;

use super::super::attributes;
use super::super::call::{Call, Operation};
use super::super::error::Error;
use super::super::md5;
use super::super::message::{self, WireAttributes};

const WAIT_SECONDS_MAX: u64 = 20;
const MESSAGES_MAX: u64 = 10;
const VISIBILITY_SECONDS_MAX: u64 = 43_200;
/// The system attributes that can be asked for.
const SYSTEM: &[&str] = &[
    "SenderId",
    "SentTimestamp",
    "ApproximateReceiveCount",
    "ApproximateFirstReceiveTimestamp",
    "SequenceNumber",
    "MessageDeduplicationId",
    "MessageGroupId",
    "AWSTraceHeader",
    "DeadLetterQueueSourceArn",
];

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Request {
    queue_url: Option<String>,
    attribute_names: Option<Vec<String>>,
    message_system_attribute_names: Option<Vec<String>>,
    message_attribute_names: Option<Vec<String>>,
    max_number_of_messages: Option<i64>,
    visibility_timeout: Option<i64>,
    wait_time_seconds: Option<i64>,
    receive_request_attempt_id: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Answer {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    messages: Vec<Message>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Message {
    message_id: String,
    receipt_handle: String,
    #[serde(rename = "MD5OfBody")]
    md5_of_body: String,
    body: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    attributes: BTreeMap<&'static str, String>,
    #[serde(rename = "MD5OfMessageAttributes", skip_serializing_if = "Option::is_none")]
    md5_of_message_attributes: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    message_attributes: WireAttributes,
}

impl Operation for Request {
    type Answer = Answer;

    async fn run(self, call: &Call<'_>) -> Result<Answer, Error> {
        let (poll, asked) = self.check(call)?;
        let Some(found) = poll.wait(call).await? else { return Ok(Answer { messages: Vec::new() }) };
        let messages = found.begin();
        Ok(Answer { messages: messages.into_iter().map(|message| asked.show(message, call)).collect() })
    }
}

impl Request {
    fn check(self, call: &Call<'_>) -> Result<(Poll, Asked), Error> {
        let queue = call.queue(self.queue_url.as_ref())?;
        let queues_or_messages = self.attribute_names.unwrap_or_default();
        let asked = self.message_system_attribute_names.unwrap_or_default();
        check_names(&queues_or_messages, attributes::is_known)?;
        check_names(&asked, |_| false)?;
        let system = system([queues_or_messages, asked].concat());
        let asked = Asked { system, own: self.message_attribute_names.unwrap_or_default() };
        let number = |name, given: Option<i64>, min, max| given.map(|given| number(name, given, min, max)).transpose();
        let max = number("MaxNumberOfMessages", self.max_number_of_messages, 1, MESSAGES_MAX)?.unwrap_or(1);
        let visibility = number("VisibilityTimeout", self.visibility_timeout, 0, VISIBILITY_SECONDS_MAX)?;
        let wait = number("WaitTimeSeconds", self.wait_time_seconds, 0, WAIT_SECONDS_MAX)?;
        let wait = wait.map_or(Duration::from_millis(queue.attributes.receive_wait_ms), Duration::from_secs);
        let what = Receive {
            visibility: visibility.map(Duration::from_secs),
            ..Receive::for_client(usize::try_from(max).unwrap_or(1))
        };
        Ok((Poll { queue: queue.name, what, attempt: self.receive_request_attempt_id, wait }, asked))
    }
}

/// What to receive: all that a long poll holds while it waits, of which there may be thousands.
struct Poll {
    queue: String,
    what: Receive,
    attempt: Option<String>,
    wait: Duration,
}

impl Poll {
    /// Waits for messages; `None` when the client went away first, which then has received nothing.
    async fn wait(&self, call: &Call<'_>) -> Result<Option<Unanswered>, Error> {
        let Self { queue, what, attempt, wait } = self;
        let found = async {
            match attempt {
                Some(attempt) => call.queues().poll_attempt(queue, *what, attempt, *wait).await,
                None => call.queues().poll(queue, *what, *wait).await,
            }
        };
        let found = tokio::select! {
            found = found => found?,
            () = call.over(), if !wait.is_zero() => return Ok(None),
        };
        // A client that has ended its side of the connection while it waited is most likely gone. One that asks for what is
        // there now may well end its side first.
        Ok(Some(found).filter(|_| wait.is_zero() || !call.is_gone()))
    }
}

fn number(name: &str, given: i64, min: u64, max: u64) -> Result<u64, Error> {
    u64::try_from(given).ok().filter(|number| (min..=max).contains(number)).ok_or_else(|| {
        let reason = match name {
            "MaxNumberOfMessages" => format!("Must be between {min} and {max}, if provided."),
            _ => format!("Must be >= {min} and <= {max}, if provided."),
        };
        Error::value(name, given, reason)
    })
}

/// Refuses a name that neither messages have as a system attribute nor `is_known`.
fn check_names(asked: &[String], is_known: impl Fn(&str) -> bool) -> Result<(), Error> {
    let is_refused = |name: &&String| *name != "All" && !SYSTEM.contains(&name.as_str()) && !is_known(name);
    asked.iter().find(is_refused).map_or(Ok(()), |name| Err(attributes::unknown(name)))
}

/// The system attributes that a client asks for.
fn system(asked: Vec<String>) -> Vec<&'static str> {
    if asked.iter().any(|name| name == "All") {
        return SYSTEM.to_vec();
    }
    let known = |name: &String| SYSTEM.iter().copied().find(|known| known == name);
    // `AttributeNames` may name attributes of queues too, by SQS's model, and messages have none of them.
    asked.iter().filter_map(known).collect()
}

/// What a client wants to know of each message.
struct Asked {
    system: Vec<&'static str>,
    /// Names of message attributes; `All` and `.*` mean all of them, `name.*` those that begin with `name`.
    own: Vec<String>,
}

impl Asked {
    fn show(&self, message: Received, call: &Call<'_>) -> Message {
        let attributes =
            self.system.iter().filter_map(|name| Some((*name, system_value(name, &message, call)?))).collect();
        let own: BTreeMap<&String, &Attribute> =
            message.envelope.attributes.iter().filter(|(name, _)| self.wants(name)).collect();
        Message {
            message_id: message.message_id.to_string(),
            receipt_handle: call.receipts().seal(message.handle),
            md5_of_body: md5::of_body(&message.body),
            attributes,
            md5_of_message_attributes: md5::of_attributes(own.iter().map(|(name, value)| (*name, *value))),
            message_attributes: own.into_iter().map(|(name, value)| (name.clone(), message::wire(value))).collect(),
            body: String::from_utf8_lossy(&message.body).into_owned(),
        }
    }

    fn wants(&self, name: &str) -> bool {
        self.own.iter().any(|wanted| match wanted.strip_suffix(".*") {
            Some(prefix) => name.starts_with(prefix),
            None => wanted == "All" || wanted == name,
        })
    }
}

fn system_value(name: &str, message: &Received, call: &Call<'_>) -> Option<String> {
    let envelope = &message.envelope;
    let is_fifo = envelope.deduplication_id.is_some();
    match name {
        "SenderId" => envelope.sender.clone(),
        "SentTimestamp" => Some(message.sent_at.as_millis().to_string()),
        "ApproximateReceiveCount" => Some(message.receive_count.to_string()),
        "ApproximateFirstReceiveTimestamp" => Some(message.first_received_at.as_millis().to_string()),
        "SequenceNumber" => is_fifo.then(|| message::sequence_number(message.handle.sequence)),
        "MessageDeduplicationId" => envelope.deduplication_id.clone(),
        "MessageGroupId" => envelope.group.clone(),
        "AWSTraceHeader" => envelope.trace_header.clone(),
        _ => call.queues().queue_numbered(message.source).ok().flatten().map(|queue| call.arn(&queue.name)),
    }
}
