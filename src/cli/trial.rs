//! `nightmail run test`: real documents of some users, to another address or into a directory.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;

use crate::api::control::request::FailureKind;
use crate::api::control::{Answer, Failure, Request};
use crate::base::{SystemClock, units};
use crate::daemon::trial::{Choice, Trial};

use super::ask::{ask, strange};
use super::context::Context;
use super::output::tame;
use super::params::{params, parse_param};

/// At most this many users are chosen at once.
const USERS_MAX: u64 = 1000;

pub(super) const AFTER_HELP: &str = "\
Reads the users API with the secrets of the configuration, so it runs as whoever may read these: `sudo -u nightmail nightmail \
run test …`. Nothing of it is in the books of any run, and no run's recipient is mailed: mails go to --to alone, through the \
queue and the function of the schedule's runs, and have Message-IDs of their own. --out mails nothing; it fetches the accounts \
and writes each user's PDF there.";

/// `nightmail run test`
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("users").required(true), group = clap::ArgGroup::new("target").required(true))]
pub(super) struct Test {
    /// The schedule
    schedule: String,
    /// The users with these ids, separated by commas
    #[arg(long, value_name = "ID,ID", value_delimiter = ',', group = "users")]
    only: Vec<String>,
    /// So many users at random
    #[arg(long, value_name = "COUNT", group = "users", value_parser = clap::value_parser!(u64).range(1..=USERS_MAX))]
    sample: Option<u64>,
    /// Mail their documents to this address
    #[arg(long, value_name = "ADDRESS", group = "target")]
    to: Option<String>,
    /// Write their documents into this directory, and mail nothing
    #[arg(long, value_name = "DIR", group = "target")]
    out: Option<PathBuf>,
    /// A parameter of the run, e.g. period=2026-10 [default: what a tick of now would have]
    #[arg(long = "param", value_name = "KEY=VALUE", value_parser = parse_param)]
    params: Vec<(String, String)>,
}

/// What became of one user's document.
#[derive(Serialize)]
struct Tested {
    user: String,
    /// The file with the document.
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<PathBuf>,
    /// Why there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

pub(super) async fn test(context: &Context, what: Test) -> anyhow::Result<()> {
    let choice = match what.sample {
        Some(count) => Choice::Sample(usize::try_from(count).unwrap_or(usize::MAX)),
        None => Choice::Only(what.only),
    };
    let (settings, clock, params) = (context.settings()?, SystemClock::shared(), params(what.params)?);
    let trial = Trial::choose(&settings, &clock, (&what.schedule, &params), &choice).await?;
    let shown = trial.params.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ");
    let mails = units::count(trial.users.len(), "document");
    if let Some(out) = what.out {
        let documents = trial.documents(&settings, &clock).await?;
        let tested = write(&out, trial.users.into_iter().map(|user| user.id).zip(documents))?;
        return context.output.list(&tested, "the users API names no users", |tested| {
            tested.iter().map(line).collect::<Vec<_>>().join("\n")
        });
    }
    let to = what.to.unwrap_or_default();
    for body in trial.messages(&to)? {
        let sent = ask(context, Request::Send { queue: trial.queue.clone(), body, with: Box::default() }).await?;
        if !matches!(sent, Answer::Sent(_)) {
            return Err(strange(&sent));
        }
    }
    let users: Vec<&str> = trial.users.iter().map(|user| user.id.as_str()).collect();
    let answer = serde_json::json!({ "params": trial.params, "to": to, "users": users });
    context.output.show(&answer, |_| {
        format!("{mails} ({shown}) on the way to {}: {}", tame(&to, 320), tame(&users.join(", "), 1000))
    })
}

/// Writes the documents into new files that only their owner may read.
fn write(
    out: &Path,
    documents: impl Iterator<Item = (String, Result<Vec<u8>, String>)>,
) -> anyhow::Result<Vec<Tested>> {
    std::fs::create_dir_all(out).with_context(|| format!("--out {}", out.display()))?;
    let mut tested = Vec::new();
    for (number, (user, document)) in (1..).zip(documents) {
        let (file, reason) = match document {
            Ok(pdf) => {
                let file = out.join(format!("{number:04}-{}.pdf", safe(&user)));
                let opened = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&file);
                opened.and_then(|mut opened| opened.write_all(&pdf)).map_err(|error| Failure {
                    kind: FailureKind::Request,
                    text: format!("{}: {error}", file.display()),
                })?;
                (Some(file), None)
            }
            Err(reason) => (None, Some(reason)),
        };
        tested.push(Tested { user, file, reason });
    }
    Ok(tested)
}

/// A part of a file's name.
pub(super) fn safe(user: &str) -> String {
    let keep = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') { c } else { '_' };
    user.chars().take(80).map(keep).collect()
}

fn line(tested: &Tested) -> String {
    let user = tame(&tested.user, 80);
    match (&tested.file, &tested.reason) {
        (Some(file), _) => format!("{user}: {}", file.display()),
        (None, reason) => format!("{user}: no document, {}", tame(reason.as_deref().unwrap_or_default(), 500)),
    }
}
