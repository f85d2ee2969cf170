//! Answers how the next run of a schedule will go.

use crate::base::Timestamp;
use crate::run::effects::quota::Allowance;
use crate::run::forecast::{self, Order};
use crate::run::{Forecast, SendingLimits, measured};
use crate::schedule::Options;
use crate::store::Snapshot;

use super::Failure;
use super::request::FailureKind;

/// The forecast of the schedule's next tick; `sending` is what the configuration allows for the mails of its runs.
///
/// # Errors
/// A refusal that says what is missing.
pub(super) fn forecast(
    snapshot: &Snapshot,
    (options, sending): (&Options, Option<&SendingLimits>),
    users: Option<u64>,
    now: Timestamp,
) -> Result<Forecast, Failure> {
    let name = &options.name;
    let refused = |text: String| Failure { kind: FailureKind::Request, text: format!("schedule {name:?}: {text}") };
    let nobody = || refused("no function of kind \"statement\" serves the messages of its runs".into());
    let sending = sending.cloned().ok_or_else(nobody)?;
    let starts_at = options.rule.next_after(now).unwrap_or(now);
    let allowance = sending.per_day.map(|per_day| Allowance::of(snapshot, &sending.relay, per_day, now));
    let order = Order {
        schedule: name.clone(),
        starts_at,
        deadline: options.deadline_of(starts_at),
        users,
        allowance: allowance.transpose()?,
        sending,
        processors: std::thread::available_parallelism().map_or(1, |count| count.get() as u64),
        earlier: measured::before(snapshot, name, u64::MAX)?,
    };
    forecast::forecast(&order).map_err(|error| refused(error.to_string()))
}
