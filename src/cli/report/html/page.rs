//! The pieces of the page. Everything that is not of this file is escaped.

use std::fmt::{self, Display};
use std::io::{self, Write};

use crate::api::control::views::Checked;
use crate::base::outcome::{is_deceptive, split_remedy};
use crate::base::{Timestamp, units};
use crate::run::report::{FetchDeath, Resend, Row};
use crate::run::{Report, RunState};

use super::super::super::output;
use super::super::Head;
use super::super::pages::totals;

const STYLE: &str = include_str!("../report.css");
/// Of the faults that a check found, the page shows this many.
const FINDINGS_SHOWN_MAX: usize = 20;

/// The columns of a list of recipients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cells {
    /// Why it died and what to do.
    Dead,
    /// The Message-ID to look for.
    Doubt,
    /// A reason.
    Reason,
    /// The proof.
    Sent,
    /// The mails that were sent again.
    Resends,
}

/// The dead letters of one fault.
pub(super) struct Group {
    pub(super) fingerprint: String,
    pub(super) is_malformed: bool,
    /// The fault: kind, place, code.
    pub(super) class: String,
    /// The text of one of them.
    pub(super) sample: String,
    pub(super) remedy: Option<String>,
    pub(super) letters: u64,
}

/// Text as HTML shows it: escaped, and what could turn a line round is visible.
struct Text<'a>(&'a str);

impl Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_plain = |c: char| !matches!(c, '&' | '<' | '>' | '"' | '\'') && !is_deceptive(c);
        let mut rest = self.0;
        while let Some(at) = rest.find(|c| !is_plain(c)) {
            f.write_str(&rest[..at])?;
            let c = rest[at..].chars().next().expect("a character was found here");
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                other => write!(f, "{}", other.escape_default())?,
            }
            rest = &rest[at + c.len_utf8()..];
        }
        f.write_str(rest)
    }
}

/// A number with commas between thousands.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A moment to the second; the page says once that it is UTC.
fn seconds(at: Timestamp) -> String {
    output::seconds(at).replace('T', " ").replace('Z', "")
}

/// Everything above the lists.
pub(super) fn begin(out: &mut impl Write, head: &Head, checked: &Checked) -> io::Result<()> {
    let run = &head.run;
    let params: Vec<String> = run.params.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let title = format!("{} {}", run.schedule, params.join(" "));
    writeln!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>Run {}: {}</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<h1>{}</h1>",
        run.id,
        Text(&title),
        Text(title.trim_end()),
    )?;
    let fetched = run.fetched_at.map(|at| format!(", users fetched {}", seconds(at))).unwrap_or_default();
    writeln!(
        out,
        "<p class=\"meta\">Run {} · started {}{fetched} · as of {} · all times are UTC</p>",
        run.id,
        seconds(run.started_at),
        seconds(head.made_at),
    )?;
    if !run.note.is_empty() {
        writeln!(out, "<p class=\"meta\">{}</p>", Text(&run.note))?;
    }
    verdict(out, run, checked)?;
    balance(out, run, checked)
}

/// The one sentence that matters, and why fetching died.
fn verdict(out: &mut impl Write, run: &Report, checked: &Checked) -> io::Result<()> {
    let attention = run.dead + run.unknown + run.withdrawn + run.resends_unknown;
    let (class, sentence) = if !run.does_balance() || checked.total > 0 {
        ("bad", "The books do not balance: see below.".to_owned())
    } else if run.fetch_death.is_some() {
        ("bad", "Fetching the users stopped: recipients are missing from this run.".to_owned())
    } else if let Some(because) = &run.held_because {
        let what = match run.state {
            RunState::Braked => "Sending stopped by itself",
            _ => "Nothing is sent before this run is released",
        };
        ("bad", format!("{what}: {}.", Text(because)))
    } else if !run.is_complete() {
        ("", format!("The run is going on: {} not ended.", plural(run.open, "recipient has", "recipients have")))
    } else if attention > 0 {
        ("bad", format!("{} attention.", plural(attention, "recipient needs", "recipients need")))
    } else if run.sent == run.fetched {
        ("good", "Every recipient’s mail was sent.".to_owned())
    } else {
        ("good", "Every recipient’s mail was sent or left out by a rule.".to_owned())
    };
    write!(out, "<div class=\"verdict {class}\">{sentence}")?;
    if let Some(FetchDeath { class, text, died_at, remedy, .. }) = &run.fetch_death {
        write!(out, "<p>{} {}: {}</p><p>What to do: {}</p>", seconds(*died_at), Text(class), Text(text), Text(remedy))?;
    }
    writeln!(out, "</div>")
}

fn plural(count: u64, one: &str, many: &str) -> String {
    format!("{} {}", grouped(count), if count == 1 { one } else { many })
}

