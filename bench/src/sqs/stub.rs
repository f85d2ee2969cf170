//! A bare axum server that answers what the daemon answered once: the same bytes, without parsing, queue or disk.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use clap::Args;
use tokio::net::TcpListener;

use super::server::{Listens, Server, until_input_ends};
use crate::output;

/// The arguments of the stub's process.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// A JSON file: the body of the answer by the target of the request
    #[arg(long)]
    answers: PathBuf,
}

type Answers = Arc<HashMap<String, Bytes>>;

/// Runs the stub until standard input ends.
pub(crate) async fn serve(arguments: Arguments) -> anyhow::Result<()> {
    let answers: HashMap<String, String> = serde_json::from_slice(&std::fs::read(arguments.answers)?)?;
    let answers: Answers = Arc::new(answers.into_iter().map(|(target, body)| (target, Bytes::from(body))).collect());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let router = Router::new().fallback(answer).with_state(answers);
    use axum::serve::ListenerExt;
    // As the endpoint does; what fails here fails at the first read.
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    tokio::spawn(async move { axum::serve(listener, router).await });
    output::json(&Listens { address })?;
    until_input_ends().await
}

async fn answer(State(answers): State<Answers>, headers: HeaderMap, _body: Bytes) -> Response {
    let target = headers.get("x-amz-target").and_then(|target| target.to_str().ok()).unwrap_or_default();
    let Some(body) = answers.get(target) else { return StatusCode::NOT_FOUND.into_response() };
    let headers = [
        ("content-type", HeaderValue::from_static("application/x-amz-json-1.0")),
        ("x-amzn-requestid", HeaderValue::from_static("00000000-0000-4000-8000-000000000000")),
    ];
    (headers, body.clone()).into_response()
}

/// Starts a stub that answers these bodies, by action.
pub(super) async fn start(dir: &Path, answers: &[(&str, Bytes)]) -> anyhow::Result<Server> {
    let text =
        |(action, body): &(&str, Bytes)| (format!("AmazonSQS.{action}"), String::from_utf8_lossy(body).into_owned());
    let answers: HashMap<String, String> = answers.iter().map(text).collect();
    let file = dir.join("answers.json");
    std::fs::write(&file, serde_json::to_vec(&answers)?)?;
    Server::start(&["serve-sqs-stub".into(), format!("--answers={}", file.display())], None).await
}
