//! `[queues.<name>]` to [`queue::Options`], with the checks between queues.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::validate::{quote, segment};
use super::value_type::show_span;
use super::values::Values;
use crate::queue;
use crate::queue::catalog::FIFO_SUFFIX;
use crate::store::record::{Fifo, RedriveAllow, Scope};

/// SQS's default retention, for queues that no function serves.
const RETENTION: Duration = Duration::from_secs(4 * 86_400);

/// SQS's RedriveAllowPolicy names at most this many queues.
const REDRIVE_SOURCES_MAX: usize = 10;

/// Builds the options of every queue. `serving` are the queues of functions: what they hold is kept for ever unless
/// the file says otherwise, and so are their dead letters.
pub(super) fn build(values: &mut Values<'_>, serving: &BTreeSet<String>) -> BTreeMap<String, queue::Options> {
    let names = values.found.names("queues");
    let dead_letters: BTreeSet<String> = serving
        .iter()
        .filter_map(|name| values.maybe_text(&format!("queues.{}.dead_letter_queue", segment(name))))
        .collect();
    let mut queues = BTreeMap::new();
    for name in &names {
        let kept = serving.contains(name) || dead_letters.contains(name);
        let options = one(values, name, kept, &names);
        queues.insert(name.clone(), options);
    }
    for name in &names {
        check_chain(values, name, &queues);
    }
    queues
}

fn one(values: &mut Values<'_>, name: &str, kept: bool, names: &[String]) -> queue::Options {
    let at = |key: &str| format!("queues.{}.{key}", segment(name));
    let default = if kept { None } else { Some(RETENTION) };
    values.note(&at("retention"), if kept { "forever" } else { "4d" });
    queue::Options {
        visibility_timeout: values.span(&at("visibility_timeout")),
        delay: values.span(&at("delay")),
        retention: values.maybe_span(&at("retention")).unwrap_or(default),
        receive_wait: values.span(&at("receive_wait")),
        message_bytes_max: values.count(&at("message_max")),
        redrive: redrive(values, name, names),
        redrive_allow: redrive_allow(values, &at("redrive_allow"), names),
        fifo: fifo(values, name),
        messages_max: values.maybe_count(&at("max_messages")),
        bytes_max: values.maybe_count(&at("max_bytes")),
    }
}

/// A queue whose name ends in `.fifo` is a FIFO queue; the keys of FIFO queues are refused on others.
fn fifo(values: &mut Values<'_>, name: &str) -> Option<Fifo> {
    let at = |key: &str| format!("queues.{}.{key}", segment(name));
    if !name.ends_with(FIFO_SUFFIX) {
        for key in ["content_based_deduplication", "deduplication_scope", "fifo_throughput_limit"] {
            if values.is_set(&at(key)) {
                let text = format!(
                    "only FIFO queues have it, whose names end in .fifo: [queues.{:?}]",
                    format!("{name}.fifo")
                );
                values.error(&at(key), text);
            }
        }
        return None;
    }
    let scope = |values: &Values<'_>, key: &str, group: &str| match values.maybe_text(&at(key)) {
        Some(word) if word == group => Scope::Group,
        _ => Scope::Queue,
    };
    let throughput_limit = scope(values, "fifo_throughput_limit", "perMessageGroupId");
    let deduplication_scope = scope(values, "deduplication_scope", "messageGroup");
    if throughput_limit == Scope::Group && deduplication_scope == Scope::Queue {
        values.error(&at("fifo_throughput_limit"), "perMessageGroupId needs deduplication_scope = \"messageGroup\"");
    }
    let content_based_deduplication = values.flag(&at("content_based_deduplication"));
    Some(Fifo { content_based_deduplication, deduplication_scope, throughput_limit })
}

fn redrive_allow(values: &mut Values<'_>, path: &str, names: &[String]) -> RedriveAllow {
    let Some(sources) = values.maybe_lines(path) else { return RedriveAllow::All };
    if sources.is_empty() {
        return RedriveAllow::Nobody;
    }
    if sources.len() > REDRIVE_SOURCES_MAX {
        values.error(path, format!("must name at most {REDRIVE_SOURCES_MAX} queues (got {})", sources.len()));
    }
    for source in sources.iter().filter(|source| !names.contains(source)) {
        values.error(path, missing("queue", source, names));
    }
    RedriveAllow::Only(sources)
}

fn redrive(values: &mut Values<'_>, name: &str, names: &[String]) -> Option<queue::RedrivePolicy> {
    let at = |key: &str| format!("queues.{}.{key}", segment(name));
    let (to, count) = (at("dead_letter_queue"), at("max_receive_count"));
    match (values.is_set(&to), values.is_set(&count)) {
        (true, false) => values.error(&to, "needs max_receive_count beside it, e.g. max_receive_count = 5"),
        (false, true) => values.error(&count, "needs dead_letter_queue beside it"),
        _ => {}
    }
    let dead_letter_queue = values.maybe_text(&to)?;
    if dead_letter_queue == name {
        values.error(&to, "must not be the queue itself");
    } else if !names.contains(&dead_letter_queue) {
        values.error(&to, missing("queue", &dead_letter_queue, names));
    }
    Some(queue::RedrivePolicy { dead_letter_queue, max_receive_count: values.count(&count) })
}

/// Refuses cycles of dead-letter queues, and advises on letters that would expire before their source's messages.
fn check_chain(values: &mut Values<'_>, name: &str, queues: &BTreeMap<String, queue::Options>) {
    let next =
        |name: &str| queues.get(name).and_then(|options| options.redrive.as_ref()).map(|to| &to.dead_letter_queue);
    let field = format!("queues.{}.dead_letter_queue", segment(name));
    let Some(first) = next(name).filter(|first| *first != name) else { return };
    let mut at = first;
    for _ in 0..queues.len() {
        let Some(further) = next(at) else { break };
        if further == name {
            return values
                .error(&field, format!("a dead letter would come back here by way of {first:?}; break the circle"));
        }
        at = further;
    }
    let (Some(source), Some(target)) = (queues.get(name), queues.get(first)) else { return };
    if source.fifo.is_some() != target.fifo.is_some() {
        values.error(&field, format!("{first:?} must be of the same kind: both FIFO queues, or both standard ones"));
    }
    let is_allowed = match &target.redrive_allow {
        RedriveAllow::All => true,
        RedriveAllow::Nobody => false,
        RedriveAllow::Only(sources) => sources.iter().any(|source| source == name),
    };
    if !is_allowed {
        values.error(
            &field,
            format!("{first:?} takes no letters of this queue; see queues.{}.redrive_allow", segment(first)),
        );
    }
    let shorter = match (source.retention, target.retention) {
        (None, Some(_)) => true,
        (Some(source), Some(target)) => target < source,
        _ => false,
    };
    if shorter {
        let kept = target.retention.map_or_else(|| "forever".into(), show_span);
        let text =
            format!("its letters expire sooner ({kept}) than this queue's messages; raise queues.{first}.retention");
        values.warning(&field, text);
    }
}

/// The text for a name that does not exist.
pub(super) fn missing(what: &str, name: &str, known: &[String]) -> String {
    let hint = super::finding::nearest(name, known.iter().map(String::as_str));
    format!("{what} {} not found ({hint})", quote(name))
}
