//! A run as one JSON value: the run, its recipients, and how many they are.

use std::io::Write;

use crate::run::report::Filter;

use super::super::ask::Source;
use super::super::output::escaped_json;
use super::Head;
use super::pages::{Pages, Recount};

pub(super) async fn write(source: &Source, head: &Head, mut out: impl Write) -> anyhow::Result<Recount> {
    let run = serde_json::to_string(&head.run)?;
    let made_at = head.made_at.as_millis();
    write!(out, "{{\n\"made_at\": {made_at},\n\"run\": {},\n\"recipients\": [", escaped_json(run))?;
    let (mut pages, mut recount) = (Pages::new(source, head.run.id, Filter::default()), Recount::default());
    while let Some(rows) = pages.next().await? {
        for row in &rows {
            let separator = if recount.recipients == 0 { "\n" } else { ",\n" };
            recount.count(row);
            write!(out, "{separator}{}", escaped_json(serde_json::to_string(row)?))?;
        }
    }
    writeln!(out, "\n],\n\"recounted\": {}\n}}", serde_json::to_string(&recount)?)?;
    Ok(recount)
}
