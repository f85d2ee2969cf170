//! AWS's SDK for Rust leads queues through their life. Usage: sqs-client ENDPOINT. A failed check ends it with a panic.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_sqs::error::ProvideErrorMetadata;
use aws_sdk_sqs::types::{
    DeleteMessageBatchRequestEntry, Message, MessageAttributeValue, MessageSystemAttributeName, QueueAttributeName,
    SendMessageBatchRequestEntry,
};
use aws_smithy_http_client::Builder;

/// The longest wait for something that must come.
const WAIT_MAX: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() {
    let endpoint = std::env::args().nth(1).expect("usage: sqs-client ENDPOINT");
    let config = aws_sdk_sqs::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(Builder::new().build_http())
        .credentials_provider(Credentials::new("any", "any", None, None, "test"))
        .region(Region::new("us-east-1"))
        .endpoint_url(endpoint)
        .build();
    let sqs = Client::from_conf(config);
    messages(&sqs).await;
    batches(&sqs).await;
    long_poll(&sqs).await;
    fifo(&sqs).await;
    dead_letters(&sqs).await;
    errors(&sqs).await;
}

async fn make(sqs: &Client, name: &str, attributes: &[(QueueAttributeName, &str)]) -> String {
    let attributes: HashMap<_, _> =
        attributes.iter().map(|(name, value)| (name.clone(), (*value).to_owned())).collect();
    let made = sqs.create_queue().queue_name(name).set_attributes(Some(attributes)).send().await.unwrap();
    made.queue_url.unwrap()
}

async fn attribute(sqs: &Client, url: &str, name: QueueAttributeName) -> String {
    let found = sqs.get_queue_attributes().queue_url(url).attribute_names(name.clone()).send().await.unwrap();
    found.attributes.unwrap().remove(&name).unwrap()
}

/// The next message; it must come.
async fn receive(sqs: &Client, url: &str) -> Message {
    let request = sqs.receive_message().queue_url(url).wait_time_seconds(20).message_attribute_names("All");
    let found = request.message_system_attribute_names(MessageSystemAttributeName::All).send().await.unwrap();
    found.messages.unwrap_or_default().pop().expect("a message comes")
}

/// The SDK compares the MD5 of bodies and attributes itself.
async fn messages(sqs: &Client) {
    let url = make(sqs, "rust", &[(QueueAttributeName::VisibilityTimeout, "1")]).await;
    let text = "<a>&\r\n\u{1f989}";
    let kind = MessageAttributeValue::builder().data_type("String").string_value("plain").build().unwrap();
    let sent = sqs.send_message().queue_url(&url).message_body(text).message_attributes("Kind", kind.clone());
    let sent = sent.send().await.unwrap();
    let message = receive(sqs, &url).await;
    assert_eq!((message.body(), message.message_id()), (Some(text), sent.message_id()));
    assert_eq!(message.message_attributes.unwrap()["Kind"], kind);
    // Its visibility timeout passes, and it comes again.
    let again = receive(sqs, &url).await;
    assert_eq!(again.attributes.unwrap()[&MessageSystemAttributeName::ApproximateReceiveCount], "2");
    let handle = again.receipt_handle.unwrap();
    let change = sqs.change_message_visibility().queue_url(&url).receipt_handle(&handle).visibility_timeout(600);
    change.send().await.unwrap();
    assert_eq!(attribute(sqs, &url, QueueAttributeName::ApproximateNumberOfMessagesNotVisible).await, "1");
    sqs.delete_message().queue_url(&url).receipt_handle(handle).send().await.unwrap();
    assert_eq!(attribute(sqs, &url, QueueAttributeName::ApproximateNumberOfMessagesNotVisible).await, "0");
}

async fn batches(sqs: &Client) {
    let url = make(sqs, "rust-batches", &[]).await;
    let entry = |number: usize| {
        let delay = if number == 9 { 901 } else { 0 };
        let entry = SendMessageBatchRequestEntry::builder().id(format!("m{number}")).delay_seconds(delay);
        entry.message_body(format!("body {number}")).build().unwrap()
    };
    let sent = sqs.send_message_batch().queue_url(&url).set_entries(Some((0..10).map(entry).collect()));
    let sent = sent.send().await.unwrap();
    assert_eq!(sent.successful().len(), 9);
    let [refused] = sent.failed() else { panic!("{:?}", sent.failed()) };
    assert_eq!((refused.id(), refused.code(), refused.sender_fault()), ("m9", "InvalidParameterValue", true));
    let mut left = 9;
    while left > 0 {
        let found = sqs.receive_message().queue_url(&url).max_number_of_messages(10).send().await.unwrap();
        let found = found.messages.unwrap_or_default();
        assert!(!found.is_empty(), "{left} messages are left");
        left -= found.len();
        let entry = |(number, message): (usize, Message)| {
            let entry = DeleteMessageBatchRequestEntry::builder().id(number.to_string());
            entry.set_receipt_handle(message.receipt_handle).build().unwrap()
        };
        let entries = found.into_iter().enumerate().map(entry).collect();
        let deleted = sqs.delete_message_batch().queue_url(&url).set_entries(Some(entries)).send().await.unwrap();
        assert!(deleted.failed().is_empty(), "{:?}", deleted.failed());
    }
}