fn balance(out: &mut impl Write, run: &Report, checked: &Checked) -> io::Result<()> {
    write!(out, "<div class=\"bar\">")?;
    for (state, count) in totals(run).into_iter().filter(|(_, count)| *count > 0) {
        write!(out, "<i class=\"{state}\" style=\"flex:{count} 0 0\" title=\"{state}: {count}\"></i>")?;
    }
    writeln!(out, "</div>\n<table class=\"balance\"><tbody>")?;
    for (state, count) in totals(run).into_iter().filter(|(state, count)| *count > 0 || *state == "sent") {
        let (name, meaning) = meaning(state);
        writeln!(
            out,
            "<tr><td><i class=\"key {state}\"></i></td><td>{name} <span class=\"soft\">{meaning}</span></td>\
             <td class=\"n\">{}</td></tr>",
            grouped(count)
        )?;
    }
    let fetched = grouped(run.fetched);
    writeln!(
        out,
        "<tr class=\"sum\"><td></td><td>Recipients that the users API named</td><td class=\"n\">{fetched}</td></tr>\n\
         </tbody></table>"
    )?;
    write_check(out, run, checked)?;
    notes(out, run)
}

fn meaning(state: &str) -> (&'static str, &'static str) {
    match state {
        "sent" => ("Sent", "the relay accepted the mail"),
        "dead" => ("Not sent", "failed for good, kept as a dead letter"),
        "unknown" => ("In doubt", "the relay may have taken the mail"),
        "withdrawn" => ("Withdrawn", "removed before it was mailed"),
        "suppressed" => ("Suppressed", "the address is on the suppression list"),
        "skipped" => ("Skipped", "left out by a rule"),
        _ => ("Not ended", "waits or is being worked on"),
    }
}

fn write_check(out: &mut impl Write, run: &Report, checked: &Checked) -> io::Result<()> {
    let rows = plural(checked.rows, "row", "rows");
    if checked.total == 0 && run.does_balance() {
        return writeln!(out, "<p class=\"soft\">Recounted from {rows}: every recipient is in exactly one state.</p>");
    }
    let faults = units::count(checked.total, "fault");
    writeln!(out, "<p>Recounted from {rows}: {faults}.</p>\n<ul>")?;
    for finding in checked.findings.iter().take(FINDINGS_SHOWN_MAX) {
        writeln!(out, "<li>{}: {}</li>", Text(&finding.key), Text(&finding.what))?;
    }
    writeln!(out, "</ul>")
}

/// What stands beside the balance.
fn notes(out: &mut impl Write, run: &Report) -> io::Result<()> {
    if run.repeated > 0 {
        let records = plural(run.repeated, "record", "records");
        writeln!(out, "<p class=\"soft\">{records} named a recipient again and were left out.</p>")?;
    }
    if run.copies > 0 {
        let copies = plural(run.copies, "further message was", "further messages were");
        writeln!(out, "<p class=\"soft\">{copies} deleted without a mail: the recipient had been mailed.</p>")?;
    }
    Ok(())
}

/// The heading of the dead letters, and their groups.
pub(super) fn groups(out: &mut impl Write, head: &Head, groups: &[Group]) -> io::Result<()> {
    begin_section(
        out,
        ("Not sent", Some(head.run.dead)),
        "These failed for good. Each is kept with its whole history; mend the cause, then send them on by fingerprint.",
        false,
    )?;
    writeln!(
        out,
        "<table><thead><tr><th class=\"n\">Letters</th><th>Fault</th><th>For example</th><th>What to do</th></tr></thead>\
         <tbody>"
    )?;
    for group in groups {
        let remedy = group.remedy.as_ref().map(|remedy| format!("{}<br>", Text(remedy))).unwrap_or_default();
        writeln!(
            out,
            "<tr><td class=\"n\">{}</td><td>{}<br><code>{}</code></td><td>{}</td><td>{remedy}{}</td></tr>",
            grouped(group.letters),
            Text(&group.class),
            Text(&group.fingerprint),
            Text(&group.sample),
            command(head, group),
        )?;
    }
    end_table(out)
}

/// What brings the letters of a group back, as HTML.
fn command(head: &Head, group: &Group) -> String {
    let queue = if group.is_malformed { &head.malformed } else { &head.letters };
    match queue {
        Some(queue) if !group.fingerprint.is_empty() => {
            let (queue, fingerprint) = (Text(queue), Text(&group.fingerprint));
            format!("<code>nightmail redrive {queue} --where fingerprint={fingerprint}</code>")
        }
        _ => String::new(),
    }
}

