//! Attributes of queues: SQS's ranges, and which queue may be whose dead-letter queue.

use std::collections::BTreeMap;
use std::time::Duration;

use nightmail::queue::{Error, Options, RedrivePolicy, Send};
use nightmail::store::record::{Fifo, RedriveAllow, Scope};

use crate::support::{World, forever};

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn to(name: &str, max_receive_count: u32) -> Option<RedrivePolicy> {
    Some(RedrivePolicy { dead_letter_queue: name.into(), max_receive_count })
}

/// AWS, "SetQueueAttributes": the range of each attribute.
#[tokio::test]
async fn an_attribute_out_of_its_range_is_refused_by_name_and_its_bounds_are_taken() {
    let world = World::with_orders().await;
    let allow = |count| RedriveAllow::Only(vec!["x".to_owned(); count]);
    let redrive = |max| Options { redrive: to("dead", max), ..forever() };
    let good = [
        Options { visibility_timeout: seconds(43_200), delay: seconds(900), receive_wait: seconds(20), ..forever() },
        Options { visibility_timeout: seconds(0), retention: Some(seconds(60)), ..forever() },
        Options { retention: Some(seconds(1_209_600)), message_bytes_max: 1024, ..forever() },
        Options { message_bytes_max: 1_048_576, redrive_allow: allow(10), ..forever() },
        redrive(1),
        redrive(1000),
    ];
    for options in good {
        world.queues().ensure("good", &options).await.unwrap();
    }
    let bad = [
        ("VisibilityTimeout", Options { visibility_timeout: seconds(43_201), ..forever() }),
        ("DelaySeconds", Options { delay: seconds(901), ..forever() }),
        ("ReceiveMessageWaitTimeSeconds", Options { receive_wait: seconds(21), ..forever() }),
        ("MessageRetentionPeriod", Options { retention: Some(seconds(59)), ..forever() }),
        ("MessageRetentionPeriod", Options { retention: Some(seconds(1_209_601)), ..forever() }),
        ("MaximumMessageSize", Options { message_bytes_max: 1023, ..forever() }),
        ("MaximumMessageSize", Options { message_bytes_max: 1_048_577, ..forever() }),
        ("maxReceiveCount", redrive(0)),
        ("maxReceiveCount", redrive(1001)),
        ("sourceQueueArns", Options { redrive_allow: allow(11), ..forever() }),
    ];
    for (name, options) in bad {
        let ensured = world.queues().ensure("bad", &options).await;
        assert!(matches!(ensured, Err(Error::OutOfRange { what, .. }) if what == name), "{name}: {ensured:?}");
        assert_eq!(world.queues().create("bad", &options, BTreeMap::new()).await, ensured, "{name}");
    }
}

/// AWS, "High throughput for FIFO queues".
#[tokio::test]
async fn throughput_by_message_group_needs_deduplication_by_message_group() {
    let world = World::new();
    let fifo = |deduplication_scope, throughput_limit| {
        let fifo = Fifo { deduplication_scope, throughput_limit, ..Fifo::default() };
        Options { fifo: Some(fifo), ..forever() }
    };
    let refused = world.queues().ensure("orders.fifo", &fifo(Scope::Queue, Scope::Group)).await;
    assert_eq!(refused, Err(Error::Throughput));
    world.queues().ensure("orders.fifo", &fifo(Scope::Group, Scope::Group)).await.unwrap();
}

/// AWS, "Using dead-letter queues": it exists and is of the kind of its source; own choice: no circles.
#[tokio::test]
async fn a_dead_letter_queue_that_is_missing_the_queue_itself_or_in_a_circle_is_refused() {
    let world = World::new();
    let dying = |name: &str| Options { redrive: to(name, 3), ..forever() };
    let why = |refused: Result<u32, Error>| match refused {
        Err(Error::DeadLetterQueue { why, .. }) => why,
        other => panic!("{other:?}"),
    };
    insta::assert_snapshot!(why(world.queues().ensure("a", &dying("a")).await), @"it is the same queue (name another one)");
    insta::assert_snapshot!(why(world.queues().ensure("a", &dying("b")).await), @"there is no such queue (make it first)");
    world.queues().ensure("c", &forever()).await.unwrap();
    world.queues().ensure("b", &dying("c")).await.unwrap();
    world.queues().ensure("a", &dying("b")).await.unwrap();
    insta::assert_snapshot!(why(world.queues().ensure("c", &dying("a")).await), @"letters would come back in a circle (break it)");
    // The same when a queue is deleted and made again.
    world.queues().delete_queue("c").await.unwrap();
    world.pass(61);
    insta::assert_snapshot!(why(world.queues().ensure("c", &dying("a")).await), @"letters would come back in a circle (break it)");
    let closed = Options { redrive_allow: RedriveAllow::Nobody, ..forever() };
    let refused = world.queues().ensure("c", &closed).await;
    assert_eq!(refused, Err(Error::NotAllowed { from: "b".into(), to: "c".into() }), "b names it already");
    world.queues().ensure("c", &forever()).await.unwrap();
}

/// The configuration names queues in the order of the alphabet.
#[tokio::test]
async fn queues_that_are_made_together_are_made_in_the_order_of_their_chain() {
    let world = World::new();
    let dying = |name: &str| Options { redrive: to(name, 3), ..forever() };
    let queues = [("a", dying("m")), ("m", dying("z")), ("z", forever()), ("b", forever())];
    let queues = queues.map(|(name, options)| (name.to_owned(), options)).into();
    world.queues().ensure_all(&queues).await.unwrap();
    assert_eq!(world.queue("a").attributes.redrive, Some(("m".into(), 3)));
}

/// AWS names no limit for the trace header; own choice.
#[tokio::test]
async fn a_trace_header_and_a_sender_have_1_to_1024_bytes_of_text() {
    let world = World::with_orders().await;
    for (bytes, is_taken) in [(0, false), (1, true), (1024, true), (1025, false)] {
        let traced = Send { trace_header: Some("t".repeat(bytes)), ..Send::text("x") };
        let sent = Send { sender: Some("s".repeat(bytes)), ..Send::text("x") };
        for message in [traced, sent] {
            assert_eq!(world.queues().send("orders", message).await.is_ok(), is_taken, "{bytes}");
        }
    }
    let odd = Send { trace_header: Some("a\u{0}".into()), ..Send::text("x") };
    assert!(matches!(world.queues().send("orders", odd).await, Err(Error::Characters { .. })));
}
