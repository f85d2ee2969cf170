//! The rival of the pipeline: what a script does. It fetches the users page by page and calls the very same statement
//! function in `buffer_unordered`, without a queue: nothing is durable, a crash starts over.
//!
//! It runs in the process of the hidden subcommand `run-loop`.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, bail};
use bytes::Bytes;
use futures_util::{TryStreamExt, stream};
use nightmail::base::{LeaseTime, MessageId, Outcome, SystemClock};
use nightmail::daemon::logging;
use nightmail::function::statement::{Page, PageAddress, PdfStatementRenderer, Record, Statement, User, Users};
use nightmail::function::{EffectFlag, Function, Invocation, NoLedger};
use serde::Serialize;

use crate::child::{self, Figures};
use crate::settings::{self, PERIOD, Side};

/// What the fan-out would send.
#[derive(Serialize)]
struct UserMessage<'a> {
    run: u64,
    user: &'a User,
    params: &'a BTreeMap<String, String>,
}

/// Calls the function for every user.
pub(crate) async fn run(side: &Side) -> anyhow::Result<Figures> {
    let settings = side.settings()?;
    logging::start(&settings.log);
    let clock = SystemClock::shared();
    let (pool, options) = settings::statement(&settings)?;
    let renderer = Box::new(PdfStatementRenderer::new(&options.document)?);
    let function: Arc<dyn Function> = Arc::new(Statement::new(options, &["period"], renderer, clock.clone())?);
    let users = Users::new(&settings::fan_out(&settings)?.users, &["period"], clock.clone())?;
    let params = BTreeMap::from([("period".to_owned(), PERIOD.to_owned())]);

    let (began, cpu) = (clock.monotonic(), child::cpu_seconds()?);
    let now = clock.lease();
    let done = recipients(&users, &params)
        .map_ok(|user| call(function.clone(), message(&user, &params), now))
        .try_buffer_unordered(pool.concurrency)
        .try_fold(0, |done, ()| std::future::ready(Ok(done + 1)))
        .await?;
    Ok(Figures {
        users: done,
        seconds: (clock.monotonic() - began).as_secs_f64(),
        fetched_seconds: 0.0,
        cpu_seconds: child::cpu_seconds()? - cpu,
        peak_mb: child::peak_mb()?,
        commits: 0,
    })
}

/// All users, one page in memory at a time.
fn recipients<'a>(
    users: &'a Users,
    params: &'a BTreeMap<String, String>,
) -> impl stream::Stream<Item = anyhow::Result<User>> + 'a {
    let pages = stream::try_unfold(Some(PageAddress::First), move |address| async move {
        let Some(address) = address else { return Ok(None) };
        let Page { records, next } =
            users.page(&address, params, &mut Vec::new()).await.map_err(|fault| anyhow::anyhow!("{fault:?}"))?;
        let records: Vec<anyhow::Result<User>> = records.into_iter().map(user).collect();
        anyhow::Ok(Some((stream::iter(records), next)))
    });
    pages.try_flatten()
}

fn user(record: Record) -> anyhow::Result<User> {
    match record {
        Record::User(user) => Ok(user),
        Record::Malformed { why, .. } => bail!("a user is malformed: {why}"),
    }
}

fn message(user: &User, params: &BTreeMap<String, String>) -> Bytes {
    serde_json::to_vec(&UserMessage { run: 1, user, params }).expect("text and numbers always serialise").into()
}

/// One statement on its own task, so that all cores work.
async fn call(function: Arc<dyn Function>, body: Bytes, now: LeaseTime) -> anyhow::Result<()> {
    let invocation = Invocation {
        message_id: MessageId::fresh(),
        queue: "none".into(),
        body,
        run: Some(1),
        receive_count: 1,
        received_at: now,
        deadline: LeaseTime::from_millis(u64::MAX),
        receipt_handle: String::new(),
        effect: EffectFlag::default(),
        effects: NoLedger::shared(),
    };
    let report = tokio::spawn(async move { function.call(invocation).await }).await.context("a call panicked")?;
    match report.outcome {
        Outcome::Done(_) => Ok(()),
        other => bail!("a statement failed: {other:?}"),
    }
}
