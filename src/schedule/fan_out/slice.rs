//! One slice of a page: admission, messages, ledger rows, letters and the new position are one commit. So is, with the last
//! one, what the run's guard says.

use serde_json::value::RawValue;

use crate::base::Now;
use crate::queue::settle::Ended;
use crate::queue::{self, Admission, LetterAdmission, catalog, send};
use crate::run::ledger::{self, Ledger, Recipient};
use crate::run::{control, phases};
use crate::store::Tx;
use crate::store::record::{CursorCycle, FanOutProgress, RunRecord};

use super::page::{PreparedMessage, PreparedPage, PreparedRecord};
use super::{Error, FanOutOptions, cursor, cycle, may_go_on};

/// A slice writes about this many rows at most.
const ROWS_MAX: usize = 480;
/// The rows of a record that becomes a message or a letter.
const ROWS_OF_MESSAGE: usize = 6;
/// Those of a user whose message is sent later; the look for an earlier row of the user counts as one.
const ROWS_OF_RECIPIENT: usize = 3;

/// What a slice came to.
#[derive(Debug)]
pub struct Slice {
    /// The run with its new cursor.
    pub run: RunRecord,
    /// Records that named a user again.
    pub repeated: u64,
    /// Where it ended.
    pub end: SliceEnd,
}

/// Where a slice ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SliceEnd {
    /// Before the end of the page: the next slice begins with the record at this index.
    Record(usize),
    /// With the page; the cursor stands at the next one, or the fan-out is finished.
    Page,
    /// With the page, whose next page was there before: the cursor stays.
    CursorCameBack,
    /// With the last page, and there is no user in the run: the fan-out begins anew.
    NoUsers,
}

/// Commits the records of `page` from index `from` on: as many as a step may, and no more than the queues take.
/// Records that an earlier attempt committed are recognised by their rows, whatever their position is by now.
///
/// # Errors
/// [`Error::Held`]; [`Error::Overtaken`]; [`queue::Error::Full`] when there is no room for the first record.
pub fn commit(
    tx: &mut Tx<'_>,
    options: &FanOutOptions,
    run: &RunRecord,
    page: &PreparedPage,
    from: usize,
    now: Now,
) -> Result<Slice, Error> {
    may_go_on(tx, run.id)?;
    // Compare and set: the page was fetched outside the transaction. If the cursor has moved since, another worker has
    // committed this slice, for example after this message's visibility timeout.
    let is_here = |stored: &RunRecord| position(stored) == position(run) && page.number == run.fan_out.pages + 1;
    let mut run = tx.runs()?.get(&run.id)?.filter(is_here).ok_or(Error::Overtaken)?;
    let (target, own) = (catalog::find(tx, &options.target)?, catalog::find(tx, &options.queue)?);
    // A guarded run's users get their messages once all are fetched: until then the queue needs no room for them.
    let users = if control::is_guarded(tx, run.id)? { None } else { Some(Admission::to(tx, &target)?) };
    let mut admissions = (users, LetterAdmission::to(tx, &own)?);
    let (mut admitted, mut repeated, mut known, mut next, mut rows) = (Vec::new(), 0, 0, from, 0);
    for record in &page.records[from..] {
        rows += rows_of(record, admissions.0.is_none());
        if rows > ROWS_MAX {
            break;
        }
        let row = tx.recipients()?.get(&(run.id, record.key))?;
        // Counted once, when the cursor passes it. A row of this same page was written by an earlier attempt, and in a
        // refetch every row may be of an earlier fetch.
        let is_known = row.as_ref().is_some_and(|row| row.page != page.number);
        let is_repeated = run.refetches == 0 && (record.is_twice || is_known);
        let is_first_pass = next >= run.fan_out.position as usize;
        repeated += u64::from(is_repeated && is_first_pass);
        let is_earlier =
            row.as_ref().is_some_and(|row| row.refetch < run.refetches && !ledger::is_of_abandoned_refetch(row));
        known += u64::from(is_earlier && is_first_pass);
        if row.as_ref().is_none_or(ledger::is_of_abandoned_refetch) && !record.is_twice {
            match admit(tx, &mut admissions, record, now) {
                Ok(right) => admitted.push((record, right)),
                // What fits now is committed now.
                Err(queue::Error::Full { .. }) if next > from => break,
                Err(error) => return Err(error.into()),
            }
        }
        next += 1;
    }
    // From here on everything is written.
    for (record, right) in admitted {
        right.send(tx, options, recipient(record, page.number, run.refetches), run.id, now)?;
    }
    ledger::count_repeated(tx, run.id, repeated)?;
    phases::known(tx, run.id, known)?;
    let before = run.fan_out.clone();
    let end = advance(tx, &mut run, page, next, now)?;
    if run.fan_out != before {
        tx.runs()?.insert(&run.id, &run)?;
    }
    if run.fan_out.finished_at.is_some() {
        control::fetched(tx, &run, page.earlier, now.wall)?;
    }
    Ok(Slice { run, repeated, end })
}

