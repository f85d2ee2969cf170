//! Reports of runs: the totals, and the same recounted from the rows.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};

use crate::base::{MessageId, Timestamp, units};
use crate::function::statement::archive::to_hex;
use crate::store::record::{
    CheckRecord, DeadlineState, EffectRecord, FanOutLetter, Gate, GateMode, PhaseCounts, PhaseTotals, RecipientRecord,
    RecipientState, RenderingTotals, RunControl, RunDeadline, RunHold, RunPace, RunRecord, RunTotals,
};
use crate::store::{self, Snapshot};

use super::control::GateStage;
pub use super::control::RunState;
use super::{Error, Eta, fold, ledger};

/// Of the runs about which an operator or a guard has decided something, at most this many are looked at.
const HELD_LOOKED_AT: usize = 1000;

/// A list returns at most this many rows.
pub const ROWS_SHOWN_MAX: usize = 1000;

/// Why the users of a run are not fetched any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchDeath {
    /// The id of the fan-out's dead letter.
    pub letter: MessageId,
    /// The dead-letter queue; empty when the letter is not there any more.
    pub queue: String,
    /// The class of the failure, e.g. `data users none`.
    pub class: String,
    /// The failure in words.
    pub text: String,
    /// When it died.
    pub died_at: Timestamp,
    /// What an operator does about it.
    pub remedy: String,
}

impl FetchDeath {
    fn new(run: u64, letter: FanOutLetter, is_refetching: bool) -> Self {
        let FanOutLetter { message_id, queue, class, text, died_at } = letter;
        let remedy = if queue.is_empty() {
            format!("`nightmail send QUEUE '{{\"run\": {run}}}'`, to the queue of its fan-out")
        } else {
            format!("mend the cause, then `nightmail redrive {queue} --id {message_id}`")
        };
        let back = format!(", or `nightmail run abandon {run} --refetch` to give the refetch up");
        let remedy = remedy + if is_refetching { &back } else { "" };
        Self { letter: message_id, queue, class, text, died_at, remedy }
    }
}

/// The totals of a run so far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Its number.
    pub id: u64,
    /// Its schedule.
    pub schedule: String,
    /// Its identifying parameters.
    pub params: BTreeMap<String, String>,
    /// The tick that it is for, or the moment of a start by hand.
    pub scheduled_for: Timestamp,
    /// When it started.
    pub started_at: Timestamp,
    /// When all users were fetched; `None` while the fan-out is running.
    pub fetched_at: Option<Timestamp>,
    /// Recipients that the users API named.
    pub fetched: u64,
    /// Recipients whose mail the relay accepted.
    pub sent: u64,
    /// Recipients whose message is in a dead-letter queue.
    pub dead: u64,
    /// Recipients whose message was removed without an outcome.
    pub withdrawn: u64,
    /// Recipients whose message has not ended.
    pub open: u64,
    /// Records that named a recipient again.
    pub repeated: u64,
    /// Attempts that may have sent their mail without an answer to it.
    pub interrupted: u64,
    /// Recipients of whom nobody knows whether the relay took their mail; they wait for `run resolve`.
    #[serde(default)]
    pub unknown: u64,
    /// Recipients whom a rule left out.
    #[serde(default)]
    pub skipped: u64,
    /// Recipients on the suppression list.
    #[serde(default)]
    pub suppressed: u64,
    /// Messages that were deleted without a mail, because their recipient had been mailed already, or may have been.
    #[serde(default)]
    pub copies: u64,
    /// Its state.
    pub state: RunState,
    /// Since when it has been stopped, abandoned or braked, or has awaited its release.
    #[serde(default)]
    pub held_since: Option<Timestamp>,
    /// Why it awaits its release, or is braked.
    #[serde(default)]
    pub held_because: Option<String>,
    /// Mails that were sent again by hand and have not ended.
    #[serde(default)]
    pub resending: u64,
    /// Mails that were sent again by hand, and of which nobody knows whether the relay took them.
    #[serde(default)]
    pub resends_unknown: u64,
    /// Whether a refetch of it has not ended, and can be given up.
    #[serde(default)]
    pub is_refetching: bool,
    /// Set in the state `fetch-dead`.
    pub fetch_death: Option<FetchDeath>,
    /// Its note; most often empty.
    #[serde(default)]
    pub note: String,
    /// When it was folded: its recipients are not on record any more.
    #[serde(default)]
    pub folded_at: Option<Timestamp>,
    /// When every recipient was first seen to have an end.
    #[serde(default)]
    pub ended_at: Option<Timestamp>,
    /// Its deadline, and how it stands to that.
    #[serde(default)]
    pub deadline: Option<RunDeadline>,
    /// When it will probably have ended; only a daemon says so, of a run that is under way.
    #[serde(default)]
    pub eta: Option<Eta>,
    /// What its gate has seen of its statements; `None` without one.
    #[serde(default)]
    pub gate: Option<GateReport>,
    /// What happened in each of its phases.
    #[serde(default)]
    pub phases: PhasesReport,
}

