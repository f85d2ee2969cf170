//! A queue's attributes by SQS's names: as clients give them, and as they are answered.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::queue::stats::Stats;
use crate::queue::{Given, RedrivePolicy};
use crate::store::record::{QueueAttributes, QueueRecord, RedriveAllow, Scope};

use super::call::Call;
use super::error::{Code, Error};
use super::{Options, address};

/// All attributes of standard queues that Nightmail answers.
const STANDARD: &[&str] = &[
    "ApproximateNumberOfMessages",
    "ApproximateNumberOfMessagesDelayed",
    "ApproximateNumberOfMessagesNotVisible",
    "CreatedTimestamp",
    "DelaySeconds",
    "LastModifiedTimestamp",
    "KmsDataKeyReusePeriodSeconds",
    "KmsMasterKeyId",
    "MaximumMessageSize",
    "MessageRetentionPeriod",
    "Policy",
    "QueueArn",
    "ReceiveMessageWaitTimeSeconds",
    "RedriveAllowPolicy",
    "RedrivePolicy",
    "SqsManagedSseEnabled",
    "VisibilityTimeout",
];
/// Those that FIFO queues have besides.
const FIFO: &[&str] = &["ContentBasedDeduplication", "DeduplicationScope", "FifoQueue", "FifoThroughputLimit"];
/// The largest kept attribute: SQS's limit for a policy.
const KEPT_BYTES_MAX: usize = 20_480;
/// What is answered for a queue that keeps its messages for ever: SQS's longest time.
const RETENTION_MAX: Duration = Duration::from_secs(1_209_600);

/// What an attribute of the request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// CreateQueue.
    Create,
    /// SetQueueAttributes on a queue that is a FIFO queue or not.
    Set { is_fifo: bool },
}

/// The attributes that a client gives.
pub(super) fn given(
    attributes: &BTreeMap<String, String>,
    purpose: Purpose,
    options: &Options,
) -> Result<Given, Error> {
    let is_fifo = match purpose {
        Purpose::Create => attributes.get("FifoQueue").is_some_and(|value| value.eq_ignore_ascii_case("true")),
        Purpose::Set { is_fifo } => is_fifo,
    };
    let mut given = Given { fifo: is_fifo && purpose == Purpose::Create, ..Given::default() };
    for (name, value) in attributes {
        if FIFO.contains(&name.as_str()) {
            give_fifo(&mut given, name, value, is_fifo, purpose)?;
        } else {
            give(&mut given, name, value, options)?;
        }
    }
    check_encryption(attributes)?;
    Ok(given)
}

/// Whoever asks for both kinds of encryption at once has made a mistake, which AWS tells too.
fn check_encryption(attributes: &BTreeMap<String, String>) -> Result<(), Error> {
    let has_key = attributes.get("KmsMasterKeyId").is_some_and(|key| !key.is_empty());
    let is_managed = attributes.get("SqsManagedSseEnabled").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    if !(has_key && is_managed) {
        return Ok(());
    }
    let text =
        "You can use one type of server-side encryption (SSE) at one time. You can either enable KMS SSE or SQS SSE.";
    Err(Error::new(Code::InvalidAttributeName, text))
}

fn give(given: &mut Given, name: &str, value: &str, options: &Options) -> Result<(), Error> {
    match name {
        "VisibilityTimeout" => given.visibility_timeout = Some(seconds(name, value, 0, 43_200)?),
        "DelaySeconds" => given.delay = Some(seconds(name, value, 0, 900)?),
        "MessageRetentionPeriod" => given.retention = Some(seconds(name, value, 60, 1_209_600)?),
        "ReceiveMessageWaitTimeSeconds" => given.receive_wait = Some(seconds(name, value, 0, 20)?),
        "MaximumMessageSize" => given.message_bytes_max = Some(number(name, value, 1024, 1_048_576)?),
        "RedrivePolicy" => given.redrive = Some(redrive(value, options)?),
        "RedriveAllowPolicy" => given.redrive_allow = Some(redrive_allow(value, options)?),
        "Policy" | "KmsMasterKeyId" | "KmsDataKeyReusePeriodSeconds" | "SqsManagedSseEnabled" => {
            check_kept(name, value)?;
            given.kept.insert(name.to_owned(), value.to_owned());
        }
        _ => return Err(unknown(name)),
    }
    Ok(())
}

/// What is kept for clients has SQS's form, though it means nothing here.
fn check_kept(name: &str, value: &str) -> Result<(), Error> {
    let is_object = || serde_json::from_str::<serde_json::Map<String, Value>>(value).is_ok();
    match name {
        _ if value.len() > KEPT_BYTES_MAX => {
            Err(refused(name, format_args!("Must have at most {KEPT_BYTES_MAX} bytes.")))
        }
        "Policy" if !value.is_empty() && !is_object() => Err(refused(name, "It is not a policy.")),
        "KmsDataKeyReusePeriodSeconds" => number(name, value, 60, 86_400).map(drop),
        "SqsManagedSseEnabled" => flag(name, value).map(drop),
        _ => Ok(()),
    }
}

