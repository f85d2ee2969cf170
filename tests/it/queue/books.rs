//! The observer is told of each end of a run's message exactly once, and of nothing else.

use nightmail::queue::Send;
use nightmail::queue::redrive::Redrive;
use tokio_util::sync::CancellationToken;

use crate::support::World;

#[tokio::test]
async fn each_end_of_a_message_is_observed_once_in_the_order_that_it_happened() {
    let mut world = World::with_orders().await;
    world.send("orders", "hello").await;
    world.work("orders").await;
    world.reopen().await;
    let handle = world.work("orders").await.handle;
    world.move_to_dlq(handle, "404").await;
    let what = Redrive { from: "dead".into(), ..Redrive::default() };
    let id = world.queues().start_redrive(what).await.unwrap();
    world.queues().drive(id, &CancellationToken::new()).await.unwrap();
    let handle = world.take_one("orders").await.handle;
    world.queues().delete(handle).await.unwrap();
    world.queues().delete(handle).await.unwrap();
    assert_eq!(world.purge("orders").await, Ok(0));
    let observed = world.observer.take();
    assert_eq!(observed, ["hello died", "hello redriven", "hello withdrawn: deleted"]);
}

#[tokio::test]
async fn messages_of_no_run_are_nobodys_books() {
    let world = World::with_orders().await;
    for text in ["moved_to_dlq", "deleted", "purged"] {
        world.queues().send("orders", Send::text(text)).await.unwrap();
    }
    let handle = world.work("orders").await.handle;
    world.move_to_dlq(handle, "404").await;
    let handle = world.take_one("orders").await.handle;
    world.queues().delete(handle).await.unwrap();
    world.purge("orders").await.unwrap();
    assert!(world.observer.take().is_empty());
    world.check();
}
