//! Loads settings from a file and variables: read, parse, override, validate, build.
//!
//! Opens the file and the files it names; everything else is passed in.

use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::environment::{self, Environment};
use super::finding::{Errors, Report};
use super::keys::{ValueType, segments};
use super::schema::KEYS;
use super::settings::{DaemonOptions, Entry, LogFormat, LogOptions, Settings};
use super::source::{Location, Source};
use super::values::Values;
use super::{api, callbacks, document, functions, queues, schedules, validate};
use crate::store;

/// The embedded example, the repository's `config.toml`: every key with its default, and a statement run against the
/// demo's bank and mail sink.
pub const EXAMPLE: &str = include_str!("../../config.toml");

/// A configuration may have this many bytes.
pub const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// The longest path that a Unix socket can be bound to, in bytes (`sun_path` less its final NUL).
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Where the unit's configuration is.
const UNIT_CONFIGURATION: &str = "/etc/nightmail";

/// Reads a configuration file, or the embedded [`EXAMPLE`] when there is none, with the environment's overrides, and
/// fetches its secrets and template files.
///
/// # Errors
/// Every fault at once; see [`Errors`].
pub fn load(path: Option<&Path>, environment: &Environment) -> Result<Settings, Errors> {
    let Some(path) = path else { return load_text("(example)", Path::new(""), EXAMPLE, environment) };
    let (name, base) = (path.display().to_string(), path.parent().unwrap_or(Path::new("")));
    match read(path) {
        Ok(text) if document::parse(&text).is_ok_and(|document| document.is_empty()) => {
            // An empty file is a mistake, such as a copy that failed: a daemon without queues would start and do nothing.
            let mut report = Report::default();
            let why = "is empty: it names no queue, function or schedule; start from `nightmail example`";
            report.error(&Location::Nowhere, "", why);
            into_result(report, &Source::new(name, base, text), None)
        }
        Ok(text) => load_text(&name, base, &text, environment),
        Err(why) => {
            let mut report = Report::default();
            report.error(&Location::Nowhere, "", why);
            into_result(report, &Source::new(name, base, String::new()), None)
        }
    }
}

/// The file that is used when none is named: `$NIGHTMAIL_CONFIG`, else `config.toml` in the working directory, else
/// `/etc/nightmail/config.toml`; `None` when there is none of them.
pub fn find(environment: &Environment) -> Option<PathBuf> {
    if let Some(path) = environment.get("NIGHTMAIL_CONFIG") {
        return Some(path.into());
    }
    ["config.toml", "/etc/nightmail/config.toml"].into_iter().map(PathBuf::from).find(|path| path.exists())
}

/// Reads a configuration from a text. `name` is what messages call it; relative paths in it start at `base`.
///
/// # Errors
/// Every fault at once; see [`Errors`].
pub fn load_text(name: &str, base: &Path, text: &str, environment: &Environment) -> Result<Settings, Errors> {
    let source = Source::new(name, base, text.to_owned());
    let mut report = Report::default();
    let mut document = match document::parse(text) {
        Ok(document) => document,
        Err(mut faults) => {
            // Only the first fault of a line is reliable; the parser guesses at what follows it.
            faults.sort_by_key(|(span, _)| span.start);
            faults.dedup_by_key(|(span, _)| source.line_at(span.start).0);
            for (span, why) in faults {
                mask_syntax(&source, &span, &mut report);
                report.error(&Location::Span(span), "", format!("not TOML: {}", why.replace('\n', "; ")));
            }
            return into_result(report, &source, None);
        }
    };
    environment::overlay(&mut document, environment, &mut report);
    let found = validate::validate(&document, &of_example, &mut report);
    let mut values = Values { found, report: &mut report, source: &source, environment };
    let settings = build(&mut values);
    into_result(report, &source, Some(settings))
}

fn into_result(report: Report, source: &Source, settings: Option<Settings>) -> Result<Settings, Errors> {
    let warnings = report.finish(source)?;
    settings.map(|settings| Settings { warnings, ..settings }).ok_or_else(|| Errors(Vec::new()))
}

fn read(path: &Path) -> Result<String, String> {
    let remedy = "name the right file with --config, or start from `nightmail example`";
    let file = std::fs::File::open(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::PermissionDenied => {
            "permission denied; join the group that may read it, or run this as the daemon's user".to_owned()
        }
        _ => format!("cannot be read: {error}; {remedy}"),
    })?;
    let mut bytes = Vec::new();
    let read = file.take(CONFIG_BYTES_MAX + 1).read_to_end(&mut bytes);
    read.map_err(|error| format!("cannot be read: {error}; {remedy}"))?;
    if bytes.len() as u64 > CONFIG_BYTES_MAX {
        return Err(format!("has more than {CONFIG_BYTES_MAX} bytes; {remedy}"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let line = error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|b| **b == b'\n').count() + 1;
        format!("line {line} is not UTF-8; save the file as UTF-8")
    })
}

