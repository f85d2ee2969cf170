//! `nightmail queues`, `peek`, `dead`, `purge`, `send`, `pause` and `resume`.

use std::io::{IsTerminal, Read};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;

use crate::api::control::{Answer, Request, request};
use crate::base::attempt::{Attempt, AttemptEnd};
use crate::base::outcome::shorten;
use crate::base::{SystemClock, limit, units};
use crate::queue::dead::Group;
use crate::queue::peek::Peeked;
use crate::queue::stats::Stats;
use crate::queue::unique::{Mode, Unique};

use super::ask::{ask, strange};
use super::confirm::{Sure, confirm};
use super::context::Context;
use super::output::{FAILURE_BYTES_MAX, note, table, tame};

/// A peek on a terminal shows this much of each message; `--json` shows up to 4096 bytes.
const PEEK_CHARS_MAX: usize = 400;
/// And this many of its attempts.
const PEEK_ATTEMPTS_MAX: usize = 5;

/// `nightmail peek`
#[derive(Debug, Args)]
pub(super) struct Peek {
    /// The queue
    queue: String,
    /// Show at most this many messages
    #[arg(long, short = 'n', default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000))]
    max: u16,
}

/// `nightmail dead`
#[derive(Debug, Args)]
pub(super) struct Dead {
    /// The dead-letter queue, or the queue whose letters are meant
    queue: String,
}

/// `nightmail purge`
#[derive(Debug, Args)]
pub(super) struct Purge {
    /// The queue
    queue: String,
    #[command(flatten)]
    sure: Sure,
}

/// `nightmail send`
#[derive(Debug, Args)]
pub(super) struct Send {
    /// The queue
    queue: String,
    /// The text; read from standard input when it is not given
    body: Option<String>,
    #[command(flatten)]
    with: With,
}

/// What goes with the message
#[derive(Debug, Args)]
struct With {
    /// It stays invisible for this long, at most 15m [default: the queue's delay]
    #[arg(long, value_name = "DURATION", value_parser = units::duration)]
    delay: Option<Duration>,
    /// A message attribute of the type String; may be given several times
    #[arg(long = "attribute", value_name = "NAME=VALUE", value_parser = parse_attribute)]
    attributes: Vec<(String, String)>,
    /// Its message group
    #[arg(long, value_name = "ID")]
    group: Option<String>,
    /// Its deduplication id, for FIFO queues
    #[arg(long, value_name = "ID")]
    deduplication_id: Option<String>,
    /// Lower ones go first, 1 to 2097152; 0 goes before all
    #[arg(long, value_name = "N", default_value_t = 0)]
    priority: u32,
    /// At most one message of the queue holds this key
    #[arg(long, value_name = "KEY")]
    unique: Option<String>,
    /// What a second send under the key does: simple (nothing), throttle=DURATION (nothing for so long), debounce
    /// (replaces one that is delayed), keep-last (replaces one that nobody received, else waits for its end)
    #[arg(long, value_name = "MODE", value_parser = parse_mode, default_value = "simple", requires = "unique")]
    unique_mode: Mode,
    /// It is not worth doing any more after this long
    #[arg(long, value_name = "DURATION", value_parser = units::duration)]
    expires_in: Option<Duration>,
}

impl With {
    fn into_words(self) -> request::With {
        let now = SystemClock::shared().wall();
        request::With {
            delay: self.delay,
            attributes: self.attributes.into_iter().collect(),
            group: self.group,
            deduplication_id: self.deduplication_id,
            priority: self.priority,
            unique: self.unique.map(|key| Unique { key, mode: self.unique_mode }),
            expires_at: self.expires_in.map(|span| now.after(span)),
        }
    }
}

fn parse_attribute(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    Ok((name.into(), value.into()))
}

