//! A message as clients send it, and what they are told about it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::queue::catalog::FIFO_SUFFIX;
use crate::queue::{Send, Sent};
use crate::store::record::{Attribute, AttributeValue};

use super::error::Error;
use super::{md5, text};

/// The one system attribute that clients may send.
const TRACE_HEADER: &str = "AWSTraceHeader";

/// A message's attribute as the protocols have it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct WireAttribute {
    #[serde(skip_serializing_if = "Option::is_none")]
    string_value: Option<String>,
    /// In base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    binary_value: Option<String>,
    #[serde(skip_serializing)]
    string_list_values: Option<Vec<String>>,
    #[serde(skip_serializing)]
    binary_list_values: Option<Vec<String>>,
    data_type: Option<String>,
}

/// Message attributes by name.
pub(super) type WireAttributes = BTreeMap<String, WireAttribute>;

/// The parameters of SendMessage, or an entry of SendMessageBatch. They are one type, since serde copies the fields of
/// flattened structs first.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct NewMessage {
    /// Of SendMessage.
    pub(super) queue_url: Option<String>,
    /// Of an entry.
    pub(super) id: Option<String>,
    message_body: Option<String>,
    delay_seconds: Option<i64>,
    message_attributes: Option<WireAttributes>,
    message_system_attributes: Option<WireAttributes>,
    message_deduplication_id: Option<String>,
    message_group_id: Option<String>,
}

/// What a sender is told of its message, beside its id.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Digests {
    #[serde(rename = "MD5OfMessageBody")]
    body: String,
    #[serde(rename = "MD5OfMessageAttributes", skip_serializing_if = "Option::is_none")]
    attributes: Option<String>,
    #[serde(rename = "MD5OfMessageSystemAttributes", skip_serializing_if = "Option::is_none")]
    system_attributes: Option<String>,
}

/// A message that was sent, as its sender is told.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Receipt {
    message_id: String,
    #[serde(flatten)]
    digests: Digests,
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence_number: Option<String>,
}

impl Receipt {
    /// Of a message that was sent to that queue.
    pub(super) fn new(queue: &str, sent: Sent, digests: Digests) -> Self {
        let is_fifo = queue.ends_with(FIFO_SUFFIX);
        Self {
            message_id: sent.message_id.to_string(),
            digests,
            sequence_number: is_fifo.then(|| sequence_number(sent.sequence)),
        }
    }
}

/// SQS's sequence numbers have twenty digits.
pub(super) fn sequence_number(sequence: u64) -> String {
    format!("{sequence:020}")
}

impl NewMessage {
    /// Whether it names a message group.
    pub(super) const fn has_group(&self) -> bool {
        self.message_group_id.is_some()
    }

    /// The message for the queue of that name, and the digests of its parts. `sender` is who is told as SenderId.
    pub(super) fn into_send(self, queue: &str, sender: &str) -> Result<(Send, Digests), Error> {
        let body = self.message_body.filter(|body| !body.is_empty()).ok_or_else(|| Error::missing("MessageBody"))?;
        let attributes = attributes(self.message_attributes.unwrap_or_default())?;
        let system = attributes_of_system(self.message_system_attributes.unwrap_or_default())?;
        let digests = Digests {
            body: md5::of_body(body.as_bytes()),
            attributes: md5::of_attributes(&attributes),
            system_attributes: md5::of_attributes(&system),
        };
        let trace_header = system.into_values().next().and_then(|attribute| match attribute.value {
            AttributeValue::Text(text) => Some(text),
            AttributeValue::Binary(_) => None,
        });
        let send = Send {
            delay: self.delay_seconds.map(|seconds| delay(queue, seconds)).transpose()?,
            attributes,
            trace_header,
            sender: Some(sender.to_owned()),
            group: self.message_group_id,
            deduplication_id: self.message_deduplication_id,
            ..Send::text(body)
        };
        Ok((send, digests))
    }
}

fn delay(queue: &str, seconds: i64) -> Result<Duration, Error> {
    let refused = |reason| Error::value("DelaySeconds", seconds, reason);
    if queue.ends_with(FIFO_SUFFIX) && seconds != 0 {
        return Err(refused("The request include parameter that is not valid for this queue type."));
    }
    let seconds = u64::try_from(seconds).ok().filter(|seconds| *seconds <= crate::queue::valid::DELAY_MAX.as_secs());
    seconds.map(Duration::from_secs).ok_or_else(|| refused("Must be >= 0 and <= 900, if provided."))
}

fn attributes(wire: WireAttributes) -> Result<BTreeMap<String, Attribute>, Error> {
    wire.into_iter().map(|(name, value)| Ok((name.clone(), attribute(&name, value)?))).collect()
}

/// Only the trace header, a string, is allowed.
fn attributes_of_system(wire: WireAttributes) -> Result<BTreeMap<String, Attribute>, Error> {
    let attributes = attributes(wire)?;
    match attributes.iter().find(|(name, attribute)| *name != TRACE_HEADER || attribute.data_type != "String") {
        Some((name, attribute)) if name == TRACE_HEADER => {
            let data_type = &attribute.data_type;
            let text = format!("The message system attribute '{name}' must be of type 'String' (got '{data_type}').");
            Err(Error::invalid(text))
        }
        Some((name, _)) => Err(Error::invalid(format!("Message system attribute name '{name}' is invalid."))),
        None => Ok(attributes),
    }
}

fn attribute(name: &str, wire: WireAttribute) -> Result<Attribute, Error> {
    let refused = |why: &str| Err(Error::invalid(format!("Message (user) attribute '{name}' {why}")));
    let has_list = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|list| !list.is_empty());
    if has_list(&wire.string_list_values) || has_list(&wire.binary_list_values) {
        return refused("has a list of values, which SQS does not support.");
    }
    let Some(data_type) = wire.data_type.filter(|data_type| !data_type.is_empty()) else {
        return refused("must contain a non-empty attribute type.");
    };
    let value = match (wire.string_value, wire.binary_value) {
        (Some(_), Some(_)) => return refused("must contain one value, not several."),
        // As recorded from AWS.
        (Some(empty), None) | (None, Some(empty)) if empty.is_empty() => {
            return refused(&format!("must contain a non-empty value of type '{data_type}'."));
        }
        (Some(text), None) => AttributeValue::Text(text),
        (None, Some(encoded)) => match text::from_base64(&encoded) {
            Some(bytes) => AttributeValue::Binary(bytes),
            None => return refused("has a binary value that is not base64."),
        },
        (None, None) => return refused(&format!("must contain a non-empty value of type '{data_type}'.")),
    };
    Ok(Attribute { data_type, value })
}

/// An attribute of a received message.
pub(super) fn wire(attribute: &Attribute) -> WireAttribute {
    let (string_value, binary_value) = match &attribute.value {
        AttributeValue::Text(text) => (Some(text.clone()), None),
        AttributeValue::Binary(bytes) => (None, Some(text::base64(bytes))),
    };
    WireAttribute { string_value, binary_value, data_type: Some(attribute.data_type.clone()), ..Default::default() }
}
