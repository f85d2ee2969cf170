//! `nightmail serve`: the daemon in the foreground. SIGTERM or Ctrl-C drains, a second one stops at once.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::base::SystemClock;
use crate::config::Settings;
use crate::daemon;

/// Serves until a signal comes or the store stops.
pub(super) async fn serve(settings: Settings) -> anyhow::Result<()> {
    for warning in &settings.warnings {
        tracing::warn!("{warning}");
    }
    let (stop, force) = (CancellationToken::new(), CancellationToken::new());
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (first, second) = (stop.clone(), force.clone());
    tokio::spawn(async move {
        for token in [first, second] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            token.cancel();
        }
    });
    Ok(daemon::run(settings, SystemClock::shared(), stop, force).await?)
}
