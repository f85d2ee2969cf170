//! AWS's own clients, as their registries have them (`scripts/install-test-tools`).

use std::path::{Path, PathBuf};
use std::process::Command;

use super::Endpoint;
use crate::harness::say;

/// Where `scripts/install-test-tools` puts the clients.
fn tools() -> PathBuf {
    let set = std::env::var_os("NIGHTMAIL_TEST_TOOLS_DIR").map(PathBuf::from);
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default());
    set.unwrap_or_else(|| home().join(".cache/nightmail-test-tools"))
}

/// The directory of a client; `None`, and a note, when it is not installed.
fn tool(name: &str) -> Option<PathBuf> {
    let directory = tools().join(name);
    let required = std::env::var("NIGHTMAIL_TEST_TOOLS").is_ok_and(|value| value == "required");
    assert!(directory.exists() || !required, "{name} is not installed: run scripts/install-test-tools");
    if !directory.exists() {
        say(format_args!("skipped: {name} is not installed (scripts/install-test-tools)"));
    }
    directory.exists().then_some(directory)
}

/// Runs a client's program to its end.
async fn run(mut command: Command) {
    let done = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{out}\n{err}");
}

fn python(tool: &Path, program: &str) -> Command {
    let mut command = Command::new("python3");
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(program));
    command.env("PYTHONPATH", tool).env("AWS_EC2_METADATA_DISABLED", "true");
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn boto3_calls_every_action_over_the_json_protocol() {
    let Some(tool) = tool("boto3") else { return };
    let endpoint = Endpoint::start().await;
    let mut command = python(&tool, "boto3_actions.py");
    command.arg(endpoint.url());
    run(command).await;
    endpoint.daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn boto3_calls_every_action_over_the_query_protocol() {
    let Some(tool) = tool("boto3-query") else { return };
    let endpoint = Endpoint::start().await;
    let mut command = python(&tool, "boto3_actions.py");
    command.arg(endpoint.url());
    run(command).await;
    endpoint.daemon.stop().await;
}
