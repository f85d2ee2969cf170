//! TLS, and certificates that are replaced while the daemon runs.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Endpoint;
use super::wire::json;
use crate::harness::{Harness, until};

/// Writes a new certificate with its key over the old ones; returns it.
fn issue(directory: &std::path::Path) -> CertificateDer<'static> {
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(directory.join("sqs.key"), pem("PRIVATE KEY", &signed.signing_key.serialize_der())).unwrap();
    std::fs::write(directory.join("sqs.pem"), pem("CERTIFICATE", signed.cert.der())).unwrap();
    signed.cert.der().clone()
}

fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

/// A connection of a client that trusts that certificate alone; `None` when the handshake fails.
async fn connect(endpoint: &Endpoint, trusted: &CertificateDer<'static>) -> Option<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let client = client.with_root_certificates(roots).with_no_client_auth();
    let stream = TcpStream::connect(endpoint.address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(client)).connect(name, stream).await.ok()
}

/// The answer to a request over a connection of its own; `None` when the handshake fails.
async fn call(endpoint: &Endpoint, trusted: &CertificateDer<'static>, action: &str, body: &str) -> Option<String> {
    let mut stream = connect(endpoint, trusted).await?;
    let request = json(action, body).replace("Host:", "Connection: close\r\nHost:");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    // A server may end the connection without a word of TLS.
    let _ = stream.read_to_string(&mut answer).await;
    Some(answer)
}

async fn create(endpoint: &Endpoint, trusted: &CertificateDer<'static>) -> Option<String> {
    call(endpoint, trusted, "CreateQueue", r#"{"QueueName":"protected"}"#).await
}

/// An endpoint with a certificate, which is replaced in that directory.
async fn start(directory: &std::path::Path) -> (Endpoint, CertificateDer<'static>) {
    let mut harness = Harness::with_users(0).await;
    let certificate = issue(directory);
    harness.set_key("API__SQS__AUTH", "none");
    harness.set_key("API__SQS__TLS__CERTIFICATE", directory.join("sqs.pem").display());
    harness.set_key("API__SQS__TLS__KEY", directory.join("sqs.key").display());
    (Endpoint::of(harness).await, certificate)
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_protected_and_a_new_certificate_needs_no_restart() {
    let directory = tempfile::tempdir().unwrap();
    let (endpoint, first) = start(directory.path()).await;
    let answer = create(&endpoint, &first).await.unwrap();
    assert!(answer.ends_with(r#"{"QueueUrl":"https://localhost/000000000000/protected"}"#), "{answer}");
    // Files that are no certificate change nothing.
    std::fs::write(directory.path().join("sqs.pem"), "half a certificate").unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(create(&endpoint, &first).await.is_some());
    let second = issue(directory.path());
    until("the new certificate", async || create(&endpoint, &second).await).await;
    assert!(create(&endpoint, &first).await.is_none(), "the old certificate is not shown any more");
    endpoint.daemon.stop().await;
}

/// The end of such a connection is hidden behind the last word of TLS, which nobody reads while a poll waits.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_while_it_waits_receives_nothing_over_tls_either() {
    let directory = tempfile::tempdir().unwrap();
    let (endpoint, trusted) = start(directory.path()).await;
    create(&endpoint, &trusted).await.unwrap();
    let queue = r#""QueueUrl":"/000000000000/protected""#;
    let poll = json("ReceiveMessage", &format!(r#"{{{queue},"WaitTimeSeconds":20}}"#));
    for ends_in_order in [true, false] {
        let mut stream = connect(&endpoint, &trusted).await.unwrap();
        stream.write_all(poll.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        // Until it waits in the queue's line.
        tokio::time::sleep(Duration::from_millis(100)).await;
        if ends_in_order {
            stream.shutdown().await.unwrap();
        }
        drop(stream);
    }
    // Nothing outside tells when the daemon has noticed.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let body = format!(r#"{{{queue},"MessageBody":"kept"}}"#);
    let sent = call(&endpoint, &trusted, "SendMessage", &body).await.unwrap();
    assert!(sent.starts_with("HTTP/1.1 200"), "{sent}");
    let stats = endpoint.daemon.operator.queue("protected").await;
    assert_eq!((stats.ready, stats.in_flight), (1, 0));
    endpoint.daemon.stop().await;
}