async fn long_poll(sqs: &Client) {
    let url = make(sqs, "rust-polls", &[]).await;
    let waiting = tokio::spawn({
        let (sqs, url) = (sqs.clone(), url.clone());
        async move { receive(&sqs, &url).await }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    let began = Instant::now();
    sqs.send_message().queue_url(&url).message_body("woken").send().await.unwrap();
    assert_eq!(waiting.await.unwrap().body(), Some("woken"));
    assert!(began.elapsed() < Duration::from_secs(10), "a send wakes a long poll: {:?}", began.elapsed());
}

async fn fifo(sqs: &Client) {
    let attributes = [(QueueAttributeName::FifoQueue, "true"), (QueueAttributeName::ContentBasedDeduplication, "true")];
    let url = make(sqs, "rust.fifo", &attributes).await;
    let mut ids = Vec::new();
    for text in ["first", "second", "second"] {
        let sent = sqs.send_message().queue_url(&url).message_body(text).message_group_id("g").send().await.unwrap();
        assert_eq!(sent.sequence_number().map(str::len), Some(20));
        ids.push(sent.message_id.unwrap());
    }
    assert_eq!(ids[1], ids[2], "the third is a duplicate of the second");
    for (text, id) in ["first", "second"].into_iter().zip(&ids) {
        let message = receive(sqs, &url).await;
        assert_eq!((message.body(), message.message_id()), (Some(text), Some(id.as_str())));
        let handle = message.receipt_handle.unwrap();
        sqs.delete_message().queue_url(&url).receipt_handle(handle).send().await.unwrap();
    }
}

/// A message that fails dies, and a move task brings it back.
async fn dead_letters(sqs: &Client) {
    let dead = make(sqs, "rust-dead", &[]).await;
    let arn = attribute(sqs, &dead, QueueAttributeName::QueueArn).await;
    let policy = format!(r#"{{"deadLetterTargetArn":"{arn}","maxReceiveCount":1}}"#);
    let attributes = [(QueueAttributeName::RedrivePolicy, &*policy), (QueueAttributeName::VisibilityTimeout, "0")];
    let url = make(sqs, "rust-source", &attributes).await;
    sqs.send_message().queue_url(&url).message_body("fails").send().await.unwrap();
    receive(sqs, &url).await;
    let none = sqs.receive_message().queue_url(&url).send().await.unwrap();
    assert!(none.messages.is_none(), "{none:?}");
    assert_eq!(attribute(sqs, &dead, QueueAttributeName::ApproximateNumberOfMessages).await, "1");
    let sources = sqs.list_dead_letter_source_queues().queue_url(&dead).into_paginator().items().send();
    assert_eq!(sources.try_collect().await.unwrap(), std::slice::from_ref(&url));
    sqs.start_message_move_task().source_arn(&arn).send().await.unwrap();
    let began = Instant::now();
    loop {
        let tasks = sqs.list_message_move_tasks().source_arn(&arn).send().await.unwrap();
        let task = &tasks.results()[0];
        if task.status() == Some("COMPLETED") {
            assert_eq!(task.approximate_number_of_messages_moved(), 1);
            break;
        }
        assert!(began.elapsed() < WAIT_MAX, "{task:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(receive(sqs, &url).await.body(), Some("fails"));
}

/// Errors have their types in the SDK, and their codes.
async fn errors(sqs: &Client) {
    let refused = sqs.get_queue_url().queue_name("rust-none").send().await.unwrap_err().into_service_error();
    assert!(refused.is_queue_does_not_exist(), "{refused:?}");
    let url = make(sqs, "rust-errors", &[]).await;
    let refused = sqs.delete_message().queue_url(&url).receipt_handle("nonsense").send().await.unwrap_err();
    assert!(refused.into_service_error().is_receipt_handle_is_invalid());
    let refused = sqs.send_message().queue_url(&url).message_body("\u{0}").send().await.unwrap_err();
    assert!(refused.into_service_error().is_invalid_message_contents());
    let refused = sqs.receive_message().queue_url(&url).wait_time_seconds(21).send().await.unwrap_err();
    assert_eq!(refused.code(), Some("InvalidParameterValue"));
    sqs.purge_queue().queue_url(&url).send().await.unwrap();
    let refused = sqs.purge_queue().queue_url(&url).send().await.unwrap_err().into_service_error();
    assert!(refused.is_purge_queue_in_progress(), "{refused:?}");
    sqs.delete_queue().queue_url(&url).send().await.unwrap();
    let refused = sqs.create_queue().queue_name("rust-errors").send().await.unwrap_err().into_service_error();
    assert!(refused.is_queue_deleted_recently(), "{refused:?}");
}