pub(super) fn begin_section(
    out: &mut impl Write,
    (title, count): (&str, Option<u64>),
    text: &str,
    is_folded: bool,
) -> io::Result<()> {
    let count = count.map(|count| format!(": {}", grouped(count))).unwrap_or_default();
    match is_folded {
        true => writeln!(out, "<details><summary>{title}{count} <span>(unfold)</span></summary>\n<p>{text}</p>"),
        false => writeln!(out, "<h2>{title}{count}</h2>\n<p>{text}</p>"),
    }
}

pub(super) fn end_section(out: &mut impl Write, is_folded: bool) -> io::Result<()> {
    if is_folded { writeln!(out, "</details>") } else { Ok(()) }
}

pub(super) fn begin_table(out: &mut impl Write, cells: Cells) -> io::Result<()> {
    let columns = match cells {
        Cells::Dead => "<th>Fault</th><th>What to do</th>",
        Cells::Doubt => "<th>Message-ID</th><th>Why</th>",
        Cells::Reason => "<th>Why</th>",
        Cells::Sent => "<th>Relay’s reply and Message-ID</th><th>SHA-256 of the PDF</th>",
        Cells::Resends => "<th>Mails</th>",
    };
    let moment = if cells == Cells::Sent { "Sent at" } else { "Since" };
    writeln!(
        out,
        "<table><thead><tr><th class=\"who\">Recipient</th>{columns}<th class=\"t\">{moment}</th></tr></thead><tbody>"
    )
}

pub(super) fn end_table(out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "</tbody></table>")
}

pub(super) fn row(out: &mut impl Write, cells: Cells, row: &Row) -> io::Result<()> {
    write!(out, "<tr><td class=\"who\"><bdi class=\"id\">{}</bdi>", Text(&row.user))?;
    if let Some(account) = &row.account {
        write!(out, " <span class=\"soft\">account <bdi>{}</bdi></span>", Text(account))?;
    }
    if !row.address.is_empty() {
        write!(out, "<br><bdi class=\"soft\">{}</bdi>", Text(&row.address))?;
    }
    let (reason, remedy) = split_remedy(row.reason.as_deref().unwrap_or_default());
    let text = |text: &Option<String>| Text(text.as_deref().unwrap_or_default()).to_string();
    let message_id = text(&row.message_id);
    match cells {
        Cells::Dead => {
            let (reason, fingerprint) = (Text(reason), text(&row.fingerprint));
            let remedy = Text(remedy.unwrap_or_default());
            write!(out, "</td><td>{reason}<br><code>{fingerprint}</code></td><td>{remedy}")?;
        }
        Cells::Doubt => write!(out, "</td><td class=\"mono\">{message_id}</td><td>{}", Text(reason))?,
        Cells::Reason => write!(out, "</td><td>{}", Text(row.reason.as_deref().unwrap_or_default()))?,
        Cells::Resends => resends(out, &row.resends)?,
        Cells::Sent => {
            let proof = row.reply.as_deref().or(row.reason.as_deref()).unwrap_or_default();
            let (proof, hash) = (Text(proof), text(&row.document_sha256));
            write!(out, "</td><td>{proof}<br><span class=\"mono\">{message_id}</span></td><td class=\"mono\">{hash}")?;
        }
    }
    let since = row.resends.iter().map(|resend| resend.updated_at).max().filter(|_| cells == Cells::Resends);
    writeln!(out, "</td><td class=\"t\">{}</td></tr>", seconds(since.unwrap_or(row.updated_at)))
}

/// What each mail is, and what proves it.
fn resends(out: &mut impl Write, resends: &[Resend]) -> io::Result<()> {
    write!(out, "</td><td>")?;
    for Resend { purpose, state, updated_at, message_id, detail, .. } in resends {
        let (purpose, state, at) = (Text(purpose), Text(state), seconds(*updated_at));
        let message_id = Text(message_id.as_deref().unwrap_or_default()).to_string();
        write!(
            out,
            "<div>{purpose}: {state} {at}<br>{}<br><span class=\"mono\">{message_id}</span></div>",
            Text(detail)
        )?;
    }
    Ok(())
}

pub(super) fn end(out: &mut impl Write, head: &Head) -> io::Result<()> {
    let id = head.run.id;
    writeln!(
        out,
        "<footer>Made by Nightmail {} at {} UTC. Every recipient of the run is in <code>nightmail run report {id} --csv</code> \
         and in <code>--json</code>.</footer>\n</body>\n</html>",
        env!("CARGO_PKG_VERSION"),
        seconds(head.made_at),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_is_neither_markup_nor_turns_a_line_round() {
        assert_eq!(Text("<script>&\"'\u{202e}x\u{7}é").to_string(), "&lt;script&gt;&amp;&quot;&#39;\\u{202e}x\\u{7}é");
    }

    #[test]
    fn a_number_has_commas_between_its_thousands() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
