//! `nightmail check`: every error of the configuration at once.

use crate::base::{SystemClock, units};
use crate::config::Settings;
use crate::daemon::functions;

use super::args::Context;
use super::output::note;

/// Checks the configuration and shows a summary.
pub(super) fn check(context: &Context) -> anyhow::Result<()> {
    let settings = context.settings()?;
    functions::check(&settings, &SystemClock::shared())?;
    for warning in &settings.warnings {
        note(format_args!("warning: {warning}"));
    }
    let name = context.name();
    let valid = serde_json::json!({
        "file": name,
        "valid": true,
        "warnings": settings.warnings.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "queues": settings.queues.keys().collect::<Vec<_>>(),
        "functions": settings.functions.iter().map(|function| &function.pool.function).collect::<Vec<_>>(),
        "schedules": settings.schedules.iter().map(|schedule| &schedule.name).collect::<Vec<_>>(),
    });
    context.output.show(&valid, |_| overview(context, &name, &settings))
}

fn overview(context: &Context, name: &str, settings: &Settings) -> String {
    let mut lines = vec![context.output.good(format!("{name} is valid"))];
    for (name, queue) in &settings.queues {
        let dead = queue
            .redrive
            .as_ref()
            .map(|redrive| (units::count(redrive.max_receive_count, "attempt"), &redrive.dead_letter_queue))
            .map(|(attempts, queue)| format!(", after {attempts} to {queue}"));
        let retention = queue.retention.map_or_else(|| "for ever".into(), units::show_duration);
        lines.push(format!("  queue     {name}: kept {retention}{}", dead.unwrap_or_default()));
    }
    for function in &settings.functions {
        let pool = &function.pool;
        let timeout = units::show_duration(pool.timeout);
        lines.push(format!(
            "  function  {}: takes from {}, {} at once, {timeout} each",
            pool.function, pool.queue, pool.concurrency
        ));
    }
    for schedule in &settings.schedules {
        let rule = &schedule.rule;
        lines.push(format!("  schedule  {}: {}", schedule.name, rule.describe()));
    }
    lines.join("\n")
}
