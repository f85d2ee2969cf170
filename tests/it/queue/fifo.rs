//! FIFO queues: order within a group, one of a group at a time, deduplication, sequence numbers, attempt ids.

use std::time::Duration;

use nightmail::queue::{Error, Options, Receive, RedrivePolicy, Send, stats};
use nightmail::store::record::{Fifo, Scope};
use tokio_util::sync::CancellationToken;

use crate::harness::until;
use crate::support::{World, forever, texts};

const QUEUE: &str = "orders.fifo";

fn fifo() -> Options {
    Options { fifo: Some(Fifo::default()), ..forever() }
}

async fn world(options: Options) -> World {
    let world = World::new();
    world.queues().ensure("dead.fifo", &fifo()).await.unwrap();
    world.queues().ensure(QUEUE, &options).await.unwrap();
    world
}

fn message(group: &str, id: &str) -> Send {
    Send { group: Some(group.into()), deduplication_id: Some(id.into()), ..Send::text(id.to_owned()) }
}

/// Sends messages of the text `<group><n>`.
async fn send(world: &World, names: &[&str]) {
    for name in names {
        world.queues().send(QUEUE, message(&name[..1], name)).await.unwrap();
        world.check();
    }
}

#[tokio::test]
async fn a_group_goes_out_in_order_and_what_stands_behind_one_in_flight_waits() {
    let world = world(fifo()).await;
    send(&world, &["a1", "a2", "b1", "a3"]).await;
    let first = world.take(QUEUE, 2).await;
    assert_eq!(texts(&first), ["a1", "a2"], "one receive takes what is next of a group");
    assert_eq!(texts(&world.take(QUEUE, 10).await), ["b1"], "a3 waits");
    world.queues().delete(first[0].handle).await.unwrap();
    world.check();
    assert_eq!(texts(&world.take(QUEUE, 10).await), [""; 0], "a2 is still in flight");
    world.queues().delete(first[1].handle).await.unwrap();
    assert_eq!(texts(&world.take(QUEUE, 10).await), ["a3"]);
    world.check();
}

/// Own choice: what is due goes in the sweep, however much it is and whoever sends.
#[tokio::test]
async fn what_a_queue_remembers_goes_when_it_is_due_also_when_nobody_sends() {
    let world = world(fifo()).await;
    let messages = (0..1_200).map(|n| message("a", &n.to_string())).collect();
    world.queues().send_all(QUEUE, messages).await.unwrap();
    world.queues().delete_queue("dead.fifo").await.unwrap();
    world.pass(300);
    world.queues().expire().await.unwrap();
    let all = (0, [0; 16])..=(u32::MAX, [u8::MAX; 16]);
    assert_eq!(world.snapshot().dedup().unwrap().first(all, usize::MAX).unwrap().len(), 0);
    world.check();
}

/// Recorded: what stands before the first message in flight is handed out, what stands behind it waits.
#[tokio::test]
async fn messages_before_the_first_one_in_flight_are_handed_out_and_those_behind_it_wait() {
    let world = world(fifo()).await;
    send(&world, &["a1", "a2", "a3", "a4"]).await;
    let held = world.take(QUEUE, 3).await;
    assert_eq!(texts(&held), ["a1", "a2", "a3"]);
    for message in &held[..2] {
        world.queues().change_visibility(message.handle, Duration::ZERO).await.unwrap();
        world.check();
    }
    assert_eq!(texts(&world.take(QUEUE, 10).await), ["a1", "a2"], "a3 is in flight, and a4 waits behind it");
    assert_eq!(texts(&world.take(QUEUE, 10).await), [""; 0]);
    world.queues().change_visibility(held[2].handle, Duration::ZERO).await.unwrap();
    assert_eq!(texts(&world.take(QUEUE, 10).await), [""; 0], "a3 is back behind a1 and a2, which are in flight");
    world.check();
}

/// Recorded: a group that was handed out goes behind the others.
#[tokio::test]
async fn a_group_that_was_handed_out_goes_behind_the_others() {
    let world = world(fifo()).await;
    send(&world, &["a1", "a2", "a3", "b1", "c1", "b2"]).await;
    let mut seen = Vec::new();
    for n in 0..6 {
        let received = world.take_one(QUEUE).await;
        seen.extend(texts(std::slice::from_ref(&received)));
        world.queues().delete(received.handle).await.unwrap();
        if n == 1 {
            send(&world, &["d1"]).await;
        }
        world.check();
    }
    assert_eq!(seen, ["a1", "b1", "c1", "a2", "b2", "d1"], "d came after a and b had their turn");
}

