//! The TLS client settings that HTTP calls and SMTP connections share: ring, TLS 1.2 or newer, the system's roots.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};

use super::Error;

/// Trusts the system's root certificates, or Mozilla's built-in list when the system has none.
pub(super) fn client_config() -> Result<ClientConfig, Error> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
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
