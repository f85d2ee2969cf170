//! The options of the function `statement` and of the users source.

use std::time::Duration;

use secrecy::SecretString;

use crate::function::upstream;

/// The checked settings of one `kind = "statement"` function.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where an account's transactions come from.
    pub account: AccountOptions,
    /// What the document looks like.
    pub document: DocumentOptions,
    /// Who mails it and how.
    pub mail: MailOptions,
}

/// Where an account's transactions come from.
#[derive(Clone, Debug)]
pub struct AccountOptions {
    /// The address with `{user_id}`, `{account_id}` and parameters of the run such as `{period}` in braces;
    /// values are percent-encoded.
    pub url: String,
    /// How it is called.
    pub upstream: upstream::Options,
}

/// What the document looks like.
#[derive(Clone, Debug)]
pub struct DocumentOptions {
    /// The bank's name in the letterhead.
    pub issuer: String,
    /// The lines below it: street, town, telephone.
    pub issuer_lines: Vec<String>,
    /// The legal text at the foot of each page.
    pub footer: String,
    /// The locale of users who name none, a BCP 47 tag such as `en-GB`.
    pub default_locale: String,
    /// A document with more pages is refused.
    pub pages_max: u32,
}

/// Who mails the document and how.
#[derive(Clone, Debug)]
pub struct MailOptions {
    /// The relay that takes the mails.
    pub relay: RelayOptions,
    /// The From mailbox: `Example Bank <statements@example.com>`.
    pub from: String,
    /// The Reply-To mailbox.
    pub reply_to: Option<String>,
    /// The domain on the right of Message-ID; the one of `from` unless set.
    pub message_id_domain: Option<String>,
    /// The subject, a minijinja template.
    pub subject: String,
    /// The plain-text body, a minijinja template.
    pub text: String,
    /// The HTML body, a minijinja template.
    pub html: String,
    /// The attachment's file name, a minijinja template.
    pub attachment_name: String,
}

/// One SMTP relay.
#[derive(Clone, Debug)]
pub struct RelayOptions {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// How the connection is protected.
    pub tls: Tls,
    /// User and password for AUTH.
    pub credentials: Option<(String, SecretString)>,
    /// At most this many connections at once.
    pub connections: usize,
    /// A session (TCP, TLS, greeting, EHLO, AUTH) must be open within this time.
    pub connect_timeout: Duration,
    /// Each reply must come within this time; the reply to the final dot within twice this time.
    pub command_timeout: Duration,
    /// A parked connection is closed after this time.
    pub idle_max: Duration,
    /// A connection is closed after this many mails.
    pub mails_per_connection: u32,
    /// The name in EHLO.
    pub helo: String,
}

/// How the connection to a relay is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    /// Plain text: for a relay on the same machine.
    None,
    /// STARTTLS, required.
    StartTls,
    /// TLS from the first byte (port 465).
    Implicit,
}

/// Where users come from.
#[derive(Clone, Debug)]
pub struct UsersOptions {
    /// The address of the first page; parameters of the run such as `{period}` in braces.
    pub url: String,
    /// How it is called.
    pub upstream: upstream::Options,
    /// The JSON pointer to the array of users when the response is an object, e.g. `/data/users`; detected when unset
    /// (`users`, `data`, `items`, `results`, or the response itself when it is an array or JSON Lines).
    pub items: Option<String>,
    /// The JSON pointer to the next page's address or cursor; detected when unset (`next`, `next_cursor`,
    /// `cursor`, `links.next`).
    pub next: Option<String>,
    /// The query parameter that carries a cursor that is not an address.
    pub cursor_param: String,
    /// One run reads at most this many pages.
    pub pages_max: u32,
}
