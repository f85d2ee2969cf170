//! Access keys, and what the caller who has one may do.

use secrecy::SecretString;

use super::super::error::{Code, Error};
use super::super::{Options, address};
use super::pattern;

/// A key of the configuration. Several may be valid at once, so that clients can change from one to the next.
#[derive(Clone, Debug)]
pub struct AccessKey {
    /// Its name in the configuration, which messages sent with it have as their SenderId.
    pub name: String,
    /// The access key id.
    pub id: String,
    /// The secret access key.
    pub secret: SecretString,
    /// The queues that it is good for: patterns, in which `*` stands for any text.
    pub queues: Vec<String>,
    /// The actions that it is good for, as patterns too.
    pub actions: Vec<String>,
}

/// Who calls.
#[derive(Clone, Copy, Debug)]
pub(in super::super) enum Caller<'a> {
    /// Nobody in particular: signatures are not looked at.
    Anyone,
    /// Somebody who has proved that key.
    Key(&'a AccessKey),
}

impl Caller<'_> {
    /// What messages that it sends have as their SenderId.
    pub(in super::super) fn sender<'o>(&'o self, options: &'o Options) -> &'o str {
        match self {
            Self::Anyone => &options.account,
            Self::Key(key) => &key.name,
        }
    }

    /// Whether it may use that queue at all.
    pub(in super::super) fn may_use(&self, queue: &str) -> bool {
        match self {
            Self::Anyone => true,
            Self::Key(key) => key.queues.iter().any(|wanted| pattern::fits(wanted, queue)),
        }
    }

    /// Refuses an action that its key is not good for, on whatever queue.
    pub(in super::super) fn check_action(&self, action: &str, options: &Options) -> Result<(), Error> {
        match self {
            Self::Key(key) if !key.actions.iter().any(|wanted| pattern::fits(wanted, action)) => {
                Err(self.denied(action, "*", options))
            }
            _ => Ok(()),
        }
    }

    /// Refuses a queue that its key is not good for.
    pub(in super::super) fn check_queue(&self, action: &str, queue: &str, options: &Options) -> Result<(), Error> {
        match self.may_use(queue) {
            true => Ok(()),
            false => Err(self.denied(action, queue, options)),
        }
    }

    fn denied(&self, action: &str, queue: &str, options: &Options) -> Error {
        let (user, arn) = (self.sender(options), address::arn(&address::shown(queue), options));
        let account = &options.account;
        let text = format!(
            "User: arn:aws:iam::{account}:user/{user} is not authorized to perform: sqs:{} on resource: {arn}",
            action.to_ascii_lowercase()
        );
        Error::new(Code::AccessDenied, text)
    }
}