/// Own choice: a receive that is undone leaves the order of the groups as it was.
#[tokio::test]
async fn a_cancelled_receive_gives_its_groups_their_places_back() {
    let world = world(fifo()).await;
    send(&world, &["a1", "a2", "b1"]).await;
    let first = world.take_one(QUEUE).await;
    world.queues().delete(first.handle).await.unwrap();
    // Group b is next; then a.
    let unanswered = world.queues().poll(QUEUE, Receive::for_client(1), Duration::ZERO).await.unwrap();
    drop(unanswered);
    tokio::task::yield_now().await;
    world.step(|_| Ok(())).await.unwrap();
    world.check();
    let received = world.take(QUEUE, 10).await;
    assert_eq!(texts(&received), ["b1", "a2"]);
    assert_eq!(received[0].receive_count, 1);
}

/// AWS, "ReceiveMessage": retention deletes a message whatever holds it.
#[tokio::test]
async fn an_expired_message_in_flight_does_not_block_its_group() {
    let minute = Some(Duration::from_secs(60));
    let world = world(Options { retention: minute, ..fifo() }).await;
    send(&world, &["a1"]).await;
    let hour = Receive { visibility: Some(Duration::from_secs(3600)), ..Receive::for_client(1) };
    assert_eq!(texts(&world.receive(QUEUE, hour).await.unwrap().messages), ["a1"]);
    world.pass(30);
    send(&world, &["a2"]).await;
    assert_eq!(texts(&world.take(QUEUE, 10).await), [""; 0]);
    world.pass(30);
    assert_eq!(texts(&world.take(QUEUE, 10).await), ["a2"], "before any sweep");
    world.check();
}

#[tokio::test]
async fn a_message_that_comes_back_keeps_its_place_before_the_later_ones() {
    let world = world(fifo()).await;
    send(&world, &["a1", "a2", "a3"]).await;
    assert_eq!(texts(&world.take(QUEUE, 2).await), ["a1", "a2"]);
    world.pass(31);
    assert_eq!(texts(&world.take(QUEUE, 10).await), ["a1", "a2", "a3"], "their timeout ran out");
    world.check();
}

#[tokio::test]
async fn our_own_workers_get_one_message_of_a_group_at_a_time() {
    let world = world(fifo()).await;
    send(&world, &["a1", "a2", "b1"]).await;
    let what = Receive { max: 10, owner: nightmail::store::record::Owner::Worker, visibility: None };
    let taken = world.receive(QUEUE, what).await.unwrap().messages;
    assert_eq!(texts(&taken), ["a1", "b1"]);
    world.retry(taken[0].handle).await;
    assert_eq!(texts(&world.receive(QUEUE, what).await.unwrap().messages), ["a1"], "the same one again, not a2");
    world.check();
}

#[tokio::test]
async fn a_delay_of_the_queue_holds_up_the_group_and_a_messages_own_is_refused() {
    let world = world(Options { delay: Duration::from_secs(10), ..fifo() }).await;
    send(&world, &["a1"]).await;
    world.pass(5);
    send(&world, &["a2", "b1"]).await;
    world.pass(5);
    assert_eq!(texts(&world.take(QUEUE, 1).await), ["a1"], "the others wait");
    world.pass(5);
    assert_eq!(texts(&world.take(QUEUE, 10).await), ["b1"], "a2 waits for a1");
    let own = Send { delay: Some(Duration::from_secs(1)), ..message("a", "a3") };
    assert!(matches!(world.queues().send(QUEUE, own).await, Err(Error::NotOnFifo { what: "DelaySeconds", .. })));
    world.check();
}

#[tokio::test]
async fn a_duplicate_within_five_minutes_is_answered_and_not_sent_even_when_the_first_is_gone() {
    let world = world(fifo()).await;
    let first = world.queues().send(QUEUE, message("a", "id")).await.unwrap();
    let taken = world.take(QUEUE, 1).await;
    world.queues().delete(taken[0].handle).await.unwrap();
    world.pass(299);
    let second = world.queues().send(QUEUE, message("b", "id")).await.unwrap();
    assert!(second.is_duplicate && !first.is_duplicate);
    assert_eq!((second.message_id, second.sequence), (first.message_id, first.sequence));
    assert!(world.take(QUEUE, 1).await.is_empty());
    world.pass(1);
    let third = world.queues().send(QUEUE, message("b", "id")).await.unwrap();
    assert!(!third.is_duplicate && third.sequence > first.sequence, "sequence numbers grow");
    assert_eq!(texts(&world.take(QUEUE, 1).await), ["id"]);
    world.check();
}

