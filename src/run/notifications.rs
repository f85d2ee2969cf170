//! What others are to be told about runs: found in the runs' state, not in passing, so that nothing is missed when the
//! process dies at any point. A notification, and that it was announced, are one commit; so are its delivery and its removal.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Serialize;

use crate::base::{Backoff, MessageId, Timestamp};
use crate::store::record::{Announced, DeadlineState, NotificationKind, NotificationRecord, Owed};
use crate::store::{self, Snapshot, Tx};

use super::{Error, Report, RunState, report};

/// Of the runs that had ended, this many of the newest are looked at, and those that wait for an operator: a redrive may have
/// opened them again.
const ENDED_LOOKED_AT: u64 = 64;
/// How long a try that failed waits for the next one: at first, and at most.
const BACKOFF: Backoff = Backoff { first: Duration::from_secs(1), max: Duration::from_secs(600) };
/// Runs before this one ended before anybody was told of ends.
const FROM: &str = "announced-from";

/// Who is told of what, by schedule.
pub type Subscriptions = BTreeMap<String, Subscription>;

/// Who is told of what about the runs of one schedule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subscription {
    /// What they are told of.
    pub kinds: Vec<NotificationKind>,
    /// The targets' names.
    pub targets: Vec<String>,
}

/// Finds what is new about runs.
#[derive(Debug, Default)]
pub struct RunWatch {
    /// The runs that had not ended at the last look; `None` before the first.
    under_way: Option<BTreeSet<u64>>,
    /// Runs that ended before, and of which more mails are sent now, as doubts are resolved: how many at the last look.
    moving: BTreeMap<u64, u64>,
}

/// A run about which there is something new.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunChange {
    /// The run.
    pub run: Report,
    /// What is new; none when a run that had ended is under way again.
    pub kinds: Vec<NotificationKind>,
    /// What is announced of it afterwards.
    announced: Announced,
}

impl RunWatch {
    /// What is new about all runs since it was announced last.
    ///
    /// # Errors
    /// A storage fault.
    pub fn changes(&mut self, snapshot: &Snapshot) -> Result<Vec<RunChange>, Error> {
        let Some(from) = snapshot.meta()?.get(&FROM.to_owned())? else { return Ok(Vec::new()) };
        let max = if self.under_way.is_some() { ENDED_LOOKED_AT } else { u64::MAX };
        let newest = report::list_with_held(snapshot, max)?;
        let mut runs: BTreeMap<u64, Report> = newest.into_iter().map(|run| (run.id, run)).collect();
        for id in self.under_way.take().into_iter().flatten() {
            if let Entry::Vacant(place) = runs.entry(id) {
                place.insert(report::report(snapshot, id)?);
            }
        }
        let announced = snapshot.announced()?;
        let mut is_told = BTreeSet::new();
        for (id, run) in &runs {
            // What is held now is news, however long ago the run ended.
            if *id >= from || run.held_because.is_some() || announced.has(id)? {
                is_told.insert(*id);
            }
        }
        runs.retain(|id, _| is_told.contains(id));
        self.under_way = Some(runs.values().filter(|run| !run.is_complete()).map(|run| run.id).collect());
        let (mut changes, mut moving) = (Vec::new(), BTreeMap::new());
        for run in runs.into_values() {
            let before = announced.get(&run.id)?.unwrap_or_default();
            // An end that was announced is announced again once its number stays as it is.
            if run.is_complete() && before.end.is_some_and(|sent| sent != run.sent) {
                moving.insert(run.id, run.sent);
                if self.moving.get(&run.id) != Some(&run.sent) {
                    continue;
                }
            }
            changes.extend(new_about(before, run));
        }
        self.moving = moving;
        Ok(changes)
    }
}

