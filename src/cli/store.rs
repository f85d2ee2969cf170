//! `nightmail backup`, `compact` and `store check`: maintenance of the store.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use tokio_util::sync::CancellationToken;

use crate::api::control::views::Checked;
use crate::api::control::{Answer, Request};
use crate::base::outcome::shorten;
use crate::base::units;
use crate::config::Settings;
use crate::store::Purpose;
use crate::store::backup::{self, Backup as Made};
use crate::store::check::{self, Findings};
use crate::store::compact::{self, Compacted};
use crate::store::lock::when_free;

use super::ask::{ask, ask_with, is_there, strange};
use super::context::Context;
use super::exit::Unsound;
use super::output::{Output, table, tame};

/// `nightmail backup`
#[derive(Debug, Args)]
pub(super) struct Backup {
    /// The file to make; while the daemon runs, it is the one that writes it
    file: PathBuf,
    /// Read the copy again and compare it with what was copied
    #[arg(long)]
    verify: bool,
    /// Replace a file of that name
    #[arg(long)]
    force: bool,
}

/// `nightmail store …`
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Look at every row and at the rules between them; with the daemon stopped, at the file's pages too
    Check,
}

pub(super) async fn backup(context: &Context, backup: Backup) -> anyhow::Result<()> {
    let file = std::path::absolute(&backup.file).with_context(|| backup.file.display().to_string())?;
    let order = backup::Order { file, replace: backup.force, verify: backup.verify };
    match ask(context, Request::Backup(order)).await? {
        Answer::Backup(made) => context.output.show(&made, |made| backup_text(context.output, made)),
        other => Err(strange(&other)),
    }
}

fn backup_text(output: Output, made: &Made) -> String {
    let verified = if made.is_verified { ", read again and found equal" } else { "" };
    let (rows, size) = (units::count(made.rows, "row"), units::show_size(made.bytes));
    output.good(format!("{}: {rows}, {size}{verified}", made.file.display()))
}

pub(super) async fn compact(context: &Context) -> anyhow::Result<()> {
    let settings = context.settings_without_secrets()?;
    must_be_there(&settings)?;
    let purpose = Purpose::Write("compact");
    let options = crate::store::Options { purpose, ..settings.store.clone() };
    let compacted = when_free(purpose, context.timeout, || compact::compact(&options)).await?;
    context.output.show(&compacted, |Compacted { before_bytes, after_bytes }| {
        let (before, after) = (units::show_size(*before_bytes), units::show_size(*after_bytes));
        format!("{}: {before} before, {after} after", settings.store.path.display())
    })
}

fn must_be_there(settings: &Settings) -> anyhow::Result<()> {
    let path = &settings.store.path;
    anyhow::ensure!(is_there(path)?, "no store at {} (see data_dir)", path.display());
    Ok(())
}

pub(super) async fn run(context: &Context, command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Check => check(context).await,
    }
}

async fn check(context: &Context) -> anyhow::Result<()> {
    let settings = context.settings_without_secrets()?;
    let is_online = context.client(&settings).is_there().await;
    let checked =
        if is_online { check_rows(context, &settings).await } else { check_offline(context, &settings).await };
    let checked = checked.or_else(damage)?;
    context.output.show(&checked, |checked| checked_text(context.output, checked, is_online))?;
    match checked.total {
        0 => Ok(()),
        total => Err(Unsound { faults: units::count(total, "fault") }.into()),
    }
}

async fn check_offline(context: &Context, settings: &Settings) -> anyhow::Result<Checked> {
    must_be_there(settings)?;
    let mut pages = Findings::new(CancellationToken::new());
    let purpose = Purpose::Write("store check");
    let options = crate::store::Options { purpose, ..settings.store.clone() };
    when_free(purpose, context.timeout, || check::integrity(&options, &mut pages)).await?;
    let mut checked = check_rows(context, settings).await?;
    checked.total += pages.total;
    checked.findings.splice(..0, pages.shown);
    Ok(checked)
}

async fn check_rows(context: &Context, settings: &Settings) -> anyhow::Result<Checked> {
    match ask_with(context, settings, Request::CheckStore).await? {
        Answer::Checked(checked) => Ok(checked),
        other => Err(strange(&other)),
    }
}

/// A store that is too damaged to be opened: that is what the check found.
fn damage(error: anyhow::Error) -> anyhow::Result<Checked> {
    let finding = match error.downcast_ref::<crate::store::Error>() {
        Some(crate::store::Error::Damaged { path, reason }) => {
            check::Finding { table: "(file)".into(), key: path.display().to_string(), what: reason.clone() }
        }
        Some(crate::store::Error::Record { table, reason }) => {
            check::Finding { table: (*table).into(), key: "(table)".into(), what: reason.clone() }
        }
        _ => return Err(error),
    };
    Ok(Checked { rows: 0, total: 1, findings: vec![finding] })
}

fn checked_text(output: Output, checked: &Checked, is_online: bool) -> String {
    let rows = units::count(checked.rows, "row");
    if checked.total == 0 {
        let text = output.good(format!("{rows}, nothing wrong"));
        let note = "what the daemon has in its cache was not read from disk again: it is checked when the daemon \
                    starts next, or by `nightmail store check` while it is stopped";
        return if is_online { format!("{text}\n{note}") } else { text };
    }
    findings_text(checked)
}

/// The findings as a table.
pub(super) fn findings_text(checked: &Checked) -> String {
    let cells =
        |finding: &check::Finding| vec![finding.table.clone(), tame(&finding.key, 80), shorten(&finding.what, 300)];
    let mut text = table(&["table", "key", "what is wrong"], &[], checked.findings.iter().map(cells).collect());
    let left_out = checked.total - checked.findings.len() as u64;
    if left_out > 0 {
        text += &format!("\n… and {left_out} more");
    }
    text
}
