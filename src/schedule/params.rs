//! A run's identifying parameters: small templates over the tick that starts it, e.g. `period = "{{ tick.previous_month
//! }}"`.
//!
//! Strict: a misspelt name is an error, never an empty text, as the parameters are the run's identity. Knows no run.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;
use jiff::{Timestamp as Moment, ToSpan, Zoned};
use minijinja::{Environment, UndefinedBehavior, context};

use crate::base::Timestamp;
use crate::base::outcome::printable;

/// The longest value of one parameter, in bytes.
pub const VALUE_BYTES_MAX: usize = 256;
/// The longest template of one parameter, in bytes.
pub const TEMPLATE_BYTES_MAX: usize = 1024;

/// The names that a template may use, as errors list them.
const KNOWN: &str =
    "tick.date, tick.time, tick.month, tick.previous_month, tick.year, tick.previous_day, tick.scheduled_for";

/// A parameter that cannot be evaluated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The template is wrong or uses a name that does not exist.
    #[error("params.{name}: {template:?}: {why} (known: {})", KNOWN)]
    Template {
        /// The parameter's name.
        name: String,
        /// Its template, cut.
        template: String,
        /// minijinja's message.
        why: String,
    },
    /// The template is too long.
    #[error("params.{name}: template has {bytes} bytes (at most {})", TEMPLATE_BYTES_MAX)]
    TemplateTooLong {
        /// The parameter's name.
        name: String,
        /// Its length in bytes.
        bytes: usize,
    },
    /// The value cannot identify a run.
    #[error("params.{name}: {value:?} must be 1 to {} bytes without control characters", VALUE_BYTES_MAX)]
    Value {
        /// The parameter's name.
        name: String,
        /// The value, cut.
        value: String,
    },
    /// A parameter that the schedule does not have; it would change the run's identity and repeat a run.
    #[error("parameter {name:?} is not one of this schedule (known: {known})")]
    Unknown {
        /// The name given.
        name: String,
        /// The names that the schedule has.
        known: String,
    },
    /// The moment has no date.
    #[error("tick at {0} is outside the calendar (years 1970 to 9999)")]
    Tick(Timestamp),
}

/// The parameters of the run that the tick at `scheduled_for` starts, dates as `zone`'s calendar has them.
///
/// | name | for a tick at 2026-11-01 07:00 in Berlin |
/// | --- | --- |
/// | `tick.date` | `2026-11-01` |
/// | `tick.time` | `07:00:00` |
/// | `tick.month` | `2026-11` |
/// | `tick.previous_month` | `2026-10` |
/// | `tick.year` | `2026` |
/// | `tick.previous_day` | `2026-10-31` |
/// | `tick.scheduled_for` | `2026-11-01T07:00:00+01:00` |
///
/// # Errors
/// [`Error`], naming the parameter; nothing is evaluated halfway.
pub fn evaluate(
    templates: &BTreeMap<String, String>,
    scheduled_for: Timestamp,
    zone: &TimeZone,
) -> Result<BTreeMap<String, String>, Error> {
    let moment = scheduled_for.to_jiff().ok_or(Error::Tick(scheduled_for))?;
    let tick = tick(moment.to_zoned(zone.clone())).ok_or(Error::Tick(scheduled_for))?;
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    let values = templates.iter().map(|(name, template)| {
        let value = value(&environment, name, template, &tick)?;
        Ok((name.clone(), value))
    });
    values.collect()
}

/// The same with some values given by hand.
///
/// # Errors
/// The errors of [`evaluate`], a name that the schedule does not have, or a value that cannot identify a run.
pub fn with_given(
    templates: &BTreeMap<String, String>,
    given: &BTreeMap<String, String>,
    scheduled_for: Timestamp,
    zone: &TimeZone,
) -> Result<BTreeMap<String, String>, Error> {
    let mut params = evaluate(templates, scheduled_for, zone)?;
    for (name, value) in given {
        let Some(slot) = params.get_mut(name) else {
            let known = templates.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            return Err(Error::Unknown {
                name: cut(name),
                known: if known.is_empty() { "none".into() } else { known },
            });
        };
        *slot = checked(name, value)?;
    }
    Ok(params)
}

/// Checks templates without a tick at hand, for reading settings.
///
/// # Errors
/// The errors of [`evaluate`] for one of two sample ticks, a first of January and a leap day.
pub fn check(templates: &BTreeMap<String, String>) -> Result<(), Error> {
    for sample_secs in [1_767_225_600, 1_709_208_000] {
        evaluate(templates, Timestamp::from_secs(sample_secs), &TimeZone::UTC)?;
    }
    Ok(())
}

fn tick(at: Zoned) -> Option<minijinja::Value> {
    let date = at.date();
    let previous_month = date.first_of_month().checked_sub(1.month()).ok()?;
    Some(context! {
        date => date.to_string(),
        time => at.strftime("%H:%M:%S").to_string(),
        month => date.strftime("%Y-%m").to_string(),
        previous_month => previous_month.strftime("%Y-%m").to_string(),
        year => date.strftime("%Y").to_string(),
        previous_day => date.yesterday().ok()?.to_string(),
        scheduled_for => with_offset(at.timestamp(), &at),
    })
}

