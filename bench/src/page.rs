//! A page of users that a fan-out commits: messages, ledger rows and the cursor, slice by slice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use nightmail::base::Backoff;
use nightmail::function::statement::{Page, PageAddress, Record, User, UsersOptions};
use nightmail::function::upstream;
use nightmail::queue::{Queues, catalog};
use nightmail::run::{self, Start};
use nightmail::schedule::FanOutOptions;
use nightmail::schedule::fan_out::page::PreparedPage;
use nightmail::schedule::fan_out::slice::{self, SliceEnd};
use nightmail::store::Tx;

use crate::beside::WORK;

/// Commits one page of so many users into the queue of the work.
pub(crate) async fn commit(queues: &Queues, users: u64) -> anyhow::Result<()> {
    let now = queues.now();
    let start = Start {
        schedule: "bench".into(),
        function: "fan-out".into(),
        queue: WORK.into(),
        params: BTreeMap::from([("period".into(), "2026-10".into())]),
        scheduled_for: now.wall,
        guard: None,
        brake: None,
        gate: None,
        note: String::new(),
    };
    let id = queues.store().write::<_, run::Error, _>(move |tx| run::start(tx, &start, now)).await?;
    let snapshot = queues.store().snapshot()?;
    let mut run = snapshot.runs()?.get(&id)?.context("the run was started")?;
    let user = |number: u64| {
        let json = format!(r#"{{"id":"{number}","name":"Ada","email":"ada{number}@example.test"}}"#);
        User::check(&json).map(Record::User).map_err(|why| anyhow::anyhow!("{why}"))
    };
    let records = (0..users).map(user).collect::<anyhow::Result<Vec<_>>>()?;
    let queue = catalog::look_up(&snapshot, WORK)?;
    let page = PreparedPage::new(Page { records, next: None }, &run, &PageAddress::First, (&queue, &queue));
    let (page, mut from) = (Arc::new(page), 0);
    loop {
        let (now, started, page) = (queues.now(), run.clone(), page.clone());
        let step = move |tx: &mut Tx<'_>| slice::commit(tx, &options(), &started, &page, from, now);
        let slice = queues.store().write(step).await?;
        run = slice.run;
        match slice.end {
            SliceEnd::Record(next) => from = next,
            _ => return Ok(()),
        }
    }
}

fn options() -> FanOutOptions {
    let upstream = upstream::Options {
        connect_timeout: Duration::from_secs(1),
        timeout: Duration::from_secs(1),
        response_bytes_max: 1 << 20,
        token: None,
        headers: Vec::new(),
        retries: 0,
        backoff: Backoff::default(),
    };
    let users = UsersOptions {
        url: String::new(),
        upstream,
        items: None,
        next: None,
        cursor_param: "cursor".into(),
        pages_max: 10,
    };
    FanOutOptions { name: "fan-out".into(), queue: WORK.into(), target: WORK.into(), users }
}