/// What happened in each phase of a run so far. What is done again counts again; resends are in no phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhasesReport {
    /// Reading the users: what the users API named.
    pub fetch: PhaseReport,
    /// Fetching accounts and making statements.
    pub render: PhaseReport,
    /// Checking statements, behind a gate.
    pub check: PhaseReport,
    /// Mailing.
    pub send: PhaseReport,
}

/// What happened in one phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhaseReport {
    /// All that it has looked at: the sum of the others.
    pub read: u64,
    /// Left out: records that named a user again, addresses on the suppression list.
    pub filtered: u64,
    /// Gone through.
    pub done: u64,
    /// Passed over: recipients of an earlier fetch, accounts that a rule leaves out, statements over a limit, copies.
    pub skipped: u64,
    /// Failed, and tried again.
    pub retried: u64,
    /// Failed for good, or in doubt.
    pub dead: u64,
}

impl PhasesReport {
    /// The phases with their names, in their order.
    pub const fn named(&self) -> [(&'static str, PhaseReport); 4] {
        [("fetch", self.fetch), ("render", self.render), ("check", self.check), ("send", self.send)]
    }
}

impl From<PhaseTotals> for PhasesReport {
    fn from(PhaseTotals { fetch, render, check, send }: PhaseTotals) -> Self {
        let [fetch, render, check, send] = [fetch, render, check, send].map(|phase| {
            let PhaseCounts { filtered, done, skipped, retried, dead } = phase;
            PhaseReport { read: phase.read(), filtered, done, skipped, retried, dead }
        });
        Self { fetch, render, check, send }
    }
}

/// What a gate has seen of a run's statements.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateReport {
    /// Who lets the run go, `manual` or `auto`; `None` once it is let go.
    pub mode: Option<String>,
    /// Statements that were made before they may be mailed.
    pub statements: u64,
    /// Those that are made and not mailed yet.
    pub waiting: u64,
    /// The pages of all statements.
    pub pages: u64,
    /// The bytes of all statements.
    pub bytes: u64,
    /// Statements without transactions.
    pub empty: u64,
    /// Statements over a limit.
    pub over: u64,
    /// When they were checked last.
    pub checked_at: Option<Timestamp>,
    /// What the check found, a clause each.
    pub findings: Vec<String>,
}

impl GateReport {
    fn new(gate: Option<Gate>, check: Option<CheckRecord>, made: &RenderingTotals) -> Option<Self> {
        let mode = gate.map(|gate| match gate.mode {
            GateMode::Manual => "manual".to_owned(),
            GateMode::Auto => "auto".to_owned(),
        });
        let is_one = mode.is_some() || check.is_some() || made.statements > 0;
        // Of a refetch whose gate has not checked yet, the check on record is that of an earlier fetch.
        let check = check.filter(|_| gate.is_none_or(|gate| gate.checked_at.is_some()));
        let (checked_at, findings) = check.map_or((None, Vec::new()), |check| (Some(check.at), check.findings));
        let RenderingTotals { statements, pages, bytes, empty, over, open } = *made;
        is_one.then_some(Self { mode, statements, waiting: open, pages, bytes, empty, over, checked_at, findings })
    }
}

impl Report {
    /// Whether all users were fetched, or the run was abandoned, and every recipient's message has ended.
    pub fn is_complete(&self) -> bool {
        let is_held = matches!(self.state, RunState::Rendering | RunState::AwaitingRelease);
        let has_begun = self.fetched_at.is_some() && !is_held;
        (has_begun || self.state == RunState::Abandoned) && self.open == 0
    }