/// RFC 3339 with the zone's offset, without the zone's name.
fn with_offset(moment: Moment, at: &Zoned) -> String {
    moment.display_with_offset(at.offset()).to_string()
}

fn value(environment: &Environment<'_>, name: &str, template: &str, tick: &minijinja::Value) -> Result<String, Error> {
    if template.len() > TEMPLATE_BYTES_MAX {
        return Err(Error::TemplateTooLong { name: name.into(), bytes: template.len() });
    }
    let rendered = environment.render_str(template, context! { tick => tick });
    let value = rendered.map_err(|why| Error::Template {
        name: name.into(),
        template: cut(template),
        why: printable(&why.to_string()),
    })?;
    checked(name, &value)
}

/// The value without blanks around it: `2026-10` and `2026-10 ` must not be two runs.
fn checked(name: &str, value: &str) -> Result<String, Error> {
    let value = value.trim().to_owned();
    if value.is_empty() || value.len() > VALUE_BYTES_MAX || value.chars().any(char::is_control) {
        return Err(Error::Value { name: name.into(), value: cut(&value) });
    }
    Ok(value)
}

fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn templates(template: &str) -> BTreeMap<String, String> {
        BTreeMap::from([("period".to_owned(), template.to_owned())])
    }

    fn at(text: &str) -> Timestamp {
        Timestamp::from_jiff(text.parse().unwrap())
    }

    fn berlin() -> TimeZone {
        TimeZone::get("Europe/Berlin").unwrap()
    }

    fn period(template: &str, moment: &str) -> String {
        evaluate(&templates(template), at(moment), &berlin()).unwrap().remove("period").unwrap()
    }

    #[test]
    fn every_name_of_a_tick_has_its_documented_form() {
        let all = "{{ tick.date }} {{ tick.time }} {{ tick.month }} {{ tick.previous_month }} {{ tick.year }} \
                   {{ tick.previous_day }} {{ tick.scheduled_for }}";
        assert_eq!(
            period(all, "2026-11-01T06:00:00Z"),
            "2026-11-01 07:00:00 2026-11 2026-10 2026 2026-10-31 2026-11-01T07:00:00+01:00"
        );
        assert_eq!(period("{{ tick.scheduled_for }}", "2026-07-01T05:00:00Z"), "2026-07-01T07:00:00+02:00");
    }

    #[test]
    fn dates_are_those_of_the_schedules_zone() {
        let midnight_in_berlin = "2026-10-31T23:00:00Z";
        assert_eq!(period("{{ tick.previous_month }}", midnight_in_berlin), "2026-10");
        let utc = evaluate(&templates("{{ tick.previous_month }}"), at(midnight_in_berlin), &TimeZone::UTC).unwrap();
        assert_eq!(utc["period"], "2026-09");
    }

    #[test]
    fn the_previous_month_is_right_at_the_ends_of_months_and_years() {
        assert_eq!(
            period("{{ tick.previous_month }} {{ tick.previous_day }}", "2026-01-01T12:00:00Z"),
            "2025-12 2025-12-31"
        );
        assert_eq!(period("{{ tick.previous_month }}", "2026-03-31T12:00:00Z"), "2026-02");
        assert_eq!(period("{{ tick.previous_day }}", "2024-03-01T12:00:00Z"), "2024-02-29");
    }

    #[test]
    fn a_misspelt_name_is_refused_and_the_known_ones_are_listed() {
        for bad in ["{{ tick.moth }}", "{{ month }}", "{{ tick.date", "{{ tick.date|nosuch }}", "{% include 'x' %}"] {
            let why = check(&templates(bad)).unwrap_err().to_string();
            assert!(why.contains("params.period") && why.contains("tick.previous_month"), "{why}");
        }
    }

    #[test]
    fn a_value_that_cannot_identify_a_run_is_refused() {
        for bad in ["", " \t", "{% if false %}x{% endif %}", "a\nb", &"x".repeat(257)] {
            assert!(matches!(check(&templates(bad)), Err(Error::Value { .. })), "{bad:?} must be refused");
        }
        assert!(matches!(check(&templates(&"x".repeat(1025))), Err(Error::TemplateTooLong { .. })));
        assert_eq!(check(&templates(&"x".repeat(256))), Ok(()));
    }

    #[test]
    fn a_parameter_given_by_hand_must_be_one_of_the_schedule() {
        let now = at("2026-11-01T06:00:00Z");
        let given = |name: &str, value: &str| {
            let given = BTreeMap::from([(name.to_owned(), value.to_owned())]);
            with_given(&templates("{{ tick.month }}"), &given, now, &berlin())
        };
        assert_eq!(given("period", "2026-09").unwrap()["period"], "2026-09");
        let why = given("peroid", "2026-09").unwrap_err().to_string();
        assert_eq!(why, "parameter \"peroid\" is not one of this schedule (known: period)");
        assert!(matches!(given("period", "a\nb"), Err(Error::Value { .. })));
        assert_eq!(given("period", " 2026-09\u{a0}\n").unwrap()["period"], "2026-09", "blanks around it do not count");
        assert!(matches!(given("period", " "), Err(Error::Value { .. })));
    }

    #[test]
    fn a_text_without_a_template_is_itself_and_nothing_is_escaped() {
        assert_eq!(period("Q&A <4>", "2026-01-01T12:00:00Z"), "Q&A <4>");
    }
}
