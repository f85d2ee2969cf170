//! Whether the next run will fit, said before it begins: from the limits of the configuration and from what an earlier run of
//! the schedule measured.
//!
//! Pure arithmetic. A run takes the time of its fetch and, behind it or beside it, the time of its mails at the rate of the
//! narrowest of its limits; a daily quota may add waits of hours.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::{Timestamp, units};
use crate::store::record::{Measured, MeasuredLimits};

use super::effects::quota::Allowance;
use super::{Report, measured as kept};

/// What is assumed of a call of the account API while none was measured.
const ACCOUNT: Duration = Duration::from_millis(100);
/// The same of a mail's dialogue.
const MAIL: Duration = Duration::from_millis(200);
/// The same of the processor time of a statement and its mail, and of making the document.
const PROCESSOR: Duration = Duration::from_millis(2);
/// Mails of a second are this much further apart than `relay.per_second` asks for, in percent.
const PACE_MARGIN: f64 = 2.0;
/// By what share the time may be wrong: as measured under the same limits, under others, and with nothing measured.
const SPREADS: [f64; 3] = [0.1, 0.25, 0.5];

/// What the configuration allows for the mails of a schedule's runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SendingLimits {
    /// Those that measurements are kept with.
    pub limits: MeasuredLimits,
    /// Mails in any 24 hours.
    pub per_day: Option<u64>,
    /// The relay, by host and port.
    pub relay: String,
    /// Whether mails wait until all users are fetched.
    pub waits_for_fetch: bool,
    /// The recipient domains that have limits of their own.
    pub domains: Vec<String>,
}

/// What a forecast is made from.
#[derive(Clone, Debug)]
pub struct Order {
    /// The schedule.
    pub schedule: String,
    /// When the run starts: its next tick.
    pub starts_at: Timestamp,
    /// When it must have ended.
    pub deadline: Option<Timestamp>,
    /// How many users it will have; as many as the earlier run when `None`.
    pub users: Option<u64>,
    /// What the configuration allows.
    pub sending: SendingLimits,
    /// What of the relay's quota is used.
    pub allowance: Option<Allowance>,
    /// The machine's processors.
    pub processors: u64,
    /// The newest run of the schedule of which enough was measured.
    pub earlier: Option<(Report, Measured)>,
}

/// The forecast of a run. Rates are by the hour, so that they are whole numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forecast {
    /// The schedule.
    pub schedule: String,
    /// When the run starts.
    pub starts_at: Timestamp,
    /// How many users it has.
    pub users: u64,
    /// How long their fetch takes, in milliseconds; zero when that is not known.
    pub fetch_ms: u64,
    /// When it will probably have ended.
    pub ends_at: Timestamp,
    /// Not before this, as far as can be told.
    pub earliest: Timestamp,
    /// Not after this.
    pub latest: Timestamp,
    /// When it must have ended.
    pub deadline: Option<Timestamp>,
    /// Whether it will; `None` without a deadline.
    pub fits: Option<bool>,
    /// What holds it up most: a name of `capacities`, `users API` or `relay.per_day`.
    pub bound_by: String,
    /// What each part lets through, the narrowest first.
    pub capacities: Vec<Capacity>,
    /// The earlier run whose figures it is made from.
    pub earlier_run: Option<u64>,
    /// What was assumed, a sentence each.
    pub assumptions: Vec<String>,
}

/// What one part lets through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capacity {
    /// Its name: `relay.per_second`, `relay.connections`, `account API`, `processors`, `run 7`.
    pub name: String,
    /// Recipients an hour.
    pub per_hour: u64,
    /// What that is made from.
    pub because: String,
}

impl Capacity {
    fn new(name: impl Into<String>, per_second: f64, because: String) -> Self {
        Self { name: name.into(), per_hour: (per_second * 3600.0).round().max(1.0) as u64, because }
    }
}

