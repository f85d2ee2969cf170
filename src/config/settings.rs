//! The checked settings: the result of a configuration without faults.
//!
//! Holds only values; it knows neither the file's structure nor where the values are used.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use super::finding::Finding;
use super::source::Origin;
use crate::api::sqs;
use crate::function::{statement, upstream};
use crate::run::OnUnknown;
use crate::store::record::NotificationKind;
use crate::{queue, schedule, store, work};

/// All settings of a daemon.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The directory of the store.
    pub data_dir: PathBuf,
    /// What is logged and how.
    pub log: LogOptions,
    /// The settings of the daemon itself.
    pub daemon: DaemonOptions,
    /// Runs that ended so long ago are folded; none when `None`.
    pub run_retention: Option<Duration>,
    /// The Unix socket of the CLI; its path has at most 107 bytes.
    pub control_socket: PathBuf,
    /// The SQS endpoint; `None` when it is off.
    pub sqs: Option<sqs::Options>,
    /// The store.
    pub store: store::Options,
    /// The queues by name.
    pub queues: BTreeMap<String, queue::Options>,
    /// The functions, sorted by name; no two share a queue.
    pub functions: Vec<FunctionSettings>,
    /// The schedules, sorted by name; each starts a fan-out of `functions`.
    pub schedules: Vec<schedule::Options>,
    /// What is told about the runs of each schedule, by its name.
    pub callbacks: BTreeMap<String, CallbackOptions>,
    /// Every key's value as text and where it came from, by the key's path. Secrets appear as references alone.
    pub origins: BTreeMap<String, Entry>,
    /// Advice in the order of the file's lines; none of it keeps the daemon from starting.
    pub warnings: Vec<Finding>,
}

impl Settings {
    /// What happens to messages whose effect is unknown, by the queue that a function works on.
    pub fn policies(&self) -> BTreeMap<String, OnUnknown> {
        self.functions.iter().map(|function| (function.pool.queue.clone(), function.pool.on_unknown)).collect()
    }

    /// The names of the queues that functions work on.
    pub fn served_queues(&self) -> BTreeSet<String> {
        self.functions.iter().map(|function| function.pool.queue.clone()).collect()
    }
}

/// What is logged and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// A filter in the syntax of `tracing_subscriber::EnvFilter`, e.g. `info,nightmail::work=debug`; it parses.
    pub level: String,
    /// The format of a line.
    pub format: LogFormat,
}

/// The format of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The settings of the daemon itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DaemonOptions {
    /// At shutdown, messages in work have this long to end; then their attempts are abandoned without a charge.
    pub drain: Duration,
    /// `store.reserve`: sends are refused while the store's disk has less free than this many bytes.
    pub reserve_bytes: u64,
}

/// The checked settings of one `[functions.<name>]`.
#[derive(Clone, Debug)]
pub struct FunctionSettings {
    /// Its pool of workers.
    pub pool: work::Options,
    /// What it does.
    pub kind: Kind,
}

/// Who is told about the runs of one schedule, and of what.
#[derive(Clone, Debug)]
pub struct CallbackOptions {
    /// What they are told of.
    pub kinds: Vec<NotificationKind>,
    /// The queue that gets a message.
    pub queue: Option<String>,
    /// The address that gets a POST, and how it is called.
    pub post: Option<(String, upstream::Options)>,
    /// The program that is run, with its arguments; none when empty.
    pub command: Vec<String>,
    /// One try to tell may take this long.
    pub timeout: Duration,
    /// A target is tried this many times.
    pub attempts_max: u32,
    /// The address that is called at each tick and at a run's end, and how.
    pub heartbeat: Option<(String, upstream::Options)>,
}

/// What a function does.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "a handful of these is made once, at start")]
pub enum Kind {
    /// Fetch one account's transactions, render the PDF, mail it.
    Statement(Box<statement::Options>),
    /// Fetch all users and send one message for each.
    FanOut(schedule::FanOutOptions),
}

/// One key's value and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The value in TOML; a secret is its reference, e.g. `{ env = "NAME" }`, and a header's value is `"…"`.
    pub value: String,
    /// Where it came from.
    pub origin: Origin,
}
