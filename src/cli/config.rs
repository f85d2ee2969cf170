//! `nightmail config`: the effective configuration, and where each value came from.

use clap::Subcommand;
use serde::Serialize;

use crate::config::{Entry, Origin};

use super::context::Context;
use super::output::{table, tame};

/// A value is shown up to this many characters; `--json` shows all of it.
const VALUE_CHARS_MAX: usize = 80;

/// `nightmail config …`
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show every key's value and where it came from; a secret is shown as its reference
    Show,
}

/// One key as `config show` prints it.
#[derive(Serialize)]
struct Row {
    key: String,
    value: String,
    origin: String,
}

pub(super) fn run(context: &Context, command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Show => show(context),
    }
}

fn show(context: &Context) -> anyhow::Result<()> {
    let settings = context.settings_without_secrets()?;
    let file = context.name();
    let row = |(key, entry): (&String, &Entry)| Row {
        key: key.clone(),
        value: entry.value.clone(),
        origin: origin(&entry.origin, &file),
    };
    let rows: Vec<Row> = settings.origins.iter().map(row).collect();
    context.output.list(&rows, "the configuration sets nothing", |rows| {
        let cells = |row: &Row| vec![row.key.clone(), tame(&row.value, VALUE_CHARS_MAX), row.origin.clone()];
        table(&["key", "value", "from"], &[], rows.iter().map(cells).collect())
    })
}

fn origin(origin: &Origin, file: &str) -> String {
    match origin {
        Origin::Default => "default".into(),
        Origin::File { line, .. } => format!("{file}:{line}"),
        Origin::Variable(name) => format!("${name}"),
    }
}
