//! A run as one HTML page: self-contained, without scripts, for light and dark screens and for paper.
//!
//! Who needs attention is listed in full, however many they are; of the mails that were sent, the first ones. `page` has the
//! pieces of HTML, this file what stands where.

mod page;

use std::collections::BTreeMap;
use std::io::Write;

use crate::api::control::views::Checked;
use crate::api::control::{Answer, Request};
use crate::base::outcome::split_remedy;
use crate::run::report::{Filter, Row};

use super::super::ask::{Source, strange};
use super::Head;
use super::pages::{Pages, Recount, totals};
use page::{Cells, Group};

/// Of the mails that were sent, the page lists this many.
const SENT_SHOWN_MAX: u64 = 1000;
/// Up to this many are not folded up.
const SENT_UNFOLDED_MAX: u64 = 100;
/// Dead letters are grouped by this many fingerprints; those of further ones are one group.
const GROUPS_MAX: usize = 200;

/// What the mails that were sent again mean, as HTML.
const RESENT: &str = "These recipients got another mail, each with a Message-ID of its own; the balance counts the run’s own mails \
                      alone. One that is unknown is resolved with <code>nightmail run resolve RUN --sent</code> or \
                      <code>--resend</code>.";

/// A list of recipients on the page.
struct Section {
    state: &'static str,
    /// Only those that may have been mailed twice.
    is_doubt: bool,
    title: &'static str,
    /// What it means and what to do, as HTML.
    text: &'static str,
    cells: Cells,
    is_folded: bool,
}

/// In the order of the page. The mails that were sent come last, with a bound.
const SECTIONS: [Section; 6] = [
    Section {
        state: "unknown",
        is_doubt: false,
        title: "In doubt",
        text: "Nobody knows whether the relay took these mails, so they are not sent again by themselves. Look for the \
               Message-ID in the relay’s log, then say what you found: <code>nightmail run resolve RUN --sent</code> or \
               <code>--resend</code>, with <code>--recipient ID</code> for one of them.",
        cells: Cells::Doubt,
        is_folded: false,
    },
    Section {
        state: "sent",
        is_doubt: true,
        title: "Sent, perhaps twice",
        text: "These mails were sent, after an attempt that may have sent them too. Both have the same Message-ID.",
        cells: Cells::Doubt,
        is_folded: false,
    },
    Section {
        state: "withdrawn",
        is_doubt: false,
        title: "Withdrawn",
        text: "Their messages were removed before they were mailed.",
        cells: Cells::Reason,
        is_folded: false,
    },
    Section {
        state: "open",
        is_doubt: false,
        title: "Not ended",
        text: "Their messages wait, or are being worked on.",
        cells: Cells::Reason,
        is_folded: false,
    },
    Section {
        state: "suppressed",
        is_doubt: false,
        title: "Suppressed",
        text: "Their addresses are on the suppression list.",
        cells: Cells::Reason,
        is_folded: true,
    },
    Section {
        state: "skipped",
        is_doubt: false,
        title: "Skipped",
        text: "A rule of the configuration left them out.",
        cells: Cells::Reason,
        is_folded: true,
    },
];

pub(super) async fn write(source: &Source, head: &Head, out: &mut impl Write) -> anyhow::Result<Recount> {
    let checked = match source.ask(Request::VerifyRun { id: head.run.id }).await? {
        Answer::Checked(checked) => checked,
        other => return Err(strange(&other)),
    };
    page::begin(out, head, &checked)?;
    if head.run.dead > 0 {
        dead(source, head, out).await?;
    }
    for section in &SECTIONS {
        list(source, head, section, out).await?;
    }
    resent(source, head, out).await?;
    sent(source, head, out).await?;
    page::end(out, head)?;
    Ok(recount(head, &checked))
}

/// What the check counted: the page itself does not read the mails that were sent, beyond the first ones.
fn recount(head: &Head, checked: &Checked) -> Recount {
    let mut recount = Recount::default();
    if checked.total == 0 {
        recount.recipients = checked.rows;
        recount.by_state = totals(&head.run).into_iter().map(|(state, count)| (state.to_owned(), count)).collect();
    }
    recount
}

/// The dead letters: grouped by their fingerprint, then one by one. They are read twice, so that nothing is held.
async fn dead(source: &Source, head: &Head, out: &mut impl Write) -> anyhow::Result<()> {
    let only = Filter { state: Some("dead".into()), ..Filter::default() };
    let (mut pages, mut groups) = (Pages::new(source, head.run.id, only.clone()), BTreeMap::new());
    while let Some(rows) = pages.next().await? {
        for row in &rows {
            add_to_group(&mut groups, row);
        }
    }
    let mut groups: Vec<Group> = groups.into_values().collect();
    groups.sort_by(|a, b| b.letters.cmp(&a.letters).then_with(|| a.class.cmp(&b.class)));
    page::groups(out, head, &groups)?;
    page::begin_table(out, Cells::Dead)?;
    let mut pages = Pages::new(source, head.run.id, only);
    while let Some(rows) = pages.next().await? {
        for row in &rows {
            page::row(out, Cells::Dead, row)?;
        }
    }
    Ok(page::end_table(out)?)
}

