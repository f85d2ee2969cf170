//! Messages of another SQS endpoint on their way into a queue.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::base::Timestamp;
use crate::queue::{self, Queues, Send, Sent, import};
use crate::store::record::Attribute;

/// A message of another SQS endpoint; see [`crate::queue::import::Imported`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Imported {
    /// Its id there.
    pub message_id: String,
    /// The text.
    pub body: String,
    /// Message attributes.
    pub attributes: BTreeMap<String, Attribute>,
    /// The system attribute AWSTraceHeader.
    pub trace_header: Option<String>,
    /// The system attribute SenderId.
    pub sender: Option<String>,
    /// The message group.
    pub group: Option<String>,
    /// When it was sent there.
    pub sent_at: Timestamp,
    /// Its first receive there; zero for none that counts.
    pub first_received_at: Timestamp,
    /// How often it was received there.
    pub receive_count: u32,
}

/// What became of an imported message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImportEnd {
    /// It was sent.
    New,
    /// It had been imported before.
    Known,
    /// It was refused; why.
    Refused(String),
}

/// Sends them to that queue.
pub(super) async fn import(
    queues: &Queues,
    (queue, source): (&str, &str),
    messages: Vec<Imported>,
) -> Result<Vec<ImportEnd>, queue::Error> {
    let messages = messages.into_iter().map(Imported::into_message).collect();
    Ok(queues.import(queue, source, messages).await?.into_iter().map(ImportEnd::of).collect())
}

impl Imported {
    fn into_message(self) -> import::Imported {
        let Self { attributes, trace_header, sender, group, .. } = self;
        import::Imported {
            message_id: self.message_id,
            send: Send { attributes, trace_header, sender, group, ..Send::text(self.body) },
            sent_at: self.sent_at,
            first_received_at: self.first_received_at,
            receive_count: self.receive_count,
        }
    }
}

impl ImportEnd {
    fn of(end: Result<Sent, queue::Error>) -> Self {
        match end {
            Ok(sent) if sent.is_duplicate => Self::Known,
            Ok(_) => Self::New,
            Err(error) => Self::Refused(error.to_string()),
        }
    }
}
