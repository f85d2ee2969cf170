//! `[functions.<name>]` to pools and what they call, with the checks between functions and queues.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::mail;
use super::queues::missing;
use super::settings::{FunctionSettings, Kind};
use super::validate::segment;
use super::values::Values;
use crate::base::Backoff;
use crate::base::units::show_duration;
use crate::function::statement::{
    self, AccountOptions, Archive, DocumentOptions, Skip, Statement, UsersOptions, archive,
};
use crate::function::{Error, upstream};
use crate::queue::catalog::FIFO_SUFFIX;
use crate::run::OnUnknown;
use crate::{queue, schedule, work};

/// The queues that a function serves or fills.
pub(super) fn queues_of(values: &Values<'_>) -> BTreeSet<String> {
    let keys = |name: String| [format!("functions.{name}.queue"), format!("functions.{name}.target")];
    values.found.names("functions").into_iter().flat_map(keys).filter_map(|path| values.maybe_text(&path)).collect()
}

/// Builds every function whose kind is known.
pub(super) fn build(
    values: &mut Values<'_>,
    queues: &BTreeMap<String, queue::Options>,
    data_dir: &Path,
) -> Vec<FunctionSettings> {
    let names = values.found.names("functions");
    check_queues(values, &names, queues);
    let mut functions = Vec::new();
    for name in &names {
        let at = format!("functions.{name}");
        let pool = pool(values, name, &at);
        let kind = match values.text(&format!("{at}.kind")).as_str() {
            "statement" => Kind::Statement(Box::new(statement(values, &at, data_dir))),
            "fan-out" => Kind::FanOut(fan_out(values, name, &at)),
            _ => continue, // Reported as missing or unknown.
        };
        advise(values, &at, &pool, queues);
        functions.push(FunctionSettings { pool, kind });
    }
    check_quotas(values, &functions);
    functions
}

/// A relay's daily quota is one, whoever mails: functions that disagree about it would use it up for each other.
fn check_quotas(values: &mut Values<'_>, functions: &[FunctionSettings]) {
    let mut quotas: BTreeMap<(&str, u16), (&str, Option<u64>)> = BTreeMap::new();
    for function in functions {
        let Kind::Statement(options) = &function.kind else { continue };
        let (relay, name) = (&options.mail.relay, function.pool.function.as_str());
        let (first, quota) = *quotas.entry((&relay.host, relay.port)).or_insert((name, relay.per_day));
        if quota != relay.per_day {
            let of = quota.map_or("none".to_owned(), |quota| quota.to_string());
            let text =
                format!("differs from that of function {first:?} ({of}) with the same relay; give both the same");
            values.error(&format!("functions.{name}.mail.relay.per_day"), text);
        }
    }
}

fn check_queues(values: &mut Values<'_>, names: &[String], queues: &BTreeMap<String, queue::Options>) {
    let known: Vec<String> = queues.keys().cloned().collect();
    let mut served: BTreeMap<String, String> = BTreeMap::new();
    for name in names {
        let path = format!("functions.{name}.queue");
        let Some(queue) = values.maybe_text(&path) else { continue };
        if !known.contains(&queue) {
            values.error(&path, missing("queue", &queue, &known));
        }
        refuse_fifo(values, &path, &queue);
        if let Some(other) = served.get(&queue) {
            values.error(&path, format!("queue {queue:?} is served by function {other:?} already; give each its own"));
        } else {
            served.insert(queue, name.clone());
        }
    }
    for name in names {
        let path = format!("functions.{name}.target");
        let Some(target) = values.maybe_text(&path) else { continue };
        if !known.contains(&target) {
            values.error(&path, missing("queue", &target, &known));
        } else if served.get(&target) == Some(name) {
            values.error(&path, "must not be the function's own queue");
        } else if !served.contains_key(&target) {
            values.error(&path, format!("no function serves queue {target:?}; add one with queue = {target:?}"));
        }
    }
}

