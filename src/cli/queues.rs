//! `nightmail queues`, `peek`, `dead`, `purge` and `send`.

use std::io::{IsTerminal, Read};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;

use crate::api::control::{Answer, Request};
use crate::base::{limit, units};
use crate::queue::dead::Group;
use crate::queue::peek::Peeked;
use crate::queue::stats::Stats;

use super::args::{Context, Sure};
use super::ask::{ask, strange};
use super::output::{note, table};

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
}

pub(super) async fn list(context: &Context) -> anyhow::Result<()> {
    match ask(context, Request::Queues).await? {
        Answer::Queues(queues) => context.output.show(&queues, |queues| queues_table(queues)),
        other => Err(strange(&other)),
    }
}

fn queues_table(queues: &[Stats]) -> String {
    let row = |queue: &Stats| {
        vec![
            queue.name.clone(),
            queue.ready.to_string(),
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
        Answer::Messages(messages) => context.output.show(&messages, |messages| messages_text(messages)),
        other => Err(strange(&other)),
    }
}

fn messages_text(messages: &[Peeked]) -> String {
    if messages.is_empty() {
        return "no messages".into();
    }
    let mut out = String::new();
    for message in messages {
        let until = message.visible_at.map(|at| format!(" until {at}")).unwrap_or_default();
        let run = message.run.map(|run| format!(", run {run}")).unwrap_or_default();
        out += &format!("{} {}{until}, sent {}{run}\n", message.message_id, message.place, message.sent_at);
        let counts = format!("received {} times, {} attempts charged", message.receive_count, message.charged);
        out += &format!("  {counts}, {}\n", units::show_size(u64::from(message.body_bytes)));
        out += &format!("  {}\n", message.body);
        for attempt in &message.history {
            let took = units::show_duration(attempt.ended_at.since(attempt.started_at));
            let why = attempt.failure.as_ref().map(ToString::to_string).unwrap_or_default();
            out += &format!("  #{} {} {:?} after {took}: {why}\n", attempt.number, attempt.started_at, attempt.end);
        }
    }
    out
}

pub(super) async fn dead(context: &Context, dead: Dead) -> anyhow::Result<()> {
    match ask(context, Request::Dead { queue: dead.queue }).await? {
        Answer::Dead(groups) => context.output.show(&groups, |groups| groups_table(groups)),
        other => Err(strange(&other)),
    }
}

/// The groups as a table, for `dead` and for the demo.
pub(super) fn groups_table(groups: &[Group]) -> String {
    if groups.is_empty() {
        return "no dead letters".into();
    }
    let row = |group: &Group| {
        vec![
            group.fingerprint.map_or_else(|| "-".into(), |fingerprint| fingerprint.to_string()),
            group.count.to_string(),
            group.class.clone(),
            group.sample.chars().take(160).collect(),
        ]
    };
    table(&["fingerprint", "letters", "class", "sample"], &[1], groups.iter().map(row).collect())
}

pub(super) async fn purge(context: &Context, purge: Purge) -> anyhow::Result<()> {
    confirm(purge.sure, &format!("Delete all messages of {}, those in flight too?", purge.queue))?;
    match ask(context, Request::Purge { queue: purge.queue.clone() }).await? {
        Answer::Count(count) => {
            context.output.show(&count, |count| format!("{count} messages of {} deleted", purge.queue))
        }
        other => Err(strange(&other)),
    }
}

/// Asks on a terminal; elsewhere `--yes` must say it.
pub(super) fn confirm(sure: Sure, question: &str) -> anyhow::Result<()> {
    if sure.yes {
        return Ok(());
    }
    anyhow::ensure!(std::io::stdin().is_terminal(), "{question} Say --yes: there is no terminal to ask on");
    note(format_args!("{question} [y/N]"));
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    anyhow::ensure!(matches!(line.trim(), "y" | "Y" | "yes"), "nothing was done");
    Ok(())
}

pub(super) async fn send(context: &Context, send: Send) -> anyhow::Result<()> {
    let body = match send.body {
        Some(body) => body,
        None => {
            let mut body = String::new();
            let limit = limit::BODY_BYTES_MAX as u64 + 1;
            std::io::stdin().take(limit).read_to_string(&mut body).context("standard input is not UTF-8")?;
            body
        }
    };
    match ask(context, Request::Send { queue: send.queue, body }).await? {
        Answer::Sent(id) => context.output.show(&id, ToString::to_string),
        other => Err(strange(&other)),
    }
}
