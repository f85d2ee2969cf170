//! Finds an action by its name, decodes its parameters and encodes its answer.

use bytes::Bytes;
use serde_json::Value;

use super::super::call::{Call, Operation};
use super::super::error::{Code, Error};
use super::super::query::Parameters;
use super::super::{address, json};
use super::{
    add_permission, cancel_message_move_task, change_message_visibility, change_message_visibility_batch, create_queue,
    delete_message, delete_message_batch, delete_queue, get_queue_attributes, get_queue_url,
    list_dead_letter_source_queues, list_message_move_tasks, list_queue_tags, list_queues, purge_queue,
    receive_message, remove_permission, send_message, send_message_batch, set_queue_attributes,
    start_message_move_task, tag_queue, untag_queue,
};

/// The parameters of a request, in its protocol.
#[derive(Debug)]
pub(in super::super) enum Input {
    Json(Bytes),
    Query(Parameters),
}

/// The parameters of an answer, in the request's protocol: the bytes of a body, or what XML is made of.
#[derive(Debug)]
pub(in super::super) enum Output {
    Json(Vec<u8>),
    Query(Value),
}

macro_rules! actions {
    ($($name:literal => $operation:path,)+) => {
        /// Executes the action of that name; returns the name too, as it lives on.
        pub(in super::super) async fn perform(
            name: &str,
            input: Input,
            call: &Call<'_>,
        ) -> Result<(&'static str, Output), Error> {
            match name {
                // Boxed: a long poll, of which there are thousands, then takes no more than itself.
                $($name => Ok(($name, Box::pin(run::<$operation>(input, call)).await?)),)+
                _ => Err(unknown(name)),
            }
        }
    };
}

actions! {
    "AddPermission" => add_permission::Request,
    "CancelMessageMoveTask" => cancel_message_move_task::Request,
    "ChangeMessageVisibility" => change_message_visibility::Request,
    "ChangeMessageVisibilityBatch" => change_message_visibility_batch::Request,
    "CreateQueue" => create_queue::Request,
    "DeleteMessage" => delete_message::Request,
    "DeleteMessageBatch" => delete_message_batch::Request,
    "DeleteQueue" => delete_queue::Request,
    "GetQueueAttributes" => get_queue_attributes::Request,
    "GetQueueUrl" => get_queue_url::Request,
    "ListDeadLetterSourceQueues" => list_dead_letter_source_queues::Request,
    "ListMessageMoveTasks" => list_message_move_tasks::Request,
    "ListQueueTags" => list_queue_tags::Request,
    "ListQueues" => list_queues::Request,
    "PurgeQueue" => purge_queue::Request,
    "ReceiveMessage" => receive_message::Request,
    "RemovePermission" => remove_permission::Request,
    "SendMessage" => send_message::Request,
    "SendMessageBatch" => send_message_batch::Request,
    "SetQueueAttributes" => set_queue_attributes::Request,
    "StartMessageMoveTask" => start_message_move_task::Request,
    "TagQueue" => tag_queue::Request,
    "UntagQueue" => untag_queue::Request,
}

async fn run<O: Operation>(input: Input, call: &Call<'_>) -> Result<Output, Error> {
    match input {
        Input::Json(body) => {
            let operation: O = json::decode(&body)?;
            drop(body);
            Ok(Output::Json(json::encode(&operation.run(call).await?)))
        }
        Input::Query(parameters) => {
            let answer = parameters.decode::<O>()?.run(call).await?;
            Ok(Output::Query(serde_json::to_value(answer).expect("answers have text keys and finite numbers alone")))
        }
    }
}

fn unknown(name: &str) -> Error {
    let text = format!("The action {} is not valid for this endpoint.", address::shown(name));
    Error::new(Code::InvalidAction, text)
}
