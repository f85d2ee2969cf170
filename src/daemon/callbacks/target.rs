//! The targets of one schedule's notifications, and its heartbeat.

use std::sync::Arc;

use url::Url;

use crate::base::{Clock, Destination};
use crate::config::CallbackOptions;
use crate::function::{Error, upstream};
use crate::queue::{self, Queues, Send, admission, catalog, send};
use crate::run::notifications::{self, Told};
use crate::store::record::{NotificationKind, NotificationRecord};
use crate::store::{self, Tx};

use super::command;

/// The names of targets, as the records of notifications have them.
pub(super) const QUEUE: &str = "queue";
const URL: &str = "url";
const COMMAND: &str = "command";

/// Who is told about the runs of one schedule.
pub(super) struct Targets {
    pub(super) kinds: Vec<NotificationKind>,
    pub(super) attempts_max: u32,
    queue: Option<String>,
    post: Option<(Url, upstream::Client)>,
    command: Option<command::Command>,
}

impl Targets {
    pub(super) fn new(options: &CallbackOptions, clock: &Arc<dyn Clock>) -> Result<Self, Error> {
        let post = options.post.as_ref().map(|(url, options)| client(url, options, clock)).transpose()?;
        let command = (!options.command.is_empty())
            .then(|| command::Command { words: options.command.clone(), limit: options.timeout });
        Ok(Self {
            kinds: options.kinds.clone(),
            attempts_max: options.attempts_max,
            queue: options.queue.clone(),
            post,
            command,
        })
    }

    pub(super) fn names(&self) -> Vec<String> {
        let names = [(QUEUE, self.queue.is_some()), (URL, self.post.is_some()), (COMMAND, self.command.is_some())];
        names.into_iter().filter(|(_, is_set)| *is_set).map(|(name, _)| name.to_owned()).collect()
    }

    /// Tells a target once. Says why when it cannot.
    pub(super) async fn tell(&self, target: &str, notification: &NotificationRecord) -> Result<(), String> {
        match (target, &self.post, &self.command) {
            (URL, Some((url, client)), _) => {
                let id = notification.id.to_string();
                let posted = client.post(url, "notify", notification.body.clone(), &id).await;
                // The text may hold the address, whose path is a secret with many services.
                posted.map_err(|fault| fault.failure().class())
            }
            (COMMAND, _, Some(command)) => command.run(notification).await,
            _ => Ok(()),
        }
    }

    /// Sends the notification as a message, in the commit that records that it was sent.
    pub(super) async fn send(
        &self,
        queues: &Queues,
        key: u64,
        notification: &NotificationRecord,
    ) -> Result<(), store::Error> {
        let (name, body, now) = (self.queue.clone().unwrap_or_default(), notification.body.clone(), queues.now());
        let step = move |tx: &mut Tx<'_>| {
            let queue = catalog::find(tx, &name)?;
            let message = admission::admit(tx, &queue, Send::text(body.into_bytes()), now)?;
            send::send(tx, message, now)?;
            Ok::<_, queue::Error>(notifications::record_try(tx, key, QUEUE, Told::Yes, now.wall)?)
        };
        match queues.store().write(step).await {
            Ok(_) => Ok(()),
            Err(queue::Error::Store(error)) => Err(error),
            Err(refused) => {
                let told = Told::No { attempts_max: self.attempts_max };
                super::record_try(queues, key, (notification, QUEUE), (told, &refused.to_string())).await
            }
        }
    }
}

/// What a dead man's switch waits for.
pub(super) struct Heartbeat {
    url: Url,
    client: upstream::Client,
}

impl Heartbeat {
    pub(super) fn new(options: &CallbackOptions, clock: &Arc<dyn Clock>) -> Result<Option<Self>, Error> {
        let built = options.heartbeat.as_ref().map(|(url, options)| client(url, options, clock)).transpose()?;
        Ok(built.map(|(url, client)| Self { url, client }))
    }

    /// Calls it once, in a task of its own: nothing waits for it, and a failure is logged alone.
    pub(super) fn beat(self: Arc<Self>, schedule: String) {
        tokio::spawn(async move {
            if let Err(fault) = self.client.get(&self.url, "heartbeat", &mut Vec::new()).await {
                let why = fault.failure().class();
                tracing::warn!(%schedule, "the heartbeat was not taken: {why} (see schedules.{schedule}.heartbeat)");
            }
        });
    }
}

fn client(url: &str, options: &upstream::Options, clock: &Arc<dyn Clock>) -> Result<(Url, upstream::Client), Error> {
    let url = Url::parse(url).map_err(|error| Error::Url { template: url.to_owned(), why: error.to_string() })?;
    let destination = Destination::new("callback", url.host_str().unwrap_or_default());
    Ok((url, upstream::Client::new(options, destination, Arc::clone(clock))?))
}