fn give_fifo(given: &mut Given, name: &str, value: &str, is_fifo: bool, purpose: Purpose) -> Result<(), Error> {
    if name == "FifoQueue" {
        return match purpose {
            Purpose::Create if is_fifo => Ok(()),
            Purpose::Set { is_fifo: false } => Err(unknown(name)),
            Purpose::Set { .. } if value == "true" => Ok(()),
            Purpose::Set { .. } => Err(refused(name, "Modifying queue type is not supported.")),
            // As AWS: a standard queue has no such attribute, not even with the value false.
            Purpose::Create => Err(unknown(name)),
        };
    }
    if !is_fifo {
        let text = match name {
            "ContentBasedDeduplication" => return Err(unknown(name)),
            _ => format!("You can specify the {name} only when FifoQueue is set to true."),
        };
        return Err(Error::new(Code::InvalidAttributeName, text));
    }
    match name {
        "ContentBasedDeduplication" => given.content_based_deduplication = Some(flag(name, value)?),
        "DeduplicationScope" => given.deduplication_scope = Some(scope(name, value, ["queue", "messageGroup"])?),
        _ => given.throughput_limit = Some(scope(name, value, ["perQueue", "perMessageGroupId"])?),
    }
    Ok(())
}

/// The refusal of an attribute that there is not.
pub(super) fn unknown(name: &str) -> Error {
    Error::new(Code::InvalidAttributeName, format!("Unknown Attribute {}.", address::shown(name)))
}

fn refused(name: &str, reason: impl fmt::Display) -> Error {
    Error::new(Code::InvalidAttributeValue, format!("Invalid value for the parameter {name}. Reason: {reason}"))
}

fn number(name: &str, value: &str, min: u32, max: u32) -> Result<u32, Error> {
    let number = value.parse().ok().filter(|number| (min..=max).contains(number));
    number.ok_or_else(|| refused(name, format_args!("Must be an integer from {min} to {max}.")))
}

fn seconds(name: &str, value: &str, min: u32, max: u32) -> Result<Duration, Error> {
    Ok(Duration::from_secs(number(name, value, min, max)?.into()))
}

fn flag(name: &str, value: &str) -> Result<bool, Error> {
    match value.to_ascii_lowercase().as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(refused(name, "Must be true or false.")),
    }
}

fn scope(name: &str, value: &str, [queue, group]: [&str; 2]) -> Result<Scope, Error> {
    match value {
        _ if value == queue => Ok(Scope::Queue),
        _ if value == group => Ok(Scope::Group),
        _ => Err(refused(name, format_args!("Must be {queue} or {group}."))),
    }
}

/// A RedrivePolicy; empty text removes it.
fn redrive(value: &str, options: &Options) -> Result<Option<RedrivePolicy>, Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Wire {
        dead_letter_target_arn: Option<String>,
        max_receive_count: Option<Value>,
    }
    if value.is_empty() {
        return Ok(None);
    }
    let refused = |reason: String| Error::value("RedrivePolicy", address::shown(value), reason);
    let wire: Wire =
        serde_json::from_str(value).map_err(|_| refused("Redrive policy is not a valid JSON map.".into()))?;
    let missing = |what: &str| refused(format!("Redrive policy does not contain mandatory attribute: {what}."));
    let arn = wire.dead_letter_target_arn.ok_or_else(|| missing("deadLetterTargetArn"))?;
    let count = wire.max_receive_count.ok_or_else(|| missing("maxReceiveCount"))?;
    // Many a client sends it as text.
    let number = count.as_u64().or_else(|| count.as_str()?.parse().ok());
    let max_receive_count = number
        .filter(|count| (1..=1000).contains(count))
        .and_then(|count| u32::try_from(count).ok())
        .ok_or_else(|| {
            let text = "valid values are from 1 to 1000 both inclusive.";
            refused(format!("Invalid value for maxReceiveCount: {}, {text}", address::shown(&count.to_string())))
        })?;
    let name =
        address::name_in_arn(&arn, options).ok_or_else(|| refused("Dead letter target does not exist.".into()))?;
    Ok(Some(RedrivePolicy { dead_letter_queue: name.to_owned(), max_receive_count }))
}