fn rows_of(record: &PreparedRecord, is_guarded: bool) -> usize {
    match record.message {
        PreparedMessage::User(..) if is_guarded => ROWS_OF_RECIPIENT,
        PreparedMessage::User(..) | PreparedMessage::Letter(..) => ROWS_OF_MESSAGE,
    }
}

/// What identifies a position in the pages of all fetches of a run.
fn position(run: &RunRecord) -> (u32, u32, Option<&str>, u32, bool) {
    let progress = &run.fan_out;
    (run.refetches, progress.pages, progress.next.as_deref(), progress.position, progress.finished_at.is_some())
}

/// The row of a record, without its message.
fn recipient(record: &PreparedRecord, page: u32, refetch: u32) -> Recipient<'_> {
    let (user, address, account) = (record.name.as_str(), record.address.as_str(), record.account.as_deref());
    Recipient { key: record.key, user, address, account, page, record: None, body: 0, refetch }
}

/// The right to send one record's message; of a user of a guarded run, none is sent yet.
enum Right<'p, 'q> {
    User(Option<queue::Admitted<'q>>, &'p RawValue),
    Letter(queue::AdmittedLetter<'q>, &'p crate::base::Failure),
}

fn admit<'p, 'q>(
    tx: &mut Tx<'_>,
    (users, letters): &mut (Option<Admission<'q>>, LetterAdmission<'q>),
    record: &'p PreparedRecord,
    now: Now,
) -> Result<Right<'p, 'q>, queue::Error> {
    match &record.message {
        PreparedMessage::User(message, text) => {
            let admitted = users.as_mut().map(|users| users.admit(tx, message.clone(), now)).transpose()?;
            Ok(Right::User(admitted, text))
        }
        PreparedMessage::Letter(letter, why) => {
            letters.admit(tx, letter.clone(), now).map(|letter| Right::Letter(letter, why))
        }
    }
}

impl Right<'_, '_> {
    /// Sends the message and adds the recipient's row.
    fn send(
        self,
        tx: &mut Tx<'_>,
        options: &FanOutOptions,
        recipient: Recipient<'_>,
        run: u64,
        now: Now,
    ) -> Result<(), Error> {
        match self {
            Self::User(message, text) => {
                let body = match message {
                    Some(message) => send::send(tx, message, now)?.sequence,
                    None => 0,
                };
                ledger::add(tx, run, Recipient { record: Some(text.get()), body, ..recipient }, now.wall)?;
            }
            Self::Letter(letter, why) => {
                // The row comes first: the letter's death changes it.
                ledger::add(tx, run, recipient, now.wall)?;
                let ended = Ended { function: options.name.clone(), why: why.clone(), at: now };
                let letter = send::send_dead(tx, &Ledger, letter, &ended)?;
                ledger::has_message(tx, (run, recipient.key), letter.sequence)?;
            }
        }
        Ok(())
    }
}

/// Moves the cursor behind the records before `next`.
fn advance(
    tx: &mut Tx<'_>,
    run: &mut RunRecord,
    page: &PreparedPage,
    next: usize,
    now: Now,
) -> Result<SliceEnd, Error> {
    let progress = &mut run.fan_out;
    // Whoever carries a fan-out on has its message, so that is no letter.
    progress.letter = None;
    let position = u32::try_from(next).expect("an answer has far fewer than four thousand million records");
    progress.position = progress.position.max(position);
    if next < page.records.len() {
        return Ok(SliceEnd::Record(next));
    }
    let cycle = match &page.next {
        None => progress.cycle,
        Some(address) => match cycle::advance(progress.cycle, &cursor(progress), address) {
            Some(cycle) => cycle,
            None => {
                // After the fix the same cursor may rightly come next: this page need not be where the ring was closed.
                progress.cycle = CursorCycle::default();
                return Ok(SliceEnd::CursorCameBack);
            }
        },
    };
    if page.next.is_none() && tx.totals_of(run.id)?.fetched == 0 {
        run.fan_out = FanOutProgress::default();
        return Ok(SliceEnd::NoUsers);
    }
    run.fan_out = FanOutProgress {
        pages: progress.pages + 1,
        next: page.next.clone(),
        finished_at: page.next.is_none().then_some(now.wall),
        cycle,
        ..FanOutProgress::default()
    };
    Ok(SliceEnd::Page)
}
