//! `nightmail import sqs`: brings the messages of a queue of another SQS endpoint into one of ours.
//!
//! A message is deleted there once it is on disk here. One that was imported and not deleted, because something broke off,
//! is known by its id when it comes again, and is only deleted.

mod source;

use std::time::Duration;

use clap::{Args, Subcommand};
use futures_util::future::try_join_all;
use serde::Serialize;
use url::Url;

use crate::api::control::import::{ImportEnd, Imported};
use crate::api::control::request::FailureKind;
use crate::api::control::{Answer, Client, Failure, Request};
use crate::base::units;

use super::ask::strange;
use super::context::Context;
use super::output::note;
use source::{Found, Source, SourceQueue};

/// So many receives of the source are under way at once.
const CONNECTIONS: usize = 4;
/// A request to the daemon carries texts of at most this size together, or one message.
const PORTION_BYTES_MAX: usize = 1 << 20;
/// The queue counts as empty after so many receives in a row that find nothing.
const EMPTY_RECEIVES: u32 = 2;
/// The limits of `--wait`: SQS's.
const WAIT_MAX: Duration = Duration::from_secs(20);

/// `nightmail import …`
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Drain a queue of any SQS endpoint into one of ours; what breaks off is simply started again
    #[command(after_help = AFTER_HELP)]
    Sqs(Sqs),
}

const AFTER_HELP: &str = "\
The keys of the source are read from AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN. Texts, attributes, \
groups, sent times and receive counts are kept; message ids and receipt handles are new. A message is deleted at the source \
once it is on disk here. The queue counts as empty when two receives in a row find nothing: messages that others hold there, \
or that are delayed, come with the next import.";

/// `nightmail import sqs`
#[derive(Debug, Args)]
pub(super) struct Sqs {
    /// The source queue's URL
    #[arg(value_name = "QUEUE_URL")]
    from: Url,
    /// The queue here; it must exist
    #[arg(long, value_name = "QUEUE")]
    to: String,
    /// The source's region [default: what its URL says, else $AWS_REGION, $AWS_DEFAULT_REGION, us-east-1]
    #[arg(long)]
    region: Option<String>,
    /// How long a receive waits for messages at the source, at most 20s
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = parse_wait)]
    wait: Duration,
    /// Leave the messages at the source too; they are visible there again after five minutes
    #[arg(long)]
    keep: bool,
}

fn parse_wait(text: &str) -> Result<Duration, String> {
    let wait = units::duration(text).map_err(|error| error.to_string())?;
    if wait > WAIT_MAX || wait.subsec_nanos() != 0 {
        return Err(format!("must be whole seconds, 0s to {} (got {text:?})", units::show_duration(WAIT_MAX)));
    }
    Ok(wait)
}

/// What an import came to.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Done {
    /// Messages that are new here.
    imported: u64,
    /// Messages that an earlier import had brought.
    known: u64,
}

pub(super) async fn run(context: &Context, Command::Sqs(what): Command) -> anyhow::Result<()> {
    let settings = context.settings_without_secrets()?;
    let queue = SourceQueue::new(&what.from, what.region.as_deref(), &context.environment)?;
    let import = Import { client: context.client(&settings), source: Source::new(queue)?, what };
    let parts = try_join_all((0..CONNECTIONS).map(|_| import.drain())).await?;
    let done = parts.into_iter().fold(Done::default(), |sum, part| Done {
        imported: sum.imported + part.imported,
        known: sum.known + part.known,
    });
    context.output.show(&done, |done| {
        let known = match done.known {
            0 => String::new(),
            known => format!("; {} had come before", units::count(known, "message")),
        };
        format!("{} imported into {}{known}", units::count(done.imported, "message"), import.what.to)
    })
}

/// An import under way.
struct Import {
    client: Client,
    source: Source,
    what: Sqs,
}

impl Import {
    /// Imports until the source is empty.
    async fn drain(&self) -> anyhow::Result<Done> {
        let (mut done, mut empty) = (Done::default(), 0);
        while empty < EMPTY_RECEIVES {
            let found = self.source.receive(self.what.wait).await?;
            if found.is_empty() {
                empty += 1;
                continue;
            }
            empty = 0;
            for portion in portions(found) {
                self.bring(portion, &mut done).await?;
            }
        }
        Ok(done)
    }

    /// Sends messages here, then deletes them there. Those that were taken are deleted also when others are refused.
    async fn bring(&self, portion: Vec<Found>, done: &mut Done) -> anyhow::Result<()> {
        let (messages, handles): (Vec<Imported>, Vec<String>) =
            portion.into_iter().map(|found| (found.message, found.receipt_handle)).unzip();
        let ids: Vec<String> = messages.iter().map(|message| message.message_id.clone()).collect();
        let request = Request::Import { queue: self.what.to.clone(), source: self.what.from.to_string(), messages };
        let ends = match self.client.ask(&request).await? {
            Answer::Imported(ends) => ends,
            other => return Err(strange(&other)),
        };
        let (mut taken, mut refused) = (Vec::new(), None);
        for ((end, handle), id) in ends.into_iter().zip(handles).zip(ids) {
            match end {
                ImportEnd::New => done.imported += 1,
                ImportEnd::Known => done.known += 1,
                ImportEnd::Refused(why) => {
                    refused = Some(format!("message {id} of {}: {why}; it stays there", self.what.from));
                    continue;
                }
            }
            taken.push(handle);
        }
        if !self.what.keep {
            let left = self.source.delete(taken).await?;
            if left > 0 {
                note(format_args!("{} imported and still at the source", units::count(left as u64, "message")));
            }
        }
        refused.map_or(Ok(()), |text| Err(Failure { kind: FailureKind::Request, text }.into()))
    }
}

/// The messages in portions that one request carries.
fn portions(found: Vec<Found>) -> Vec<Vec<Found>> {
    let (mut portions, mut bytes): (Vec<Vec<Found>>, usize) = (Vec::new(), 0);
    for one in found {
        let size = one.bytes();
        match portions.last_mut().filter(|_| bytes + size <= PORTION_BYTES_MAX) {
            Some(portion) => portion.push(one),
            None => {
                bytes = 0;
                portions.push(vec![one]);
            }
        }
        bytes += size;
    }
    portions
}
