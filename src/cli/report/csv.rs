//! A run as CSV: a header, then one line for each recipient.

use std::borrow::Cow;
use std::io::Write;

use crate::base::outcome::split_remedy;
use crate::run::report::{Filter, Resend, Row};

use super::super::ask::Source;
use super::super::output::seconds;
use super::super::sheet::Sheet;
use super::Head;
use super::pages::{Pages, Recount, is_begun};

const HEADER: [&str; 16] = [
    "run",
    "schedule",
    "parameters",
    "user",
    "account",
    "address",
    "state",
    "since",
    "relay_reply",
    "message_id",
    "pdf_sha256",
    "attempts_in_doubt",
    "reason",
    "fingerprint",
    "remedy",
    "resends",
];

pub(super) async fn write(source: &Source, head: &Head, out: impl Write) -> anyhow::Result<Recount> {
    let mut sheet = Sheet::new(out, &HEADER)?;
    let params: Vec<String> = head.run.params.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let run = [head.run.id.to_string(), head.run.schedule.clone(), params.join(" ")];
    let (mut pages, mut recount) = (Pages::new(source, head.run.id, Filter::default()), Recount::default());
    while let Some(rows) = pages.next().await? {
        for row in &rows {
            recount.count(row);
            sheet.row(run.iter().map(|cell| Cow::Borrowed(cell.as_str())).chain(cells(row)))?;
        }
    }
    sheet.finish()?;
    Ok(recount)
}

fn cells(row: &Row) -> [Cow<'_, str>; 13] {
    let text = |text: &'_ Option<String>| Cow::Owned(text.clone().unwrap_or_default());
    let (reason, remedy) = split_remedy(row.reason.as_deref().unwrap_or_default());
    [
        Cow::Borrowed(row.user.as_str()),
        Cow::Borrowed(row.account.as_deref().unwrap_or(&row.user)),
        Cow::Borrowed(row.address.as_str()),
        Cow::Borrowed(row.state.as_str()),
        Cow::Owned(seconds(row.updated_at)),
        text(&row.reply),
        Cow::Borrowed(row.message_id.as_deref().filter(|_| is_begun(row)).unwrap_or_default()),
        text(&row.document_sha256),
        Cow::Owned(row.interrupted.to_string()),
        Cow::Borrowed(reason),
        text(&row.fingerprint),
        Cow::Borrowed(remedy.unwrap_or_default()),
        Cow::Owned(row.resends.iter().map(resend).collect::<Vec<_>>().join("; ")),
    ]
}

/// One mail beside the run's own in one cell, with what proves it.
fn resend(resend: &Resend) -> String {
    let Resend { purpose, state, updated_at, message_id, document_sha256, detail } = resend;
    let proof = [message_id.as_deref(), document_sha256.as_deref(), Some(detail.as_str())];
    let proof = proof.into_iter().flatten().filter(|text| !text.is_empty()).map(|text| format!(" {text}"));
    format!("{purpose} {state} {}{}", seconds(*updated_at), proof.collect::<String>())
}