/// Reports FIFO queues: the messages of fan-outs and schedules have no group, and a FIFO queue requires one.
fn refuse_fifo(values: &mut Values<'_>, path: &str, queue: &str) {
    if queue.ends_with(FIFO_SUFFIX) {
        values.error(path, format!("queue {queue:?} is a FIFO queue; this kind of function takes a standard one"));
    }
}

fn pool(values: &mut Values<'_>, name: &str, at: &str) -> work::Options {
    work::Options {
        function: name.into(),
        queue: values.text(&format!("{at}.queue")),
        concurrency: values.count(&format!("{at}.concurrency")),
        timeout: values.span(&format!("{at}.timeout")),
        backoff: backoff(values, at),
        deferral_pause: values.span(&format!("{at}.deferral_pause")),
        deferral_max: values.span(&format!("{at}.deferral_max")),
        on_unknown: on_unknown(values, at),
    }
}

/// Functions that mail nothing have no such key, and nothing unknown.
fn on_unknown(values: &mut Values<'_>, at: &str) -> OnUnknown {
    match values.maybe_text(&format!("{at}.mail.unknown")).as_deref() {
        Some("resend") => OnUnknown::Resend,
        _ => OnUnknown::Hold,
    }
}

fn backoff(values: &mut Values<'_>, at: &str) -> Backoff {
    let (first, max) = (format!("{at}.backoff.first"), format!("{at}.backoff.max"));
    let backoff = Backoff { first: values.span(&first), max: values.span(&max) };
    let both = values.maybe_span(&first).is_some() && values.maybe_span(&max).is_some();
    if both && backoff.first > backoff.max {
        let blamed = if values.is_set(&first) { &first } else { &max };
        let (first, max) = (show_duration(backoff.first), show_duration(backoff.max));
        values.error(blamed, format!("first ({first}) must not be longer than max ({max})"));
    }
    backoff
}

fn upstream(values: &mut Values<'_>, at: &str) -> upstream::Options {
    let token_path = format!("{at}.token");
    let token = values.secret(&token_path);
    check_header_value(values, &token_path, token.as_ref());
    let mut headers = Vec::new();
    for name in values.found.names(&format!("{at}.headers")) {
        let path = format!("{at}.headers.{name}");
        if name.eq_ignore_ascii_case("authorization") && values.is_set(&token_path) {
            values.error(&path, "stands beside token, which sets the same header; remove one");
        }
        let value = values.secret(&path);
        check_header_value(values, &path, value.as_ref());
        headers.extend(value.map(|value| (name, value)));
    }
    upstream::Options {
        connect_timeout: values.span(&format!("{at}.connect_timeout")),
        timeout: values.span(&format!("{at}.timeout")),
        response_bytes_max: values.count(&format!("{at}.response_max")),
        token,
        headers,
        retries: values.count(&format!("{at}.retries")),
        backoff: backoff(values, at),
    }
}

pub(super) fn check_header_value(values: &mut Values<'_>, path: &str, value: Option<&secrecy::SecretString>) {
    use secrecy::ExposeSecret;
    if value.is_some_and(|value| reqwest::header::HeaderValue::from_str(value.expose_secret()).is_err()) {
        values.error(path, "the secret cannot be sent in a header: it holds a line break or a control character");
    }
}

fn fan_out(values: &mut Values<'_>, name: &str, at: &str) -> schedule::FanOutOptions {
    let users = format!("{at}.users");
    schedule::FanOutOptions {
        name: name.into(),
        queue: values.text(&format!("{at}.queue")),
        target: values.text(&format!("{at}.target")),
        users: UsersOptions {
            url: values.text(&format!("{users}.url")),
            upstream: upstream(values, &users),
            items: values.maybe_text(&format!("{users}.items")),
            next: values.maybe_text(&format!("{users}.next")),
            cursor_param: values.text(&format!("{users}.cursor_param")),
            pages_max: values.count(&format!("{users}.pages_max")),
        },
    }
}