#[tokio::test]
async fn content_and_scope_decide_what_is_a_duplicate() {
    let by_content = Fifo { content_based_deduplication: true, ..Fifo::default() };
    let world = world(Options { fifo: Some(by_content), ..forever() }).await;
    let plain = |group: &str| Send { group: Some(group.into()), ..Send::text("same") };
    assert!(!world.queues().send(QUEUE, plain("a")).await.unwrap().is_duplicate);
    assert!(world.queues().send(QUEUE, plain("b")).await.unwrap().is_duplicate, "of the whole queue");
    let received = world.take(QUEUE, 1).await.remove(0);
    let sha256 = "0967115f2813a3541eaef77de9d9d5773f1c0c04314b0bbfe4ff3b3b1c55b5d5";
    assert_eq!(received.envelope.deduplication_id.as_deref(), Some(sha256), "printf same | sha256sum");
    let by_group = Fifo { deduplication_scope: Scope::Group, ..by_content };
    world.queues().ensure(QUEUE, &Options { fifo: Some(by_group), ..forever() }).await.unwrap();
    assert!(!world.queues().send(QUEUE, plain("c")).await.unwrap().is_duplicate);
    assert!(!world.queues().send(QUEUE, plain("d")).await.unwrap().is_duplicate, "of the group alone");
    assert!(world.queues().send(QUEUE, plain("d")).await.unwrap().is_duplicate);
}

#[tokio::test]
async fn what_a_queue_remembers_is_forgotten() {
    let world = world(fifo()).await;
    for n in 0..20 {
        world.queues().send(QUEUE, message("a", &format!("a{n}"))).await.unwrap();
    }
    let remembered = |world: &World| {
        let all = (0, [0; 16])..=(u32::MAX, [u8::MAX; 16]);
        world.snapshot().dedup().unwrap().first(all, usize::MAX).unwrap().len()
    };
    assert_eq!(remembered(&world), 20);
    world.pass(300);
    world.queues().send(QUEUE, message("a", "later")).await.unwrap();
    assert_eq!(remembered(&world), 17, "each send forgets up to four");
    world.queues().expire().await.unwrap();
    assert_eq!(remembered(&world), 1);
}

#[tokio::test]
async fn group_and_deduplication_id_are_wanted() {
    let world = world(fifo()).await;
    let send = |message| world.queues().send(QUEUE, message);
    assert_eq!(send(Send::text("x")).await, Err(Error::GroupMissing(QUEUE.into())));
    let grouped = Send { group: Some("a".into()), ..Send::text("x") };
    assert_eq!(send(grouped).await, Err(Error::DeduplicationMissing(QUEUE.into())));
    let bad = Send { group: Some("a b".into()), ..message("a", "x") };
    assert!(matches!(send(bad).await, Err(Error::Identifier { what: "MessageGroupId", .. })));
    let urgent = Send { priority: 1, ..message("a", "x") };
    assert!(matches!(send(urgent).await, Err(Error::NotOnFifo { what: "priority", .. })));
}

#[tokio::test]
async fn an_old_handle_is_refused_once_the_timeout_ran_out() {
    let world = world(fifo()).await;
    send(&world, &["a1"]).await;
    let handle = world.take(QUEUE, 1).await[0].handle;
    world.pass(30);
    assert_eq!(world.queues().delete(handle).await, Err(Error::HandleExpired(handle.to_string())));
    let again = world.take_one(QUEUE).await.handle;
    // Recorded: the handle of an older receive has expired too.
    assert_eq!(world.queues().delete(handle).await, Err(Error::HandleExpired(handle.to_string())));
    let hour = Duration::from_secs(3600);
    assert_eq!(world.queues().change_visibility(handle, hour).await, Err(Error::HandleExpired(handle.to_string())));
    assert_eq!(world.queues().delete(again).await, Ok(true));
    assert_eq!(world.queues().delete(again).await, Ok(false), "deleting twice is no error");
}

/// AWS, "ChangeMessageVisibility"; recorded for the time after the time-out.
#[tokio::test]
async fn visibility_can_be_changed_after_the_timeout_ran_out_while_nobody_received_the_message() {
    let world = world(fifo()).await;
    send(&world, &["a1", "a2"]).await;
    let handle = world.take_one(QUEUE).await.handle;
    world.pass(31);
    world.queues().change_visibility(handle, Duration::from_secs(60)).await.unwrap();
    world.check();
    assert_eq!(texts(&world.take(QUEUE, 10).await), [""; 0], "a1 is in flight again, and a2 waits behind it");
    assert_eq!(world.queues().delete(handle).await, Ok(true));
    assert_eq!(texts(&world.take(QUEUE, 10).await), ["a2"]);
    world.check();
}

