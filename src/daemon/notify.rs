//! Notifications to systemd: ready, status, stopping, and the watchdog's keep-alive.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sd_notify::NotifyState;
use tokio_util::sync::CancellationToken;

use crate::base::{Clock, units};
use crate::queue::Queues;
use crate::schedule::Liveness;
use crate::store::{self, Tx};

/// Without a watchdog the store's writer is still probed this often.
const PROBE_EVERY: Duration = Duration::from_secs(60);

/// How often the progress of an upgrade is looked at while the store opens.
const LOOK_AT_UPGRADE_EVERY: Duration = Duration::from_secs(5);
/// Progress gains this much time. The upgrade's last part, its commit, shows none and must fit into it.
const UPGRADE_EXTENSION: Duration = Duration::from_secs(300);

/// Notifies systemd; does nothing without it.
pub(super) fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!("systemd could not be told: {error}");
    }
}

/// While the store opens: asks systemd for more time than `TimeoutStartSec=` as long as an upgrade rewrites rows.
pub(super) async fn extend_start(upgraded_rows: Arc<AtomicU64>, opened: CancellationToken) {
    let mut before = 0;
    while opened.run_until_cancelled(tokio::time::sleep(LOOK_AT_UPGRADE_EVERY)).await.is_some() {
        let now = upgraded_rows.load(Ordering::Relaxed);
        if let Some(status) = upgrade_status(before, now) {
            let usec = u32::try_from(UPGRADE_EXTENSION.as_micros()).unwrap_or(u32::MAX);
            send(&[NotifyState::ExtendTimeoutUsec(usec), NotifyState::Status(&status)]);
        }
        before = now;
    }
}

/// What systemd is told of an upgrade that has rewritten so many rows; nothing when it has not gone on.
fn upgrade_status(before_rows: u64, now_rows: u64) -> Option<String> {
    (now_rows != before_rows).then(|| format!("upgrading the store: {} rewritten", units::count(now_rows, "row")))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_gets_more_time_only_while_an_upgrade_goes_on() {
        assert_eq!(upgrade_status(0, 0), None);
        assert_eq!(upgrade_status(1, 70_000).unwrap(), "upgrading the store: 70000 rows rewritten");
        assert_eq!(upgrade_status(70_000, 70_000), None);
    }
}
