//! The options of the function `statement` and of the users source.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use secrecy::SecretString;

use super::Archive;
use super::mail::DomainLimits;
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
    /// Who gets none.
    pub skip: Skip,
    /// What is kept of each document.
    pub archive: Archive,
}

/// Whose statement is neither rendered nor mailed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Skip {
    /// Nobody's is left out.
    #[default]
    Never,
    /// Of accounts without a transaction in the period.
    NoTransactions,
    /// Of accounts whose closing balance is zero.
    ZeroBalance,
    /// Of accounts of either kind.
    Either,
    /// Of accounts that are of both kinds.
    Both,
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
    /// Whether an address that the relay refuses because it has no mailbox comes onto the suppression list.
    pub suppress_on: SuppressOn,
}

/// What brings an address onto the suppression list without an operator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SuppressOn {
    /// Nothing.
    #[default]
    Never,
    /// The relay refuses RCPT for good, and its enhanced code says that the mailbox does not exist.
    HardBounce,
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
    /// At most this many mails are begun in any second.
    pub per_second: Option<NonZeroU32>,
    /// At most this many mails are begun in any 24 hours, restarts included.
    pub per_day: Option<u64>,
    /// What recipient domains are given, by name.
    pub domains: BTreeMap<String, DomainLimits>,
    /// How long each step of a dialogue may take.
    pub limits: DialogueLimits,
    /// A parked connection is closed after this time.
    pub idle_max: Duration,
    /// A connection is closed after this many mails.
    pub mails_per_connection: u32,
    /// The name in EHLO.
    pub helo: String,
}

/// How long each step of an SMTP dialogue may take. RFC 5321 section 4.5.3.2 gives the least that a client should wait:
/// a relay may scan a mail for minutes after the final dot, and whoever hangs up before its reply gets the mail twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DialogueLimits {
    /// The TCP connection, look-up of the name included, must stand within this time, and TLS within it once more.
    pub connect: Duration,
    /// The greeting must come within this time.
    pub greeting: Duration,
    /// The replies to EHLO, STARTTLS, AUTH, MAIL and RCPT must come within this time each.
    pub command: Duration,
    /// The reply to DATA must come within this time.
    pub data: Duration,
    /// Each piece of the message must be taken within this time.
    pub body_piece: Duration,
    /// The whole message must be taken within this time; after it the connection is cut before the final dot.
    pub body: Duration,
    /// The reply to the final dot must come within this time.
    pub end_of_data: Duration,
}

impl DialogueLimits {
    /// MAIL on a parked session that proves to be dead, then EHLO, STARTTLS, EHLO, AUTH, MAIL and RCPT.
    const COMMANDS_MAX: u32 = 7;

    /// The longest dialogue that these limits allow, whatever the relay does: the sum of the steps, and a little for
    /// what we do between them.
    pub fn dialogue_max(&self) -> Duration {
        let commands = self.command.saturating_mul(Self::COMMANDS_MAX);
        let steps = [self.connect.saturating_mul(2), self.greeting, commands, self.data, self.body, self.end_of_data];
        steps.into_iter().fold(Duration::from_secs(2), Duration::saturating_add)
    }
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
