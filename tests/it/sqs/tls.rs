//! TLS, and certificates that are replaced while the daemon runs.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::Endpoint;
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

/// Creates a queue as a client that trusts that certificate alone; `None` when the handshake fails.
async fn create(endpoint: &Endpoint, trusted: &CertificateDer<'static>) -> Option<String> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let client = client.with_root_certificates(roots).with_no_client_auth();
    let stream = TcpStream::connect(endpoint.address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = TlsConnector::from(Arc::new(client)).connect(name, stream).await.ok()?;
    let body = r#"{"QueueName":"protected"}"#;
    let request = format!(
        "POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-Amz-Target: AmazonSQS.CreateQueue\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    // A server may end the connection without a word of TLS.
    let _ = stream.read_to_string(&mut answer).await;
    Some(answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_protected_and_a_new_certificate_needs_no_restart() {
    let mut harness = Harness::with_users(0).await;
    let directory = tempfile::tempdir().unwrap();
    let first = issue(directory.path());
    harness.set_key("API__SQS__AUTH", "none");
    harness.set_key("API__SQS__TLS__CERTIFICATE", directory.path().join("sqs.pem").display());
    harness.set_key("API__SQS__TLS__KEY", directory.path().join("sqs.key").display());
    let endpoint = Endpoint::of(harness).await;
    let answer = create(&endpoint, &first).await.unwrap();
    assert!(answer.ends_with(r#"{"QueueUrl":"https://localhost/000000000000/protected"}"#), "{answer}");
    // Files that are no certificate change nothing.
    std::fs::write(directory.path().join("sqs.pem"), "half a certificate").unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    assert!(create(&endpoint, &first).await.is_some());
    let second = issue(directory.path());
    until("the new certificate", async || create(&endpoint, &second).await).await;
    assert!(create(&endpoint, &first).await.is_none(), "the old certificate is not shown any more");
    endpoint.daemon.stop().await;
}
