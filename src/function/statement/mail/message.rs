//! Builds the bytes of one mail with lettre.
//!
//! Owns the promise that names and texts cannot add a header, end the message or panic the builder: everything that
//! goes into a header is one line without control characters. The same mail always has the same bytes.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use lettre::Message;
use lettre::message::header::{ContentType, Header, HeaderName, HeaderValue};
use lettre::message::{Attachment, Mailbox, MultiPart, SinglePart};
use minijinja::value::Value;
use sha2::{Digest, Sha256};

use super::connection::OutgoingMail;
use crate::base::{Failure, Timestamp};
use crate::function::statement::template::{RenderedTexts, line};
use crate::function::statement::{MailOptions, address};
use crate::function::{EffectFlag, Effects, Error, Intent};

/// One mail to one recipient.
#[derive(Clone, Debug)]
pub struct Mail<'a> {
    /// The recipient's name; control characters become spaces.
    pub to_name: &'a str,
    /// The recipient's address.
    pub to_address: &'a str,
    /// Identifies this mail, e.g. `run 12 user u-1 purpose statement`: the same key gives the same Message-ID.
    pub message_key: &'a str,
    /// The Date header.
    pub now: Timestamp,
    /// The values that the templates may use, made from [`Context`](crate::function::statement::template::Context).
    pub context: Value,
    /// The PDF.
    pub attachment: &'a [u8],
    /// The dialogue must begin within this time; until then the mail waits for a free connection.
    pub begin_within: Duration,
    /// Set from the final dot on; an abort before it stops the dialogue.
    pub effect: EffectFlag,
    /// Where the intent is written down between RCPT and DATA.
    pub effects: Arc<dyn Effects>,
    /// What is written down; the Message-ID is added.
    pub intent: Intent,
}

/// 9999-12-31T23:59:59Z, the last second that a Date header can name.
const LAST_SECOND: u64 = 253_402_300_799;

/// The checked senders.
#[derive(Debug)]
pub(super) struct Composer {
    from: Mailbox,
    reply_to: Option<Mailbox>,
    message_id_domain: String,
}

impl Composer {
    /// Checks the mailboxes and the domain.
    pub(super) fn new(options: &MailOptions) -> Result<Self, Error> {
        let from = mailbox("from", &options.from)?;
        let reply_to = options.reply_to.as_deref().map(|text| mailbox("reply_to", text)).transpose()?;
        let domain = options.message_id_domain.clone().unwrap_or_else(|| from.email.domain().to_owned());
        if lettre::Address::new("id", &domain).is_err() || !domain.is_ascii() {
            return Err(Error::MessageIdDomain(domain));
        }
        Ok(Self { from, reply_to, message_id_domain: domain })
    }

    /// All faults of the mailboxes and the domain.
    pub(super) fn faults(options: &MailOptions) -> Vec<Error> {
        let reply_to = options.reply_to.as_deref().and_then(|text| mailbox("reply_to", text).err());
        let alone = MailOptions { reply_to: None, ..options.clone() };
        reply_to.into_iter().chain(Self::new(&alone).err()).collect()
    }

    /// The Message-ID of the mail with this key. It is always the same, so that a repeated mail can be recognised.
    pub(super) fn message_id(&self, key: &str) -> String {
        format!("<{}@{}>", hex32(&[key.as_bytes()]), self.message_id_domain)
    }

    /// Builds the mail.
    pub(super) fn compose(&self, mail: &Mail<'_>, words: RenderedTexts) -> Result<(OutgoingMail, String), Failure> {
        let to = address::mailable(mail.to_address)
            .map_err(|why| failure("invalid-email", format!("the recipient's mail address is wrong: {why}")))?;
        let message_id = self.message_id(mail.message_key);
        // The boundaries are hashes of the texts, so no text can contain its own boundary.
        let boundary = |name: &str| {
            let parts = [name, mail.message_key, words.text.as_str(), words.html.as_str()];
            format!("={}", hex32(&parts.map(str::as_bytes)))
        };
        let texts = MultiPart::alternative()
            .boundary(boundary("alternative"))
            .singlepart(SinglePart::plain(crlf(&words.text)))
            .singlepart(SinglePart::html(crlf(&words.html)));
        let pdf = ContentType::parse("application/pdf").map_err(|e| failure("build", e))?;
        let whole = MultiPart::mixed()
            .boundary(boundary("mixed"))
            .multipart(texts)
            .singlepart(Attachment::new(words.attachment_name).body(mail.attachment.to_vec(), pdf));
        let name = line(mail.to_name);
        let to_name = (!name.is_empty()).then_some(name);
        let mut builder = Message::builder()
            .date(date(mail.now))
            .from(self.from.clone())
            .to(Mailbox::new(to_name, to.clone()))
            .subject(line(&words.subject))
            .message_id(Some(message_id.clone()))
            .header(AutoSubmitted);
        if let Some(reply_to) = &self.reply_to {
            builder = builder.reply_to(reply_to.clone());
        }
        let from = self.from.email.clone();
        let envelope = lettre::address::Envelope::new(Some(from.clone()), vec![to.clone()]);
        let message = envelope.and_then(|envelope| builder.envelope(envelope).multipart(whole));
        let bytes = message.map_err(|e| failure("build", format!("the mail cannot be built: {e}")))?.formatted();
        let (effects, intent) =
            (mail.effects.clone(), Intent { message_id: message_id.clone(), ..mail.intent.clone() });
        Ok((OutgoingMail { from, to, bytes, effects, intent }, message_id))
    }
}

fn failure(code: &str, text: impl std::fmt::Display) -> Failure {
    Failure::new("data", "mail", code, text)
}

/// RFC 3834: asks automatic responders not to answer.
#[derive(Clone)]
struct AutoSubmitted;

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self)
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "auto-generated".into())
    }
}

fn mailbox(field: &'static str, text: &str) -> Result<Mailbox, Error> {
    let refused = |why: String| Error::Mailbox { field, value: text.to_owned(), why };
    let (name, address) = match text.trim().strip_suffix('>').and_then(|rest| rest.rsplit_once('<')) {
        Some((name, address)) => (name.trim().trim_matches('"'), address),
        None => ("", text.trim()),
    };
    if line(name) != name {
        return Err(refused("its name has control characters, double spaces or more than 200 characters".into()));
    }
    let address = address::mailable(address).map_err(refused)?;
    Ok(Mailbox::new((!name.is_empty()).then(|| name.to_owned()), address))
}

/// The first 32 hex digits of the SHA-256 of the parts.
fn hex32(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for (number, part) in parts.iter().enumerate() {
        if number > 0 {
            hash.update([0]);
        }
        hash.update(part);
    }
    hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// CRLF line endings, as RFC 5322 requires, whatever the template file has.
fn crlf(text: &str) -> String {
    text.replace("\r\n", "\n").replace('\r', "\n").replace('\n', "\r\n")
}

fn date(now: Timestamp) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(now.as_secs().min(LAST_SECOND))
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
