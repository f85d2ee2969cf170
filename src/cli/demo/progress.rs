//! The demo's live line: how far each stage is.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::output::{note, wants_no_colour};
use crate::run::Report;

/// Without a terminal a line is written this often.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// One bar per stage on a terminal, a line now and then elsewhere.
pub(super) struct Progress {
    bars: MultiProgress,
    fetched: ProgressBar,
    sent: ProgressBar,
    dead: ProgressBar,
    is_terminal: bool,
    /// How long ago the last line was written, by the monotonic clock of the caller.
    last_line: Option<Duration>,
}

impl Progress {
    /// Bars for `users` users.
    pub(super) fn new(users: u64) -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        let bars = MultiProgress::new();
        if !is_terminal {
            bars.set_draw_target(ProgressDrawTarget::hidden());
        }
        let is_plain = wants_no_colour();
        let bar = |name: &'static str, colour: &str| {
            let style = if is_plain { String::new() } else { format!(".{colour}") };
            let template = format!("  {{msg:8}} {{bar:40{style}}} {{pos:>7}}/{{len}}");
            let bar = bars.add(ProgressBar::new(users));
            bar.set_style(ProgressStyle::with_template(&template).expect("the template is written above"));
            bar.with_message(name)
        };
        let (fetched, sent, dead) = (bar("fetched", "blue"), bar("sent", "green"), bar("dead", "red"));
        Self { bars, fetched, sent, dead, is_terminal, last_line: None }
    }

    /// Shows how the run stands; `now` is monotonic.
    pub(super) fn show(&mut self, report: &Report, now: Duration) {
        self.fetched.set_position(report.fetched);
        self.sent.set_position(report.sent);
        self.dead.set_position(report.dead);
        let is_due = self.last_line.is_none_or(|last| now.saturating_sub(last) >= LINE_EVERY);
        if !self.is_terminal && is_due {
            self.last_line = Some(now);
            note(format_args!("  fetched {}, sent {}, dead {}", report.fetched, report.sent, report.dead));
        }
    }

    /// Leaves the last state on the screen.
    pub(super) fn finish(self) {
        for bar in [self.fetched, self.sent, self.dead] {
            bar.abandon();
        }
        drop(self.bars);
    }
}