    fn new(run: RunRecord, totals: RunTotals, control: &RunControl, pace: Option<RunPace>) -> Self {
        let state = RunState::of(control, &run.fan_out, &totals);
        let (held_since, held_because) = match &control.hold {
            RunHold::None | RunHold::Fetching | RunHold::Rendering | RunHold::Remaking => (None, None),
            RunHold::Stopped { at } | RunHold::Abandoned { at } => (Some(*at), None),
            RunHold::AwaitingRelease { at, reason } => (Some(*at), Some(awaits(reason, control, &totals))),
            RunHold::Braked { at, reason } => (Some(*at), Some(reason.clone())),
        };
        let is_refetching = control.refetch.is_some_and(|refetch| refetch.abandoned_at.is_none());
        let letter = run.fan_out.letter.filter(|_| state == RunState::FetchDead);
        let pace = pace.unwrap_or_default();
        Self {
            state,
            held_since,
            held_because,
            fetch_death: letter.map(|letter| FetchDeath::new(run.id, letter, is_refetching)),
            is_refetching,
            resending: totals.resending,
            resends_unknown: totals.resends_unknown,
            note: run.note,
            folded_at: run.folded_at,
            ended_at: pace.ended_at,
            deadline: pace.deadline,
            eta: None,
            gate: GateReport::new(control.gate, run.check, &totals.renderings),
            phases: totals.phases.into(),
            id: run.id,
            schedule: run.schedule,
            params: run.params,
            scheduled_for: run.scheduled_for,
            started_at: run.started_at,
            fetched_at: run.fan_out.finished_at,
            fetched: totals.fetched,
            sent: totals.sent,
            dead: totals.dead,
            withdrawn: totals.withdrawn,
            open: totals.open(),
            repeated: totals.repeated,
            interrupted: totals.interrupted,
            unknown: totals.unknown,
            skipped: totals.skipped,
            suppressed: totals.suppressed,
            copies: totals.copies,
        }
    }

    /// Recipients that have an end.
    pub const fn ended(&self) -> u64 {
        self.fetched.saturating_sub(self.open)
    }

    /// That it misses its deadline, or probably will, in words that follow the run's name; `None` when it does not.
    pub fn lateness(&self) -> Option<String> {
        let deadline = self.deadline?;
        let ends = match (self.ended_at, &self.eta) {
            (Some(ended), _) => format!("it ended at {ended}"),
            (None, Some(Eta { at, earliest, latest, .. })) => {
                format!("it ends at about {at} ({earliest} to {latest}) as things stand")
            }
            (None, None) => format!("{} recipients are open", self.open),
        };
        match deadline.state {
            DeadlineState::AtRisk if self.ended_at.is_some() => {
                Some(format!("may have missed its deadline, {}: nobody saw when it ended", deadline.at))
            }
            DeadlineState::AtRisk => Some(format!("will probably miss its deadline, {}: {ends}", deadline.at)),
            DeadlineState::Missed => Some(format!("has missed its deadline, {}: {ends}", deadline.at)),
            DeadlineState::OnTime | DeadlineState::Met => None,
        }
    }

    /// What an operator can do about it, as commands.
    pub fn remedy(&self) -> String {
        let shut = self.gate.as_ref().filter(|gate| gate.mode.is_some());
        let gate = shut.map_or(GateStage::None, |gate| GateStage::of(gate.checked_at));
        self.state.remedy_of(self.id, gate, self.is_refetching)
    }

    /// Open recipients whose statement is not made, behind a gate that is shut.
    pub fn unmade(&self) -> u64 {
        let shut = self.gate.as_ref().filter(|gate| gate.mode.is_some());
        shut.map_or(0, |gate| self.open.saturating_sub(gate.waiting))
    }

    /// Whether every recipient is in exactly one state.
    pub const fn does_balance(&self) -> bool {
        let delivered = self.sent + self.skipped + self.suppressed;
        self.fetched == delivered + self.dead + self.unknown + self.withdrawn + self.open
    }
}

/// Why a run awaits its release, and how many letters are being made again, which the check has not seen.
fn awaits(reason: &str, control: &RunControl, totals: &RunTotals) -> String {
    let is_checked = control.gate.is_some_and(|gate| gate.checked_at.is_some());
    match totals.unrendered() {
        unmade @ 1.. if is_checked => format!("{reason}; {} not made yet", units::count(unmade, "more statement")),
        _ => reason.to_owned(),
    }
}

