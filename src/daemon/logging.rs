//! Logs: text on a terminal, JSON lines elsewhere or on request; always to standard error, one record per line.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, LogOptions};

/// Starts logging for the whole process. A second call changes nothing.
pub fn start(options: &LogOptions) {
    let filter = EnvFilter::try_new(&options.level).unwrap_or_else(|_| EnvFilter::new("info"));
    // A log that cannot be written must not end an attempt: reporting that would panic on a closed standard error.
    let builder = tracing_subscriber::fmt().log_internal_errors(false);
    let builder = builder.with_env_filter(filter).with_writer(std::io::stderr);
    let is_terminal = std::io::stderr().is_terminal();
    let has_colours = is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    // The span of a line stands in it once: without the list of its parents, of which an attempt has none.
    let started = match options.format {
        LogFormat::Json => builder.json().flatten_event(true).with_span_list(false).try_init(),
        LogFormat::Text => builder.with_ansi(has_colours).with_target(false).try_init(),
        LogFormat::Auto if is_terminal => builder.with_ansi(has_colours).with_target(false).try_init(),
        LogFormat::Auto => builder.json().flatten_event(true).with_span_list(false).try_init(),
    };
    // Fails when logging was started before; that logger stays in use.
    drop(started);
}
