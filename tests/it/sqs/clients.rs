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

/// Runs a client's program against an endpoint of its own: `command` makes it, of the client's directory and the
/// endpoint's URL. Does nothing when the client is not installed.
async fn run_client(name: &str, command: impl FnOnce(&Path, &str) -> Command) {
    let Some(tool) = tool(name) else { return };
    let endpoint = Endpoint::start().await;
    run(command(&tool, &endpoint.url())).await;
    endpoint.daemon.stop().await;
}

fn python_at(program: &'static str) -> impl FnOnce(&Path, &str) -> Command {
    move |tool, url| {
        let mut command = python(tool, program);
        command.arg(url);
        command
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn boto3_calls_every_action_over_the_json_protocol() {
    run_client("boto3", python_at("boto3_actions.py")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn boto3_calls_every_action_over_the_query_protocol() {
    run_client("boto3-query", python_at("boto3_actions.py")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_aws_cli_leads_a_queue_through_its_life() {
    run_client("awscli", |tool, url| {
        let mut command = Command::new(clients().join("cli.sh"));
        command.arg(url).env("AWS", "python3 -m awscli").env("PYTHONPATH", tool);
        command.env("AWS_ACCESS_KEY_ID", "any").env("AWS_SECRET_ACCESS_KEY", "any").env("AWS_CONFIG_FILE", "/dev/null");
        command
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_javascript_sdk_and_sqs_consumer_work_a_queue_off_and_dead_letters_come_back() {
    run_client("node", |tool, url| {
        // Node looks for modules beside the program.
        let program = tool.join("consumer.mjs");
        std::fs::copy(clients().join("consumer.mjs"), &program).unwrap();
        let mut command = Command::new("node");
        command.arg(program).arg(url);
        command
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rust_sdk_sends_receives_dead_letters_and_moves_back_and_knows_each_error_by_its_type() {
    run_client("rust", |tool, url| {
        let mut command = Command::new(tool.join("bin/sqs-client"));
        command.arg(url);
        command
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn celery_runs_each_task_once_also_those_that_are_retried() {
    run_client("celery", python_at("celery_tasks.py")).await;
}

/// `NIGHTMAIL_SQS_FUZZ_SECONDS` goes on with random requests.
#[tokio::test(flavor = "multi_thread")]
async fn every_parameter_of_the_service_model_may_be_wrong_and_gets_a_code() {
    run_client("boto3", |tool, url| {
        let mut command = python(tool, "model_cases.py");
        command.arg(url).arg(size("NIGHTMAIL_SQS_FUZZ_SECONDS", 5).to_string());
        command
    })
    .await;
}
