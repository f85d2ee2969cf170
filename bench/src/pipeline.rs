//! End to end: users per second of the daemon, divided by those of a bare loop over the same users.

use anyhow::ensure;

use crate::child::{self, Figures};
use crate::harness::Harness;
use crate::output::{count, median, note, table};

/// The daemon must reach this share of the loop's rate.
const RATIO_MIN: f64 = 0.85;
/// Pairs of runs: loop, daemon, loop, daemon, …
const PAIRS: usize = 5;
/// The same with `--full`.
const PAIRS_FULL: usize = 9;

/// The loop's run and the daemon's after it.
struct Pair {
    bare: Figures,
    daemon: Figures,
}

impl Pair {
    fn ratio(&self) -> f64 {
        self.daemon.users_per_second() / self.bare.users_per_second()
    }
}

/// Runs the pairs and prints them.
pub(crate) async fn run(full: bool) -> anyhow::Result<()> {
    let (users, count) = if full { (10_000, PAIRS_FULL) } else { (2_000, PAIRS) };
    let mut harness = Harness::set(users).await?;
    let mut pairs = Vec::with_capacity(count);
    for pair in 1..=count {
        let bare = side(&mut harness, users, "run-loop").await?;
        let daemon = side(&mut harness, users, "run-daemon").await?;
        note(format_args!(
            "pair {pair}: loop {:.0} users/s, daemon {:.0} users/s",
            bare.users_per_second(),
            daemon.users_per_second()
        ));
        pairs.push(Pair { bare, daemon });
    }
    show(users, &pairs)?;
    let ratio = median(pairs.iter().map(Pair::ratio));
    ensure!(ratio >= RATIO_MIN, "the daemon reaches {ratio:.2} of the bare loop; it must reach {RATIO_MIN}");
    Ok(())
}

async fn side(harness: &mut Harness, users: u32, subcommand: &str) -> anyhow::Result<Figures> {
    let dir = tempfile::tempdir()?;
    let before = harness.seen().await?;
    let figures = child::measure(subcommand, harness.side(dir.path()).arguments()).await?;
    harness.check(before, users).await?;
    Ok(figures)
}

/// One column of the table: its head, its figure of a pair, its decimals.
type Column = (&'static str, fn(&Pair) -> f64, usize);

const COLUMNS: [Column; 8] = [
    ("loop users/s", |pair| pair.bare.users_per_second(), 0),
    ("daemon users/s", |pair| pair.daemon.users_per_second(), 0),
    ("ratio", Pair::ratio, 3),
    ("loop CPU ms/user", |pair| pair.bare.cpu_ms_per_user(), 3),
    ("daemon CPU ms/user", |pair| pair.daemon.cpu_ms_per_user(), 3),
    ("users/commit", |pair| pair.daemon.users as f64 / pair.daemon.commits as f64, 1),
    ("loop peak MB", |pair| pair.bare.peak_mb, 0),
    ("daemon peak MB", |pair| pair.daemon.peak_mb, 0),
];

/// Prints the pairs and their medians.
fn show(users: u32, pairs: &[Pair]) -> anyhow::Result<()> {
    let cell = |value: f64, decimals: usize| if decimals == 0 { count(value) } else { format!("{value:.decimals$}") };
    let figures = |pair| COLUMNS.iter().map(move |(_, figure, decimals)| cell(figure(pair), *decimals));
    let row = |(at, pair): (usize, _)| [(at + 1).to_string()].into_iter().chain(figures(pair)).collect();
    let mut rows: Vec<Vec<String>> = pairs.iter().enumerate().map(row).collect();
    let medians = COLUMNS.iter().map(|(_, figure, decimals)| cell(median(pairs.iter().map(figure)), *decimals));
    rows.push(["median".to_owned()].into_iter().chain(medians).collect());
    let head: Vec<&str> = ["pair"].into_iter().chain(COLUMNS.iter().map(|(head, ..)| *head)).collect();
    table(&format!("pipeline: {users} users fetched, printed and mailed"), &head, &rows)
}
