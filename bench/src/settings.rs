//! The embedded example configuration with the addresses of this bench, loaded in the usual way.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use nightmail::config::{self, EXAMPLE, Environment, Kind, Settings};
use nightmail::function::statement;
use nightmail::schedule::FanOutOptions;
use nightmail::work;

/// The schedule of the example configuration.
pub(crate) const SCHEDULE: &str = "monthly-statements";
/// The month of the statements in all benches.
pub(crate) const PERIOD: &str = "2026-10";

/// The addresses and the directory that a side of a comparison uses.
#[derive(Clone, Debug, Args)]
pub(crate) struct Side {
    /// The bank
    #[arg(long)]
    pub(crate) bank: SocketAddr,
    /// The mail sink
    #[arg(long)]
    pub(crate) sink: SocketAddr,
    /// A directory of its own
    #[arg(long)]
    pub(crate) dir: PathBuf,
}

impl Side {
    /// The arguments that make this side in another process.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let Self { bank, sink, dir } = self;
        vec![format!("--bank={bank}"), format!("--sink={sink}"), format!("--dir={}", dir.display())]
    }

    /// The settings of a daemon with these addresses, and what the environment sets. Its schedule does not fire during a
    /// bench.
    pub(crate) fn settings(&self) -> anyhow::Result<Settings> {
        let Self { bank, sink, dir } = self;
        let overrides = [
            ("DATA_DIR", dir.display().to_string()),
            ("FUNCTIONS__FAN_OUT__USERS__URL", format!("http://{bank}/users?period={{period}}")),
            (
                "FUNCTIONS__STATEMENT__ACCOUNT__URL",
                format!("http://{bank}/accounts/{{account_id}}/transactions?period={{period}}"),
            ),
            ("FUNCTIONS__STATEMENT__MAIL__RELAY__HOST", sink.ip().to_string()),
            ("FUNCTIONS__STATEMENT__MAIL__RELAY__PORT", sink.port().to_string()),
        ];
        let variables = overrides.into_iter().map(|(name, value)| (format!("NIGHTMAIL__{name}"), value));
        let given = std::env::vars().filter(|(name, _)| name.starts_with("NIGHTMAIL__"));
        let environment: Environment = given.chain(variables).collect();
        Ok(config::load_text("(example)", Path::new(""), EXAMPLE, &environment)?)
    }
}

/// The statement function of the settings with its pool.
pub(crate) fn statement(settings: &Settings) -> anyhow::Result<(&work::Options, &statement::Options)> {
    let found = settings.functions.iter().find_map(|function| match &function.kind {
        Kind::Statement(options) => Some((&function.pool, &**options)),
        Kind::FanOut(_) => None,
    });
    found.context("the example configuration has a statement function")
}

/// The fan-out of the settings.
pub(crate) fn fan_out(settings: &Settings) -> anyhow::Result<&FanOutOptions> {
    let found = settings.functions.iter().find_map(|function| match &function.kind {
        Kind::FanOut(options) => Some(options),
        Kind::Statement(_) => None,
    });
    found.context("the example configuration has a fan-out")
}