/// What is new about a run of which that much was announced.
fn new_about(before: Announced, run: Report) -> Option<RunChange> {
    let has_death = run.dead > 0 || run.fetch_death.is_some();
    let is_late = |state| matches!(state, DeadlineState::AtRisk | DeadlineState::Missed);
    let late = run.deadline.filter(|deadline| is_late(deadline.state));
    let announced = Announced {
        first_death: before.first_death || has_death,
        end: run.is_complete().then_some(run.sent),
        held: run.held_because.as_ref().and(run.held_since),
        deadline: late.map(|late| (late.state, late.since)),
    };
    let held = if run.state == RunState::Braked { NotificationKind::Braked } else { NotificationKind::AwaitingRelease };
    let of_deadline = match late.map(|late| late.state) {
        Some(DeadlineState::Missed) => NotificationKind::DeadlineMissed,
        _ => NotificationKind::DeadlineAtRisk,
    };
    let kinds = [
        (announced.first_death && !before.first_death, NotificationKind::FirstDeath),
        (announced.held.is_some() && announced.held != before.held, held),
        (late.is_some() && announced.deadline != before.deadline, of_deadline),
        // By the number too: a run may be opened and end again between two looks.
        (announced.end.is_some() && announced.end != before.end, NotificationKind::End),
    ];
    let kinds = kinds.into_iter().filter_map(|(is_new, kind)| is_new.then_some(kind)).collect();
    (announced != before).then_some(RunChange { run, kinds, announced })
}

/// Begins to announce, in a store in which nobody has yet: what ended before is passed over.
///
/// # Errors
/// A storage fault.
pub fn begin(tx: &mut Tx<'_>) -> Result<(), store::Error> {
    if tx.meta()?.get(&FROM.to_owned())?.is_none() {
        let newest = tx.runs()?.last(0..=u64::MAX)?.map_or(0, |(id, _)| id);
        let open = tx.runs()?.newest(0..=u64::MAX, usize::try_from(ENDED_LOOKED_AT).unwrap_or(usize::MAX))?;
        let mut from = newest + 1;
        for (id, run) in open {
            let is_open = run.fan_out.finished_at.is_none() || tx.totals_of(id)?.open() > 0;
            from = if is_open { from.min(id) } else { from };
        }
        tx.meta()?.insert(&FROM.to_owned(), &from)?;
    }
    Ok(())
}

/// Announces: writes down what is owed to whom, and that it was announced.
///
/// # Errors
/// A storage fault.
pub fn announce(
    tx: &mut Tx<'_>,
    change: &RunChange,
    subscriptions: &Subscriptions,
    now: Timestamp,
) -> Result<(), store::Error> {
    let run = &change.run;
    tx.announced()?.insert(&run.id, &change.announced)?;
    let Some(subscription) = subscriptions.get(&run.schedule) else { return Ok(()) };
    let owed: Vec<Owed> =
        subscription.targets.iter().map(|target| Owed { target: target.clone(), attempts: 0, next_at: now }).collect();
    for kind in change.kinds.iter().copied().filter(|kind| subscription.kinds.contains(kind)) {
        let id = MessageId::fresh();
        let body = body(id, kind, run, now);
        let owed = owed.clone();
        let notification =
            NotificationRecord { id, run: run.id, schedule: run.schedule.clone(), kind, at: now, body, owed };
        let key = tx.fresh_id()?;
        tx.notifications()?.insert(&key, &notification)?;
    }
    Ok(())
}

/// What receivers get. Times are milliseconds since 1970, as in all JSON of the command line.
#[derive(Serialize)]
struct Body<'a> {
    id: MessageId,
    kind: &'static str,
    at: Timestamp,
    text: String,
    run: &'a Report,
}

fn body(id: MessageId, kind: NotificationKind, run: &Report, at: Timestamp) -> String {
    let body = Body { id, kind: name(kind), at, text: text(kind, run), run };
    serde_json::to_string(&body).expect("text and numbers always serialise")
}

/// The name of a notification, in configuration and in what is sent.
pub const fn name(kind: NotificationKind) -> &'static str {
    match kind {
        NotificationKind::FirstDeath => "first-death",
        NotificationKind::End => "end",
        NotificationKind::AwaitingRelease => "awaiting-release",
        NotificationKind::Braked => "braked",
        NotificationKind::DeadlineAtRisk => "deadline-at-risk",
        NotificationKind::DeadlineMissed => "deadline-missed",
    }
}