/// The number of users is not known: the schedule has no earlier run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no earlier run of it was measured, so the number of users is not known (give it with --users)")]
pub struct NoUsers;

/// Says how the run will go.
///
/// # Errors
/// [`NoUsers`].
pub fn forecast(order: &Order) -> Result<Forecast, NoUsers> {
    let users = order.users.or_else(|| order.earlier.as_ref().map(|(run, _)| run.fetched)).ok_or(NoUsers)?;
    let (mut assumptions, limits) = (Vec::new(), order.sending.limits);
    if let (None, Some((run, _))) = (order.users, &order.earlier) {
        assumptions.push(format!("as many users as run {} had", run.id));
    }
    let capacities = capacities(order, &mut assumptions);
    if !order.sending.domains.is_empty() {
        let domains = order.sending.domains.join(", ");
        assumptions
            .push(format!("the limits of {domains} hold nobody up: how many users have addresses there is not known"));
    }
    let narrowest = &capacities[0];
    let per_second = narrowest.per_hour as f64 / 3600.0;
    let fetch = fetch(order, users, &mut assumptions);
    let spread = match &order.earlier {
        Some((_, measured)) if measured.limits == limits => SPREADS[0],
        Some(_) => SPREADS[1],
        None => SPREADS[2],
    };
    let end = |factor: f64| {
        let rate = per_second * factor;
        let fetched = order.starts_at.after(seconds(fetch.as_secs_f64() / factor));
        let from = if order.sending.waits_for_fetch { fetched } else { order.starts_at };
        let plain = from.after(seconds(users as f64 / rate));
        let allowed = order.allowance.as_ref().map_or(Some(plain), |allowance| allowance.ends_at(from, users, rate));
        (plain, allowed.unwrap_or(Timestamp::MAX).max(plain).max(fetched))
    };
    let (plain, ends_at) = end(1.0);
    let mails = seconds(users as f64 / per_second);
    let bound_by = match () {
        () if ends_at > plain.after(Duration::from_secs(60)) && order.allowance.is_some() => "relay.per_day".into(),
        () if fetch > mails => "users API".into(),
        () => narrowest.name.clone(),
    };
    Ok(Forecast {
        schedule: order.schedule.clone(),
        starts_at: order.starts_at,
        users,
        fetch_ms: u64::try_from(fetch.as_millis()).unwrap_or(u64::MAX),
        ends_at,
        earliest: end(1.0 + spread).1.min(ends_at),
        latest: end(1.0 - spread).1.max(ends_at),
        deadline: order.deadline,
        fits: order.deadline.map(|deadline| ends_at <= deadline),
        bound_by,
        earlier_run: order.earlier.as_ref().map(|(run, _)| run.id),
        capacities,
        assumptions,
    })
}

