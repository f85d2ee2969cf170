//! What can be wrong with a function's settings, found when the function is built, before any message is received.

/// A setting that a function cannot work with. No text holds a secret.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// TLS cannot be set up.
    #[error("TLS cannot be set up: {0} (check the system's root certificates, SSL_CERT_FILE and SSL_CERT_DIR)")]
    Tls(String),
    /// The HTTP client cannot be built.
    #[error("the HTTP client cannot be built: {0}")]
    Http(String),
    /// A header's name or value cannot be sent.
    #[error("header {0:?} cannot be sent (names are letters, digits and dashes; values printable ASCII on one line)")]
    Header(String),
    /// The bearer token cannot be sent.
    #[error("the token cannot be sent as a header (use printable ASCII on one line, without a trailing line break)")]
    Token,
    /// A URL template is wrong.
    #[error("url {template:?}: {why}")]
    Url {
        /// The template, without its query.
        template: String,
        /// What is wrong and what to write instead.
        why: String,
    },
    /// A mail template is wrong.
    #[error("template {name}: {why}")]
    Template {
        /// Which one: `subject`, `text`, `html`, `attachment_name`.
        name: &'static str,
        /// What is wrong, with its line.
        why: String,
    },
    /// A mailbox is wrong.
    #[error("{field}: {value:?} is not a mailbox ({why}; write \"Name <user@example.com>\" or \"user@example.com\")")]
    Mailbox {
        /// The setting: `from`, `reply_to`.
        field: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        why: String,
    },
    /// The domain of the Message-IDs is wrong.
    #[error(
        "message_id_domain {0:?} is not a domain in ASCII (write what stands behind the @ of from, e.g. \"bank.example\")"
    )]
    MessageIdDomain(String),
    /// A setting of the relay is wrong.
    #[error("relay {0}")]
    Relay(String),
    /// An embedded font does not parse.
    #[error("an embedded font does not parse: {0} (the binary is damaged; install it anew)")]
    Font(String),
}
