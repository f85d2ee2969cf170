//! `nightmail suppress …`: the addresses that no run mails.

use std::borrow::Cow;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};

use crate::api::control::request::FailureKind;
use crate::api::control::{Answer, Failure, Request};
use crate::base::{Timestamp, units};
use crate::function::statement::mailable_text;
use crate::run::Suppression;
use crate::run::suppression::{ADDED_MAX, LISTED_MAX};

use super::ask::{Source, ask, strange};
use super::context::Context;
use super::output::{note, seconds, table, tame};
use super::sheet::{Sheet, restored};
use super::sink::Sink;

/// The columns of an export, which an import takes back.
const HEADER: [&str; 3] = ["address", "reason", "since"];
/// An import has at most this many addresses.
const IMPORTED_MAX: usize = 1_000_000;
/// Of the lines that an import refuses, this many are shown.
const FAULTS_SHOWN_MAX: usize = 20;

/// `nightmail suppress …`
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Put addresses on the list; their messages of every run are counted as suppressed from now on
    Add(Add),
    /// Take addresses off the list
    Remove {
        /// The addresses
        #[arg(required = true)]
        addresses: Vec<String>,
    },
    /// Show the list
    List,
    /// Add the addresses of a file: one a line, or CSV with the columns address, reason and since
    #[command(after_help = IMPORT_HELP)]
    Import {
        /// The file; - for standard input
        file: PathBuf,
        /// The reason of those for which the file gives none
        #[arg(long, value_name = "TEXT", default_value = "imported")]
        reason: String,
    },
    /// Write the list as CSV with the columns address, reason and since
    Export {
        /// Write to this file, which only its owner may read [default: standard output]
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
}

const IMPORT_HELP: &str = "\
Every line is checked before any address is added. An address that is on the list keeps its reason and its time.";

/// `nightmail suppress add`
#[derive(Debug, Args)]
pub(super) struct Add {
    /// The addresses
    #[arg(required = true)]
    addresses: Vec<String>,
    /// Why
    #[arg(long, value_name = "TEXT", default_value = "added by hand")]
    reason: String,
}

pub(super) async fn run(context: &Context, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Add(Add { addresses, reason }) => {
            let one = |address| Suppression { address, reason: reason.clone(), since: None };
            add(context, addresses.into_iter().map(one).collect()).await
        }
        Command::Remove { addresses } => remove(context, addresses).await,
        Command::List => list(context).await,
        Command::Import { file, reason } => {
            let text = read(&file)?;
            add(context, parse(&text, &reason)?).await
        }
        Command::Export { out } => export(context, out.as_deref()).await,
    }
}

async fn add(context: &Context, all: Vec<Suppression>) -> anyhow::Result<()> {
    let (mut added, count) = (0, all.len() as u64);
    for some in all.chunks(ADDED_MAX) {
        added += counted(ask(context, Request::Suppress { what: some.to_vec() }).await?)?;
    }
    let known = count - added;
    let answer = serde_json::json!({ "added": added, "known": known });
    context.output.show(&answer, |_| {
        let added = format!("{added} {} added", if added == 1 { "address" } else { "addresses" });
        if known == 0 { added } else { format!("{added}, {known} on the list before") }
    })
}

async fn remove(context: &Context, addresses: Vec<String>) -> anyhow::Result<()> {
    let mut missing = Vec::new();
    let mut removed = 0;
    for address in addresses {
        match counted(ask(context, Request::Unsuppress { address: address.clone() }).await?)? {
            0 => missing.push(tame(&address, 320)),
            count => removed += count,
        }
    }
    if removed > 0 {
        let answer = serde_json::json!({ "removed": removed });
        context
            .output
            .show(&answer, |_| format!("{removed} {} removed", if removed == 1 { "address" } else { "addresses" }))?;
    }
    match missing[..] {
        [] => Ok(()),
        _ => Err(refused(format!("not on the suppression list: {}", missing.join(", ")))),
    }
}

async fn list(context: &Context) -> anyhow::Result<()> {
    let source = source(context).await?;
    let mut rows: Vec<Suppression> = Vec::new();
    loop {
        let page = page(&source, rows.last()).await?;
        let is_last = page.len() < LISTED_MAX;
        rows.extend(page);
        if is_last {
            break;
        }
    }
    context.output.list(&rows, "no address is suppressed", |rows| {
        let cells = |row: &Suppression| vec![tame(&row.address, 320), since(row), tame(&row.reason, 300)];
        table(&["address", "since", "reason"], &[], rows.iter().map(cells).collect())
    })
}

async fn export(context: &Context, out: Option<&Path>) -> anyhow::Result<()> {
    let source = source(context).await?;
    let mut sink = Sink::open(out)?;
    let mut sheet = Sheet::new(&mut sink, &HEADER)?;
    let (mut last, mut count) = (None::<Suppression>, 0);
    loop {
        let rows = page(&source, last.as_ref()).await?;
        count += rows.len();
        for row in &rows {
            sheet.row([Cow::from(&row.address), Cow::from(&row.reason), Cow::from(since(row))])?;
        }
        if rows.len() < LISTED_MAX {
            break;
        }
        last = rows.into_iter().next_back();
    }
    sheet.finish()?;
    sink.finish()?;
    if let Some(file) = out {
        note(format_args!("{count} addresses in {}", file.display()));
    }
    Ok(())
}

