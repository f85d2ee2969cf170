//! `nightmail import sqs`, from the endpoint of another daemon, which looks at its signatures.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use nightmail::base::{ManualClock, SystemClock};
use nightmail::queue::{Queues, Receive, Received, Send};
use nightmail::store::record::{Attribute, AttributeValue};
use serde_json::json;

use super::Endpoint;
use crate::harness::{Harness, Inner, messages};
use crate::process::Said;

const SECRET: &str = "the source's secret/+";

/// Where messages come from and where they go to; both have a queue of the same name.
struct World {
    queue: &'static str,
    source: Endpoint,
    source_clock: Arc<ManualClock>,
    target: Inner,
    /// The target's.
    harness: Harness,
}

impl World {
    /// `more` are further keys of the target's queue.
    async fn with(queue: &'static str, more: &str) -> Self {
        let section = format!("[queues.\"{queue}\"]\n");
        let mut source = Harness::with_users(0).await;
        source.add_sections(&format!(
            "{section}[api.sqs.keys.import]\nid = \"AKIAIMPORT\"\nsecret = {{ env = \"SOURCE_SECRET\" }}\n"
        ));
        source.set_variable("SOURCE_SECRET", SECRET);
        let mut harness = Harness::with_users(0).await;
        harness.add_sections(&format!("{section}{more}\n"));
        let source_clock = ManualClock::new(SystemClock::shared().now().wall);
        Self {
            queue,
            source: Endpoint::by(source, source_clock.clone()).await,
            source_clock,
            target: harness.daemon().await,
            harness,
        }
    }

    fn source(&self) -> &Queues {
        &self.source.daemon.queues
    }

    async fn import(&self, words: &[&str]) -> Said {
        let url = format!("{}/000000000000/{}", self.source.url(), self.queue);
        let mut command = Command::new(env!("CARGO_BIN_EXE_nightmail"));
        command.args(["import", "sqs", &url, "--to", self.queue, "--wait", "0s"]).args(words);
        command.env("NIGHTMAIL__CONTROL__SOCKET", self.harness.settings().control_socket);
        command.env("AWS_ACCESS_KEY_ID", "AKIAIMPORT").env("AWS_SECRET_ACCESS_KEY", SECRET);
        tokio::task::spawn_blocking(move || Said::of(&mut command)).await.unwrap()
    }

    async fn stop(self) {
        self.target.stop().await;
        self.source.daemon.stop().await;
    }
}

async fn receive(queues: &Queues, queue: &str) -> Vec<Received> {
    queues.poll(queue, Receive::for_client(10), Duration::ZERO).await.unwrap().begin()
}

fn text(message: &Received) -> &str {
    std::str::from_utf8(&message.body).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_is_drained_with_what_sqs_tells_of_each_message() {
    let world = World::with("orders", "").await;
    let attribute = |data_type: &str, value| Attribute { data_type: data_type.into(), value };
    let rich = Send {
        attributes: [
            ("colour".to_owned(), attribute("String", AttributeValue::Text("red".into()))),
            ("key".to_owned(), attribute("Binary.raw", AttributeValue::Binary(vec![0, 255]))),
        ]
        .into(),
        trace_header: Some("Root=1-5759e988-bd862e3fe1be46a994272793".into()),
        group: Some("team".into()),
        ..Send::text("rich")
    };
    world.source().send("orders", rich.clone()).await.unwrap();
    let before = receive(world.source(), "orders").await.remove(0);
    world.source().change_visibility(before.handle, Duration::ZERO).await.unwrap();
    let many = (0..25).map(|n| Send::text(format!("plain {n}"))).collect();
    world.source().send_all("orders", many).await.unwrap();

    assert_eq!(world.import(&["--json"]).await.json(), json!({"imported": 26, "known": 0}));
    assert_eq!(messages(world.source(), "orders"), [], "they are deleted at the source");
    let mut found = Vec::new();
    for _ in 0..3 {
        found.extend(receive(&world.target.queues, "orders").await);
    }
    let mut texts: Vec<&str> = found.iter().map(text).collect();
    texts.sort_unstable();
    texts.dedup();
    assert_eq!(texts.len(), 26, "{texts:?}");
    let found = found.iter().find(|message| text(message) == "rich").expect("it came along");
    let envelope = &found.envelope;
    assert_eq!((&envelope.attributes, &envelope.group), (&rich.attributes, &rich.group));
    assert_eq!(envelope.trace_header, rich.trace_header);
    assert_eq!((found.sent_at, found.first_received_at), (before.sent_at, before.first_received_at));
    assert_eq!(found.receive_count, before.receive_count + 1, "the receive of the import does not count");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_import_that_broke_off_had_brought_does_not_come_twice() {
    for queue in ["orders", "orders.fifo"] {
        let world = World::with(queue, "").await;
        let group = queue.ends_with(".fifo").then(|| "team".to_owned());
        let order = |n: u32| Send {
            group: group.clone(),
            deduplication_id: group.as_ref().map(|_| n.to_string()),
            ..Send::text(format!("order {n}"))
        };
        world.source().send_all(queue, (0..12).map(order).collect()).await.unwrap();
        // As if it were killed before each delete. A FIFO queue gives no more of the group until then.
        let brought = if group.is_some() { 10 } else { 12 };
        let kept = world.import(&["--keep", "--json"]).await.json();
        assert_eq!(kept, json!({"imported": brought, "known": 0}), "{queue}");
        world.source_clock.advance(Duration::from_secs(301));
        let again = world.import(&["--json"]).await.json();
        assert_eq!(again, json!({"imported": 12 - brought, "known": brought}), "{queue}");
        let texts: Vec<String> = messages(&world.target.queues, queue).into_iter().map(|found| found.body).collect();
        let mut expected: Vec<String> = (0..12).map(|n| format!("order {n}")).collect();
        if group.is_none() {
            expected.sort();
        }
        let mut sorted = texts.clone();
        sorted.sort();
        assert_eq!(if group.is_some() { texts } else { sorted }, expected, "{queue}");
        assert_eq!(messages(world.source(), queue), []);
        world.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_here_stays_there_and_is_named() {
    let world = World::with("orders", "message_max = \"1KiB\"").await;
    world.source().send("orders", Send::text("x".repeat(2000))).await.unwrap();
    let said = world.import(&[]).await;
    assert_eq!((said.code, said.out.as_str()), (1, ""), "{said:?}");
    assert!(said.err.contains("1024") && said.err.contains("it stays there"), "{said:?}");
    assert_eq!(messages(world.source(), "orders").len(), 1);
    world.source_clock.advance(Duration::from_secs(301));

    let mut command = Command::new(env!("CARGO_BIN_EXE_nightmail"));
    command.args(["import", "sqs", &format!("{}/000000000000/orders", world.source.url()), "--to", "orders"]);
    command.env("NIGHTMAIL__CONTROL__SOCKET", world.harness.settings().control_socket);
    command.env("AWS_ACCESS_KEY_ID", "AKIAIMPORT").env("AWS_SECRET_ACCESS_KEY", "another");
    let said = tokio::task::spawn_blocking(move || Said::of(&mut command)).await.unwrap();
    assert!(said.err.contains("InvalidSignatureException"), "{said:?}");
    assert_eq!(messages(&world.target.queues, "orders"), []);
    world.stop().await;
}