/// By fingerprint, and apart from each other the recipients without an address: those are malformed records.
fn add_to_group(groups: &mut BTreeMap<(String, bool), Group>, row: &Row) {
    let key = (row.fingerprint.clone().unwrap_or_default(), row.address.is_empty());
    let is_full = groups.len() >= GROUPS_MAX && !groups.contains_key(&key);
    let key = if is_full { (String::new(), false) } else { key };
    let group = groups.entry(key).or_insert_with_key(|(fingerprint, is_malformed)| {
        let (reason, remedy) = split_remedy(row.reason.as_deref().unwrap_or_default());
        let (class, sample) = reason.split_once(": ").unwrap_or((reason, ""));
        let class = if is_full { "other faults" } else { class };
        Group {
            fingerprint: fingerprint.clone(),
            is_malformed: *is_malformed,
            class: class.into(),
            sample: sample.into(),
            remedy: remedy.map(str::to_owned),
            letters: 0,
        }
    });
    group.letters += 1;
}

async fn list(source: &Source, head: &Head, section: &Section, out: &mut impl Write) -> anyhow::Result<()> {
    let run = &head.run;
    let in_state = totals(run).into_iter().find(|(state, _)| *state == section.state).map_or(0, |(_, count)| count);
    let count = if section.is_doubt { run.interrupted.saturating_sub(run.unknown) } else { in_state };
    if count == 0 {
        return Ok(());
    }
    let state = Some(section.state.to_owned());
    let filter = Filter { state, interrupted: section.is_doubt, ..Filter::default() };
    let mut pages = Pages::new(source, run.id, filter);
    let text = section.text.replace("RUN", &run.id.to_string());
    let counted = if section.is_doubt { None } else { Some(count) };
    page::begin_section(out, (section.title, counted), &text, section.is_folded)?;
    page::begin_table(out, section.cells)?;
    while let Some(rows) = pages.next().await? {
        for row in &rows {
            page::row(out, section.cells, row)?;
        }
    }
    page::end_table(out)?;
    Ok(page::end_section(out, section.is_folded)?)
}

/// The mails beside the run's own, those in doubt among them.
async fn resent(source: &Source, head: &Head, out: &mut impl Write) -> anyhow::Result<()> {
    let mut pages = Pages::new(source, head.run.id, Filter { resent: true, ..Filter::default() });
    let mut has_begun = false;
    while let Some(rows) = pages.next().await? {
        for row in &rows {
            if !has_begun {
                page::begin_section(
                    out,
                    ("Sent again by hand", None),
                    &RESENT.replace("RUN", &head.run.id.to_string()),
                    false,
                )?;
                page::begin_table(out, Cells::Resends)?;
            }
            has_begun = true;
            page::row(out, Cells::Resends, row)?;
        }
    }
    if has_begun {
        page::end_table(out)?;
        page::end_section(out, false)?;
    }
    Ok(())
}

async fn sent(source: &Source, head: &Head, out: &mut impl Write) -> anyhow::Result<()> {
    let sent = head.run.sent;
    if sent == 0 {
        return Ok(());
    }
    let filter = Filter { state: Some("sent".into()), ..Filter::default() };
    let rows = Pages::new(source, head.run.id, filter).next().await?.unwrap_or_default();
    let is_folded = sent > SENT_UNFOLDED_MAX;
    page::begin_section(out, ("Sent", Some(sent)), &sent_text(head, is_folded), is_folded)?;
    page::begin_table(out, Cells::Sent)?;
    for row in rows.iter().take(usize::try_from(SENT_SHOWN_MAX).unwrap_or(usize::MAX)) {
        page::row(out, Cells::Sent, row)?;
    }
    page::end_table(out)?;
    Ok(page::end_section(out, is_folded)?)
}

fn sent_text(head: &Head, is_folded: bool) -> String {
    let mut text = String::from("The relay accepted these mails.");
    if head.run.sent > SENT_SHOWN_MAX {
        let (shown, all) = (page::grouped(SENT_SHOWN_MAX), page::grouped(head.run.sent));
        text = format!(
            "The relay accepted these mails. This page lists {shown} of the {all}; all of them are in the CSV: \
             <code>nightmail run report {} --csv</code>.",
            head.run.id
        );
    }
    if is_folded {
        text += " This list is printed only while it is unfolded.";
    }
    text
}
