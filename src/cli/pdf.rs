//! `nightmail run pdf`: the document of one recipient, from the archive or made again from what it was made of.

use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use crate::api::control::request::FailureKind;
use crate::api::control::{Answer, Failure, Request};
use crate::base::units;
use crate::config::Settings;
use crate::daemon::functions;
use crate::function::statement::{
    PdfStatementRenderer, RenderRequest, Rendering, StatementRenderer, archive, pdf::sha256,
};
use crate::run::report::{Filter, Row};

use super::ask::{ask_with, strange};
use super::context::Context;
use super::exit::Differs;
use super::output::tame;
use super::trial::safe;

pub(super) const AFTER_HELP: &str = "\
Reads the archive, which only the daemon's user may: `sudo -u nightmail nightmail run pdf …`. With `archive = \"files\"` the \
document of each mail is there. Where the PDF is gone and its data is not, the document is made again, with the letterhead and \
the limits of the configuration, and compared with the hash in the recipient's row. Exit codes: 0 it is the document that was \
mailed, 65 it differs.";

/// `nightmail run pdf`
#[derive(Debug, Args)]
pub(super) struct Pdf {
    /// The run
    run: u64,
    /// The user's id
    #[arg(value_name = "ID")]
    recipient: String,
    /// The account, of a user who has several
    #[arg(long)]
    account: Option<String>,
    /// The file to write, which must not be there yet [default: RUN-ID.pdf]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// What was written.
#[derive(Serialize)]
struct Written {
    file: PathBuf,
    /// `archive`, or `rendered` when it was made again.
    origin: &'static str,
    /// Of the file, in hex.
    sha256: String,
    /// Of the document that was mailed.
    mailed_sha256: String,
}

pub(super) async fn pdf(context: &Context, what: Pdf) -> anyhow::Result<()> {
    let settings = context.settings_without_secrets()?;
    let row = row(context, &settings, &what).await?;
    let named = format!("user {:?} of run {}", what.recipient, what.run);
    let mailed_sha256 = row.document_sha256.clone().ok_or_else(|| {
        let why = "its mail was not sent, or the function has `archive = \"none\"`";
        refused(format!("{named} has no document on record: it is {}, so {why}", row.state))
    })?;
    let directory = settings.data_dir.join(archive::DIRECTORY);
    let folder = archive::Folder::of(&directory, what.run, &what.recipient);
    let (bytes, origin) = match folder.document(&mailed_sha256).map_err(|why| denied(&directory, &why))? {
        Some(bytes) => (bytes, "archive"),
        None => {
            let source = folder.source(&mailed_sha256).map_err(|why| denied(&directory, &why))?.ok_or_else(|| {
                let text = format!("document {mailed_sha256} is not in {}", directory.display());
                refused(format!("{text} (documents are kept with `archive = \"files\"`, and until they are erased)"))
            })?;
            (render(context, &settings, what.run, &source).await?, "rendered")
        }
    };
    let file = what.out.unwrap_or_else(|| format!("{}-{}.pdf", what.run, safe(&what.recipient)).into());
    let opened = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&file);
    let written = opened.and_then(|mut opened| opened.write_all(&bytes));
    written.map_err(|error| refused(format!("{}: {error}", file.display())))?;
    let size = units::show_size(bytes.len() as u64);
    let written = Written { file, origin, sha256: sha256(&bytes), mailed_sha256 };
    let is_same = written.sha256 == written.mailed_sha256;
    context.output.show(&written, |written| {
        let how = if written.origin == "archive" { "from the archive" } else { "made again from the archived data" };
        format!("{} ({size}), {how}", written.file.display())
    })?;
    if is_same { Ok(()) } else { Err(Differs(written.mailed_sha256).into()) }
}

/// The recipient's row.
async fn row(context: &Context, settings: &Settings, what: &Pdf) -> anyhow::Result<Row> {
    let filter = Filter { user: Some(what.recipient.clone()), ..Filter::default() };
    let request = Request::Recipients { id: what.run, filter, after: None };
    let mut rows = match ask_with(context, settings, request).await? {
        Answer::Recipients(rows) => rows,
        other => return Err(strange(&other)),
    };
    if let Some(account) = &what.account {
        rows.retain(|row| row.account.as_ref().unwrap_or(&row.user) == account);
    }
    // A malformed record may name the same id; nothing was mailed to it.
    if rows.iter().any(|row| !row.address.is_empty()) {
        rows.retain(|row| !row.address.is_empty());
    }
    match (rows.pop(), rows.is_empty()) {
        (Some(row), true) => Ok(row),
        (Some(_), false) => {
            Err(refused(format!("user {:?} has several accounts: name one with --account", what.recipient)))
        }
        (None, _) => Err(refused(format!("run {} has no recipient {:?}", what.run, what.recipient))),
    }
}

/// Makes the document again from the data that is kept of it.
async fn render(context: &Context, settings: &Settings, run: u64, source: &archive::Source) -> anyhow::Result<Vec<u8>> {
    let report = match ask_with(context, settings, Request::Run { id: run }).await? {
        Answer::Run(report) => report,
        other => return Err(strange(&other)),
    };
    let options = functions::document_options(settings, &report.schedule).ok_or_else(|| {
        refused(format!("the configuration has no function that makes the documents of schedule {:?}", report.schedule))
    })?;
    let request = RenderRequest {
        body: source.answer.as_bytes(),
        account: &source.account,
        period: source.period.as_deref(),
        user: &source.user,
    };
    match PdfStatementRenderer::new(options)?.render(&request) {
        Ok(Rendering::Document(document)) => Ok(document.pdf),
        Ok(Rendering::Skipped(why)) => Err(refused(format!("the account would be skipped: {why}"))),
        Err(failure) => Err(refused(tame(&failure.to_string(), 500))),
    }
}

fn refused(text: String) -> anyhow::Error {
    Failure { kind: FailureKind::Request, text }.into()
}

fn denied(directory: &Path, why: &io::Error) -> anyhow::Error {
    let kind = if why.kind() == io::ErrorKind::PermissionDenied { FailureKind::Denied } else { FailureKind::Store };
    Failure { kind, text: format!("{}: {why} (run this as the daemon's user)", directory.display()) }.into()
}
