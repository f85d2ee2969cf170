//! Notifications to systemd: ready, status, stopping, and the watchdog's keep-alive.

use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio_util::sync::CancellationToken;

use crate::base::Clock;
use crate::queue::Queues;
use crate::schedule::Liveness;
use crate::store::{self, Tx};

/// Without a watchdog the store's writer is still probed this often.
const PROBE_EVERY: Duration = Duration::from_secs(60);

/// Notifies systemd; does nothing without it.
pub(super) fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!("systemd could not be told: {error}");
    }
}

/// Feeds the watchdog for as long as the store commits a probe and every scheduler checks its schedule; also when idle.
pub(super) async fn watch(
    queues: Queues,
    liveness: Vec<Liveness>,
    clock: Arc<dyn Clock>,
    shutdown: CancellationToken,
) -> Result<(), store::Error> {
    let watchdog = sd_notify::watchdog_enabled();
    let every = watchdog.map_or(PROBE_EVERY, |limit| limit / 3);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = tokio::time::sleep(every) => {}
        }
        queues.store().write(|_: &mut Tx<'_>| Ok::<_, store::Error>(())).await?;
        let stuck = liveness.iter().find(|liveness| liveness.is_stuck(clock.monotonic()));
        if let Some(stuck) = stuck {
            tracing::error!(
                schedule = stuck.schedule(),
                "the scheduler has not looked at its clock for minutes; without systemd's watchdog, restart the daemon"
            );
        } else if watchdog.is_some() {
            send(&[NotifyState::Watchdog]);
        }
    }
}
