//! An idle queue and one waiting receiver: from the call of `send` until the handler has the message, as time and as a
//! multiple of one fdatasync that is measured between the messages.

use std::time::Duration;

use anyhow::{Context, ensure};
use nightmail::base::SystemClock;
use tokio::sync::mpsc;

use crate::disk::Probe;
use crate::engine::Engine;
use crate::load::{self, BODY_BYTES};
use crate::output::{percentile, table};

/// The receiver has deleted the last message and waits again.
const IDLE: Duration = Duration::from_millis(3);
/// The most that the median may take, in fsyncs: the send is one of them.
const P50_SYNCS_MAX: f64 = 3.0;
/// The same of the 99th percentile; told, not enforced: one stall of a shared disk moves it.
const P99_SYNCS_MAX: f64 = 15.0;

/// Measures and prints it; an error when the median is above its limit.
pub(crate) async fn run(full: bool) -> anyhow::Result<()> {
    let messages = if full { 3_000 } else { 500 };
    let clock = SystemClock::shared();
    let dir = tempfile::tempdir()?;
    let engine = Engine::open(dir.path(), &clock).await?;
    let mut probe = Probe::make(&dir.path().join("probe"))?;
    let (arrived, mut arrivals) = mpsc::channel(1);
    let (receiver, its_clock) = (engine.clone(), clock.clone());
    let receiver = tokio::spawn(async move {
        for _ in 0..messages {
            let message = receiver.wait().await?.context("no message came within 20 s")?;
            let at = its_clock.monotonic();
            receiver.delete(message.handle).await?;
            arrived.send((load::number(&message.body)?, at)).await?;
        }
        anyhow::Ok(())
    });
    let (mut sends, mut handled, mut syncs) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..messages {
        syncs.push(probe.sync(&*clock)?.as_secs_f64() * 1e3);
        tokio::time::sleep(IDLE).await;
        let began = clock.monotonic();
        engine.send(load::numbered(number, BODY_BYTES)).await?;
        sends.push((clock.monotonic() - began).as_secs_f64() * 1e3);
        let (came, at) = arrivals.recv().await.context("the receiver ended")?;
        ensure!(came == number, "message {came} came instead of {number}");
        handled.push((at - began).as_secs_f64() * 1e3);
    }
    receiver.await??;
    show(messages, [&syncs, &sends, &handled])?;
    let p50 = percentile(&handled, 50.0) / percentile(&syncs, 50.0);
    ensure!(p50 <= P50_SYNCS_MAX, "the median is {p50:.1} fsyncs; at most {P50_SYNCS_MAX}");
    Ok(())
}

fn show(messages: u64, [syncs, sends, handled]: [&[f64]; 3]) -> anyhow::Result<()> {
    let sync = percentile(syncs, 50.0);
    let row = |name: &str, times: &[f64], limit: String| {
        let (p50, p99) = (percentile(times, 50.0), percentile(times, 99.0));
        let figures =
            [format!("{p50:.3}"), format!("{p99:.3}"), format!("{:.1}", p50 / sync), format!("{:.1}", p99 / sync)];
        [vec![name.to_owned()], figures.to_vec(), vec![limit]].concat()
    };
    let limit = format!("{P50_SYNCS_MAX} and {P99_SYNCS_MAX}");
    let rows = [
        row("one fdatasync of 4 KiB", syncs, "-".into()),
        row("send until it answers", sends, "-".into()),
        row("send until the handler has it", handled, limit),
    ];
    let head = ["idle queue", "p50 ms", "p99 ms", "p50 in fsyncs", "p99 in fsyncs", "limit"];
    table(&format!("latency: {messages} messages of 1 KiB, one at a time"), &head, &rows)
}
