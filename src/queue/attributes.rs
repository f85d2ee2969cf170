//! CreateQueue and SetQueueAttributes: only the attributes that the caller gives are compared or changed.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::base::Now;
use crate::store::Tx;
use crate::store::record::{QueueAttributes, QueueRecord, RedriveAllow, Scope};

use super::{Error, Options, RedrivePolicy, catalog};

/// Attributes that a caller gives; the others, `None`, are left as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Given {
    /// See [`Options::visibility_timeout`].
    pub visibility_timeout: Option<Duration>,
    /// See [`Options::delay`].
    pub delay: Option<Duration>,
    /// See [`Options::retention`].
    pub retention: Option<Duration>,
    /// See [`Options::receive_wait`].
    pub receive_wait: Option<Duration>,
    /// See [`Options::message_bytes_max`].
    pub message_bytes_max: Option<u32>,
    /// See [`Options::redrive`]; `Some(None)` removes it.
    pub redrive: Option<Option<RedrivePolicy>>,
    /// See [`Options::redrive_allow`].
    pub redrive_allow: Option<RedriveAllow>,
    /// Makes a new queue a FIFO queue.
    pub fifo: bool,
    /// Of FIFO queues alone.
    pub content_based_deduplication: Option<bool>,
    /// Of FIFO queues alone.
    pub deduplication_scope: Option<Scope>,
    /// Of FIFO queues alone.
    pub throughput_limit: Option<Scope>,
    /// What is kept for clients and means nothing here, by SQS's names; an empty text removes it.
    pub kept: BTreeMap<String, String>,
}

impl Given {
    /// Whether nothing is given that means something here.
    pub fn changes_nothing(&self) -> bool {
        Self { kept: BTreeMap::new(), ..self.clone() } == Self::default()
    }

    /// The options with what is given.
    fn on(&self, options: Options) -> Options {
        let fifo = options.fifo.or(self.fifo.then(Default::default)).map(|mut fifo| {
            set(&mut fifo.content_based_deduplication, self.content_based_deduplication.as_ref());
            set(&mut fifo.deduplication_scope, self.deduplication_scope.as_ref());
            set(&mut fifo.throughput_limit, self.throughput_limit.as_ref());
            fifo
        });
        let mut options = Options { fifo, ..options };
        set(&mut options.visibility_timeout, self.visibility_timeout.as_ref());
        set(&mut options.delay, self.delay.as_ref());
        set(&mut options.receive_wait, self.receive_wait.as_ref());
        set(&mut options.message_bytes_max, self.message_bytes_max.as_ref());
        set(&mut options.redrive, self.redrive.as_ref());
        set(&mut options.redrive_allow, self.redrive_allow.as_ref());
        if self.retention.is_some() {
            options.retention = self.retention;
        }
        options
    }

    /// The first attribute of a queue that is not as given, by SQS's name.
    fn difference(&self, queue: &QueueAttributes) -> Option<&'static str> {
        let now = of_record(queue);
        let then = self.on(now.clone());
        let fifo = |options: &Options| options.fifo.unwrap_or_default();
        let checks = [
            (now.fifo.is_some() == then.fifo.is_some(), "FifoQueue"),
            (now.visibility_timeout == then.visibility_timeout, "VisibilityTimeout"),
            (now.delay == then.delay, "DelaySeconds"),
            (now.retention == then.retention, "MessageRetentionPeriod"),
            (now.receive_wait == then.receive_wait, "ReceiveMessageWaitTimeSeconds"),
            (now.message_bytes_max == then.message_bytes_max, "MaximumMessageSize"),
            (now.redrive == then.redrive, "RedrivePolicy"),
            (now.redrive_allow == then.redrive_allow, "RedriveAllowPolicy"),
            (
                fifo(&now).content_based_deduplication == fifo(&then).content_based_deduplication,
                "ContentBasedDeduplication",
            ),
            (fifo(&now).deduplication_scope == fifo(&then).deduplication_scope, "DeduplicationScope"),
            (fifo(&now).throughput_limit == fifo(&then).throughput_limit, "FifoThroughputLimit"),
        ];
        checks.into_iter().find(|(is_same, _)| !is_same).map(|(_, what)| what)
    }
}

fn set<T: Clone>(attribute: &mut T, given: Option<&T>) {
    if let Some(given) = given {
        attribute.clone_from(given);
    }
}

