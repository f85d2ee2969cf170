//! Validation of messages by SQS's rules: texts, attributes, groups and deduplication ids, with their limits.

use std::time::Duration;

use crate::base::limit;
use crate::store::record::{Attribute, AttributeValue, QueueRecord};

use super::Error;
use super::new_message::{self, Send};
use super::unique::Mode;

/// The longest delay of a message, as in SQS.
pub const DELAY_MAX: Duration = Duration::from_secs(900);
/// The greatest priority value, which is received last, as in BullMQ.
pub const PRIORITY_MAX: u32 = 1 << 21;
/// A message has at most this many attributes, as in SQS.
pub const ATTRIBUTES_MAX: usize = 10;
const ATTRIBUTE_NAME_BYTES_MAX: usize = 256;
const DATA_TYPE_BYTES_MAX: usize = 256;
const NUMBER_DIGITS_MAX: usize = 38;
/// MessageGroupId and MessageDeduplicationId, in characters, as in SQS.
const IDENTIFIER_CHARS_MAX: usize = 128;
/// AWSTraceHeader and SenderId, in bytes; AWS names no limit.
const SYSTEM_BYTES_MAX: usize = 1024;
const UNIQUE_KEY_BYTES_MAX: usize = 256;
const THROTTLE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(14 * 86_400));

/// Checks a message against SQS's rules and its queue's limits.
///
/// # Errors
/// Names the first part that is invalid, with its limit.
pub fn check(queue: &QueueRecord, message: &Send) -> Result<(), Error> {
    if message.body.is_empty() {
        return Err(Error::BodyEmpty);
    }
    characters("body", &message.body)?;
    attributes(message)?;
    system(message)?;
    let bytes = new_message::size(message);
    if bytes > message_max(queue) as usize {
        return Err(too_large(queue, bytes));
    }
    match message.delay {
        Some(delay) if delay > DELAY_MAX => return Err(range("DelaySeconds", 0, DELAY_MAX.as_secs(), delay.as_secs())),
        _ => {}
    }
    if message.priority > PRIORITY_MAX {
        return Err(range("priority", 0, u64::from(PRIORITY_MAX), u64::from(message.priority)));
    }
    identifier("MessageGroupId", message.group.as_deref())?;
    identifier("MessageDeduplicationId", message.deduplication_id.as_deref())?;
    unique(message)?;
    if queue.attributes.fifo.is_some() { fifo(queue, message) } else { standard(queue, message) }
}

/// The largest message that the queue can ever take: with less than that for the whole queue, waiting would not help.
fn message_max(queue: &QueueRecord) -> u32 {
    let whole = queue.attributes.bytes_max.map_or(u32::MAX, |max| u32::try_from(max).unwrap_or(u32::MAX));
    queue.attributes.message_bytes_max.min(whole)
}

/// The error for a message that is larger than its queue ever takes.
pub(super) fn too_large(queue: &QueueRecord, bytes: usize) -> Error {
    Error::TooLarge { queue: queue.name.clone(), bytes, max: message_max(queue) }
}

fn range(what: &'static str, min: u64, max: u64, got: u64) -> Error {
    Error::OutOfRange { what, min, max, got }
}

fn fifo(queue: &QueueRecord, message: &Send) -> Result<(), Error> {
    let refused = |what, why| Err(Error::NotOnFifo { queue: queue.name.clone(), what, why });
    if message.group.is_none() {
        return Err(Error::GroupMissing(queue.name.clone()));
    }
    let by_content = queue.attributes.fifo.is_some_and(|fifo| fifo.content_based_deduplication);
    if message.deduplication_id.is_none() && !by_content {
        return Err(Error::DeduplicationMissing(queue.name.clone()));
    }
    if message.delay.is_some_and(|delay| !delay.is_zero()) {
        return refused("DelaySeconds", "messages keep their order; set the queue's delay instead");
    }
    if message.priority != 0 {
        return refused("priority", "messages keep their order");
    }
    if message.unique.is_some() {
        return refused("a unique key", "use MessageDeduplicationId");
    }
    Ok(())
}

fn standard(queue: &QueueRecord, message: &Send) -> Result<(), Error> {
    match message.deduplication_id {
        Some(_) => Err(Error::OnlyOnFifo { queue: queue.name.clone(), what: "MessageDeduplicationId" }),
        None => Ok(()),
    }
}

fn unique(message: &Send) -> Result<(), Error> {
    let Some(unique) = &message.unique else { return Ok(()) };
    if !(1..=UNIQUE_KEY_BYTES_MAX).contains(&unique.key.len()) {
        return Err(range("bytes of a unique key", 1, UNIQUE_KEY_BYTES_MAX as u64, unique.key.len() as u64));
    }
    match unique.mode {
        Mode::Throttle(span) if !(THROTTLE.0..=THROTTLE.1).contains(&span) => {
            Err(range("seconds of a throttled key", THROTTLE.0.as_secs(), THROTTLE.1.as_secs(), span.as_secs()))
        }
        _ => Ok(()),
    }
}

