//! The command line: parses it, runs the command and returns the exit code.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::error::{ContextKind, ContextValue};
use clap::{Parser, Subcommand};

use crate::base::units;
use crate::config::{self, Environment};
use crate::daemon::logging;

use super::context::Context;
use super::exit::{Exit, Interrupted};
use super::output::{Output, note};
use super::{check, import, probe, queues, redrive, runs, schedules, serve, status, store, suppress};

/// A durable queue, schedules with fan-out and a bounded worker pool in one daemon, with the semantics of SQS.
#[derive(Debug, Parser)]
#[command(name = "nightmail", version, max_term_width = 100, after_help = AFTER_HELP)]
struct Cli {
    /// The configuration [default: $NIGHTMAIL_CONFIG, ./config.toml, /etc/nightmail/config.toml, or the built-in example]
    #[arg(long, short, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print data as JSON
    #[arg(long, global = true)]
    json: bool,
    /// Wait this long for the daemon's answer; once it answers, a backup, a check of the store or a purge takes as long
    /// as it needs
    #[arg(long, global = true, value_name = "DURATION", default_value = "10s", value_parser = parse_timeout)]
    timeout: Duration,
    #[command(subcommand)]
    command: Command,
}

fn parse_timeout(text: &str) -> Result<Duration, String> {
    let timeout = units::duration(text).map_err(|error| error.to_string())?;
    if timeout < TIMEOUT_MIN || timeout > TIMEOUT_MAX {
        let (min, max) = (units::show_duration(TIMEOUT_MIN), units::show_duration(TIMEOUT_MAX));
        return Err(format!("must be {min} to {max} (got {text:?})"));
    }
    Ok(timeout)
}

/// The limits of `--timeout`.
const TIMEOUT_MIN: Duration = Duration::from_millis(100);
const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);

const AFTER_HELP: &str = "\
Data goes to standard output, everything else to standard error. Times in JSON are milliseconds since 1970.

Exit codes: 0 done, 1 refused, 2 degraded (status), or a forecast that does not fit, 64 wrong command line, 65 the store contradicts itself, \
69 daemon not reachable or store in use, 70 internal fault, 74 storage failed, 77 permission denied, \
78 wrong configuration, 130 Ctrl-C (what was begun goes on in the daemon).

Try: nightmail demo";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon in the foreground: store, schedules, worker pools, control socket
    Serve,
    /// Check the configuration and show every error at once; with --connect, whether everything outside answers
    #[command(after_help = check::AFTER_HELP)]
    Check(check::Check),
    /// Show what the configuration comes to
    #[command(subcommand)]
    Config(super::config::Command),
    /// Print the example configuration: every key with its default and a comment
    Example,
    /// Start runs and see how they stand
    #[command(subcommand)]
    Run(runs::Command),
    /// Say how the daemon is, in one sentence and by the exit code, and show the figures behind it
    #[command(after_help = status::AFTER_HELP)]
    Status(status::Status),
    /// Show all queues with their exact counts
    Queues,
    /// Look at messages of a queue without receiving them
    Peek(queues::Peek),
    /// Show dead letters grouped by fingerprint
    Dead(queues::Dead),
    /// Move dead letters back to the queue where they died
    Redrive(redrive::Redrive),
    /// Show the redrives so far
    Redrives,
    /// Delete all messages of a queue
    Purge(queues::Purge),
    /// Send one message
    Send(queues::Send),
    /// Bring messages here from elsewhere
    #[command(subcommand)]
    Import(import::Command),
    /// Stop receives from a queue, also over restarts; sends go on
    Pause(queues::Pause),
    /// Let receives from a paused queue go on
    Resume(queues::Resume),
    /// Try a destination that is away at once, with the next message that needs it
    Probe(probe::Probe),
    /// Keep the list of addresses that no run mails
    #[command(subcommand)]
    Suppress(suppress::Command),
    /// Show the schedules with their next and past ticks
    Schedules(schedules::Schedules),
    /// Copy the store into a file, also while the daemon works
    Backup(store::Backup),
    /// Give the space of deleted messages back to the file system; the daemon must be stopped
    Compact,
    /// Look after the store
    #[command(subcommand)]
    Store(store::Command),
    /// The whole pipeline on this machine, with a bank and a mail sink inside the binary
    #[cfg(feature = "demo")]
    Demo(super::demo::Demo),
}

