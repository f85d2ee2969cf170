//! The door of this folder: one mail in, a receipt or a fault out.

use std::sync::Arc;
use std::time::Duration;

use minijinja::value::Value;

use super::SendFault;
use super::connection::Relay;
use super::message::Composer;
use super::pool::Pool;
use crate::base::outcome::Receipt;
use crate::base::{Clock, Timestamp};
use crate::function::statement::MailOptions;
use crate::function::statement::template::Templates;
use crate::function::{Error, tls};

/// Mails documents through one relay. One value serves all workers.
#[derive(Debug)]
pub struct Mailer {
    templates: Templates,
    composer: Composer,
    pool: Arc<Pool>,
}

/// One mail to one recipient.
#[derive(Clone, Debug)]
pub struct Mail<'a> {
    /// The recipient's name; control characters become spaces.
    pub to_name: &'a str,
    /// The recipient's address.
    pub to_address: &'a str,
    /// What makes this mail this mail, e.g. `run 12 user u-1 purpose statement`: the same key, the same Message-ID.
    pub message_key: &'a str,
    /// The Date header.
    pub now: Timestamp,
    /// What the templates may name, made from [`Context`](crate::function::statement::template::Context).
    pub context: Value,
    /// The PDF.
    pub attachment: &'a [u8],
    /// The dialogue must begin within this time; until then the mail waits for a free connection.
    pub begin_within: Duration,
}

impl Mailer {
    /// Checks mailboxes, relay and templates; opens no connection. The clock tells how long sessions were parked.
    ///
    /// # Errors
    /// [`Error`] names the setting that cannot work.
    pub fn new(options: &MailOptions, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        Self::with_tls(options, clock, tls::client_config)
    }

    /// The same with TLS settings of the caller's.
    pub(super) fn with_tls(
        options: &MailOptions,
        clock: Arc<dyn Clock>,
        tls: impl FnOnce() -> Result<rustls::ClientConfig, Error>,
    ) -> Result<Self, Error> {
        Ok(Self {
            templates: Templates::new(options)?,
            composer: Composer::new(options)?,
            pool: Pool::new(Relay::new(options.relay.clone(), tls)?, clock),
        })
    }

    /// What is wrong with the words and the senders.
    pub fn faults(options: &MailOptions) -> Vec<Error> {
        Templates::faults(options).into_iter().chain(Composer::faults(options)).collect()
    }

    /// A dialogue that has begun ends within this time, whatever the relay does.
    pub fn dialogue_max(&self) -> Duration {
        self.pool.dialogue_max()
    }

    /// The Message-ID that a mail with this key has.
    pub fn message_id(&self, message_key: &str) -> String {
        self.composer.message_id(message_key)
    }

    /// Sends one mail and returns the relay's reply and the Message-ID. Waits for a free connection; dropping the
    /// future while it waits sends nothing, dropping it later does not stop the dialogue.
    ///
    /// # Errors
    /// [`SendFault`]; all but `Unknown` mean that the relay has not accepted the mail.
    pub async fn send(&self, mail: &Mail<'_>) -> Result<Receipt, SendFault> {
        let words = self.templates.render(&mail.context).map_err(SendFault::Permanent)?;
        let (letter, message_id) = self.composer.compose(mail, words).map_err(SendFault::Permanent)?;
        let reply = self.pool.send(letter, mail.begin_within).await?;
        Ok(Receipt { reply: Some(reply), message_id: Some(message_id), document_sha256: None })
    }
}

#[cfg(test)]
#[path = "mailer_tests.rs"]
mod tests;
