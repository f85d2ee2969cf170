//! Runs as a table, for `run list` and for `status`, and the phases of one as a table, for `run show`.

use crate::base::outcome::shorten;
use crate::run::Report;
use crate::run::report::PhaseReport;

use super::output::{FAILURE_BYTES_MAX, minutes, table, tame, wrap_behind};

/// Runs as a table, and below it why some of them wait for an operator.
pub(super) fn runs_list(runs: &[Report]) -> String {
    let waits = |run: &Report| {
        let because = match (&run.fetch_death, &run.held_because) {
            (Some(death), _) => format!("its fan-out is letter {} ({})", death.letter, death.remedy),
            (None, because) => shorten(because.as_ref()?, FAILURE_BYTES_MAX),
        };
        Some(format!("\n{}", wrap_behind(2, &format!("run {} is {}: {because}", run.id, run.state.name()))))
    };
    runs_table(runs) + &runs.iter().filter_map(waits).collect::<String>()
}

/// One of a run's numbers.
type Count = fn(&Report) -> u64;

/// Runs as a table, for `run list` and for `status`. Its first column names the run, so that it fits 80 characters.
pub(super) fn runs_table(runs: &[Report]) -> String {
    let rare: [(&str, Count); 4] = [
        ("skipped", |run| run.skipped),
        ("suppressed", |run| run.suppressed),
        ("unknown", |run| run.unknown),
        ("withdrawn", |run| run.withdrawn),
    ];
    let has_eta = runs.iter().any(|run| run.eta.is_some());
    let rare: Vec<_> = rare.into_iter().filter(|(_, count)| runs.iter().any(|run| count(run) > 0)).collect();
    let row = |run: &Report| {
        let name = format!("{} {} {}", run.id, run.schedule, params_text(run));
        let ended = [run.fetched, run.sent, run.dead].into_iter().chain(rare.iter().map(|(_, count)| count(run)));
        [tame(name.trim_end(), 200), run.state.name().into()]
            .into_iter()
            .chain(ended.chain([run.open]).map(|number| number.to_string()))
            .chain(has_eta.then(|| run.eta.as_ref().map(|eta| minutes(eta.at)).unwrap_or_default()))
            .collect()
    };
    let names = rare.iter().map(|(name, _)| *name);
    let header: Vec<&str> =
        ["run", "state", "fetched", "sent", "dead"].into_iter().chain(names).chain(["open"]).collect();
    let numbers: Vec<usize> = (2..header.len()).collect();
    let header: Vec<&str> = header.into_iter().chain(has_eta.then_some("eta")).collect();
    table(&header, &numbers, runs.iter().map(row).collect())
}

/// The phases in which something happened as a table, each line behind two blanks; nothing before the first.
pub(super) fn phases_text(run: &Report) -> String {
    let begun = run.phases.named().into_iter().filter(|(_, phase)| phase.read > 0);
    let row = |(name, phase): (&str, PhaseReport)| {
        let PhaseReport { read, filtered, done, skipped, retried, dead } = phase;
        let numbers = [read, filtered, done, skipped, retried, dead].map(|number| number.to_string());
        [name.to_owned()].into_iter().chain(numbers).collect::<Vec<_>>()
    };
    let rows: Vec<_> = begun.map(row).collect();
    if rows.is_empty() {
        return String::new();
    }
    let header = ["phase", "read", "filtered", "done", "skipped", "retried", "dead"];
    let lines = table(&header, &[1, 2, 3, 4, 5, 6], rows);
    lines.lines().map(|line| format!("  {}\n", line.trim_end())).collect()
}

/// The identity's parameters; each value in quotes, so that a blank in it is seen.
pub(super) fn params_text(run: &Report) -> String {
    run.params.iter().map(|(key, value)| format!("{key}={value:?}")).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_phases_in_which_something_happened_are_shown() {
        let phase = |done: u64, dead: u64| json!({"read": done + dead, "filtered": 0, "done": done, "skipped": 0, "retried": 0, "dead": dead});
        let mut run = json!({
            "id": 7, "schedule": "monthly", "params": {}, "scheduled_for": 0, "started_at": 0, "fetched_at": 0,
            "fetched": 3, "sent": 0, "dead": 0, "withdrawn": 0, "open": 3, "repeated": 0, "interrupted": 0,
            "state": "sending", "fetch_death": null,
        });
        assert_eq!(phases_text(&serde_json::from_value(run.clone()).unwrap()), "");
        let (fetch, nothing) = (phase(3, 1), phase(0, 0));
        run["phases"] = json!({"fetch": fetch, "render": phase(2, 0), "check": nothing, "send": nothing});
        let text = phases_text(&serde_json::from_value(run).unwrap());
        let words: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        let header = vec!["PHASE", "READ", "FILTERED", "DONE", "SKIPPED", "RETRIED", "DEAD"];
        let rows = [vec!["fetch", "4", "0", "3", "0", "0", "1"], vec!["render", "2", "0", "2", "0", "0", "0"]];
        assert_eq!(words, [vec![header], rows.to_vec()].concat());
    }

    #[test]
    fn a_list_says_why_a_run_waits() {
        let run = json!({
            "id": 7, "schedule": "monthly", "params": {}, "scheduled_for": 0, "started_at": 0, "fetched_at": 0,
            "fetched": 3, "sent": 0, "dead": 0, "withdrawn": 0, "open": 3, "repeated": 0, "interrupted": 0,
            "state": "awaiting-release", "held_because": "it is odd", "fetch_death": null,
        });
        let run: Report = serde_json::from_value(run).unwrap();
        let list = runs_list(std::slice::from_ref(&run));
        assert!(list.ends_with("\nrun 7 is awaiting-release: it is odd"), "{list}");
        assert_eq!(
            runs_list(&[Report { held_because: None, ..run.clone() }]).lines().count() + 1,
            list.lines().count()
        );
    }
}