/// Parses the command line, runs the command, says what went wrong.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(mut error) => {
            drop_far_fetched(&mut error);
            // Help and version take this path too; printing fails only when nobody reads.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Ok.into() };
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            note(format_args!("error: the runtime does not start: {error}"));
            return Exit::Internal.into();
        }
    };
    match runtime.block_on(run(cli)) {
        Ok(exit) => exit.into(),
        Err(error) => {
            note(show_error(&error));
            Exit::of(&error).into()
        }
    }
}

/// Removes suggestions for an unknown command that only share some letters with it: clap offers `pause` for `status`.
fn drop_far_fetched(error: &mut clap::Error) {
    let Some(ContextValue::String(typed)) = error.get(ContextKind::InvalidSubcommand).cloned() else { return };
    let is_near = |name: &String| match strsim::damerau_levenshtein(name, &typed) {
        0 | 1 => true,
        2 => name.starts_with(typed.get(..STEM_BYTES).unwrap_or(&typed)),
        _ => name.contains(&typed),
    };
    if let Some(ContextValue::Strings(names)) = error.remove(ContextKind::SuggestedSubcommand) {
        let near: Vec<String> = names.into_iter().filter(is_near).collect();
        if !near.is_empty() {
            error.insert(ContextKind::SuggestedSubcommand, ContextValue::Strings(near));
        }
    }
}

/// With two letters wrong, a suggestion begins as the typed word does: `status` for `state`, but not `store` for `start`.
const STEM_BYTES: usize = 4;

/// A single fault follows `error:`; the faults of a configuration are listed one per line, then their number.
fn show_error(error: &anyhow::Error) -> String {
    if error.is::<Interrupted>() {
        return error.to_string();
    }
    match error.downcast_ref::<config::Errors>() {
        Some(errors) if errors.0.len() > 1 => {
            format!("{errors}\nerror: the configuration has {} faults", errors.0.len())
        }
        _ => format!("error: {error:#}"),
    }
}

async fn run(cli: Cli) -> anyhow::Result<Exit> {
    let environment = Environment::of_process();
    let path = cli.config.or_else(|| config::find(&environment));
    let context = Context { path, environment, output: Output::new(cli.json), timeout: cli.timeout };
    let done = match cli.command {
        Command::Check(check) => return Box::pin(check::check(&context, check)).await,
        Command::Status(status) => return status::status(&context, status).await,
        Command::Serve => {
            let settings = context.settings()?;
            logging::start(&settings.log);
            Box::pin(serve::serve(&context, settings)).await
        }
        Command::Config(command) => super::config::run(&context, &command),
        Command::Example => context.output.show(&config::EXAMPLE, ToString::to_string),
        Command::Run(command) => runs::run(&context, command).await,
        Command::Queues => queues::list(&context).await,
        Command::Peek(peek) => queues::peek(&context, peek).await,
        Command::Dead(dead) => queues::dead(&context, dead).await,
        Command::Pause(what) => queues::pause(&context, what).await,
        Command::Probe(what) => probe::probe(&context, what).await,
        Command::Resume(what) => queues::resume(&context, what).await,
        Command::Redrive(what) => redrive::redrive(&context, what).await,
        Command::Redrives => redrive::list(&context).await,
        Command::Purge(purge) => queues::purge(&context, purge).await,
        Command::Import(command) => import::run(&context, command).await,
        Command::Send(send) => queues::send(&context, send).await,
        Command::Schedules(what) => schedules::run(&context, what).await,
        Command::Suppress(command) => suppress::run(&context, command).await,
        Command::Backup(backup) => store::backup(&context, backup).await,
        Command::Compact => store::compact(&context).await,
        Command::Store(command) => store::run(&context, &command).await,
        #[cfg(feature = "demo")]
        Command::Demo(demo) => Box::pin(super::demo::demo(&context, demo)).await,
    };
    done.map(|()| Exit::Ok)
}