/// What each part lets through, the narrowest first.
fn capacities(order: &Order, assumptions: &mut Vec<String>) -> Vec<Capacity> {
    let limits = order.sending.limits;
    let measured = order.earlier.as_ref().map(|(_, measured)| measured);
    let mean = |calls: Option<crate::base::Calls>| calls.and_then(crate::base::Calls::mean);
    let account = mean(measured.map(|measured| measured.account));
    let document = mean(measured.map(|measured| measured.document)).unwrap_or(PROCESSOR);
    let mail = mean(measured.map(|measured| measured.mail));
    let processor = measured.filter(|measured| measured.cpu_ms > 0 && measured.ended > 0);
    let processor = processor.map(|measured| Duration::from_millis(measured.cpu_ms).div_f64(measured.ended as f64));
    if account.is_none() || mail.is_none() || processor.is_none() {
        let [account, mail, processor] = [ACCOUNT, MAIL, PROCESSOR].map(units::show_duration);
        let run = order
            .earlier
            .as_ref()
            .map_or("no earlier run of the schedule was".into(), |(run, _)| format!("not all of run {} was", run.id));
        assumptions.push(format!(
            "{run} measured: a call of the account API is taken to last {account}, a mail {mail}, and a statement to take \
             {processor} of processor time"
        ));
    }
    let (account, mail) = (account.unwrap_or(ACCOUNT), mail.unwrap_or(MAIL));
    let processor = processor.unwrap_or(PROCESSOR);
    let [of_account, of_mail, of_processor] = [account, mail, processor].map(millis);
    let attempt = (account + document + mail).as_secs_f64().max(1e-6);
    let mut all = vec![
        Capacity::new(
            "relay.connections",
            f64::from(limits.connections) / mail.as_secs_f64().max(1e-6),
            format!("{} at once, {of_mail} a mail", limits.connections),
        ),
        Capacity::new(
            "account API",
            f64::from(limits.concurrency) / attempt,
            format!("{} messages at once, {of_account} a call, {of_mail} a mail", limits.concurrency),
        ),
        Capacity::new(
            "processors",
            order.processors as f64 / processor.as_secs_f64().max(1e-6),
            format!("{}, {of_processor} a statement", order.processors),
        ),
    ];
    all.extend(limits.per_second.map(|limit| {
        let per_second = f64::from(limit) / (1.0 + PACE_MARGIN / 100.0);
        Capacity::new("relay.per_second", per_second, format!("{limit} a second, {PACE_MARGIN} % apart"))
    }));
    if let Some((run, measured)) = &order.earlier {
        match kept::per_second(measured) {
            Some(per_second) if measured.limits == limits => {
                all.push(Capacity::new(
                    format!("run {}", run.id),
                    per_second,
                    "what it came to, under the same limits".into(),
                ));
            }
            _ => assumptions.push(format!("run {} had other limits; what it came to is not taken as one", run.id)),
        }
    }
    all.sort_by_key(|capacity| capacity.per_hour);
    all
}

/// How long the fetch of the users takes.
fn fetch(order: &Order, users: u64, assumptions: &mut Vec<String>) -> Duration {
    let earlier =
        order.earlier.as_ref().and_then(|(run, _)| Some((run.fetched_at?.since(run.started_at), run.fetched)));
    match earlier.filter(|(took, fetched)| *fetched > 0 && !took.is_zero()) {
        Some((took, fetched)) => seconds(took.as_secs_f64() * users as f64 / fetched as f64),
        None => {
            assumptions.push("how long the users API takes is not known, so nothing is added for it".into());
            Duration::ZERO
        }
    }
}

/// So many seconds, or the longest span when they are more than fit.
fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

