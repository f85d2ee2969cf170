//! Asks the daemon; while none runs, answers read-only questions from the store itself.

use crate::api::control::request::FailureKind;
use crate::api::control::{Answer, Client, Control, Failure, Request};
use crate::base::SystemClock;
use crate::config::Settings;
use crate::daemon::serve;

use super::args::Context;
use super::output::note;

/// An unexpected answer is shown up to this many characters.
const ANSWER_CHARS_MAX: usize = 80;

/// Asks and waits for the answer.
pub(super) async fn ask(context: &Context, request: Request) -> anyhow::Result<Answer> {
    let settings = context.settings_without_secrets()?;
    ask_with(&settings, request).await
}

/// The same with settings that are already loaded.
pub(super) async fn ask_with(settings: &Settings, request: Request) -> anyhow::Result<Answer> {
    let client = Client::new(&settings.control_socket);
    if client.is_there().await || !request.is_read_only() {
        return Ok(client.ask(&request).await?);
    }
    if !settings.store.path.exists() {
        let text = format!(
            "no daemon at {} and no store at {} (start one with `nightmail serve`)",
            settings.control_socket.display(),
            settings.store.path.display()
        );
        return Err(Failure { kind: FailureKind::Unreachable, text }.into());
    }
    note(format_args!("no daemon runs; reading {} directly", settings.store.path.display()));
    let queues = serve::open_queues(settings, SystemClock::shared())?;
    Ok(Control::of_cli(queues, serve::schedules(settings)).answer(request).await?)
}

/// The answer does not match the question: the daemon has another version.
pub(super) fn strange(answer: &Answer) -> anyhow::Error {
    let start: String = format!("{answer:?}").chars().take(ANSWER_CHARS_MAX).collect();
    anyhow::anyhow!("the daemon answered something else ({start}…); is it the same version as this command?")
}
