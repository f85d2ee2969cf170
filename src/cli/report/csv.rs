//! A run as CSV after RFC 4180: a header, then one line for each recipient.

use std::borrow::Cow;
use std::io::Write;

use csv::{Terminator, WriterBuilder};

use crate::base::outcome::split_remedy;
use crate::run::report::{Filter, Row};

use super::super::ask::Source;
use super::super::output::seconds;
use super::Head;
use super::pages::{Pages, Tally, is_begun};

const HEADER: [&str; 15] = [
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
];

pub(super) async fn write(source: &Source, head: &Head, out: impl Write) -> anyhow::Result<Tally> {
    let mut csv = WriterBuilder::new().terminator(Terminator::CRLF).from_writer(out);
    csv.write_record(HEADER).map_err(fault)?;
    let params: Vec<String> = head.run.params.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let run = [head.run.id.to_string(), head.run.schedule.clone(), params.join(" ")];
    let (mut pages, mut tally) = (Pages::new(source, head.run.id, Filter::default()), Tally::default());
    while let Some(rows) = pages.next().await? {
        for row in &rows {
            tally.count(row);
            let cells = run.iter().map(|cell| Cow::Borrowed(cell.as_str())).chain(cells(row));
            for cell in cells {
                csv.write_field(defused(cell).as_bytes()).map_err(fault)?;
            }
            csv.write_record(None::<&[u8]>).map_err(fault)?;
        }
    }
    csv.flush()?;
    Ok(tally)
}

fn cells(row: &Row) -> [Cow<'_, str>; 12] {
    let text = |text: &Option<String>| Cow::Owned(text.clone().unwrap_or_default());
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
    ]
}

/// A cell that a spreadsheet would take for a formula begins with an apostrophe
/// (<https://owasp.org/www-community/attacks/CSV_Injection>). They skip blanks in front of one.
fn defused(cell: Cow<'_, str>) -> Cow<'_, str> {
    let is_formula =
        cell.trim_start_matches([' ', '\n']).starts_with(['=', '+', '-', '@', '\t', '\r', '＝', '＋', '－', '＠']);
    if is_formula { Cow::Owned(format!("'{cell}")) } else { cell }
}

/// A fault of writing, which may be a closed pipe.
fn fault(error: csv::Error) -> anyhow::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error.into(),
        other => anyhow::anyhow!("{other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cell_begins_as_a_formula_does() {
        for cell in ["=1+1", "+49", "-5", "@SUM(A1)", "\t=1", "\r=1", "  =1", "\n=1", "＝1"] {
            assert_eq!(defused(cell.into()), format!("'{cell}"));
        }
        for cell in ["", "u-17", "250 2.0.0 ok", "<1@b.example>", "a=b", "1-2"] {
            assert_eq!(defused(cell.into()), cell);
        }
    }
}
