//! The fan-out: users per second into the queue and the process's peak memory, alone and with the statements at work.

use anyhow::ensure;

use crate::child::{self, Figures};
use crate::harness::Harness;
use crate::output::{count, median, note, table};

/// A daemon must never have more memory than this, in MB.
const PEAK_MB_MAX: f64 = 150.0;

/// Users of the largest fan-out, whose memory must be the same.
const MOST_USERS: u32 = 1_000_000;

/// Measures both and prints them, and with `full` the memory of the largest.
pub(crate) async fn run(full: bool) -> anyhow::Result<()> {
    usual(if full { 100_000 } else { 5_000 }).await?;
    if full { largest().await } else { Ok(()) }
}

async fn largest() -> anyhow::Result<()> {
    let harness = Harness::set(MOST_USERS).await?;
    let figures = one(&harness, &["--fan-out-alone".into()]).await?;
    let rows = [vec![
        count(figures.users as f64),
        count(figures.users as f64 / figures.fetched_seconds),
        format!("{:.0}", figures.peak_mb),
        format!("{PEAK_MB_MAX:.0}"),
    ]];
    table("fan-out alone, ten times the users", &["users", "fetched users/s", "peak MB", "limit"], &rows)?;
    let peak = figures.peak_mb;
    ensure!(
        peak < PEAK_MB_MAX,
        "the daemon had {peak:.0} MB at {MOST_USERS} users; it must stay under {PEAK_MB_MAX} MB"
    );
    Ok(())
}

async fn usual(users: u32) -> anyhow::Result<()> {
    let mut harness = Harness::set(users).await?;
    let mut alone = Vec::new();
    for _ in 0..3 {
        alone.push(one(&harness, &["--fan-out-alone".into()]).await?);
        note(format_args!("fan-out alone: {:.0} users/s", alone.last().map_or(0.0, Figures::users_per_second)));
    }
    let before = harness.seen().await?;
    let whole = one(&harness, &[]).await?;
    harness.check(before, users).await?;
    show(users, &alone, &whole)?;
    let peak = alone.iter().chain([&whole]).map(|figures| figures.peak_mb).fold(0.0, f64::max);
    ensure!(peak < PEAK_MB_MAX, "the daemon had {peak:.0} MB; it must stay under {PEAK_MB_MAX} MB");
    Ok(())
}

async fn one(harness: &Harness, more: &[String]) -> anyhow::Result<Figures> {
    let dir = tempfile::tempdir()?;
    child::measure("run-daemon", [harness.side(dir.path()).arguments(), more.to_vec()].concat()).await
}

fn show(users: u32, alone: &[Figures], whole: &Figures) -> anyhow::Result<()> {
    let of = |figure: &dyn Fn(&Figures) -> f64| median(alone.iter().map(figure));
    let fetched = |figures: &Figures| figures.users as f64 / figures.fetched_seconds;
    let most = |figures: &[Figures]| figures.iter().map(|figures| figures.peak_mb).fold(0.0, f64::max);
    let rows = [
        vec![
            format!("fan-out alone, median of {}", alone.len()),
            count(of(&fetched)),
            "-".into(),
            count(of(&|figures| figures.commits as f64)),
            format!("{:.0}", most(alone)),
            format!("{:.2}", most(alone) / PEAK_MB_MAX),
        ],
        vec![
            "whole run, statements mailed meanwhile".into(),
            count(fetched(whole)),
            count(whole.users_per_second()),
            count(whole.commits as f64),
            format!("{:.0}", whole.peak_mb),
            format!("{:.2}", whole.peak_mb / PEAK_MB_MAX),
        ],
    ];
    let head = ["", "fetched users/s", "mailed users/s", "commits", "peak MB", "share of 150 MB"];
    table(&format!("fan-out: {users} users"), &head, &rows)
}
