//! `nightmail serve`: the daemon in the foreground. SIGTERM, Ctrl-C or the end of the terminal drains, a second signal
//! stops at once.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::base::SystemClock;
use crate::config::Settings;
use crate::daemon;

use super::context::Context;

/// The bit of SIGHUP in the masks of `/proc/self/status`.
const HANGUP_BIT: u64 = 1;

/// Serves until a signal comes or the store stops.
pub(super) async fn serve(context: &Context, settings: Settings) -> anyhow::Result<()> {
    if context.path.is_none() {
        tracing::warn!(
            "there is no configuration, so this is the built-in example (--config names a file; `nightmail example` \
             prints one to begin with)"
        );
    }
    for warning in &settings.warnings {
        tracing::warn!("{warning}");
    }
    let (stop, force) = (CancellationToken::new(), CancellationToken::new());
    let mut signals = Signals::take(context)?;
    let tokens = [stop.clone(), force.clone()];
    tokio::spawn(async move {
        for token in tokens {
            signals.until_told_to_stop().await;
            token.cancel();
        }
    });
    Ok(daemon::run(settings, SystemClock::shared(), stop, force).await?)
}

/// The signals that end the daemon.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// `None` under `nohup`, whose wish is that SIGHUP does nothing.
    hangup: Option<Signal>,
    /// Whether systemd watches this process: it sends SIGHUP for a reload, never for the end of a terminal.
    is_notifying: bool,
}

impl Signals {
    fn take(context: &Context) -> std::io::Result<Self> {
        let hangup = if is_hangup_ignored() { None } else { Some(signal(SignalKind::hangup())?) };
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup,
            is_notifying: context.environment.get("NOTIFY_SOCKET").is_some(),
        })
    }

    async fn until_told_to_stop(&mut self) {
        loop {
            let hangup = async {
                match &mut self.hangup {
                    Some(hangup) => hangup.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = hangup => if !self.is_notifying { return },
            }
            tracing::warn!("SIGHUP is ignored: the configuration is read at the start only (restart to change it)");
        }
    }
}

/// Whether this process was started with SIGHUP ignored, as `nohup` does.
fn is_hangup_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & HANGUP_BIT != 0)
}
