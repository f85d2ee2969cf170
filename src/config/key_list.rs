//! The list of keys that [`super::keys`] describes. Data alone.

use std::time::Duration;

use super::keys::Fallback::{Example, Nothing, Required, Told, Toml};
use super::keys::Scope::{All, FanOut, Statement};
use super::keys::{Fallback, Key, Scope, Shape};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// What the templates of a mail may use.
pub(super) const MAIL: &[&str] = &["run", "user", "params", "document"];
/// What the templates of a schedule's parameters may use.
const TICK: &[&str] = &["tick"];

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const fn hours(hours: u64) -> Duration {
    Duration::from_secs(hours * 3600)
}

const MS: Duration = Duration::from_millis(1);

const fn key(path: &'static str, scope: Scope, shape: Shape, fallback: Fallback, meaning: &'static str) -> Key {
    Key { path, scope, shape, fallback, meaning }
}

/// Every key, in the order of `config.toml`.
#[rustfmt::skip] // One key, one entry: path, scope, shape and fallback on the first line, its meaning on the second.
pub(super) const KEYS: &[Key] = &[
    key("data_dir", All, Shape::Path, Told("$STATE_DIRECTORY, else /var/lib/nightmail for a file in /etc/nightmail, else ./data"),
        "The directory of the store, `nightmail.redb`."),
    key("log.level", All, Shape::LogFilter, Toml("\"info\""),
        "What is logged: a level, or a filter such as `info,nightmail::work=debug`."),
    key("log.format", All, Shape::Choice(&["auto", "text", "json"]), Toml("\"auto\""),
        "The shape of a log line; auto is text on a terminal and JSON otherwise."),
    key("daemon.drain", All, Shape::Span(Duration::ZERO, hours(1)), Toml("\"25s\""),
        "At shutdown, messages in work have this long to end."),
    key("control.socket", All, Shape::Path, Told("control.sock in $RUNTIME_DIRECTORY, else in /run/nightmail for a file in /etc/nightmail, else in data_dir"),
        "The Unix socket of the command line; at most 107 bytes."),
    key("store.cache", All, Shape::Size(MIB, 64 * GIB), Toml("\"64MiB\""),
        "The page cache of the store."),
    key("store.group_max", All, Shape::Count(1, 65_536), Toml("1024"),
        "At most this many steps share one commit."),
    key("store.waiting_max", All, Shape::Count(1, 1_048_576), Toml("4096"),
        "At most this many steps wait for the writer; further callers wait for a place."),
    key("store.reserve", All, Shape::Size(MIB, 1024 * 1024 * GIB), Toml("\"256MiB\""),
        "Sends are refused while the disk of data_dir has less free than this; those to queues of functions, less than half of it."),

    key("queues.*.visibility_timeout", All, Shape::Span(Duration::ZERO, hours(12)), Toml("\"30s\""),
        "How long a received message stays invisible."),
    key("queues.*.delay", All, Shape::Span(Duration::ZERO, seconds(900)), Toml("\"0s\""),
        "How long a sent message stays invisible."),
    key("queues.*.retention", All, Shape::SpanOrForever(seconds(60), hours(14 * 24)),
        Told("\"forever\" for the queues of functions and their dead-letter queues, else \"4d\""),
        "How long a message is kept."),
    key("queues.*.receive_wait", All, Shape::Span(Duration::ZERO, seconds(20)), Toml("\"0s\""),
        "How long a receive waits for a message."),
    key("queues.*.message_max", All, Shape::Size(KIB, MIB), Toml("\"1MiB\""),
        "The largest message."),
    key("queues.*.dead_letter_queue", All, Shape::Name, Nothing,
        "Where messages go that fail for good; needs max_receive_count."),
    key("queues.*.max_receive_count", All, Shape::Count(1, 1000), Nothing,
        "A message goes there at the receive that would exceed this count; needs dead_letter_queue."),

    key("functions.*.kind", All, Shape::Choice(&["fan-out", "statement"]), Required,
        "What the function does."),
    key("functions.*.queue", All, Shape::Name, Required,
        "The queue whose messages it takes; each queue has at most one function."),
    key("functions.*.concurrency", FanOut, Shape::Count(1, 1024), Toml("1"),
        "At most this many messages are in work at once."),
    key("functions.*.concurrency", Statement, Shape::Count(1, 1024), Toml("24"),
        "At most this many messages are in work at once."),
    key("functions.*.timeout", FanOut, Shape::Span(MS, hours(12)), Toml("\"1h\""),
        "One attempt may take this long."),
    key("functions.*.timeout", Statement, Shape::Span(MS, hours(12)), Toml("\"60s\""),
        "One attempt may take this long."),
    key("functions.*.backoff.first", All, Shape::Span(MS, hours(12)), Toml("\"2s\""),
        "The longest wait after the first failure; it doubles with each further one."),
    key("functions.*.backoff.max", All, Shape::Span(MS, hours(12)), Toml("\"15m\""),
        "No wait after a failure is longer."),
    key("functions.*.deferral_pause", All, Shape::Span(MS, hours(12)), Toml("\"30s\""),
        "How long a message waits after a deferral that names no time."),
    key("functions.*.deferral_max", All, Shape::Span(seconds(1), hours(14 * 24)), Toml("\"24h\""),
        "A message that was deferred for this long dies."),

    key("functions.*.target", FanOut, Shape::Name, Required,
        "The queue that gets one message for each user; a function must serve it."),
    key("functions.*.users.url", FanOut, Shape::Url, Required,
        "The address of the first page of users, with parameters of the run such as `{period}` in braces."),
    key("functions.*.users.token", FanOut, Shape::Secret, Nothing,
        "Sent as `Authorization: Bearer …`."),
    key("functions.*.users.headers.*", FanOut, Shape::Header, Nothing,
        "A header sent with every call; those that carry credentials take references only."),
    key("functions.*.users.timeout", FanOut, Shape::Span(MS, hours(1)), Toml("\"30s\""),
        "One call, body included, must end within this time."),
    key("functions.*.users.connect_timeout", FanOut, Shape::Span(MS, hours(1)), Toml("\"5s\""),
        "A connection must stand within this time."),
    key("functions.*.users.response_max", FanOut, Shape::Size(KIB, GIB), Toml("\"16MiB\""),
        "An answer's body may have this many bytes after decompression."),
    key("functions.*.users.retries", FanOut, Shape::Count(0, 10), Toml("3"),
        "Passing faults are tried this many more times within one call."),
    key("functions.*.users.backoff.first", FanOut, Shape::Span(MS, hours(1)), Toml("\"200ms\""),
        "The longest wait before the first of these retries."),
    key("functions.*.users.backoff.max", FanOut, Shape::Span(MS, hours(1)), Toml("\"5s\""),
        "No wait between these retries is longer."),
    key("functions.*.users.items", FanOut, Shape::Pointer, Nothing,
        "The JSON pointer to the array of users; found by itself when unset."),
    key("functions.*.users.next", FanOut, Shape::Pointer, Nothing,
        "The JSON pointer to the next page's address or cursor; found by itself when unset."),
    key("functions.*.users.cursor_param", FanOut, Shape::Line, Toml("\"cursor\""),
        "The query parameter that carries a cursor that is not an address."),
    key("functions.*.users.pages_max", FanOut, Shape::Count(1, 10_000_000), Toml("1000000"),
        "One run reads at most this many pages."),

    key("functions.*.account.url", Statement, Shape::Url, Required,
        "The address of an account's transactions with `{account_id}`, `{user_id}` and parameters of the run in braces."),
    key("functions.*.account.token", Statement, Shape::Secret, Nothing,
        "Sent as `Authorization: Bearer …`."),
    key("functions.*.account.headers.*", Statement, Shape::Header, Nothing,
        "A header sent with every call; those that carry credentials take references only."),
    key("functions.*.account.timeout", Statement, Shape::Span(MS, hours(1)), Toml("\"10s\""),
        "One call, body included, must end within this time."),
    key("functions.*.account.connect_timeout", Statement, Shape::Span(MS, hours(1)), Toml("\"5s\""),
        "A connection must stand within this time."),
    key("functions.*.account.response_max", Statement, Shape::Size(KIB, GIB), Toml("\"4MiB\""),
        "An answer's body may have this many bytes after decompression."),
    key("functions.*.account.retries", Statement, Shape::Count(0, 10), Toml("2"),
        "Passing faults are tried this many more times within one call."),
    key("functions.*.account.backoff.first", Statement, Shape::Span(MS, hours(1)), Toml("\"200ms\""),
        "The longest wait before the first of these retries."),
    key("functions.*.account.backoff.max", Statement, Shape::Span(MS, hours(1)), Toml("\"5s\""),
        "No wait between these retries is longer."),

    key("functions.*.document.issuer", Statement, Shape::Line, Required,
        "The bank's name in the letterhead."),
    key("functions.*.document.issuer_lines", Statement, Shape::Lines, Toml("[]"),
        "The lines below it: street, town, telephone."),
    key("functions.*.document.footer", Statement, Shape::Text, Toml("\"\""),
        "The legal text at the foot of each page."),
    key("functions.*.document.default_locale", Statement, Shape::Locale, Toml("\"en-GB\""),
        "The locale of users who name none."),
    key("functions.*.document.pages_max", Statement, Shape::Count(1, 10_000), Toml("500"),
        "A document with more pages is refused."),

    key("functions.*.mail.from", Statement, Shape::Mailbox, Required,
        "The From mailbox."),
    key("functions.*.mail.reply_to", Statement, Shape::Mailbox, Nothing,
        "The Reply-To mailbox."),
    key("functions.*.mail.message_id_domain", Statement, Shape::Host, Told("the domain of from"),
        "The domain on the right of Message-ID."),
    key("functions.*.mail.subject", Statement, Shape::LineTemplate(MAIL), Toml("\"Your statement for {{ params.period }}\""),
        "The subject."),
    key("functions.*.mail.text", Statement, Shape::Template(MAIL), Example,
        "The plain-text body."),
    key("functions.*.mail.text_file", Statement, Shape::Path, Nothing,
        "The file that holds the plain-text body, instead of text."),
    key("functions.*.mail.html", Statement, Shape::Template(MAIL), Example,
        "The HTML body."),
    key("functions.*.mail.html_file", Statement, Shape::Path, Nothing,
        "The file that holds the HTML body, instead of html."),
    key("functions.*.mail.attachment_name", Statement, Shape::LineTemplate(MAIL), Toml("\"statement-{{ params.period }}.pdf\""),
        "The attachment's file name."),

    key("functions.*.mail.relay.host", Statement, Shape::Host, Required,
        "The relay's host name or address."),
    key("functions.*.mail.relay.port", Statement, Shape::Count(1, 65_535), Told("25, 587 or 465, by tls"),
        "The relay's TCP port."),
    key("functions.*.mail.relay.tls", Statement, Shape::Choice(&["none", "starttls", "implicit"]), Toml("\"starttls\""),
        "How the connection is protected; starttls is required, never optional."),
    key("functions.*.mail.relay.username", Statement, Shape::Line, Nothing,
        "The user for AUTH; needs password."),
    key("functions.*.mail.relay.password", Statement, Shape::Secret, Nothing,
        "The password for AUTH; needs username."),
    key("functions.*.mail.relay.connections", Statement, Shape::Count(1, 1024), Toml("8"),
        "At most this many connections at once."),
    key("functions.*.mail.relay.connect_timeout", Statement, Shape::Span(MS, hours(1)), Toml("\"10s\""),
        "A connection, with greeting and TLS, must stand within this time."),
    key("functions.*.mail.relay.command_timeout", Statement, Shape::Span(MS, hours(1)), Toml("\"20s\""),
        "Each reply must come within this time, the reply to the final dot within twice this time."),
    key("functions.*.mail.relay.idle_max", Statement, Shape::Span(seconds(1), hours(1)), Toml("\"30s\""),
        "A parked connection is closed after this time."),
    key("functions.*.mail.relay.mails_per_connection", Statement, Shape::Count(1, 1_000_000), Toml("100"),
        "A connection is closed after this many mails."),
    key("functions.*.mail.relay.helo", Statement, Shape::Host, Told("the machine's host name"),
        "The name in EHLO."),

    key("schedules.*.cron", All, Shape::Line, Required,
        "When it is due: five fields as in Unix, or six with seconds first."),
    key("schedules.*.timezone", All, Shape::Line, Toml("\"UTC\""),
        "The IANA time zone of the rule."),
    key("schedules.*.misfire", All, Shape::Choice(&["once", "all", "skip"]), Toml("\"once\""),
        "What happens with missed ticks: the latest fires once, all fire, or none does."),
    key("schedules.*.grace", All, Shape::Span(Duration::ZERO, hours(31 * 24)), Toml("\"12h\""),
        "A tick that is later than this is missed."),
    key("schedules.*.function", All, Shape::Name, Required,
        "The fan-out function that a tick starts."),
    key("schedules.*.params.*", All, Shape::LineTemplate(TICK), Nothing,
        "An identifying parameter of the run, e.g. period; a template over `tick`."),
];
