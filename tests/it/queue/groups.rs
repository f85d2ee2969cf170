//! Fair queues and priorities.

use nightmail::queue::{Receive, Send};
use nightmail::store::record::Owner;

use crate::support::{World, forever, texts};

async fn world() -> World {
    let world = World::new();
    world.queues().ensure("plain", &forever()).await.unwrap();
    world
}

async fn send(world: &World, group: &str, count: usize) {
    let message = |n| Send { group: Some(group.into()), ..Send::text(format!("{group}{n}")) };
    world.queues().send_all("plain", (0..count).map(message).collect()).await.unwrap();
}

async fn take(world: &World, max: usize) -> Vec<String> {
    let what = Receive { max, visibility: None, owner: Owner::Client };
    let taken = texts(&world.receive("plain", what).await.unwrap().messages);
    world.check();
    taken
}

#[tokio::test]
async fn a_noisy_group_yields_to_quiet_ones() {
    let world = world().await;
    send(&world, "noisy", 100).await;
    assert_eq!(take(&world, 30).await.len(), 30);
    send(&world, "quiet", 3).await;
    assert_eq!(take(&world, 4).await, ["quiet0", "quiet1", "quiet2", "noisy30"], "then the noisy one goes on");
}

#[tokio::test]
async fn a_group_with_less_than_thirty_in_flight_or_a_tenth_of_them_is_not_noisy() {
    let world = world().await;
    send(&world, "a", 60).await;
    assert_eq!(take(&world, 29).await.len(), 29);
    send(&world, "b", 1).await;
    assert_eq!(take(&world, 1).await, ["a29"], "29 are not enough to be noisy");
    let plain = (0..400).map(|n| Send::text(n.to_string())).collect();
    assert_eq!(take(&world, 1).await, ["b0"], "with 30 it yields");
    world.queues().send_all("plain", plain).await.unwrap();
    let mut seen = take(&world, 280).await;
    seen.retain(|text| text.starts_with('a'));
    assert!(seen.is_empty(), "messages without a group go before a noisy one");
    assert_eq!(take(&world, 1).await, ["a30"], "30 of 311 in flight are less than a tenth");
}

#[tokio::test]
async fn lower_priorities_go_first_and_messages_without_one_before_all() {
    let world = world().await;
    for (text, priority) in [("late", 9), ("soon", 1), ("soon too", 1), ("now", 0)] {
        world.queues().send("plain", Send { priority, ..Send::text(text) }).await.unwrap();
    }
    assert_eq!(take(&world, 10).await, ["now", "soon", "soon too", "late"]);
    world.pass(31);
    assert_eq!(take(&world, 1).await, ["now"], "it keeps its priority when it comes back");
    let too_late = Send { priority: (1 << 21) + 1, ..Send::text("x") };
    assert!(world.queues().send("plain", too_late).await.is_err());
}

#[tokio::test]
async fn a_long_group_is_passed_over_as_one_message() {
    let world = world().await;
    send(&world, "noisy", 2000).await;
    take(&world, 40).await;
    send(&world, "quiet", 1).await;
    let (queue, ready) = (world.queue("plain").id, world.snapshot());
    let heads = ready.ready().unwrap().first((queue, 0, 0)..=(queue, u32::MAX, u64::MAX), 10).unwrap();
    assert_eq!(heads.len(), 2, "one message of each group stands in the index");
    assert_eq!(take(&world, 1).await, ["quiet0"]);
}
