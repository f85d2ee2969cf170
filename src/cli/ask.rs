//! Asks the daemon; while none runs, answers read-only questions from the store itself.

use std::path::Path;
use std::time::Duration;

use crate::api::control::request::FailureKind;
use crate::api::control::{Answer, Client, Control, Failure, Request};
use crate::base::{SystemClock, units};
use crate::config::Settings;
use crate::daemon::{functions, serve};
use crate::queue::Queues;
use crate::store::{self, HolderKind, Purpose};

use super::context::Context;
use super::output::note;

/// An unexpected answer is shown up to this many characters.
const ANSWER_CHARS_MAX: usize = 80;

/// While the store is held by a daemon that does not listen yet or no longer, it is looked at again after this.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A daemon may start or end while it is asked: after so many turns from daemon to store and back its own error is told.
const TURNS_MAX: usize = 8;

/// Asks and waits for the answer.
pub(super) async fn ask(context: &Context, request: Request) -> anyhow::Result<Answer> {
    let settings = context.settings_without_secrets()?;
    ask_with(context, &settings, request).await
}

/// The same with settings that are already loaded.
pub(super) async fn ask_with(context: &Context, settings: &Settings, request: Request) -> anyhow::Result<Answer> {
    let client = context.client(settings);
    if !request.is_read_only() {
        return Ok(client.ask(&request).await?);
    }
    for _ in 0..TURNS_MAX {
        if let Some(answer) = client.ask_if_there(&request).await? {
            return Ok(answer);
        }
        must_be_there(settings)?;
        if let Some(queues) = open_or_daemon(context, settings, &client, request.command()).await? {
            return Ok(direct(settings, queues).answer(request).await?);
        }
    }
    Ok(client.ask(&request).await?)
}

/// Who answers many read-only questions in a row.
#[derive(Debug)]
pub(super) enum Source {
    /// The daemon.
    Daemon(Client),
    /// The store itself, while no daemon runs.
    Store(Box<Control>),
}

impl Source {
    /// The daemon when one listens, else the store; `command` is what its lock names.
    pub(super) async fn open(context: &Context, settings: &Settings, command: &'static str) -> anyhow::Result<Self> {
        let client = context.client(settings);
        for _ in 0..TURNS_MAX {
            if client.is_there().await {
                break;
            }
            must_be_there(settings)?;
            if let Some(queues) = open_or_daemon(context, settings, &client, command).await? {
                return Ok(Self::Store(Box::new(direct(settings, queues))));
            }
        }
        Ok(Self::Daemon(client))
    }

    /// Asks and waits for the answer.
    pub(super) async fn ask(&self, request: Request) -> anyhow::Result<Answer> {
        match self {
            Self::Daemon(client) => Ok(client.ask(&request).await?),
            Self::Store(control) => Ok(control.answer(request).await?),
        }
    }
}

fn direct(settings: &Settings, queues: Queues) -> Control {
    note(format_args!("no daemon runs; reading {} directly", settings.store.path.display()));
    let control = Control::of_cli(queues, serve::schedules(settings));
    control.with_message_id_rules(functions::message_ids(settings)).with_sending(functions::sending(settings))
}

fn must_be_there(settings: &Settings) -> anyhow::Result<()> {
    let (socket, store) = (&settings.control_socket, &settings.store.path);
    if is_there(store)? {
        return Ok(());
    }
    let text = format!(
        "no daemon at {} and no store at {} (start one with `nightmail serve`)",
        socket.display(),
        store.display()
    );
    Err(Failure { kind: FailureKind::Unreachable, text }.into())
}

/// Whether there is a file.
///
/// # Errors
/// This user may not look.
pub(super) fn is_there(path: &Path) -> Result<bool, store::Error> {
    path.try_exists().map_err(|error| store::Error::of_open(path, &error))
}

/// Opens the store to read it; `None` when a daemon that held it listens by now.
async fn open_or_daemon(
    context: &Context,
    settings: &Settings,
    client: &Client,
    command: &'static str,
) -> anyhow::Result<Option<Queues>> {
    let purpose = Purpose::Read(command);
    let options = store::Options { purpose, ..settings.store.clone() };
    let mut daemon = None;
    let tries = async {
        loop {
            let open = || serve::open_queues(&options, SystemClock::shared());
            match store::lock::when_free(purpose, context.timeout, open).await {
                Err(store::Error::Locked { holder, .. }) if holder.kind == HolderKind::Serve => daemon = Some(holder),
                opened => return opened.map(Some),
            }
            if client.is_there().await {
                return Ok(None);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    match tokio::time::timeout(context.timeout, tries).await {
        Ok(opened) => Ok(opened?),
        Err(_) => {
            let holder = daemon.map_or_else(|| "another process".into(), |holder| holder.to_string());
            let (waited, socket) = (units::show_duration(context.timeout), settings.control_socket.display());
            let text = format!(
                "waited {waited} for {holder}: it holds the store, but nothing listens at {socket} (check that \
                 control.socket is the same there and here)"
            );
            Err(Failure { kind: FailureKind::Unreachable, text }.into())
        }
    }
}

/// The answer does not match the question: the daemon has another version.
pub(super) fn strange(answer: &Answer) -> anyhow::Error {
    let start: String = format!("{answer:?}").chars().take(ANSWER_CHARS_MAX).collect();
    anyhow::anyhow!("the daemon answered something else ({start}…); is it the same version as this command?")
}