/// A RedriveAllowPolicy; empty text removes it.
fn redrive_allow(value: &str, options: &Options) -> Result<RedriveAllow, Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Wire {
        redrive_permission: String,
        source_queue_arns: Option<Vec<String>>,
    }
    if value.is_empty() {
        return Ok(RedriveAllow::All);
    }
    let refused = |reason: &str| Error::value("RedriveAllowPolicy", address::shown(value), reason);
    let wire: Wire = serde_json::from_str(value)
        .map_err(|_| refused("Amazon SQS can't create the redrive allow policy, as it's in an unsupported format."))?;
    match (wire.redrive_permission.as_str(), wire.source_queue_arns) {
        ("allowAll", None) => Ok(RedriveAllow::All),
        ("denyAll", None) => Ok(RedriveAllow::Nobody),
        ("byQueue", Some(arns)) if (1..=10).contains(&arns.len()) => {
            let name = |arn: &String| address::name_in_arn(arn, options).map(str::to_owned);
            let names: Option<Vec<String>> = arns.iter().map(name).collect();
            names
                .map(RedriveAllow::Only)
                .ok_or_else(|| refused("sourceQueueArns must be ARNs of queues of this endpoint."))
        }
        ("byQueue", _) => Err(refused("byQueue needs 1 to 10 sourceQueueArns.")),
        ("allowAll" | "denyAll", _) => Err(refused("sourceQueueArns go with byQueue alone.")),
        _ => Err(refused("redrivePermission must be allowAll, denyAll or byQueue.")),
    }
}

/// Whether queues have an attribute of that name.
pub(super) fn is_known(name: &str) -> bool {
    STANDARD.iter().chain(FIFO).any(|known| *known == name)
}

/// The names of the attributes that a client asks for.
pub(super) fn names(asked: &[String], queue: &QueueRecord) -> Result<Vec<&'static str>, Error> {
    let is_fifo = queue.attributes.fifo.is_some();
    let known = || STANDARD.iter().chain(FIFO).copied();
    if asked.iter().any(|name| name == "All") {
        let has = |name: &&str| is_fifo || !FIFO.contains(name);
        return Ok(known().filter(has).collect());
    }
    asked.iter().map(|name| known().find(|known| known == name).ok_or_else(|| unknown(name))).collect()
}

/// The value of an attribute; `None` when the queue does not have it.
pub(super) fn value(name: &str, queue: &QueueRecord, stats: Option<&Stats>, call: &Call<'_>) -> Option<String> {
    let attributes = &queue.attributes;
    let seconds = |ms: u64| (ms / 1000).to_string();
    let counted = |count: fn(&Stats) -> u64| stats.map(|stats| count(stats).to_string());
    match name {
        "ApproximateNumberOfMessages" => counted(|stats| stats.ready),
        "ApproximateNumberOfMessagesDelayed" => counted(|stats| stats.delayed),
        "ApproximateNumberOfMessagesNotVisible" => counted(|stats| stats.in_flight),
        "CreatedTimestamp" => Some(queue.created_at.as_secs().to_string()),
        "LastModifiedTimestamp" => Some(queue.modified_at.as_secs().to_string()),
        "QueueArn" => Some(call.arn(&queue.name)),
        "VisibilityTimeout" => Some(seconds(attributes.visibility_timeout_ms)),
        "DelaySeconds" => Some(seconds(attributes.delay_ms)),
        "ReceiveMessageWaitTimeSeconds" => Some(seconds(attributes.receive_wait_ms)),
        "MaximumMessageSize" => Some(attributes.message_bytes_max.to_string()),
        "MessageRetentionPeriod" => {
            let kept = attributes.retention_ms.map_or(RETENTION_MAX, Duration::from_millis);
            Some(kept.as_secs().to_string())
        }
        "RedrivePolicy" => attributes
            .redrive
            .as_ref()
            .map(|(name, count)| json!({"deadLetterTargetArn": call.arn(name), "maxReceiveCount": count}).to_string()),
        "RedriveAllowPolicy" => redrive_allow_text(&attributes.redrive_allow, call),
        _ => fifo_value(name, attributes),
    }
}

/// The value of an attribute that is kept for clients; SQS's default where it has one.
pub(super) fn kept_value(name: &str, kept: &BTreeMap<String, String>) -> Option<String> {
    let default = || (name == "SqsManagedSseEnabled").then(|| "false".to_owned());
    kept.get(name).cloned().or_else(default)
}

fn fifo_value(name: &str, attributes: &QueueAttributes) -> Option<String> {
    let fifo = attributes.fifo?;
    let scope = |scope, queue: &str, group: &str| match scope {
        Scope::Queue => queue.to_owned(),
        Scope::Group => group.to_owned(),
    };
    match name {
        "FifoQueue" => Some("true".into()),
        "ContentBasedDeduplication" => Some(fifo.content_based_deduplication.to_string()),
        "DeduplicationScope" => Some(scope(fifo.deduplication_scope, "queue", "messageGroup")),
        "FifoThroughputLimit" => Some(scope(fifo.throughput_limit, "perQueue", "perMessageGroupId")),
        _ => None,
    }
}

fn redrive_allow_text(allow: &RedriveAllow, call: &Call<'_>) -> Option<String> {
    let policy = match allow {
        RedriveAllow::All => return None,
        RedriveAllow::Nobody => json!({"redrivePermission": "denyAll"}),
        RedriveAllow::Only(names) => {
            let arns: Vec<String> = names.iter().map(|name| call.arn(name)).collect();
            json!({"redrivePermission": "byQueue", "sourceQueueArns": arns})
        }
    };
    Some(policy.to_string())
}