fn millis(span: Duration) -> String {
    format!("{:.1} ms", span.as_secs_f64() * 1000.0)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::base::Calls;
    use crate::run::RunState;

    const START: Timestamp = Timestamp::from_secs(1_700_000_000);

    fn order(per_second: Option<u32>, earlier: Option<(Report, Measured)>) -> Order {
        Order {
            schedule: "monthly".into(),
            starts_at: START,
            deadline: Some(START.after(Duration::from_secs(3600))),
            users: None,
            sending: SendingLimits {
                limits: limits(per_second),
                per_day: None,
                relay: "mx:25".into(),
                waits_for_fetch: true,
                domains: Vec::new(),
            },
            allowance: None,
            processors: 2,
            earlier,
        }
    }

    fn limits(per_second: Option<u32>) -> MeasuredLimits {
        MeasuredLimits { concurrency: 32, connections: 20, per_second }
    }

    /// A run of 10,000 users, fetched in 50 s, whose mails went at 100 a second.
    fn earlier(per_second: Option<u32>) -> Option<(Report, Measured)> {
        let run = serde_json::json!({
            "id": 7, "schedule": "monthly", "params": {}, "scheduled_for": 0, "started_at": 0, "fetched_at": 50_000,
            "fetched": 10_000, "sent": 10_000, "dead": 0, "withdrawn": 0, "open": 0, "repeated": 0, "interrupted": 0,
            "state": RunState::Complete, "fetch_death": null,
        });
        let calls = |total_us: u64| Calls { count: 9800, total_us: 9800 * total_us };
        let measured = Measured {
            ended: 9800,
            span_ms: 98_000,
            cpu_ms: 9800,
            account: calls(50_000),
            document: calls(1000),
            mail: calls(40_000),
            limits: limits(per_second),
        };
        Some((serde_json::from_value(run).unwrap(), measured))
    }

    fn took(forecast: &Forecast) -> u64 {
        forecast.ends_at.since(START).as_secs()
    }

    #[test]
    fn without_an_earlier_run_it_needs_the_number_of_users_and_says_what_it_assumes() {
        assert_eq!(forecast(&order(None, None)), Err(NoUsers));
        let forecast = forecast(&Order { users: Some(10_000), ..order(Some(10), None) }).unwrap();
        assert_eq!((forecast.bound_by.as_str(), forecast.earlier_run), ("relay.per_second", None));
        assert_eq!((took(&forecast), forecast.fits), (1020, Some(true)), "2 % more than 1,000 s");
        assert_eq!(forecast.assumptions.len(), 2, "{:?}", forecast.assumptions);
        assert!(forecast.latest > forecast.ends_at && forecast.earliest < forecast.ends_at);
    }

    #[test]
    fn an_earlier_run_under_the_same_limits_is_what_the_next_one_comes_to() {
        let forecast = forecast(&order(None, earlier(None))).unwrap();
        assert_eq!((forecast.users, forecast.bound_by.as_str(), forecast.earlier_run), (10_000, "run 7", Some(7)));
        assert_eq!(took(&forecast), 50 + 100);
        let names: BTreeSet<&str> = forecast.capacities.iter().map(|capacity| capacity.name.as_str()).collect();
        assert_eq!(names, BTreeSet::from(["account API", "processors", "relay.connections", "run 7"]));
        let per_hour = |name: &str| forecast.capacities.iter().find(|one| one.name == name).unwrap().per_hour;
        assert_eq!(per_hour("relay.connections"), 20 * 25 * 3600, "40 ms a mail");
        assert_eq!(per_hour("processors"), 2 * 1000 * 3600, "1 ms a statement");
        assert_eq!(per_hour("account API"), 1_265_934, "32 at once, 91 ms each");
    }

    #[test]
    fn under_other_limits_the_narrowest_of_them_binds_and_a_run_that_does_not_fit_is_told() {
        let forecast = forecast(&Order { users: Some(20_000), ..order(Some(5), earlier(None)) }).unwrap();
        assert_eq!((took(&forecast), forecast.fits), (100 + 4080, Some(false)));
        assert_eq!(forecast.bound_by, "relay.per_second");
        assert!(forecast.assumptions.iter().any(|text| text.contains("run 7 had other limits")), "{forecast:?}");
    }

    #[test]
    fn more_users_than_any_bank_has_take_very_long() {
        let forecast = forecast(&Order { users: Some(u64::MAX), ..order(None, earlier(None)) }).unwrap();
        assert_eq!(forecast.fits, Some(false));
    }

    #[test]
    fn a_daily_quota_and_a_slow_users_api_are_named_when_they_hold_it_up() {
        let allowance = Some(Allowance { per_day: 4000, hours: BTreeMap::new() });
        let quota = forecast(&Order { allowance, ..order(None, earlier(None)) }).unwrap();
        assert_eq!((quota.bound_by.as_str(), quota.fits), ("relay.per_day", Some(false)));
        assert!(took(&quota) > 2 * 24 * 3600, "{}", took(&quota));
        let mut slow = earlier(None);
        if let Some((run, _)) = &mut slow {
            run.fetched_at = Some(Timestamp::from_secs(900));
        }
        let slow = forecast(&order(None, slow)).unwrap();
        assert_eq!((slow.bound_by.as_str(), took(&slow)), ("users API", 900 + 100));
    }
}
