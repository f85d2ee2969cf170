//! Wall-clock times and moments: what one IANA zone's clock shows, and when it shows it.
//!
//! A wall time that does not exist belongs to the first moment after its gap; one that exists twice belongs to its
//! first occurrence. So later wall times never belong to earlier moments, which the search for ticks relies on. Knows
//! no rule.

use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp};

use super::error::{Error, cut};

/// How many transitions are examined around one gap or fold; the one that caused it is the first or second.
const TRANSITIONS_MAX: usize = 8;
/// A known zone name that is at least this similar is suggested in the error.
const LIKENESS_MIN: f64 = 0.75;

/// The zone of an IANA name.
pub(super) fn zone(name: &str) -> Result<TimeZone, Error> {
    jiff::tz::db().get(name).map_err(|_| unknown(name))
}

fn unknown(name: &str) -> Error {
    let wanted = name.trim().replace(' ', "_").to_ascii_lowercase();
    let likeness = |known: &str| {
        let known = known.to_ascii_lowercase();
        let city = known.rsplit('/').next().unwrap_or_default();
        strsim::jaro_winkler(&wanted, &known).max(strsim::jaro_winkler(&wanted, city))
    };
    let mut known = jiff::tz::db().available().map(|known| known.to_string()).peekable();
    if known.peek().is_none() {
        return Error::NoZones { name: cut(name) };
    }
    let scored = known.map(|known| (likeness(&known), known));
    let nearest = scored.max_by(|(a, _), (b, _)| a.total_cmp(b)).filter(|(score, _)| *score >= LIKENESS_MIN);
    Error::Zone { name: cut(name), nearest: nearest.map(|(_, name)| name) }
}

/// When the zone's clock shows `wall`; `None` outside the years that jiff knows.
pub(super) fn moment_of(zone: &TimeZone, wall: DateTime) -> Option<Timestamp> {
    match zone.to_ambiguous_timestamp(wall).offset() {
        AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(wall).ok(),
        AmbiguousOffset::Fold { before, .. } => before.to_timestamp(wall).ok(),
        AmbiguousOffset::Gap { after, .. } => {
            let before_the_gap = after.to_timestamp(wall).ok()?;
            let transitions = zone.following(before_the_gap).take(TRANSITIONS_MAX);
            transitions.map(|transition| transition.timestamp()).find(|moment| zone.to_datetime(*moment) > wall)
        }
    }
}

/// The last whole second of wall time whose moment is not after `moment`: what the clock shows, or, while it shows
/// an hour for the second time, the end of that hour.
pub(super) fn reached(zone: &TimeZone, moment: Timestamp) -> Option<DateTime> {
    let shown = zone.to_datetime(moment);
    let wall = shown.with().subsec_nanosecond(0).build().ok()?;
    let AmbiguousOffset::Fold { before, after } = zone.to_ambiguous_timestamp(wall).offset() else {
        return Some(wall);
    };
    if before == after || zone.to_offset(moment) != after {
        return Some(wall);
    }
    let just_after = moment.checked_add(SignedDuration::from_nanos(1)).ok()?;
    let mut ends = zone.preceding(just_after).take(TRANSITIONS_MAX).map(|t| before.to_datetime(t.timestamp()));
    let last = ends.find(|end| *end > wall).and_then(|end| end.checked_sub(SignedDuration::from_secs(1)).ok());
    Some(last.unwrap_or(wall).max(wall))
}

/// Whether the zone's clock is moved at or after `from` and before `until`.
pub(super) fn moves_between(zone: &TimeZone, from: Timestamp, until: Timestamp) -> bool {
    let Ok(before) = from.checked_sub(SignedDuration::from_nanos(1)) else { return true };
    zone.following(before).next().is_some_and(|transition| transition.timestamp() < until)
}
