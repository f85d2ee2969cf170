//! What goes over the wire: both protocols to the letter, odd requests, clients that go away.

use std::net::SocketAddr;
use std::time::Duration;

use nightmail::api::control::{Answer, Request};
use nightmail::queue::stats::Stats;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Endpoint;
use crate::harness::{Harness, Operator};

/// Sends the bytes of one request, ends the client's side, and reads the answer to its end: an answer comes to a client
/// that has no more to say, too.
async fn exchange(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8(answer).unwrap()
}

pub(super) fn json(action: &str, body: &str) -> String {
    format!(
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-amz-json-1.0\r\n\
         X-Amz-Target: AmazonSQS.{action}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn form(path: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// What a browser asks for when a page has an image with such an address.
fn from_page(header: &str) -> String {
    format!(
        "GET /?Action=DeleteQueue&QueueUrl=/000000000000/orders HTTP/1.1\r\nHost: 127.0.0.1:9324\r\n{header}\r\n\r\n"
    )
}

/// The lines of an answer without those that change from one to the next.
fn stable(answer: &str) -> String {
    let id = answer.split("x-amzn-requestid: ").nth(1).and_then(|rest| rest.split("\r\n").next()).unwrap_or("none");
    let is_stable = |line: &&str| !line.starts_with("date:");
    let lines: Vec<&str> = answer.split("\r\n").filter(is_stable).collect();
    lines.join("\n").replace(id, "<id>")
}

async fn make(endpoint: &Endpoint, queue: &str) {
    let answer = exchange(endpoint.address, &json("CreateQueue", &format!(r#"{{"QueueName":"{queue}"}}"#))).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

async fn stats(endpoint: &Endpoint, queue: &str) -> Stats {
    endpoint.daemon.operator.queue(queue).await
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_and_refusals_have_the_form_of_their_protocol() {
    let endpoint = Endpoint::start().await;
    let refused = exchange(endpoint.address, &json("GetQueueUrl", r#"{"QueueName":"none"}"#)).await;
    insta::assert_snapshot!(stable(&refused), @r#"
    HTTP/1.1 400 Bad Request
    content-type: application/x-amz-json-1.0
    x-amzn-requestid: <id>
    x-amzn-query-error: AWS.SimpleQueueService.NonExistentQueue;Sender
    content-length: 96

    {"__type":"com.amazonaws.sqs#QueueDoesNotExist","message":"The specified queue does not exist."}
    "#);
    let refused = exchange(endpoint.address, &form("/", "Action=GetQueueUrl&QueueName=none&Version=2012-11-05")).await;
    insta::assert_snapshot!(stable(&refused), @r#"
    HTTP/1.1 400 Bad Request
    content-type: text/xml
    x-amzn-requestid: <id>
    content-length: 333

    <?xml version="1.0"?><ErrorResponse xmlns="http://queue.amazonaws.com/doc/2012-11-05/"><Error><Type>Sender</Type><Code>AWS.SimpleQueueService.NonExistentQueue</Code><Message>The specified queue does not exist for this wsdl version.</Message><Detail/></Error><RequestId><id></RequestId></ErrorResponse>
    "#);
    make(&endpoint, "wire").await;
    // To the path of the queue, and as a GET.
    let path = "/000000000000/wire";
    let sent = exchange(endpoint.address, &form(path, "Action=SendMessage&MessageBody=a%26b&Version=2012-11-05")).await;
    assert!(sent.contains("<SendMessageResponse xmlns=\"http://queue.amazonaws.com/doc/2012-11-05/\">"), "{sent}");
    let get = format!(
        "GET {path}?Action=ReceiveMessage&AttributeName.1=ApproximateReceiveCount HTTP/1.1\r\nHost: localhost\r\n\r\n"
    );
    let received = exchange(endpoint.address, &get).await;
    assert!(received.contains("<Body>a&amp;b</Body>"), "{received}");
    let count = "<Attribute><Name>ApproximateReceiveCount</Name><Value>1</Value></Attribute>";
    assert!(received.contains(count), "{received}");
    endpoint.daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_calls_more_often_than_is_allowed_is_throttled_with_sqs_code() {
    let mut harness = Harness::with_users(0).await;
    harness.set_key("API__SQS__AUTH", "none");
    harness.set_key("API__SQS__REQUESTS_PER_SECOND", "1");
    let endpoint = Endpoint::of(harness).await;
    let mut answers = Vec::new();
    for _ in 0..20 {
        answers.push(exchange(endpoint.address, &json("ListQueues", "{}")).await);
    }
    let throttled = |answer: &&String| answer.contains("x-amzn-query-error: RequestThrottled;Sender");
    let answered = |answer: &&String| answer.starts_with("HTTP/1.1 200");
    assert!(answers.iter().filter(throttled).count() > 0, "{answers:?}");
    assert!(answers.iter().filter(answered).count() > 0, "{answers:?}");
    endpoint.daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_requests_are_refused_with_a_code() {
    let endpoint = Endpoint::start().await;
    let cases = [
        (json("Nonsense", "{}"), "InvalidAction;Sender"),
        (json("ListQueues", "{"), "MalformedInput;Sender"),
        (json("ListQueues", r#"{"MaxResults":"x"}"#), "MalformedInput;Sender"),
        (json("SendMessage", r#"{"MessageBody":"x"}"#), "MissingParameter;Sender"),
        (json("ListQueues", "{}").replace("AmazonSQS.", "DynamoDB."), "InvalidAction;Sender"),
        (form("/", "Action=Nonsense"), "<Code>InvalidAction</Code>"),
        (form("/", ""), "<Code>MissingParameter</Code>"),
        (form("/", "Action=ListQueues&MaxResults=x"), "<Code>InvalidParameterValue</Code>"),
        (form("/", "Action=ListQueues&a=1&a.b=2"), "<Code>MalformedInput</Code>"),
        ("PUT / HTTP/1.1\r\nHost: localhost\r\n\r\n".into(), "<Code>InvalidAction</Code>"),
        // From web pages: by their origin, or by a name that was made to resolve to this machine.
        (json("ListQueues", "{}").replace("Host", "Origin: https://evil.example\r\nHost"), "AccessDenied;Sender"),
        (json("ListQueues", "{}").replace("Host: localhost", "Host: evil.example"), "AccessDenied;Sender"),
        // An image's address, for which a browser names no origin: by what today's browsers add, and by what all are called.
        (from_page("Sec-Fetch-Site: cross-site"), "<Code>AccessDenied</Code>"),
        (from_page("User-Agent: Mozilla/5.0 (X11; Linux x86_64)"), "<Code>AccessDenied</Code>"),
    ];
    for (request, expected) in cases {
        let answer = exchange(endpoint.address, &request).await;
        assert!(answer.starts_with("HTTP/1.1 4") && answer.contains(expected), "{request}\n{answer}");
    }
    let large = "x".repeat((8 << 20) + 1);
    let answer = exchange(endpoint.address, &json("ListQueues", &large)).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    endpoint.daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_while_it_waits_receives_nothing() {
    let endpoint = Endpoint::start().await;
    make(&endpoint, "gone").await;
    let poll = r#"{"QueueUrl":"/000000000000/gone","WaitTimeSeconds":20}"#;
    for _ in 0..20 {
        let mut stream = TcpStream::connect(endpoint.address).await.unwrap();
        stream.write_all(json("ReceiveMessage", poll).as_bytes()).await.unwrap();
        // Long enough for most of them to wait in the queue's line.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // One that only ends its side gets its answer at once, without a message.
    let answer = exchange(endpoint.address, &json("ReceiveMessage", poll)).await;
    assert!(answer.ends_with("\r\n\r\n{}"), "{answer}");
    let sent =
        exchange(endpoint.address, &json("SendMessage", r#"{"QueueUrl":"/000000000000/gone","MessageBody":"kept"}"#))
            .await;
    assert!(sent.starts_with("HTTP/1.1 200"), "{sent}");
    let stats = stats(&endpoint, "gone").await;
    assert_eq!((stats.ready, stats.in_flight), (1, 0));
    let now = r#"{"QueueUrl":"/000000000000/gone","AttributeNames":["ApproximateReceiveCount"]}"#;
    let answer = exchange(endpoint.address, &json("ReceiveMessage", now)).await;
    assert!(answer.contains(r#""ApproximateReceiveCount":"1""#), "{answer}");
    endpoint.daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_poll_gets_its_answer_when_the_daemon_stops() {
    let endpoint = Endpoint::start().await;
    make(&endpoint, "waits").await;
    let poll = r#"{"QueueUrl":"/000000000000/waits","WaitTimeSeconds":20}"#;
    let mut stream = TcpStream::connect(endpoint.address).await.unwrap();
    stream.write_all(json("ReceiveMessage", poll).as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    endpoint.daemon.stop().await;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("{}"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn queues_messages_and_receipt_handles_outlive_a_kill() {
    let mut harness = Harness::with_users(0).await;
    harness.set_key("API__SQS__LISTEN", "127.0.0.1:0");
    harness.set_key("API__SQS__AUTH", "none");
    let child = harness.child().await;
    let address = bound(&child.operator).await;
    for (action, body) in [
        ("CreateQueue", r#"{"QueueName":"kept","tags":{"team":"mail"}}"#),
        ("SendMessage", r#"{"QueueUrl":"/000000000000/kept","MessageBody":"kept"}"#),
    ] {
        assert!(exchange(address, &json(action, body)).await.starts_with("HTTP/1.1 200"));
    }
    let receive = json("ReceiveMessage", r#"{"QueueUrl":"/000000000000/kept"}"#);
    let received = exchange(address, &receive).await;
    let handle = received.split(r#""ReceiptHandle":""#).nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    child.kill().await;
    let child = harness.child().await;
    let address = bound(&child.operator).await;
    let tags = exchange(address, &json("ListQueueTags", r#"{"QueueUrl":"/000000000000/kept"}"#)).await;
    assert!(tags.ends_with(r#"{"Tags":{"team":"mail"}}"#), "{tags}");
    let delete = format!(r#"{{"QueueUrl":"/000000000000/kept","ReceiptHandle":"{handle}"}}"#);
    let deleted = exchange(address, &json("DeleteMessage", &delete)).await;
    assert!(deleted.starts_with("HTTP/1.1 200"), "{deleted}");
    assert_eq!(child.operator.queue("kept").await.total(), 0);
    child.kill().await;
}

/// Where a daemon says that it answers SQS clients.
pub(super) async fn bound(operator: &Operator) -> SocketAddr {
    match operator.try_ask(Request::Overview).await.unwrap() {
        Answer::Overview(overview) => {
            let url = overview.sqs.expect("the endpoint is on");
            url.strip_prefix("http://").unwrap().parse().unwrap()
        }
        other => panic!("{other:?}"),
    }
}
