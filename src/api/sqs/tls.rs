//! TLS by the files of a certificate and its key, which may be replaced while the daemon runs.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{Accept, TlsAcceptor};
use tokio_util::sync::CancellationToken;

use super::socket::Socket;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// A connection's handshake must end within this time.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);

/// Where certificate and key are, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsOptions {
    /// The certificate, followed by those that lead to a root.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// The certificate as it was last read.
#[derive(Debug)]
pub(super) struct Tls {
    options: TlsOptions,
    config: RwLock<Arc<ServerConfig>>,
}

impl Tls {
    /// Reads the files.
    pub(super) fn load(options: &TlsOptions) -> Result<Self, String> {
        Ok(Self { options: options.clone(), config: RwLock::new(read(options)?) })
    }

    /// The handshake of one connection.
    pub(super) async fn accept(&self, socket: Socket) -> io::Result<TlsStream<Socket>> {
        let config = self.config.read().unwrap_or_else(PoisonError::into_inner).clone();
        let handshake: Accept<Socket> = TlsAcceptor::from(config).accept(socket);
        tokio::time::timeout(HANDSHAKE_WITHIN, handshake).await?
    }

    /// Reads the files again whenever they change. New connections get what they hold; files that cannot be used are
    /// told once, and the certificate from before stays.
    pub(super) async fn watch(&self, shutdown: CancellationToken) {
        let mut seen = self.changed_at();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            let now = self.changed_at();
            if now == seen {
                continue;
            }
            seen = now;
            let options = self.options.clone();
            // Files are read beside the runtime: their disk may be slow.
            match tokio::task::spawn_blocking(move || read(&options)).await {
                Ok(Ok(config)) => {
                    *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
                    tracing::info!("the SQS endpoint's certificate was read anew");
                }
                Ok(Err(why)) => tracing::error!("the SQS endpoint keeps its certificate from before: {why}"),
                Err(error) => tracing::error!("the SQS endpoint keeps its certificate from before: {error}"),
            }
        }
    }

    /// When the files were last changed; `None` for one that is not there.
    fn changed_at(&self) -> [Option<SystemTime>; 2] {
        [&self.options.certificate, &self.options.key].map(|path| std::fs::metadata(path).ok()?.modified().ok())
    }
}

fn read(options: &TlsOptions) -> Result<Arc<ServerConfig>, String> {
    let TlsOptions { certificate, key } = options;
    let unreadable =
        |path: &PathBuf, why: &dyn std::fmt::Display| format!("{}: {why} (PEM is expected)", path.display());
    let chain = CertificateDer::pem_file_iter(certificate).and_then(|found| found.collect::<Result<Vec<_>, _>>());
    let chain = chain.map_err(|error| unreadable(certificate, &error))?;
    if chain.is_empty() {
        return Err(unreadable(certificate, &"it holds no certificate"));
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable(key, &error))?;
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
    let config = builder.with_no_client_auth().with_single_cert(chain, private);
    let mut config = config.map_err(|error| format!("{} and {}: {error}", certificate.display(), key.display()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
