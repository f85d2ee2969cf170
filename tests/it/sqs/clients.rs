//! AWS's own clients, as their registries have them (`scripts/install-test-tools`).

use std::path::{Path, PathBuf};
use std::process::Command;

use super::Endpoint;
use crate::harness::{say, size};

/// Where `scripts/install-test-tools` puts the clients.
fn tools() -> PathBuf {
    let set = std::env::var_os("NIGHTMAIL_TEST_TOOLS_DIR").map(PathBuf::from);
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default());
    set.unwrap_or_else(|| home().join(".cache/nightmail-test-tools"))
}

/// The directory of a client; `None`, and a note, when it is not installed.
pub(super) fn tool(name: &str) -> Option<PathBuf> {
    let directory = tools().join(name);
    let required = std::env::var("NIGHTMAIL_TEST_TOOLS").is_ok_and(|value| value == "required");
    assert!(directory.exists() || !required, "{name} is not installed: run scripts/install-test-tools");
    if !directory.exists() {
        say(format_args!("skipped: {name} is not installed (scripts/install-test-tools)"));
    }
    directory.exists().then_some(directory)
}

/// The clients' programs.
fn clients() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}

/// Runs a client's program to its end.
pub(super) async fn run(mut command: Command) {
    let done = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{out}\n{err}");
}

pub(super) fn python(tool: &Path, program: &str) -> Command {
    let mut command = Command::new("python3");
    command.arg(clients().join(program));
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

#[tokio::test(flavor = "multi_thread")]
async fn the_aws_cli_leads_a_queue_through_its_life() {
    let Some(tool) = tool("awscli") else { return };
    let endpoint = Endpoint::start().await;
    let mut command = Command::new(clients().join("cli.sh"));
    command.arg(endpoint.url()).env("AWS", "python3 -m awscli").env("PYTHONPATH", tool);
    command.env("AWS_ACCESS_KEY_ID", "any").env("AWS_SECRET_ACCESS_KEY", "any").env("AWS_CONFIG_FILE", "/dev/null");
    run(command).await;
    endpoint.daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_javascript_sdk_and_sqs_consumer_work_a_queue_off_and_dead_letters_come_back() {
    let Some(tool) = tool("node") else { return };
    let endpoint = Endpoint::start().await;
    // Node looks for modules beside the program.
    let program = tool.join("consumer.mjs");
    std::fs::copy(clients().join("consumer.mjs"), &program).unwrap();
    let mut command = Command::new("node");
    command.arg(program).arg(endpoint.url());
    run(command).await;
    endpoint.daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn celery_runs_each_task_once_also_those_that_are_retried() {
    let Some(tool) = tool("celery") else { return };
    let endpoint = Endpoint::start().await;
    let mut command = python(&tool, "celery_tasks.py");
    command.arg(endpoint.url());
    run(command).await;
    endpoint.daemon.stop().await;
}

/// `NIGHTMAIL_SQS_FUZZ_SECONDS` goes on with random requests.
#[tokio::test(flavor = "multi_thread")]
async fn every_parameter_of_the_service_model_may_be_wrong_and_gets_a_code() {
    let Some(tool) = tool("boto3") else { return };
    let endpoint = Endpoint::start().await;
    let mut command = python(&tool, "model_cases.py");
    command.arg(endpoint.url()).arg(size("NIGHTMAIL_SQS_FUZZ_SECONDS", 5).to_string());
    run(command).await;
    endpoint.daemon.stop().await;
}