/// 1 to 128 letters, digits and punctuation marks.
pub(super) fn identifier(what: &'static str, id: Option<&str>) -> Result<(), Error> {
    match id {
        Some(id) if !(1..=IDENTIFIER_CHARS_MAX).contains(&id.len()) || !id.bytes().all(|b| b.is_ascii_graphic()) => {
            Err(Error::Identifier { what, got: id.chars().take(140).collect() })
        }
        _ => Ok(()),
    }
}

/// SQS allows #x9 #xA #xD #x20–#xD7FF #xE000–#xFFFD #x10000–#x10FFFF.
fn characters(what: &'static str, text: &[u8]) -> Result<(), Error> {
    // Nearly every text is plain ASCII, which is known many bytes at a time.
    let is_plain = |byte: &u8| matches!(byte, b'\t' | b'\n' | b'\r' | b' '..=0x7f);
    if text.chunks(64).all(|bytes| bytes.iter().fold(true, |plain, byte| plain & is_plain(byte))) {
        return Ok(());
    }
    let text = std::str::from_utf8(text).map_err(|error| Error::Characters { what, at: error.valid_up_to() })?;
    let is_refused =
        |c: char| matches!(c, '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}');
    match text.find(is_refused) {
        Some(at) => Err(Error::Characters { what, at }),
        None => Ok(()),
    }
}

/// The system attributes, which do not count towards the size.
fn system(message: &Send) -> Result<(), Error> {
    let texts = [("AWSTraceHeader", &message.trace_header), ("SenderId", &message.sender)];
    texts.into_iter().try_for_each(|(what, text)| match text {
        Some(text) if !(1..=SYSTEM_BYTES_MAX).contains(&text.len()) => {
            Err(range(what, 1, SYSTEM_BYTES_MAX as u64, text.len() as u64))
        }
        Some(text) => characters(what, text.as_bytes()),
        None => Ok(()),
    })
}

fn attributes(message: &Send) -> Result<(), Error> {
    if message.attributes.len() > ATTRIBUTES_MAX {
        return Err(range("message attributes", 0, ATTRIBUTES_MAX as u64, message.attributes.len() as u64));
    }
    message.attributes.iter().try_for_each(|(name, attribute)| {
        let refused = |why: &'static str| Error::Attribute { name: name.chars().take(100).collect(), why };
        attribute_name(name).map_err(refused)?;
        attribute_value(attribute).map_err(refused)
    })
}

fn attribute_name(name: &str) -> Result<(), &'static str> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    if !(1..=ATTRIBUTE_NAME_BYTES_MAX).contains(&name.len()) || !name.bytes().all(is_allowed) {
        return Err("its name must be 1 to 256 of A-Z a-z 0-9 _ - .");
    }
    if name.starts_with('.') || name.ends_with('.') || name.contains("..") {
        return Err("its name must not begin or end with a dot, nor hold two in a row");
    }
    let lower = name.to_ascii_lowercase();
    if lower.starts_with("aws.") || lower.starts_with("amazon.") {
        return Err("names that begin with AWS. or Amazon. are reserved");
    }
    Ok(())
}

fn attribute_value(attribute: &Attribute) -> Result<(), &'static str> {
    let (base, custom) = attribute.data_type.split_once('.').unwrap_or((&attribute.data_type, "-"));
    if attribute.data_type.len() > DATA_TYPE_BYTES_MAX || custom.is_empty() {
        return Err("its data type must be String, Number or Binary, or one of them with .label, 256 bytes at most");
    }
    if attribute.value.as_bytes().is_empty() {
        return Err("its value is empty");
    }
    match (base, &attribute.value) {
        ("String", AttributeValue::Text(text)) => {
            characters("attribute", text.as_bytes()).map_err(|_| "its value has a character that SQS does not take")
        }
        ("Number", AttributeValue::Text(text)) => number(text),
        ("Binary", AttributeValue::Binary(_)) => Ok(()),
        ("String" | "Number" | "Binary", _) => Err("its value is not of its data type"),
        _ => Err("its data type must begin with String, Number or Binary"),
    }
}

fn number(text: &str) -> Result<(), &'static str> {
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    let is_number = text.parse::<f64>().is_ok_and(f64::is_finite) && digits > 0;
    match is_number && digits <= NUMBER_DIGITS_MAX {
        true => Ok(()),
        false => Err("a Number must be a number of at most 38 digits"),
    }
}

/// The largest total size of a batch in bytes, as in SQS.
pub const BATCH_BYTES_MAX: usize = limit::BODY_BYTES_MAX;