/// AWS, "ReceiveMessage", ReceiveRequestAttemptId: at most 128 characters.
#[tokio::test]
async fn an_attempt_id_has_1_to_128_characters() {
    let world = world(fifo()).await;
    let queue = world.queue(QUEUE).id;
    for length in [0, 1, 128, 129] {
        let id = "i".repeat(length);
        let answer = world.queues().receive_attempt(queue, Receive::for_client(1), &id).await;
        match length {
            1..=128 => assert!(answer.is_ok()),
            _ => assert!(matches!(answer, Err(Error::Identifier { what: "ReceiveRequestAttemptId", .. })), "{length}"),
        }
    }
}

/// AWS, "ReceiveMessage", ReceiveRequestAttemptId: void once a message of it was deleted or its visibility changed.
#[tokio::test]
async fn an_attempt_id_is_void_once_the_visibility_of_one_of_its_messages_was_changed() {
    let world = world(fifo()).await;
    send(&world, &["a1", "b1", "c1"]).await;
    let queue = world.queue(QUEUE).id;
    let attempt = || world.queues().receive_attempt(queue, Receive::for_client(2), "try");
    let first = attempt().await.unwrap().messages;
    assert_eq!(texts(&first), ["a1", "b1"]);
    world.pass(5);
    assert_eq!(texts(&attempt().await.unwrap().messages), ["a1", "b1"], "a replay");
    world.queues().change_visibility(first[0].handle, Duration::from_secs(60)).await.unwrap();
    assert_eq!(texts(&attempt().await.unwrap().messages), ["c1"], "a receive like any other");
    world.check();
}

/// Own choice: a long poll never sleeps past the moment at which a message becomes visible.
#[tokio::test]
async fn a_replay_that_shortens_a_visibility_wakes_the_waiting_polls() {
    let world = world(fifo()).await;
    send(&world, &["a1"]).await;
    let queue = world.queue(QUEUE).id;
    let with = |seconds| Receive { visibility: Some(Duration::from_secs(seconds)), ..Receive::for_client(1) };
    world.queues().receive_attempt(queue, with(600), "try").await.unwrap();
    let mut signals = world.queues().store().subscribe(u64::from(queue));
    signals.mark_unchanged();
    world.queues().receive_attempt(queue, with(700), "try").await.unwrap();
    assert!(!signals.has_changed().unwrap(), "a longer one wakes nobody");
    world.queues().receive_attempt(queue, with(1), "try").await.unwrap();
    assert!(signals.has_changed().unwrap());
}

#[tokio::test]
async fn a_receive_attempt_gets_the_same_messages_again_while_it_holds_them() {
    let world = world(fifo()).await;
    send(&world, &["a1", "a2", "b1"]).await;
    let queue = world.queue(QUEUE).id;
    let attempt = |id| world.queues().receive_attempt(queue, Receive::for_client(2), id);
    let first = attempt("try").await.unwrap().messages;
    world.pass(20);
    let again = attempt("try").await.unwrap().messages;
    assert_eq!(texts(&again), ["a1", "a2"]);
    assert_eq!(again[0].handle, first[0].handle);
    assert_eq!(again[0].receive_count, 1, "it is the same receive");
    world.pass(20);
    assert_eq!(texts(&attempt("other").await.unwrap().messages), ["b1"], "the repetition held them anew");
    world.queues().delete(first[0].handle).await.unwrap();
    world.pass(11);
    assert_eq!(texts(&attempt("try").await.unwrap().messages), ["a2"], "one is gone: a receive of its own");
    world.check();
    world.queues().ensure("plain", &forever()).await.unwrap();
    let plain = world.queue("plain").id;
    let refused = world.queues().receive_attempt(plain, Receive::for_client(1), "try").await;
    assert!(matches!(refused, Err(Error::OnlyOnFifo { .. })));
}

