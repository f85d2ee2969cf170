//! `[schedules.<name>]` to [`schedule::Options`], with the checks against functions.

use std::collections::BTreeMap;

use super::queues::missing;
use super::settings::{FunctionSettings, Kind};
use super::syntax::{brake, placeholders, time_of_day};
use super::validate::segment;
use super::values::Values;
use crate::base::units;
use crate::schedule::{self, Misfire, rule::Rule};
use crate::store::record::{Gate, GateLimits, GateMode, Guard};

/// Builds every schedule whose rule is valid.
pub(super) fn build(values: &mut Values<'_>, functions: &[FunctionSettings]) -> Vec<schedule::Options> {
    values.found.names("schedules").iter().filter_map(|name| one(values, name, functions)).collect()
}

fn one(values: &mut Values<'_>, name: &str, functions: &[FunctionSettings]) -> Option<schedule::Options> {
    let at = format!("schedules.{name}");
    let params: BTreeMap<String, String> = values
        .found
        .names(&format!("{at}.params"))
        .into_iter()
        .map(|param| (param.clone(), values.text(&format!("{at}.params.{param}"))))
        .collect();
    let path = format!("{at}.function");
    let function = values.maybe_text(&path);
    if let Some(function) = &function {
        check_function(values, &path, function, functions, &params);
        check_gate(values, &at, function, functions);
    }
    Some(schedule::Options {
        name: name.into(),
        rule: rule(values, &at)?,
        misfire: match values.text(&format!("{at}.misfire")).as_str() {
            "all" => Misfire::All,
            "skip" => Misfire::Skip,
            _ => Misfire::Once,
        },
        grace: values.span(&format!("{at}.grace")),
        function: function.unwrap_or_default(),
        params,
        guard: guard(values, &at),
        brake: brake(&values.text(&format!("{at}.brake"))),
        deadline: values.maybe_text(&format!("{at}.deadline")).and_then(|text| time_of_day(&text).ok()),
        gate: gate(values, &at),
    })
}

fn guard(values: &mut Values<'_>, at: &str) -> Option<Guard> {
    let [min, deviation] = ["min", "deviation"].map(|name| format!("{at}.users.{name}"));
    if values.text(&format!("{at}.guard")) == "off" {
        for path in [min, deviation] {
            if values.is_set(&path) {
                values.warning(&path, "has no effect beside guard = \"off\"");
            }
        }
        return None;
    }
    Some(Guard { users_min: values.count(&min), deviation: units::share(&values.text(&deviation)).ok() })
}

fn gate(values: &Values<'_>, at: &str) -> Option<Gate> {
    let path = |name: &str| format!("{at}.checks.{name}");
    let mode = match values.text(&format!("{at}.gate")).as_str() {
        "manual" => GateMode::Manual,
        "auto" => GateMode::Auto,
        _ => return None,
    };
    let share = |name| units::share(&values.text(&path(name))).ok();
    let (failures, empty, deviation) = (share("failures"), share("empty"), share("deviation"));
    let (pages_max, bytes_max) = (values.count(&path("pages_max")), values.count(&path("size_max")));
    Some(Gate { mode, limits: GateLimits { failures, empty, pages_max, bytes_max, deviation }, checked_at: None })
}

/// Without dead letters an account that keeps failing is tried for ever, and everybody behind the gate waits for it.
fn check_gate(values: &mut Values<'_>, at: &str, function: &str, functions: &[FunctionSettings]) {
    let settings = functions.iter().find(|settings| settings.pool.function == function);
    let Some(Kind::FanOut(fan_out)) = settings.map(|settings| &settings.kind) else { return };
    let target = format!("queues.{}", segment(&fan_out.target));
    let has_letters = values.maybe_text(&format!("{target}.dead_letter_queue")).is_some();
    if values.text(&format!("{at}.gate")) == "off" || has_letters {
        return;
    }
    let queue = &fan_out.target;
    let text = format!(
        "needs a dead_letter_queue for queue {queue:?}: a statement that can never be made would hold up all others; set {target}.dead_letter_queue"
    );
    values.error(&format!("{at}.gate"), text);
}

fn rule(values: &mut Values<'_>, at: &str) -> Option<Rule> {
    let (cron, timezone) = (format!("{at}.cron"), format!("{at}.timezone"));
    let zone = values.maybe_text(&timezone);
    let is_known = zone.as_ref().is_some_and(|zone| jiff::tz::TimeZone::get(zone).is_ok());
    if let Some(zone) = zone.as_ref().filter(|_| !is_known) {
        let text = format!(
            "time zone {zone:?} not found; write an IANA name such as \"Europe/Berlin\" (they come with the package tzdata)"
        );
        values.error(&timezone, text);
    }
    // A faulty rule is told beside a faulty zone.
    let parsed = Rule::parse(&values.maybe_text(&cron)?, zone.as_deref().filter(|_| is_known).unwrap_or("UTC"));
    parsed.map_err(|error| values.error(&cron, error)).ok().filter(|_| is_known)
}

fn check_function(
    values: &mut Values<'_>,
    path: &str,
    function: &str,
    functions: &[FunctionSettings],
    params: &BTreeMap<String, String>,
) {
    let known = values.found.names("functions");
    if !known.iter().any(|name| name == function) {
        return values.error(path, missing("function", function, &known));
    }
    match functions.iter().find(|settings| settings.pool.function == function).map(|settings| &settings.kind) {
        Some(Kind::Statement(_)) => {
            let text =
                format!("function {function:?} is of kind \"statement\"; a schedule starts one of kind \"fan-out\"");
            values.error(path, text);
        }
        Some(Kind::FanOut(fan_out)) => {
            let unset = placeholders(&fan_out.users.url).into_iter().find(|name| !params.contains_key(*name));
            if let Some(name) = unset {
                let text =
                    format!("functions.{function}.users.url needs {{{name}}}, which this schedule's params do not set");
                values.warning(path, text);
            }
        }
        None => {} // Its kind was reported.
    }
}
