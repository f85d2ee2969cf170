//! `[schedules.<name>.notify]` and `[schedules.<name>.heartbeat]` to [`CallbackOptions`].

use std::collections::BTreeMap;
use std::time::Duration;

use url::Url;

use super::functions::check_header_value;
use super::queues::missing;
use super::settings::CallbackOptions;
use super::values::Values;
use crate::base::Backoff;
use crate::function::upstream;
use crate::queue;
use crate::queue::catalog::FIFO_SUFFIX;
use crate::run::notifications;
use crate::store::record::NotificationKind;

/// Of an answer, this much is read.
const ANSWER_BYTES_MAX: u64 = 64 << 10;
/// A connection must stand within this time.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Builds what is told about the runs of each schedule that tells anybody.
pub(super) fn build(
    values: &mut Values<'_>,
    queues: &BTreeMap<String, queue::Options>,
) -> BTreeMap<String, CallbackOptions> {
    let mut built = BTreeMap::new();
    for name in values.found.names("schedules") {
        let options = one(values, &format!("schedules.{name}"), queues);
        if options.queue.is_some()
            || options.post.is_some()
            || !options.command.is_empty()
            || options.heartbeat.is_some()
        {
            built.insert(name, options);
        }
    }
    built
}

fn one(values: &mut Values<'_>, at: &str, queues: &BTreeMap<String, queue::Options>) -> CallbackOptions {
    let notify = format!("{at}.notify");
    let (path, timeout) = (format!("{notify}.queue"), values.span(&format!("{notify}.timeout")));
    let queue = values.maybe_text(&path);
    if let Some(queue) = queue.as_ref().filter(|queue| !queues.contains_key(*queue)) {
        values.error(&path, missing("queue", queue, &queues.keys().cloned().collect::<Vec<_>>()));
    }
    if queue.as_ref().is_some_and(|queue| queue.ends_with(FIFO_SUFFIX)) {
        values.error(&path, "must be a standard queue: what is told about runs has no message group");
    }
    let token_path = format!("{notify}.token");
    let token = values.secret(&token_path);
    check_header_value(values, &token_path, token.as_ref());
    let post = address(values, &format!("{notify}.url"));
    let post = post.map(|url| (url, upstream::Options { token, ..call(timeout) }));
    let heartbeat = address(values, &format!("{at}.heartbeat.url"));
    let heartbeat_timeout = values.span(&format!("{at}.heartbeat.timeout"));
    CallbackOptions {
        kinds: kinds(values, &format!("{notify}.on")),
        queue,
        post,
        command: values.lines(&format!("{notify}.command")),
        timeout,
        attempts_max: values.count(&format!("{notify}.attempts")),
        heartbeat: heartbeat.map(|url| (url, call(heartbeat_timeout))),
    }
}

/// An address that can be called; parameters of a run mean nothing in it.
fn address(values: &mut Values<'_>, path: &str) -> Option<String> {
    let text = values.maybe_text(path)?;
    let is_callable = Url::parse(&text).is_ok_and(|url| url.has_host() && !text.contains('{'));
    if !is_callable {
        values.error(path, "must be a whole address without placeholders, e.g. \"https://hooks.example/statements\"");
    }
    is_callable.then_some(text)
}

fn kinds(values: &mut Values<'_>, path: &str) -> Vec<NotificationKind> {
    const KNOWN: [NotificationKind; 6] = [
        NotificationKind::FirstDeath,
        NotificationKind::AwaitingRelease,
        NotificationKind::Braked,
        NotificationKind::DeadlineAtRisk,
        NotificationKind::DeadlineMissed,
        NotificationKind::End,
    ];
    let mut kinds = Vec::new();
    for word in values.lines(path) {
        match KNOWN.into_iter().find(|kind| notifications::name(*kind) == word) {
            Some(kind) => kinds.push(kind),
            None => {
                let known = KNOWN.map(notifications::name).join(", ");
                values.error(path, format!("must name some of {known} (got {word:?})"))
            }
        }
    }
    kinds
}

/// One call, without tries of its own: a try that failed is made again later, over restarts too.
fn call(timeout: Duration) -> upstream::Options {
    upstream::Options {
        connect_timeout: CONNECT_TIMEOUT,
        timeout,
        response_bytes_max: ANSWER_BYTES_MAX,
        token: None,
        headers: Vec::new(),
        retries: 0,
        backoff: Backoff::default(),
    }
}