async fn source(context: &Context) -> anyhow::Result<Source> {
    let settings = context.settings_without_secrets()?;
    Source::open(context, &settings, "suppress list").await
}

async fn page(source: &Source, last: Option<&Suppression>) -> anyhow::Result<Vec<Suppression>> {
    let after = last.map(|last| last.address.clone());
    match source.ask(Request::Suppressions { after }).await? {
        Answer::Suppressions(rows) => Ok(rows),
        other => Err(strange(&other)),
    }
}

fn since(row: &Suppression) -> String {
    row.since.map(seconds).unwrap_or_default()
}

fn counted(answer: Answer) -> anyhow::Result<u64> {
    match answer {
        Answer::Count(count) => Ok(count),
        other => Err(strange(&other)),
    }
}

fn read(file: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    if file == Path::new("-") {
        std::io::stdin().read_to_string(&mut text).context("standard input")?;
    } else {
        std::fs::File::open(file)
            .and_then(|mut file| file.read_to_string(&mut text))
            .with_context(|| file.display().to_string())?;
    }
    Ok(text)
}

/// The addresses of a file, or all that is wrong with it.
fn parse(text: &str, default_reason: &str) -> anyhow::Result<Vec<Suppression>> {
    let text = text.trim_start_matches('\u{feff}');
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .comment(Some(b'#'))
        .trim(csv::Trim::All)
        .from_reader(text.as_bytes());
    let (mut found, mut faults) = (Vec::new(), Vec::new());
    let mut columns: [Option<usize>; 3] = [Some(0), Some(1), Some(2)];
    for (nth, record) in reader.records().enumerate() {
        let record = record?;
        if nth == 0 && record.iter().any(|cell| cell.eq_ignore_ascii_case(HEADER[0])) {
            columns = HEADER.map(|name| record.iter().position(|cell| cell.eq_ignore_ascii_case(name)));
            continue;
        }
        let [address, reason, since] = columns.map(|column| column.and_then(|at| record.get(at)).unwrap_or_default());
        let line = record.position().map_or(0, |position| line_of(text, position));
        match entry(restored(address), restored(reason), since, default_reason) {
            Ok(entry) => found.push(entry),
            Err(why) => faults.push(format!("line {line}: {why}")),
        }
    }
    if found.len() > IMPORTED_MAX {
        return Err(refused(format!("{} addresses in one file, at most {IMPORTED_MAX} (split it)", found.len())));
    }
    if faults.is_empty() {
        return Ok(found);
    }
    let count = units::count(faults.len(), "line");
    let more = if faults.len() > FAULTS_SHOWN_MAX { "\n…" } else { "" };
    faults.truncate(FAULTS_SHOWN_MAX);
    Err(refused(format!("nothing was added, {count} cannot be:\n{}{more}", faults.join("\n"))))
}

/// The number of a record's line. The reader counts from the blank lines and comments in front of it.
fn line_of(text: &str, position: &csv::Position) -> u64 {
    let from = usize::try_from(position.byte()).unwrap_or(usize::MAX);
    let lines = text.get(from..).unwrap_or_default().lines();
    let passed_over = lines.take_while(|line| line.trim().is_empty() || line.starts_with('#')).count();
    position.line() + passed_over as u64
}

fn entry(address: &str, reason: &str, since: &str, default_reason: &str) -> Result<Suppression, String> {
    mailable_text(address).map_err(|why| format!("{:?} is no mail address: {why}", tame(address, 320)))?;
    let moment = |text: &str| text.parse::<jiff::Timestamp>().map(Timestamp::from_jiff);
    let since = match since {
        "" => None,
        text => Some(moment(text).map_err(|_| format!("{:?} is no moment like 2026-11-01T02:00:00Z", tame(text, 80)))?),
    };
    let reason = if reason.is_empty() { default_reason } else { reason };
    Ok(Suppression { address: address.into(), reason: reason.into(), since })
}

fn refused(text: String) -> anyhow::Error {
    Failure { kind: FailureKind::Request, text }.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Vec<(String, String, Option<u64>)> {
        let entries = parse(text, "imported").unwrap();
        entries.into_iter().map(|one| (one.address, one.reason, one.since.map(Timestamp::as_millis))).collect()
    }

    #[test]
    fn an_import_takes_plain_lines_and_csv_in_any_order_of_columns() {
        let plain = |address: &str, reason: &str, since| (address.to_owned(), reason.to_owned(), since);
        assert_eq!(
            parsed("# a list\nada@b.example\n\nbob@b.example, left the bank ,1970-01-01T00:00:01Z\n"),
            [plain("ada@b.example", "imported", None), plain("bob@b.example", "left the bank", Some(1000))]
        );
        assert_eq!(
            parsed("\u{feff}Since,Address\r\n1970-01-01T00:00:02Z,'+ada@b.example\r\n,bob@b.example\r\n"),
            [plain("+ada@b.example", "imported", Some(2000)), plain("bob@b.example", "imported", None)]
        );
    }

    #[test]
    fn an_import_names_every_line_that_it_refuses() {
        let error = parse("ada@b.example\nnobody\n\n# eve\neve@b.example,,yesterday\n", "x").unwrap_err().to_string();
        assert!(
            error.starts_with("nothing was added, 2 lines cannot be:\nline 2: \"nobody\" is no mail address"),
            "{error}"
        );
        assert!(error.contains("line 5: \"yesterday\" is no moment"), "{error}");
    }
}
