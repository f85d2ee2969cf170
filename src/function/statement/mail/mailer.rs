//! The entry point of this module: sends one mail and returns a delivery proof or a fault.

use std::sync::Arc;
use std::time::Duration;

use super::SendFault;
use super::domains::Inside;
use super::message::{Composer, Mail};
use super::pool::Pool;
use super::relay::Relay;
use crate::base::outcome::DeliveryProof;
use crate::base::{Calls, Clock, Contact, Destination, Failure, Verdict};
use crate::function::statement::template::Templates;
use crate::function::statement::{MailOptions, SuppressOn};
use crate::function::{Error, PaceView, tls};

/// What gives each mail its Message-ID.
#[derive(Debug)]
pub struct MessageIds(Composer);

impl MessageIds {
    /// Checks the mailboxes and the domain.
    ///
    /// # Errors
    /// [`Error`] names the setting that cannot work.
    pub fn new(options: &MailOptions) -> Result<Self, Error> {
        Composer::new(options).map(Self)
    }

    /// The Message-ID of a mail with this key.
    pub fn of_key(&self, message_key: &str) -> String {
        self.0.message_id(message_key)
    }
}

/// The right of an attempt to go on to its mail. It ends when this is dropped.
#[derive(Debug)]
pub struct Admission(#[expect(dead_code, reason = "held for its end")] Option<Inside>);

/// Mails documents through one relay. One value serves all workers.
#[derive(Debug)]
pub struct Mailer {
    templates: Templates,
    composer: Composer,
    pool: Arc<Pool>,
    suppress_on: SuppressOn,
}

impl Mailer {
    /// Checks mailboxes, relay and templates; opens no connection. The clock measures how long sessions are parked.
    ///
    /// # Errors
    /// [`Error`] names the setting that cannot work.
    pub fn new(options: &MailOptions, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        Self::with_tls(options, clock, tls::client_config)
    }

    /// As [`Mailer::new`], with the caller's TLS settings.
    pub(super) fn with_tls(
        options: &MailOptions,
        clock: Arc<dyn Clock>,
        tls: impl FnOnce() -> Result<rustls::ClientConfig, Error>,
    ) -> Result<Self, Error> {
        Ok(Self {
            templates: Templates::new(options)?,
            composer: Composer::new(options)?,
            pool: Pool::new(Relay::new(options.relay.clone(), tls)?, clock),
            suppress_on: options.suppress_on,
        })
    }

    /// All faults of the templates and the sender's mailboxes.
    pub fn faults(options: &MailOptions) -> Vec<Error> {
        Templates::faults(options).into_iter().chain(Composer::faults(options)).collect()
    }

    /// How long the relay has been silent in the dialogue that has waited longest; `None` without a dialogue.
    pub fn longest_silence(&self) -> Option<Duration> {
        self.pool.longest_silence()
    }

    /// Asks, before the work, whether a mail to this address may begin soon, for a message that was received so often. Hold
    /// the admission until the mail has ended.
    ///
    /// # Errors
    /// Its domain has no turn soon: after what time to come again.
    pub fn admit(&self, address: &str, receive_count: u32) -> Result<Admission, Duration> {
        self.pool.admit(address.rsplit('@').next().unwrap_or_default(), receive_count).map(Admission)
    }

    /// The limits that hold now, of the relay and of recipient domains; those that are worth telling.
    pub fn paces(&self) -> Vec<PaceView> {
        self.pool.paces()
    }

    /// How long the dialogues that ended with a mail took.
    pub fn dialogues(&self) -> Calls {
        self.pool.dialogues()
    }

    /// A dialogue that has begun ends within this time, whatever the relay does.
    pub fn dialogue_max(&self) -> Duration {
        self.pool.dialogue_max()
    }

    /// The relay.
    pub fn destination(&self) -> Destination {
        self.pool.destination()
    }

    /// Opens a session up to the login and ends it; says what the relay answered.
    ///
    /// # Errors
    /// What is wrong, and the remedy.
    pub async fn probe(&self) -> Result<String, Failure> {
        self.pool.probe().await
    }

    /// The Message-ID that a mail with this key has.
    pub fn message_id(&self, message_key: &str) -> String {
        self.composer.message_id(message_key)
    }

    /// Sends one mail and returns the relay's reply and the Message-ID. Waits for a free connection; dropping the
    /// future while it waits sends nothing, dropping it later does not stop the dialogue; aborting its effect does, until
    /// the final dot. What the dialogue says about
    /// the relay is added to `contacts`.
    ///
    /// # Errors
    /// [`SendFault`]; all but `Unknown` mean that the relay has not accepted the mail.
    pub async fn send(&self, mail: &Mail<'_>, contacts: &mut Vec<Contact>) -> Result<DeliveryProof, SendFault> {
        let words = self.templates.render(&mail.context).map_err(SendFault::Permanent)?;
        let (mut outgoing, message_id) = self.composer.compose(mail, words).map_err(SendFault::Permanent)?;
        outgoing.intent.quota = self.pool.quota();
        let (result, verdict) = match self.pool.send(outgoing, mail.begin_within, &mail.effect).await {
            Ok(reply) => (Ok(reply), Some(Verdict::Answered)),
            Err(undelivered) => (Err(undelivered.fault), undelivered.verdict.map(|verdict| *verdict)),
        };
        if let Some(verdict) = verdict {
            Contact { destination: self.destination(), verdict }.add_to(contacts);
        }
        if let (Err(SendFault::NoMailbox(why)), SuppressOn::HardBounce) = (&result, self.suppress_on) {
            mail.effects.has_no_mailbox(mail.to_address, why);
        }
        let reply = result?;
        Ok(DeliveryProof { reply: Some(reply), message_id: Some(message_id), document_sha256: None })
    }
}

#[cfg(test)]
#[path = "mailer_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "limits_tests.rs"]
mod limits_tests;