/// The notification in one sentence.
fn text(kind: NotificationKind, run: &Report) -> String {
    let params: Vec<String> = run.params.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let params = if params.is_empty() { String::new() } else { format!(" ({})", params.join(" ")) };
    let run_named = format!("run {} of {}{params}", run.id, run.schedule);
    match (kind, &run.fetch_death) {
        (NotificationKind::FirstDeath, Some(death)) => {
            format!(
                "{run_named}: its users are not fetched any more: {}: {} ({})",
                death.class, death.text, death.remedy
            )
        }
        (NotificationKind::FirstDeath, None) => {
            format!(
                "{run_named}: the first mail failed for good (see `nightmail run recipients {} --state dead`)",
                run.id
            )
        }
        (NotificationKind::AwaitingRelease, _) => {
            let because = run.held_because.as_deref().unwrap_or_default();
            format!("{run_named} sends nothing before it is released: {because} ({})", run.remedy())
        }
        (NotificationKind::Braked, _) => {
            let because = run.held_because.as_deref().unwrap_or_default();
            format!("{run_named} stopped sending by itself: {because} ({})", run.remedy())
        }
        (NotificationKind::DeadlineAtRisk | NotificationKind::DeadlineMissed, _) => {
            format!("{run_named} {}", run.lateness().unwrap_or_default())
        }
        (NotificationKind::End, _) => {
            let others = [
                ("sent", run.sent),
                ("dead", run.dead),
                ("unknown", run.unknown),
                ("withdrawn", run.withdrawn),
                ("skipped", run.skipped),
                ("suppressed", run.suppressed),
            ];
            let is_told = |(name, count): &(&str, u64)| *count > 0 || *name == "sent";
            let terms: Vec<String> =
                others.into_iter().filter(is_told).map(|(name, count)| format!("{name} {count}")).collect();
            format!("{run_named} is {}: fetched {} = {}", run.state.name(), run.fetched, terms.join(" + "))
        }
    }
}

/// Up to `max` notifications with a target that is due, the oldest first.
///
/// # Errors
/// A storage fault.
pub fn due(snapshot: &Snapshot, now: Timestamp, max: usize) -> Result<Vec<(u64, NotificationRecord)>, store::Error> {
    let mut due = Vec::new();
    snapshot.notifications()?.scan(0..=u64::MAX, |key, notification| {
        if notification.owed.iter().any(|owed| owed.next_at <= now) {
            due.push((key, notification));
        }
        if due.len() < max { std::ops::ControlFlow::Continue(()) } else { std::ops::ControlFlow::Break(()) }
    })?;
    Ok(due)
}

/// How a try to tell a target ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// It has it.
    Yes,
    /// It has not; it is tried at most this many times in all.
    No {
        /// The limit.
        attempts_max: u32,
    },
    /// The configuration does not name it any more.
    Nobody,
}

/// Records how a try ended; true when the target is given up. A notification that nobody is owed any more goes.
///
/// # Errors
/// A storage fault.
pub fn record_try(tx: &mut Tx<'_>, key: u64, target: &str, told: Told, now: Timestamp) -> Result<bool, store::Error> {
    let Some(mut notification) = tx.notifications()?.get(&key)? else { return Ok(false) };
    let mut is_given_up = false;
    notification.owed.retain_mut(|owed| match told {
        _ if owed.target != target => true,
        Told::Yes | Told::Nobody => false,
        Told::No { attempts_max } => {
            owed.attempts += 1;
            owed.next_at = now.after(BACKOFF.ceiling(owed.attempts));
            is_given_up = owed.attempts >= attempts_max;
            !is_given_up
        }
    });
    match notification.owed.is_empty() {
        true => drop(tx.notifications()?.remove(&key)?),
        false => drop(tx.notifications()?.insert(&key, &notification)?),
    }
    Ok(is_given_up)
}