fn statement(values: &mut Values<'_>, at: &str, data_dir: &Path) -> statement::Options {
    let (account, document) = (format!("{at}.account"), format!("{at}.document"));
    let url = format!("{account}.url");
    let names_account =
        |url: String| super::syntax::placeholders(&url).iter().any(|name| ["account_id", "user_id"].contains(name));
    if values.maybe_text(&url).is_some_and(|url| !names_account(url)) {
        values.error(&url, "must name the account: put {account_id} or {user_id} into the address");
    }
    let options = statement::Options {
        account: AccountOptions { url: values.text(&url), upstream: upstream(values, &account) },
        document: DocumentOptions {
            issuer: values.text(&format!("{document}.issuer")),
            issuer_lines: values.lines(&format!("{document}.issuer_lines")),
            footer: values.text(&format!("{document}.footer")),
            default_locale: values.text(&format!("{document}.default_locale")),
            pages_max: values.count(&format!("{document}.pages_max")),
        },
        mail: mail::build(values, at),
        skip: skip(values, at),
        archive: match values.text(&format!("{at}.archive")).as_str() {
            "none" => Archive::None,
            "files" => Archive::Files(data_dir.join(archive::DIRECTORY)),
            _ => Archive::Hash,
        },
    };
    check_statement(values, at, &options);
    options
}

fn skip(values: &mut Values<'_>, at: &str) -> Skip {
    match values.text(&format!("{at}.skip")).as_str() {
        "no-transactions" => Skip::NoTransactions,
        "zero-balance" => Skip::ZeroBalance,
        "either" => Skip::Either,
        "both" => Skip::Both,
        _ => Skip::Never,
    }
}

/// Reports what the function itself finds wrong with its settings.
fn check_statement(values: &mut Values<'_>, at: &str, options: &statement::Options) {
    let schedules = values.found.names("schedules");
    let params = schedules.iter().flat_map(|name| values.found.names(&format!("schedules.{name}.params")));
    let params: BTreeSet<String> = params.collect();
    let params: Vec<&str> = params.iter().map(String::as_str).collect();
    for fault in Statement::faults(options, &params) {
        let path = match &fault {
            Error::Url { .. } => format!("{at}.account.url"),
            Error::Template { name, .. } if values.is_set(&format!("{at}.mail.{name}_file")) => {
                format!("{at}.mail.{name}_file")
            }
            Error::Template { name: field, .. } | Error::Mailbox { field, .. } => format!("{at}.mail.{field}"),
            Error::MessageIdDomain(_) => format!("{at}.mail.message_id_domain"),
            _ => at.to_owned(),
        };
        values.error_if_sound(&path, fault);
    }
}

/// Gives advice on what is allowed but rarely intended.
fn advise(values: &mut Values<'_>, at: &str, pool: &work::Options, queues: &BTreeMap<String, queue::Options>) {
    let Some(queue) = queues.get(&pool.queue) else { return };
    if queue.visibility_timeout < pool.timeout {
        let (visible, timeout) = (show_duration(queue.visibility_timeout), show_duration(pool.timeout));
        let text = format!(
            "is shorter ({visible}) than the timeout of function {:?} ({timeout}); a message could be received twice at once: raise it to {timeout} or more",
            pool.function
        );
        values.warning(&format!("queues.{}.visibility_timeout", segment(&pool.queue)), text);
    }
    if queue.redrive.is_none() {
        let text =
            format!("queue {:?} has no dead_letter_queue: a message that keeps failing is tried for ever", pool.queue);
        values.warning(&format!("{at}.queue"), text);
    }
    if pool.deferral_pause > pool.deferral_max {
        values.warning(&format!("{at}.deferral_pause"), "is longer than deferral_max: the first deferral is the last");
    }
}