/// One recipient of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Its row key in hex; the next page of a list starts after the last one.
    pub key: String,
    /// The user's id; of a malformed record the id that it names, else its page and position.
    pub user: String,
    /// The mail address; empty for a malformed record.
    #[serde(default)]
    pub address: String,
    /// The account, when it is not the user's id.
    #[serde(default)]
    pub account: Option<String>,
    /// The Message-ID of its mail, sent or not; `None` when nothing mails for the run any more.
    #[serde(default)]
    pub message_id: Option<String>,
    /// `open`, `sent`, `dead`, `withdrawn`, `unknown`, `skipped` or `suppressed`.
    pub state: String,
    /// When the state last changed.
    pub updated_at: Timestamp,
    /// Attempts that may have mailed without an answer.
    pub interrupted: u32,
    /// The relay's reply to its mail.
    #[serde(default)]
    pub reply: Option<String>,
    /// SHA-256 of the PDF in its mail, in hex; of an open recipient, of the PDF that was made for it.
    #[serde(default)]
    pub document_sha256: Option<String>,
    /// Why it is dead, withdrawn or unknown; who resolved a doubt.
    #[serde(default)]
    pub reason: Option<String>,
    /// The fingerprint of a death.
    #[serde(default)]
    pub fingerprint: Option<String>,
    /// The relay's reply, the fingerprint, or the reason.
    pub detail: String,
    /// Mails beside the run's own, the earlier ones first: those that were sent again by hand.
    #[serde(default)]
    pub resends: Vec<Resend>,
}

/// Another mail of a recipient than the run's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resend {
    /// `resend-1` and so on.
    pub purpose: String,
    /// As for a recipient.
    pub state: String,
    /// When the state last changed.
    pub updated_at: Timestamp,
    /// Its Message-ID, once it is sent or in doubt.
    pub message_id: Option<String>,
    /// SHA-256 of the PDF in it, in hex.
    #[serde(default)]
    pub document_sha256: Option<String>,
    /// The relay's reply, the fingerprint, or the reason.
    pub detail: String,
}

impl Resend {
    fn new(effect: EffectRecord) -> Self {
        let EffectRecord { purpose, state, updated_at, .. } = effect;
        let (detail, name) = (detail(&state), state.name().into());
        let (message_id, document_sha256) = match state {
            RecipientState::Sent(proof) => (proof.message_id, proof.document_sha256),
            RecipientState::Unknown(id) => (id, None),
            _ => (None, None),
        };
        Self { purpose, state: name, updated_at, message_id, document_sha256, detail }
    }
}

/// Which recipients a list shows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// Only those in this state.
    #[serde(default)]
    pub state: Option<String>,
    /// Only those whose attempts may have mailed without an answer.
    #[serde(default)]
    pub interrupted: bool,
    /// Only those who were mailed again by hand.
    #[serde(default)]
    pub resent: bool,
    /// Only the user with this id.
    #[serde(default)]
    pub user: Option<String>,
    /// Only those with this mail address, in whatever case.
    #[serde(default)]
    pub address: Option<String>,
    /// Only those whose reason, fingerprint or relay's reply has this text, in whatever case.
    #[serde(default)]
    pub reason: Option<String>,
}

impl Filter {
    fn has(&self, row: &Row) -> bool {
        let is_same = |wanted: &Option<String>, found: &str| wanted.as_ref().is_none_or(|wanted| wanted == found);
        let reasons = [row.reason.as_deref(), row.fingerprint.as_deref(), row.reply.as_deref()];
        let contains = |part: &String| {
            let part = part.to_lowercase();
            reasons.into_iter().flatten().any(|reason| reason.to_lowercase().contains(&part))
        };
        is_same(&self.state, &row.state)
            && (!self.interrupted || row.interrupted > 0)
            && is_same(&self.user, &row.user)
            && self.address.as_ref().is_none_or(|address| address.eq_ignore_ascii_case(&row.address))
            && self.reason.as_ref().is_none_or(contains)
    }
}

