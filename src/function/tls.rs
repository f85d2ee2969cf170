//! The TLS client settings that HTTP calls and SMTP connections share: ring, TLS 1.2 or newer, the system's roots.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};

use super::Error;

/// Trusts the certificates of `$SSL_CERT_FILE` and `$SSL_CERT_DIR` when one of them is set, else the system's, else
/// Mozilla's built-in list.
///
/// # Errors
/// The certificates that the environment names are not there.
pub fn client_config() -> Result<ClientConfig, Error> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        // The environment names certificates that do not exist: trusting others in their place would be a surprise.
        if let Some(why) = found.errors.first() {
            return Err(Error::Tls(why.to_string()));
        }
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    with_roots(roots)
}

/// The same with the given roots alone.
pub(super) fn with_roots(roots: RootCertStore) -> Result<ClientConfig, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::Tls(e.to_string()))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
