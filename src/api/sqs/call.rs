//! One call: who makes it, by which address, on which queue.

use std::future::Future;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::queue::{self, Queues, ReceiptHandle};
use crate::store::record::QueueRecord;

use super::access::Caller;
use super::error::{Code, Error};
use super::receipt::Receipts;
use super::{Options, Service, address, socket};

/// One call.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub(super) service: &'a Service,
    /// The action's name.
    pub(super) action: &'a str,
    pub(super) caller: Caller<'a>,
    /// What the URLs of its answer begin with.
    pub(super) base: String,
    /// The path that it was sent to, which names the queue when the parameters do not.
    pub(super) path: String,
    /// Its connection, which a long poll watches.
    pub(super) connection: Arc<TcpStream>,
    /// Cancelled when the daemon ends, and long polls with it.
    pub(super) shutdown: CancellationToken,
}

/// An action of the API: its parameters, and how it answers.
pub(super) trait Operation: DeserializeOwned {
    /// The parameters of its answer.
    type Answer: Serialize;

    /// Executes it.
    fn run(self, call: &Call<'_>) -> impl Future<Output = Result<Self::Answer, Error>> + Send;
}

/// The answer of an action that returns nothing.
#[derive(Debug, Serialize)]
pub(super) struct Nothing {}

impl Call<'_> {
    pub(super) fn queues(&self) -> &Queues {
        self.service.queues()
    }

    pub(super) fn options(&self) -> &Options {
        self.service.options()
    }

    pub(super) fn receipts(&self) -> &Receipts {
        self.service.receipts()
    }

    /// Returns once the client is gone, or the daemon ends.
    pub(super) async fn over(&self) {
        tokio::select! {
            () = socket::closed(&self.connection) => {}
            () = self.shutdown.cancelled() => {}
        }
    }

    /// Whether the client is gone.
    pub(super) fn is_gone(&self) -> bool {
        socket::is_closed(&self.connection)
    }

    /// The URL of a queue, as this client reaches it.
    pub(super) fn url(&self, name: &str) -> String {
        format!("{}/{}/{name}", self.base, self.options().account)
    }

    pub(super) fn arn(&self, name: &str) -> String {
        address::arn(name, self.options())
    }

    /// The name of the queue that the parameter `QueueUrl` or the path names.
    pub(super) fn name(&self, url: Option<&String>) -> Result<String, Error> {
        let url = match url {
            Some(url) => url.as_str(),
            None if self.path.len() > 1 => &self.path,
            None => return Err(Error::missing("QueueUrl")),
        };
        let name = address::name_in_url(url, self.options())?;
        self.check(name)?;
        Ok(name.to_owned())
    }

    /// Refuses a queue that the caller's key is not good for.
    pub(super) fn check(&self, queue: &str) -> Result<(), Error> {
        self.caller.check_queue(self.action, queue, self.options())
    }

    /// The queue that they name.
    pub(super) fn queue(&self, url: Option<&String>) -> Result<QueueRecord, Error> {
        Ok(self.queues().queue(&self.name(url)?)?)
    }

    /// The queue of an ARN.
    pub(super) fn queue_of_arn(&self, parameter: &str, arn: &str) -> Result<QueueRecord, Error> {
        if arn.split(':').count() < 6 {
            let form = "arn:<partition>:<service>:<region>:<account-id>:<resource-id>";
            return Err(Error::invalid(format!("You must use this format to specify the {parameter}: {form}")));
        }
        let name = address::name_in_arn(arn, self.options());
        name.map(|name| self.check(name)).transpose()?;
        name.and_then(|name| self.queues().queue(name).ok()).ok_or_else(|| {
            let text = format!("The resource that you specified for the {parameter} parameter doesn't exist.");
            Error::new(Code::ResourceNotFound, text)
        })
    }

    /// Refuses what would change a queue of the configuration.
    pub(super) fn check_not_configured(&self, name: &str, what: &str) -> Result<(), Error> {
        if !self.options().configured.contains(name) {
            return Ok(());
        }
        let text =
            format!("The queue {name} is of Nightmail's configuration and cannot be {what} here; change config.toml.");
        Err(Error::new(Code::UnsupportedOperation, text))
    }

    /// Who is told as SenderId of what this caller sends.
    pub(super) fn sender(&self) -> &str {
        self.caller.sender(self.options())
    }

    /// The refusal of a handle, with its text as the client gave it.
    pub(super) fn with_handle(&self, error: queue::Error, text: Option<&String>) -> Error {
        let reason = match error {
            queue::Error::HandleExpired(_) => "The receipt handle has expired.",
            queue::Error::NotThere(_) => "Message does not exist or is not available for visibility timeout change.",
            other => return other.into(),
        };
        let text = text.map(String::as_str).unwrap_or_default();
        Error::value("ReceiptHandle", address::shown(text), reason)
    }

    /// The handle of a message of that queue.
    pub(super) fn handle(&self, queue: &QueueRecord, text: Option<&String>) -> Result<ReceiptHandle, Error> {
        let text = text.filter(|text| !text.is_empty()).ok_or_else(|| Error::missing("ReceiptHandle"))?;
        let handle = match self.receipts().open(text) {
            Some(handle) if self.queues().is_of(handle, queue.id)? => Some(handle),
            _ => None,
        };
        handle.ok_or_else(|| {
            let text = format!("The input receipt handle \"{}\" is not a valid receipt handle.", address::shown(text));
            Error::new(Code::ReceiptHandleIsInvalid, text)
        })
    }
}