/// One run.
///
/// # Errors
/// [`Error::NotFound`], or a storage fault.
pub fn report(snapshot: &Snapshot, id: u64) -> Result<Report, Error> {
    let run = snapshot.runs()?.get(&id)?.ok_or(Error::NotFound(id))?;
    let totals = snapshot.totals()?.get(&id)?.unwrap_or_default();
    let control = snapshot.run_controls()?.get(&id)?.unwrap_or_default();
    Ok(Report::new(run, totals, &control, snapshot.run_paces()?.get(&id)?))
}

/// The newest `max` runs, the newest first.
///
/// # Errors
/// A storage fault.
pub fn list(snapshot: &Snapshot, max: u64) -> Result<Vec<Report>, Error> {
    let Some((newest, _)) = snapshot.runs()?.last(0..=u64::MAX)? else { return Ok(Vec::new()) };
    let oldest = newest.saturating_sub(max.saturating_sub(1));
    let runs = snapshot.runs()?.first(oldest..=newest, usize::MAX)?;
    let (totals, controls, paces) = (snapshot.totals()?, snapshot.run_controls()?, snapshot.run_paces()?);
    let report = |(id, run)| {
        let (totals, control) = (totals.get(&id)?.unwrap_or_default(), controls.get(&id)?.unwrap_or_default());
        Ok(Report::new(run, totals, &control, paces.get(&id)?))
    };
    runs.into_iter().rev().map(report).collect()
}

/// As [`list`], and all runs that wait for an operator or are fetched again, however old.
///
/// # Errors
/// A storage fault.
pub fn list_with_held(snapshot: &Snapshot, max: u64) -> Result<Vec<Report>, Error> {
    let mut runs = list(snapshot, max)?;
    let oldest = runs.last().map_or(0, |run| run.id);
    let controls = snapshot.run_controls()?.newest(0..=oldest.saturating_sub(1), HELD_LOOKED_AT)?;
    for (id, control) in controls {
        let is_held = !matches!(control.hold, RunHold::None | RunHold::Abandoned { .. });
        if is_held || control.refetch.is_some() {
            runs.push(report(snapshot, id)?);
        }
    }
    Ok(runs)
}

/// Recounts the run's rows; the result must equal the stored totals.
///
/// # Errors
/// A storage fault.
pub fn recount(snapshot: &Snapshot, id: u64) -> Result<RunTotals, store::Error> {
    let mut totals = RunTotals::default();
    snapshot.recipients()?.scan((id, [0; 16])..=(id, [0xff; 16]), |_, row| {
        totals.fetched += 1;
        totals.interrupted += u64::from(row.interrupted);
        totals.copies += u64::from(row.copies);
        totals.refetch_abandoned += u64::from(ledger::is_of_abandoned_refetch(&row));
        totals.renderings = totals.renderings.plus(ledger::renderings(&row));
        match row.state {
            RecipientState::Open => {}
            RecipientState::Sent(_) => totals.sent += 1,
            RecipientState::Dead(_) => totals.dead += 1,
            RecipientState::Withdrawn(_) => totals.withdrawn += 1,
            RecipientState::Unknown(_) => totals.unknown += 1,
            RecipientState::Skipped(_) => totals.skipped += 1,
            RecipientState::Suppressed(_) => totals.suppressed += 1,
        }
        ControlFlow::Continue(())
    })?;
    snapshot.effects()?.scan((id, [0; 16], [0; 16])..=(id, [0xff; 16], [0xff; 16]), |_, effect| {
        if let Some(slot) = ledger::resend_slot(&mut totals, &effect.state) {
            *slot += 1;
        }
        ControlFlow::Continue(())
    })?;
    let kept = snapshot.totals()?.get(&id)?.unwrap_or_default();
    (totals.repeated, totals.phases) = (kept.repeated, kept.phases);
    Ok(totals)
}

