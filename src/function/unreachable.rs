//! Why no session with a destination could be opened: one class for each cause that has a remedy of its own.
//!
//! Reads errors of the resolver, of TCP and of TLS, for HTTP and SMTP alike. Must not know what is called.

use std::error::Error;
use std::io::{self, ErrorKind};

/// How the standard library begins the text of a failed name look-up; the platform's own words follow.
const LOOKUP: &str = "failed to lookup address information: ";
/// The platform's words for a name that does not exist or has no address: `EAI_NONAME` and `EAI_NODATA` of glibc, and
/// `EAI_NONAME` of musl and of the BSDs. The code itself is lost before it reaches us. The words are not translated,
/// because the process never calls `setlocale`.
const NO_SUCH_NAME: [&str; 4] = [
    "Name or service not known",
    "No address associated with hostname",
    "Name does not resolve",
    "nodename nor servname provided, or not known",
];

/// The settings that decide how a destination is reached, as `config.toml` names them.
pub(super) struct Keys<'k> {
    pub(super) address: &'k str,
    pub(super) tls: &'k str,
    pub(super) connect_timeout: &'k str,
}

/// Why there is no session.
#[derive(Debug)]
pub(super) struct Unreachable {
    /// The code of the failure.
    pub(super) code: &'static str,
    /// What happened.
    pub(super) text: String,
    /// Whether waiting cannot mend it.
    pub(super) needs_operator: bool,
}

impl Unreachable {
    /// The class of an error that came before any session.
    pub(super) fn of(error: &(dyn Error + 'static)) -> Self {
        let causes = causes(error);
        if let Some(tls) = causes.iter().find_map(|cause| cause.downcast_ref::<rustls::Error>()) {
            let is_untrusted = matches!(tls, rustls::Error::InvalidCertificate(_));
            let code = if is_untrusted { "certificate" } else { "tls" };
            return Self { code, text: format!("TLS failed: {tls}"), needs_operator: is_untrusted };
        }
        let root = root_cause(error);
        if let Some(words) = root.strip_prefix(LOOKUP) {
            let is_unknown = NO_SUCH_NAME.contains(&words);
            let code = if is_unknown { "name-unknown" } else { "name-lookup" };
            return Self { code, text: format!("the name was not found: {words}"), needs_operator: is_unknown };
        }
        let kind = causes.iter().find_map(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind);
        let code = match kind {
            Some(ErrorKind::ConnectionRefused) => "refused",
            Some(ErrorKind::TimedOut) => "connect-timeout",
            _ => "connect",
        };
        Self { code, text: format!("no connection: {root}"), needs_operator: false }
    }

    /// What to do.
    pub(super) fn remedy(&self, keys: &Keys<'_>) -> String {
        let Keys { address, tls, connect_timeout } = keys;
        match self.code {
            "certificate" => {
                "the certificate is not trusted: write the name that it was issued for, and add its issuer \
                              to the system's root certificates or to the PEM file that SSL_CERT_FILE names"
                    .into()
            }
            "tls" => format!("check {tls}"),
            "name-unknown" => format!("check {address}, and the resolver of this machine"),
            "name-lookup" => "the resolver of this machine failed: check /etc/resolv.conf and the network".into(),
            "connect-timeout" => {
                format!("check {address}, the network and the firewall, or raise {connect_timeout}")
            }
            _ => format!("is it up? check {address}"),
        }
    }
}

/// The deepest cause. The texts of reqwest and hyper above it repeat the address with its query, or say only that
/// something failed.
pub(super) fn root_cause(error: &(dyn Error + 'static)) -> String {
    causes(error).last().map(ToString::to_string).unwrap_or_default()
}

/// The error and its causes, the deepest last.
fn causes<'e>(error: &'e (dyn Error + 'static)) -> Vec<&'e (dyn Error + 'static)> {
    let mut causes = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        causes.push(error);
        // An I/O error names the source of what it wraps as its own source, and so hides what it wraps.
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match wrapped {
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        };
    }
    causes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(error: io::Error) -> (&'static str, bool) {
        let cause = Unreachable::of(&error);
        (cause.code, cause.needs_operator)
    }

    #[tokio::test]
    async fn a_name_that_does_not_exist_is_told_from_a_resolver_that_fails() {
        // No host has such a name, so the platform's resolver refuses it without asking anyone.
        let error = tokio::net::TcpStream::connect(("-", 25)).await.unwrap_err();
        assert_eq!(class(error), ("name-unknown", true));
        for words in NO_SUCH_NAME {
            assert_eq!(class(io::Error::other(format!("{LOOKUP}{words}"))), ("name-unknown", true));
        }
        for words in ["Temporary failure in name resolution", "Try again", "Non-recoverable failure in name resolution"]
        {
            assert_eq!(class(io::Error::other(format!("{LOOKUP}{words}"))), ("name-lookup", false));
        }
    }

    #[test]
    fn each_cause_has_its_own_class_and_an_untrusted_certificate_waits_for_an_operator() {
        let untrusted = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        assert_eq!(class(io::Error::new(ErrorKind::InvalidData, untrusted)), ("certificate", true));
        let wrong_port = rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType);
        assert_eq!(class(io::Error::new(ErrorKind::InvalidData, wrong_port)), ("tls", false));
        assert_eq!(class(ErrorKind::ConnectionRefused.into()), ("refused", false));
        assert_eq!(class(ErrorKind::TimedOut.into()), ("connect-timeout", false));
        assert_eq!(class(ErrorKind::NetworkUnreachable.into()), ("connect", false));
        assert_eq!(class(io::Error::other(io::Error::from(ErrorKind::HostUnreachable))), ("connect", false));
    }

    #[test]
    fn each_class_has_a_remedy_of_its_own() {
        let keys = Keys { address: "url", tls: "its scheme", connect_timeout: "account.connect_timeout" };
        let remedy = |code| Unreachable { code, text: String::new(), needs_operator: false }.remedy(&keys);
        let codes = ["certificate", "tls", "name-unknown", "name-lookup", "connect-timeout", "refused"];
        let remedies: std::collections::BTreeSet<String> = codes.into_iter().map(remedy).collect();
        assert_eq!(remedies.len(), codes.len());
        assert!(remedy("tls") == "check its scheme" && remedy("refused").contains("url"));
        assert!(remedy("connect-timeout").ends_with("raise account.connect_timeout"));
    }
}