/// The embedded example's value of a key.
fn of_example(path: &str) -> Option<String> {
    let document = document::parse(EXAMPLE).ok()?;
    let path = validate::expand(&path.split('.').collect::<Vec<_>>(), &document);
    let value = |path: &Vec<String>| {
        let (last, above) = path.split_last()?;
        let mut table = &document;
        for section in above {
            table = table.get(section)?.node.as_table()?;
        }
        table.get(last)?.node.as_text().map(str::to_owned)
    };
    path.iter().find_map(value)
}

/// Keeps what may be a secret out of the excerpt of a line that is not TOML: unless a known key that holds no secret
/// stands on its left, the right side of such a line is not shown.
fn mask_syntax(source: &Source, span: &Range<usize>, report: &mut Report) {
    let (_, range) = source.line_at(span.start);
    let line = source.text.get(range.clone()).unwrap_or_default();
    let is_plain = |key: &str| {
        let name = key.trim().rsplit('.').next().unwrap_or_default();
        let named = || KEYS.iter().filter(|key| segments(key.path).last() == Some(&name));
        let open =
            |value_type: ValueType| !matches!(value_type, ValueType::Secret | ValueType::Header | ValueType::Url);
        named().next().is_some() && named().all(|key| open(key.value_type))
    };
    let hidden = match line.split_once('=') {
        _ if line.trim_start().starts_with('[') && !line.contains(['"', '\'', '=']) => return,
        Some((key, value)) if is_plain(key) && !value.contains(['{', '=']) => return,
        Some((key, _)) if key.chars().all(|c| !matches!(c, '"' | '\'')) => range.start + key.len() + 1..range.end,
        _ => range,
    };
    report.mask(&Location::Span(hidden));
}

fn build(values: &mut Values<'_>) -> Settings {
    let serving = functions::queues_of(values);
    let data_dir = data_dir(values);
    let control_socket = control_socket(values, &data_dir);
    let queues = queues::build(values, &serving);
    let functions = functions::build(values, &queues, &data_dir);
    let schedules = schedules::build(values, &functions);
    let callbacks = callbacks::build(values, &queues);
    let sqs = api::sqs(values, queues.keys().cloned().collect());
    Settings {
        log: LogOptions {
            level: values.text("log.level"),
            format: match values.text("log.format").as_str() {
                "text" => LogFormat::Text,
                "json" => LogFormat::Json,
                _ => LogFormat::Auto,
            },
        },
        daemon: DaemonOptions { drain: values.span("daemon.drain"), reserve_bytes: values.count("store.reserve") },
        run_retention: values.maybe_span("runs.retention").flatten(),
        store: store::Options {
            cache_bytes: values.count("store.cache"),
            log_bytes: values.count("store.log"),
            group_max: values.count("store.group_max"),
            waiting_max: values.count("store.waiting_max"),
            ..store::Options::at(data_dir.join("nightmail.redb"))
        },
        control_socket,
        sqs,
        data_dir,
        queues,
        functions,
        schedules,
        callbacks,
        origins: origins(values),
        warnings: Vec::new(),
    }
}

/// The first of the directories that systemd put into a variable.
fn systemd_directory(values: &Values<'_>, variable: &str) -> Option<PathBuf> {
    let told = values.environment.get(variable)?;
    told.split(':').next().filter(|first| !first.is_empty()).map(PathBuf::from)
}

/// The directories of the systemd unit, for a command that reads the unit's configuration outside the unit.
fn unit_directory(values: &Values<'_>, directory: &str) -> Option<PathBuf> {
    (values.source.base == Path::new(UNIT_CONFIGURATION)).then(|| directory.into())
}

fn data_dir(values: &mut Values<'_>) -> PathBuf {
    let default = systemd_directory(values, "STATE_DIRECTORY");
    let default = default.or_else(|| unit_directory(values, "/var/lib/nightmail")).unwrap_or_else(|| "data".into());
    let data_dir = values.path("data_dir").unwrap_or(default);
    values.note("data_dir", &data_dir.display().to_string());
    data_dir
}

fn control_socket(values: &mut Values<'_>, data_dir: &Path) -> PathBuf {
    let directory = systemd_directory(values, "RUNTIME_DIRECTORY");
    let directory = directory.or_else(|| unit_directory(values, "/run/nightmail")).unwrap_or_else(|| data_dir.into());
    let socket = values.path("control.socket").unwrap_or_else(|| directory.join("control.sock"));
    values.note("control.socket", &socket.display().to_string());
    let bytes = socket.as_os_str().len();
    if bytes > SOCKET_PATH_BYTES_MAX {
        let text = format!("must be at most {SOCKET_PATH_BYTES_MAX} bytes (got {bytes}): {}", socket.display());
        values.error("control.socket", format!("{text}; set a shorter control.socket"));
    }
    socket
}

fn origins(values: &Values<'_>) -> std::collections::BTreeMap<String, Entry> {
    let entry =
        |leaf: &validate::Leaf| Entry { value: leaf.shown.clone(), origin: values.source.origin(&leaf.location) };
    values.found.leaves.iter().map(|(path, leaf)| (path.clone(), entry(leaf))).collect()
}