/// Creates a queue as SQS's CreateQueue does; returns the number of an existing one whose attributes are as given.
///
/// # Errors
/// [`Error::Exists`] when one of the given attributes is another there; otherwise as [`catalog::create`].
pub fn create(
    tx: &mut Tx<'_>,
    name: &str,
    given: &Given,
    tags: &BTreeMap<String, String>,
    now: Now,
) -> Result<u32, Error> {
    if let Some(id) = tx.queue_id(name)? {
        let queue = catalog::by_id(tx, id)?;
        let kept = tx.kept_attributes()?.get(&id)?.unwrap_or_default();
        let other = given.kept.iter().find(|(name, value)| kept.0.get(*name).map_or("", String::as_str) != *value);
        let what = given.difference(&queue.attributes).map(str::to_owned).or(other.map(|(name, _)| name.clone()));
        return match what {
            None => Ok(id),
            Some(what) => Err(Error::Exists { name: name.to_owned(), what }),
        };
    }
    let id = catalog::create(tx, name, &given.on(Options::default()), tags, now)?;
    keep(tx, id, given.kept.clone())?;
    Ok(id)
}

/// Keeps attributes beside those that the queue has; an empty text removes one.
fn keep(tx: &mut Tx<'_>, queue: u32, more: BTreeMap<String, String>) -> Result<(), Error> {
    if more.is_empty() {
        return Ok(());
    }
    let mut kept = tx.kept_attributes()?.get(&queue)?.unwrap_or_default();
    kept.0.extend(more);
    kept.0.retain(|_, value| !value.is_empty());
    tx.kept_attributes()?.insert(&queue, &kept)?;
    Ok(())
}

/// Replaces a kept attribute, unless it is not `before` any more. An empty text removes it.
///
/// # Errors
/// The queue does not exist; [`Error::ChangedMeanwhile`].
pub fn exchange_kept(
    tx: &mut Tx<'_>,
    name: &str,
    attribute: &str,
    before: Option<&String>,
    after: String,
    now: Now,
) -> Result<(), Error> {
    let queue = catalog::find(tx, name)?;
    let kept = tx.kept_attributes()?.get(&queue.id)?.unwrap_or_default();
    if kept.0.get(attribute) != before {
        return Err(Error::ChangedMeanwhile(name.to_owned()));
    }
    keep(tx, queue.id, BTreeMap::from([(attribute.to_owned(), after)]))?;
    touch(tx, &queue, now)
}

/// Notes that the queue was changed now.
fn touch(tx: &mut Tx<'_>, queue: &QueueRecord, now: Now) -> Result<(), Error> {
    tx.queues()?.insert(&queue.id, &QueueRecord { modified_at: now.wall, ..queue.clone() })?;
    Ok(())
}

/// Sets the given attributes of a queue.
///
/// # Errors
/// The queue does not exist; otherwise as [`catalog::ensure`].
pub fn set_attributes(tx: &mut Tx<'_>, name: &str, given: &Given, now: Now) -> Result<(), Error> {
    let queue = catalog::find(tx, name)?;
    if given.changes_nothing() {
        touch(tx, &queue, now)?;
    } else {
        catalog::ensure(tx, name, &given.on(options(&queue)), now)?;
    }
    keep(tx, queue.id, given.kept.clone())
}

/// The options that a queue has.
pub fn options(queue: &QueueRecord) -> Options {
    of_record(&queue.attributes)
}

fn of_record(attributes: &QueueAttributes) -> Options {
    let redrive = attributes.redrive.as_ref().map(|(dead_letter_queue, max_receive_count)| RedrivePolicy {
        dead_letter_queue: dead_letter_queue.clone(),
        max_receive_count: *max_receive_count,
    });
    Options {
        visibility_timeout: Duration::from_millis(attributes.visibility_timeout_ms),
        delay: Duration::from_millis(attributes.delay_ms),
        retention: attributes.retention_ms.map(Duration::from_millis),
        receive_wait: Duration::from_millis(attributes.receive_wait_ms),
        message_bytes_max: attributes.message_bytes_max,
        redrive,
        redrive_allow: attributes.redrive_allow.clone(),
        fifo: attributes.fifo,
        messages_max: attributes.messages_max,
        bytes_max: attributes.bytes_max,
    }
}