#[tokio::test]
async fn a_message_that_dies_lets_its_group_go_on_and_starts_anew_among_the_letters() {
    let redrive = Some(RedrivePolicy { dead_letter_queue: "dead.fifo".into(), max_receive_count: 1 });
    let world = world(Options { redrive, ..fifo() }).await;
    send(&world, &["a1", "a2"]).await;
    assert_eq!(texts(&world.take(QUEUE, 1).await), ["a1"]);
    world.pass(31);
    assert_eq!(texts(&world.take(QUEUE, 1).await), ["a2"]);
    let letter = world.take_one("dead.fifo").await;
    assert_eq!(texts(std::slice::from_ref(&letter)), ["a1"]);
    assert_eq!(letter.sent_at, world.now().wall, "a FIFO queue's retention starts anew");
    // AWS, "Using dead-letter queues": the message's id is its deduplication id there.
    assert_eq!(letter.envelope.deduplication_id, Some(letter.message_id.to_string()));
    world.check();
}

#[tokio::test]
async fn kinds_do_not_mix() {
    let world = world(fifo()).await;
    world.queues().ensure("plain", &forever()).await.unwrap();
    let to = |name: &str| Some(RedrivePolicy { dead_letter_queue: name.into(), max_receive_count: 1 });
    let crossed = world.queues().ensure(QUEUE, &Options { redrive: to("plain"), ..fifo() }).await;
    assert_eq!(crossed, Err(Error::Kinds { from: QUEUE.into(), to: "plain".into() }));
    assert!(matches!(world.queues().ensure("x.fifo", &forever()).await, Err(Error::Name(_))));
    assert!(matches!(world.queues().ensure("x", &fifo()).await, Err(Error::Name(_))));
    let deduplicated = Send { deduplication_id: Some("x".into()), ..Send::text("x") };
    assert!(matches!(world.queues().send("plain", deduplicated).await, Err(Error::OnlyOnFifo { .. })));
}

#[tokio::test]
async fn a_deleted_queue_is_gone_with_all_that_it_remembers() {
    for remembered in [999, 1000, 1001, 2500] {
        let world = world(fifo()).await;
        let id = world.queue(QUEUE).id;
        let messages = (0..remembered).map(|n| message("a", &n.to_string())).collect();
        world.queues().send_all(QUEUE, messages).await.unwrap();
        let dedup_ids = || {
            let all = (id, [0; 16])..=(id, [u8::MAX; 16]);
            world.snapshot().dedup().unwrap().first(all, usize::MAX).unwrap().len()
        };
        assert_eq!(dedup_ids(), remembered);
        assert_eq!(world.queues().delete_queue(QUEUE).await, Ok(remembered as u64));
        assert_eq!(world.queues().remove_purged().await, Ok(remembered as u64));
        assert_eq!(dedup_ids(), 0, "{remembered}");
        assert_eq!(world.snapshot().queues().unwrap().get(&id), Ok(None), "{remembered}");
        assert_eq!(world.snapshot().counts().unwrap().get(&id), Ok(None), "{remembered}");
        world.check();
    }
}

/// AWS, SetQueueAttributes: on FIFO queues a change of DelaySeconds is retroactive.
#[tokio::test]
async fn the_delay_of_a_fifo_queue_is_retroactive() {
    let world = world(Options { delay: Duration::from_secs(100), ..fifo() }).await;
    let many = (0..250).map(|n| message(&format!("g{}", n % 7), &n.to_string())).collect();
    world.queues().send_all(QUEUE, many).await.unwrap();
    world.pass(30);
    let shorter = Options { delay: Duration::from_secs(20), ..fifo() };
    world.queues().ensure(QUEUE, &shorter).await.unwrap();
    world.check();
    assert_eq!(world.take(QUEUE, 1).await.len(), 1, "the first ones at once");
    let stats = || stats::stats(&world.snapshot(), &world.queue(QUEUE), world.now()).unwrap();
    settled(&world).await;
    assert_eq!((stats().ready, stats().delayed, stats().in_flight), (249, 0, 1), "then all");
    let longer = Options { delay: Duration::from_secs(60), ..fifo() };
    world.queues().ensure(QUEUE, &longer).await.unwrap();
    settled(&world).await;
    assert_eq!((stats().ready, stats().delayed, stats().in_flight), (0, 249, 1), "what was visible waits again");
    world.pass(30);
    assert_eq!((stats().ready, stats().delayed, stats().in_flight), (250, 0, 0), "sixty seconds after it was sent");
}

/// Lets the daemon's loop do what was left.
async fn settled(world: &World) {
    let stop = CancellationToken::new();
    let (queues, stopped) = (world.queues().clone(), stop.clone());
    let working = tokio::spawn(async move { queues.work_off(stopped).await });
    until("the rest of the new delay", async || world.queue(QUEUE).delays_from.is_none().then_some(())).await;
    stop.cancel();
    working.await.unwrap().unwrap();
    world.check();
}
