//! Load by many callers at once, and bodies whose number tells which message it was.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use nightmail::base::Clock;
use tokio::task::JoinSet;

/// The size of a message in all benches but `recovery`.
pub(crate) const BODY_BYTES: usize = 1024;

/// A body of `bytes` with the message's number in front.
pub(crate) fn numbered(number: u64, bytes: usize) -> Bytes {
    // Text, so that it is a message for everyone.
    let mut body = format!("{number:020}").into_bytes();
    body.resize(bytes, b'a');
    body.into()
}

/// The number in front of a body.
pub(crate) fn number(body: &[u8]) -> anyhow::Result<u64> {
    let digits = body.get(..20).context("the body is too short for a number")?;
    Ok(std::str::from_utf8(digits)?.parse()?)
}

/// How long `callers` tasks need for `calls` calls that they share; each call is given its number.
pub(crate) async fn share<F, C>(clock: &Arc<dyn Clock>, callers: usize, calls: u64, call: F) -> anyhow::Result<Duration>
where
    F: Fn(u64) -> C + Clone + Send + 'static,
    C: Future<Output = anyhow::Result<()>> + Send,
{
    let begun = Arc::new(AtomicU64::new(0));
    let began = clock.monotonic();
    let mut tasks = JoinSet::new();
    for _ in 0..callers {
        let (call, begun) = (call.clone(), begun.clone());
        tasks.spawn(async move {
            loop {
                let number = begun.fetch_add(1, Ordering::Relaxed);
                if number >= calls {
                    return anyhow::Ok(());
                }
                call(number).await?;
            }
        });
    }
    while let Some(end) = tasks.join_next().await {
        end??;
    }
    Ok(clock.monotonic() - began)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_tells_its_number() -> anyhow::Result<()> {
        let body = numbered(42, 1024);
        assert_eq!(body.len(), 1024);
        assert_eq!(number(&body)?, 42);
        Ok(())
    }
}