fn parse_mode(text: &str) -> Result<Mode, String> {
    match text.split_once('=') {
        Some(("throttle", span)) => units::duration(span).map(Mode::Throttle).map_err(|error| error.to_string()),
        None if text == "simple" => Ok(Mode::Simple),
        None if text == "debounce" => Ok(Mode::Debounce),
        None if text == "keep-last" => Ok(Mode::KeepLast),
        _ => Err(format!("must be simple, throttle=<duration>, debounce or keep-last (got {text:?})")),
    }
}

/// `nightmail pause`
#[derive(Debug, Args)]
pub(super) struct Pause {
    /// The queue
    queue: String,
    /// Who pauses it, for those who wonder [default: the user's name]
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
}

/// `nightmail resume`
#[derive(Debug, Args)]
pub(super) struct Resume {
    /// The queue
    queue: String,
}

pub(super) async fn list(context: &Context) -> anyhow::Result<()> {
    match ask(context, Request::Queues).await? {
        Answer::Queues(queues) => context.output.show(&queues, |queues| {
            let paused = |queue: &Stats| {
                let pause = queue.paused.as_ref()?;
                Some(format!("\n{} is paused by {} since {}", queue.name, tame(&pause.by, 40), pause.since))
            };
            let followers = |queue: &Stats| {
                let waiting = units::count(queue.followers, "message");
                let text = format!("\n{waiting} of {} to follow the holder of a unique key", queue.name);
                (queue.followers > 0).then_some(text)
            };
            let notes = queues.iter().filter_map(paused).chain(queues.iter().filter_map(followers));
            queues_table(queues) + &notes.collect::<String>()
        }),
        other => Err(strange(&other)),
    }
}

/// The queues as a table, for `queues` and for `status`.
pub(super) fn queues_table(queues: &[Stats]) -> String {
    let row = |queue: &Stats| {
        vec![
            match &queue.paused {
                Some(_) => format!("{} (paused)", queue.name),
                None => queue.name.clone(),
            },
            format!("{}{}", queue.ready, if queue.is_more_ready { "+" } else { "" }),
            queue.delayed.to_string(),
            queue.in_flight.to_string(),
            units::show_size(queue.bytes),
            queue.oldest_age_s.map(|age| units::show_duration(Duration::from_secs(age))).unwrap_or_default(),
            queue.dead_letter_queue.clone().unwrap_or_default(),
        ]
    };
    let header = ["queue", "ready", "delayed", "in flight", "size", "oldest", "dead letters to"];
    table(&header, &[1, 2, 3, 4, 5], queues.iter().map(row).collect())
}

pub(super) async fn peek(context: &Context, peek: Peek) -> anyhow::Result<()> {
    match ask(context, Request::Peek { queue: peek.queue, max: usize::from(peek.max) }).await? {
        Answer::Messages(messages) => context.output.list(&messages, "no messages", messages_text),
        other => Err(strange(&other)),
    }
}

fn messages_text(messages: &[Peeked]) -> String {
    let mut out = String::new();
    for message in messages {
        let until = message.visible_at.map(|at| format!(" until {at}")).unwrap_or_default();
        let run = message.run.map(|run| format!(", run {run}")).unwrap_or_default();
        out += &format!("{} {}{until}, sent {}{run}\n", message.message_id, message.phase, message.sent_at);
        let received = units::count(message.receive_count, "time");
        let attempts_charged = units::count(message.attempts_charged, "attempt");
        let size = units::show_size(u64::from(message.body_bytes));
        out += &format!("  received {received}, {attempts_charged} attempts charged, {size}\n");
        out += &format!("  {}\n", tame(&message.body, PEEK_CHARS_MAX));
        out += &history_text(&message.history);
    }
    out
}

/// The newest attempts, oldest first.
fn history_text(history: &[Attempt]) -> String {
    let mut out = String::new();
    let earlier = history.len().saturating_sub(PEEK_ATTEMPTS_MAX);
    if earlier > 0 {
        out += &format!("  … {} before (--json shows all)\n", units::count(earlier, "attempt"));
    }
    for attempt in &history[earlier..] {
        let took = units::show_duration(attempt.ended_at.since(attempt.started_at));
        let end = match attempt.end {
            AttemptEnd::Retry => "retry",
            AttemptEnd::Deferred => "deferred",
            AttemptEnd::Dead => "dead",
            AttemptEnd::Lost => "lost",
        };
        let why = attempt.failure.as_ref().map(ToString::to_string).unwrap_or_default();
        out += &format!(
            "  #{} {} {end} after {took}: {}\n",
            attempt.number,
            attempt.started_at,
            shorten(&why, FAILURE_BYTES_MAX)
        );
    }
    out
}

