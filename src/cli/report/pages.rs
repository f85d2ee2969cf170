//! The rows of a run, a page at a time, and their count.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::api::control::{Answer, Request};
use crate::run::Report;
use crate::run::report::{Filter, ROWS_SHOWN_MAX, Row};

use super::super::ask::{Source, strange};

/// Reads the rows of a run that a filter lets through.
pub(super) struct Pages<'a> {
    source: &'a Source,
    run: u64,
    filter: Filter,
    /// The key of the last row that was read; `None` before the first page.
    after: Option<String>,
    is_last: bool,
}

impl<'a> Pages<'a> {
    pub(super) fn new(source: &'a Source, run: u64, filter: Filter) -> Self {
        Self { source, run, filter, after: None, is_last: false }
    }

    /// The next page; `None` behind the last one.
    pub(super) async fn next(&mut self) -> anyhow::Result<Option<Vec<Row>>> {
        if self.is_last {
            return Ok(None);
        }
        let (filter, after) = (self.filter.clone(), self.after.take());
        let rows = match self.source.ask(Request::Recipients { id: self.run, filter, after }).await? {
            Answer::Recipients(rows) => rows,
            other => return Err(strange(&other)),
        };
        self.is_last = rows.len() < ROWS_SHOWN_MAX;
        self.after = rows.last().map(|row| row.key.clone());
        Ok(Some(rows))
    }
}

/// How many rows there are, by state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Recount {
    /// All of them.
    pub(super) recipients: u64,
    /// By the state's name.
    pub(super) by_state: BTreeMap<String, u64>,
}

impl Recount {
    /// Counts one row.
    pub(super) fn count(&mut self, row: &Row) {
        self.recipients += 1;
        match self.by_state.get_mut(&row.state) {
            Some(count) => *count += 1,
            None => drop(self.by_state.insert(row.state.clone(), 1)),
        }
    }

    /// In how many numbers the rows and the run's totals differ.
    pub(super) fn faults(&self, run: &Report) -> usize {
        let by_state = totals(run);
        let found = |state: &str| self.by_state.get(state).copied().unwrap_or(0);
        let differ = by_state.iter().filter(|(state, count)| found(state) != *count).count();
        differ + usize::from(self.recipients != run.fetched)
    }
}

/// The run's totals by the state's name, in the order of a balance.
pub(super) fn totals(run: &Report) -> [(&'static str, u64); 7] {
    [
        ("sent", run.sent),
        ("dead", run.dead),
        ("unknown", run.unknown),
        ("withdrawn", run.withdrawn),
        ("suppressed", run.suppressed),
        ("skipped", run.skipped),
        ("open", run.open),
    ]
}

/// Whether a mail was begun, so that its Message-ID stands in the relay's log.
pub(super) fn is_begun(row: &Row) -> bool {
    matches!(row.state.as_str(), "sent" | "unknown") || row.interrupted > 0
}