/// Up to [`ROWS_SHOWN_MAX`] rows that `filter` lets through, starting after the row `after`. Only those of sent mails have
/// their Message-ID.
///
/// # Errors
/// [`Error::NotFound`], or a storage fault.
pub fn rows(snapshot: &Snapshot, id: u64, filter: &Filter, after: Option<&str>) -> Result<Vec<Row>, Error> {
    let last = after.and_then(|after| u128::from_str_radix(after, 16).ok());
    let Some(from) = last.map_or(Some(0), |last| last.checked_add(1)) else { return Ok(Vec::new()) };
    fold::unfolded(snapshot.runs()?.get(&id)?, id)?;
    let (mut rows, from) = (Vec::new(), from.to_be_bytes());
    let mut look = |key, recipient| {
        let row = row(key, recipient);
        if filter.has(&row) {
            rows.push(row);
        }
        if rows.len() < ROWS_SHOWN_MAX { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    if filter.resent {
        each_resent(snapshot, (id, from), look)?;
    } else {
        snapshot.recipients()?.scan((id, from)..=(id, [0xff; 16]), |(_, key), recipient| look(key, recipient))?;
    }
    add_resends(snapshot, id, &mut rows)?;
    for row in &mut rows {
        row.resends.sort_by(|a, b| (a.purpose.len(), &a.purpose).cmp(&(b.purpose.len(), &b.purpose)));
    }
    Ok(rows)
}

/// Calls `look` for each recipient from that key on who has mails beside the run's own.
fn each_resent(
    snapshot: &Snapshot,
    (run, from): (u64, [u8; 16]),
    mut look: impl FnMut([u8; 16], RecipientRecord) -> ControlFlow<()>,
) -> Result<(), store::Error> {
    let (recipients, mut last, mut failed) = (snapshot.recipients()?, None, None);
    snapshot.effects()?.scan((run, from, [0; 16])..=(run, [0xff; 16], [0xff; 16]), |(_, key, _), _| {
        if last.replace(key) == Some(key) {
            return ControlFlow::Continue(());
        }
        match recipients.get(&(run, key)) {
            Ok(Some(recipient)) => look(key, recipient),
            Ok(None) => ControlFlow::Continue(()),
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        }
    })?;
    failed.map_or(Ok(()), Err)
}

/// Adds to the rows, which are in the order of their keys, the mails beside the run's own.
fn add_resends(snapshot: &Snapshot, run: u64, rows: &mut [Row]) -> Result<(), store::Error> {
    let key = |row: &Row| u128::from_str_radix(&row.key, 16).unwrap_or_default().to_be_bytes();
    let (Some(first), Some(last)) = (rows.first().map(key), rows.last().map(key)) else { return Ok(()) };
    snapshot.effects()?.scan((run, first, [0; 16])..=(run, last, [0xff; 16]), |(_, recipient, _), effect| {
        if let Ok(at) = rows.binary_search_by_key(&recipient, key) {
            rows[at].resends.push(Resend::new(effect));
        }
        ControlFlow::Continue(())
    })
}

fn row(key: [u8; 16], recipient: RecipientRecord) -> Row {
    let RecipientRecord { user, state, updated_at, interrupted, address, account, reason, rendering, .. } = recipient;
    let detail = detail(&state);
    let name = state.name().into();
    let (mut reply, mut message_id, mut document_sha256, mut fingerprint) = (None, None, None, None);
    let kept = Some(reason).filter(|reason| !reason.is_empty());
    let reason = match state {
        RecipientState::Open => {
            document_sha256 = rendering.map(|made| to_hex(&made.sha256));
            kept
        }
        RecipientState::Sent(proof) => {
            (reply, message_id, document_sha256) = (proof.reply, proof.message_id, proof.document_sha256);
            kept
        }
        RecipientState::Dead(class) => {
            fingerprint = Some(class.to_string());
            kept
        }
        RecipientState::Unknown(id) => {
            message_id = id;
            kept
        }
        RecipientState::Withdrawn(why) | RecipientState::Skipped(why) | RecipientState::Suppressed(why) => Some(why),
    };
    let key = format!("{:032x}", u128::from_be_bytes(key));
    Row {
        key,
        user,
        address,
        account,
        message_id,
        state: name,
        updated_at,
        interrupted,
        reply,
        document_sha256,
        reason,
        fingerprint,
        detail,
        resends: Vec::new(),
    }
}

fn detail(state: &RecipientState) -> String {
    match state {
        RecipientState::Open | RecipientState::Unknown(_) => String::new(),
        RecipientState::Sent(proof) => proof.reply.clone().unwrap_or_default(),
        RecipientState::Dead(fingerprint) => fingerprint.to_string(),
        RecipientState::Withdrawn(why) | RecipientState::Skipped(why) | RecipientState::Suppressed(why) => why.clone(),
    }
}