pub(super) async fn dead(context: &Context, dead: Dead) -> anyhow::Result<()> {
    match ask(context, Request::Dead { queue: dead.queue }).await? {
        Answer::Dead(groups) => context.output.list(&groups, "no dead letters", groups_table),
        other => Err(strange(&other)),
    }
}

/// The groups as a table, for `dead` and for the demo.
pub(super) fn groups_table(groups: &[Group]) -> String {
    let row = |group: &Group| {
        vec![
            group.fingerprint.map_or_else(|| "-".into(), |fingerprint| fingerprint.to_string()),
            group.count.to_string(),
            group.class.clone(),
            shorten(&group.sample, FAILURE_BYTES_MAX),
        ]
    };
    table(&["fingerprint", "letters", "class", "sample"], &[1], groups.iter().map(row).collect())
}

pub(super) async fn purge(context: &Context, purge: Purge) -> anyhow::Result<()> {
    confirm(purge.sure, &format!("Delete all messages of {}, those in flight too?", purge.queue))?;
    match ask(context, Request::Purge { queue: purge.queue.clone() }).await? {
        Answer::Count(count) => {
            let deleted = serde_json::json!({ "queue": purge.queue, "deleted": count });
            let count = units::count(count, "message");
            context.output.show(&deleted, |_| format!("{count} of {} deleted", purge.queue))
        }
        other => Err(strange(&other)),
    }
}

pub(super) async fn send(context: &Context, send: Send) -> anyhow::Result<()> {
    let body = match send.body {
        Some(body) => body,
        None => {
            let mut body = Vec::new();
            let stdin = std::io::stdin();
            if stdin.is_terminal() {
                note("type the message and end it with Ctrl-D");
            }
            stdin.take(limit::BODY_BYTES_MAX as u64 + 1).read_to_end(&mut body).context("standard input")?;
            let max = units::show_size(limit::BODY_BYTES_MAX as u64);
            anyhow::ensure!(
                body.len() <= limit::BODY_BYTES_MAX,
                "standard input has more than {max}, the most that a message may have (send a reference to the data)"
            );
            String::from_utf8(body).map_err(|error| {
                anyhow::anyhow!("standard input is not UTF-8 at byte {}", error.utf8_error().valid_up_to())
            })?
        }
    };
    let with = Box::new(send.with.into_words());
    match ask(context, Request::Send { queue: send.queue, body, with }).await? {
        Answer::Sent(id) => context.output.show(&serde_json::json!({ "message_id": id }), |_| id.to_string()),
        other => Err(strange(&other)),
    }
}

pub(super) async fn pause(context: &Context, pause: Pause) -> anyhow::Result<()> {
    let user = || context.environment.get("USER").unwrap_or("an operator").to_owned();
    let by = pause.by.unwrap_or_else(user);
    let text =
        format!("{} is paused by {by}: nothing is received from it (`nightmail resume` lets it go on)", pause.queue);
    done(context, Request::Pause { queue: pause.queue, by }, "paused", &text).await
}

pub(super) async fn resume(context: &Context, resume: Resume) -> anyhow::Result<()> {
    let text = format!("{} goes on", resume.queue);
    done(context, Request::Resume { queue: resume.queue }, "resumed", &text).await
}

async fn done(context: &Context, request: Request, what: &str, text: &str) -> anyhow::Result<()> {
    match ask(context, request).await? {
        Answer::Done => context.output.show(&serde_json::json!({ "done": what }), |_| text.to_owned()),
        other => Err(strange(&other)),
    }
}
