//! What every command receives: where its configuration is, how it shows things and how long it waits.

use std::path::PathBuf;
use std::time::Duration;

use crate::api::control::Client;
use crate::config::{self, Environment, Settings};

use super::output::Output;

/// What every command receives.
#[derive(Clone, Debug)]
pub(super) struct Context {
    /// The configuration's path, when there is one.
    pub(super) path: Option<PathBuf>,
    /// The environment's variables.
    pub(super) environment: Environment,
    /// How to show things.
    pub(super) output: Output,
    /// How long to wait for the daemon.
    pub(super) timeout: Duration,
}

impl Context {
    /// The checked settings with their secrets, for the daemon and for `check`.
    pub(super) fn settings(&self) -> anyhow::Result<Settings> {
        Ok(config::load(self.path.as_deref(), &self.environment)?)
    }

    /// A client of the daemon's control socket.
    pub(super) fn client(&self, settings: &Settings) -> Client {
        Client::new(&settings.control_socket).with_timeout(self.timeout)
    }

    /// What messages call the configuration.
    pub(super) fn name(&self) -> String {
        self.path.as_ref().map_or_else(|| "the built-in example".into(), |path| path.display().to_string())
    }

    /// The checked settings without secrets: an operator can talk to the daemon without access to its passwords.
    pub(super) fn settings_without_secrets(&self) -> anyhow::Result<Settings> {
        Ok(config::load(self.path.as_deref(), &self.environment.clone().without_secrets())?)
    }
}
