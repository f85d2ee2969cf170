//! The promises of the store module: group commit, stopping, refusing what is not its own, keeping what was
//! acknowledged.

use std::os::unix::fs::PermissionsExt;

use futures_util::FutureExt;
use futures_util::future::join_all;
use nightmail::queue::{Queues, Receive, Send};
use nightmail::store::check::{self, Findings};
use nightmail::store::{Error, Options, Store, Tx};
use redb::{Database, ReadableDatabase, TableDefinition};

use crate::support::{FILES, World, forever, tamper};

#[tokio::test]
async fn many_senders_share_commits_and_each_is_on_disk_when_answered() {
    let mut world = World::with_orders().await;
    let before = world.queues().store().commits();
    let queues = world.queues().clone();
    let sends = (0..256).map(|n| {
        let queues = queues.clone();
        tokio::spawn(async move { queues.send("orders", Send::text(format!("{n}"))).await })
    });
    for sent in join_all(sends.collect::<Vec<_>>()).await {
        sent.unwrap().unwrap();
    }
    let commits = queues.store().commits() - before;
    assert!((1..=64).contains(&commits), "256 messages took {commits} commits");
    drop(queues);
    world.reopen().await;
    assert!(world.dump("orders").starts_with("orders: 256 ready"));
}

#[tokio::test]
async fn steps_that_belong_together_share_a_commit_also_when_the_writer_is_idle() {
    const ROUNDS: u64 = 50;
    let world = World::with_orders().await;
    let queues = world.queues();
    let before = queues.store().commits();
    for _ in 0..ROUNDS {
        let sends = (0..8).map(|_| queues.send("orders", Send::text("x")));
        for sent in queues.store().together(join_all(sends)).await {
            sent.unwrap();
        }
    }
    let commits = queues.store().commits() - before;
    // One more when this thread was taken off the processor between two sends. Without `together` it is two each.
    assert!((ROUNDS..ROUNDS * 9 / 5).contains(&commits), "{commits} commits");
}

#[tokio::test]
async fn a_refused_step_costs_no_commit_and_spoils_no_group() {
    let world = World::with_orders().await;
    let before = world.queues().store().commits();
    let bodies = ["good", "", "also good"];
    let sent = join_all(bodies.map(|text| world.queues().send("orders", Send::text(text)))).await;
    assert_eq!(sent.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
    let after = world.queues().store().commits();
    assert!(after > before);
    assert!(world.queues().send("orders", Send::text("")).await.is_err());
    assert_eq!(world.queues().store().commits(), after);
    assert!(world.dump("orders").starts_with("orders: 2 ready"));
}

#[tokio::test]
async fn a_panic_in_a_step_stops_the_store_and_loses_nothing_acknowledged() {
    let mut world = World::with_orders().await;
    world.send("orders", "acknowledged").await;
    let store = world.queues().store().clone();
    let torn = store.write::<(), Error, _>(|tx| {
        tx.meta()?.insert(&"half".into(), &1)?;
        panic!("a step that breaks, as this test wants")
    });
    assert!(matches!(torn.await, Err(Error::Stopped(_))));
    let later = store.write::<(), Error, _>(|_| Ok(())).await;
    assert!(matches!(later, Err(Error::Stopped(_))), "{later:?}");
    assert!(matches!(store.stopped().await, Error::Stopped(_)));
    drop(store);
    world.reopen().await;
    assert!(world.dump("orders").contains("acknowledged"));
    assert_eq!(world.snapshot().meta().unwrap().get(&"half".into()), Ok(None));
    world.send("orders", "it works again").await;
}

#[tokio::test]
async fn a_step_that_is_refused_after_it_wrote_is_rolled_back_alone_and_the_store_lives() {
    let mut world = World::with_orders().await;
    world.send("orders", "before").await;
    let (queues, orders) = (world.queues().clone(), world.queue("orders").id);
    let (open, gate) = std::sync::mpsc::channel::<()>();
    let closed = world.step(move |_| {
        let _ = gate.recv();
        Ok(())
    });
    let faulty = world.step::<(), _>(move |tx| {
        let id = tx.fresh_id()?;
        tx.meta()?.insert(&"half".into(), &id)?;
        tx.meta()?.remove(&"store".into())?;
        tx.counts_mut(orders)?.ready += 7;
        tx.totals_mut(1)?.fetched += 7;
        Err(nightmail::queue::Error::BodyEmpty)
    });
    let [a, b] = ["neighbour before", "neighbour behind"].map(|text| queues.send("orders", Send::text(text)));
    let commits = queues.store().commits();
    let open = async {
        // The first step occupies the writer; the others wait together by now.
        tokio::task::yield_now().await;
        drop(open);
    };
    let (closed, a, faulty, b, ()) = tokio::join!(closed, a, faulty, b, open);
    assert_eq!(faulty, Err(nightmail::queue::Error::BodyEmpty), "its caller is told why it was refused");
    closed.unwrap();
    let (a, b) = (a.unwrap().sequence, b.unwrap().sequence);
    assert_eq!((b, queues.store().commits() - commits), (a + 1, 1), "they were one group, and its id was given back");
    assert_eq!(queues.store().roll_backs(), 1);
    drop(queues);
    for _ in 0..2 {
        world.check_books();
        let snapshot = world.snapshot();
        assert_eq!(snapshot.meta().unwrap().get(&"half".into()), Ok(None));
        assert!(snapshot.meta().unwrap().get(&"store".into()).unwrap().is_some());
        assert_eq!(snapshot.totals().unwrap().get(&1), Ok(None));
        let dump = nightmail::queue::dump::dump(&snapshot, "orders", world.now()).unwrap();
        assert!(dump.starts_with("orders: 3 ready") && dump.contains("neighbour behind"), "{dump}");
        drop(snapshot);
        // The same must hold for what the log made durable.
        world.reopen().await;
    }
}

#[tokio::test]
async fn a_group_of_which_only_a_rolled_back_step_wrote_costs_no_commit() {
    let world = World::new();
    let store = world.queues().store();
    let before = store.commits();
    let refused = world.step::<(), _>(|tx| {
        tx.fresh_id()?;
        Err(nightmail::queue::Error::BodyEmpty)
    });
    assert_eq!(refused.await, Err(nightmail::queue::Error::BodyEmpty));
    assert_eq!((store.commits(), store.roll_backs()), (before, 1));
    assert_eq!(world.step(|tx| Ok(tx.fresh_id()?)).await.map(drop), Ok(()));
}

#[tokio::test]
async fn a_damaged_record_stops_the_store_and_every_later_call_says_why() {
    let mut world = World::with_orders().await;
    world.send("orders", "hello").await;
    let orders = world.queue("orders").id;
    world.close();
    let key = [&orders.to_be_bytes()[..], &u64::MAX.to_be_bytes()].concat();
    tamper(&world.options().path, "states", &key, b"\x09not a state");
    let key = [&orders.to_be_bytes()[..], &0_u32.to_be_bytes(), &u64::MAX.to_be_bytes()].concat();
    tamper(&world.options().path, "ready", &key, b"");
    let store = Store::open(&world.options()).unwrap();
    let queues = Queues::new(store.clone(), world.clock.clone(), world.observer.clone());
    let fault = queues.receive_now(orders, Receive::for_client(10)).await.unwrap_err().to_string();
    assert!(fault.contains("record in table states does not decode: version 9"), "{fault}");
    let stopped = store.stopped().await;
    assert!(matches!(stopped, Error::Record { table: "states", .. }));
    for _ in 0..2 {
        let later = queues.send("orders", Send::text("x")).await.unwrap_err().to_string();
        assert!(later.starts_with("the store has stopped") && later.contains("version 9"), "{later}");
    }
}

#[tokio::test]
async fn an_index_entry_without_a_message_stops_the_store() {
    let mut world = World::with_orders().await;
    let orders = world.queue("orders").id;
    world.send("orders", "hello").await;
    world.close();
    let key = [&orders.to_be_bytes()[..], &0_u32.to_be_bytes(), &u64::MAX.to_be_bytes()].concat();
    tamper(&world.options().path, "ready", &key, b"");
    let store = Store::open(&world.options()).unwrap();
    let queues = Queues::new(store.clone(), world.clock.clone(), world.observer.clone());
    // The good message is received first, in the same step: the whole group fails.
    let fault = queues.receive_now(orders, Receive::for_client(10)).await.unwrap_err().to_string();
    assert!(fault.contains("has no state"), "{fault}");
    assert!(matches!(store.stopped().await, Error::Record { .. }));
    drop((queues, store));
}

#[tokio::test]
async fn a_second_opener_learns_who_holds_the_directory() {
    let mut world = World::new();
    let refused = Store::open(&world.options()).unwrap_err();
    let Error::Locked { dir, holder } = &refused else { panic!("{refused}") };
    assert_eq!(dir, world.dir.path());
    assert_eq!(holder.to_string(), format!("`nightmail serve` (pid {})", std::process::id()));
    world.close();
    assert!(Store::open(&world.options()).is_ok(), "the lock is free as soon as the last handle is gone");
}

#[tokio::test]
async fn a_step_whose_caller_is_gone_before_it_runs_is_skipped() {
    let world = World::with_orders().await;
    let (began, has_begun) = tokio::sync::oneshot::channel();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let store = world.queues().store().clone();
    let holds = tokio::spawn(async move {
        let step = move |_: &mut Tx<'_>| {
            let _ = (began.send(()), released.recv());
            Ok::<_, Error>(())
        };
        store.write(step).await
    });
    has_begun.await.unwrap();
    for n in 0..100 {
        assert!(world.queues().send("orders", Send::text(format!("gone {n}"))).now_or_never().is_none());
    }
    let mut kept = Box::pin(world.queues().send("orders", Send::text("waits for its answer")));
    assert!((&mut kept).now_or_never().is_none());
    release.send(()).unwrap();
    kept.await.unwrap();
    holds.await.unwrap().unwrap();
    world.check();
    assert!(world.dump("orders").starts_with("orders: 1 ready"));
}

#[tokio::test]
async fn a_store_that_was_never_closed_opens_with_all_that_was_acknowledged() {
    let world = World::with_orders().await;
    for text in ["a", "b"] {
        world.send("orders", text).await;
    }
    world.take_one("orders").await;
    let before = world.dump("orders");
    // What a killed process leaves behind: the file as it is while the store is open.
    let copy = tempfile::tempdir().unwrap();
    let options = Options::at(copy.path().join("nightmail.redb"));
    for name in FILES {
        std::fs::copy(world.dir.path().join(name), copy.path().join(name)).unwrap();
    }
    let store = Store::open(&options).unwrap();
    let queues = Queues::new(store, world.clock.clone(), world.observer.clone());
    let after = nightmail::queue::dump::dump(&queues.store().snapshot().unwrap(), "orders", queues.now());
    assert_eq!(after, Ok(before));
    queues.send("orders", Send::text("and it goes on")).await.unwrap();
}

#[test]
fn the_files_and_the_lock_are_readable_by_their_owner_alone() {
    let world = World::new();
    for name in FILES.into_iter().chain(["nightmail.lock", "nightmail.store"]) {
        let mode = std::fs::metadata(world.dir.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let names = std::fs::read_dir(world.dir.path()).unwrap().map(|file| file.unwrap().file_name());
    let names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
    assert!(names.iter().all(|name| !name.ends_with(".new")), "{names:?}");
}

/// Tries to open a store over `bytes`; returns the refusal, after checking that the file is unchanged.
fn refusal(bytes: &[u8]) -> Error {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::at(dir.path().join("nightmail.redb"));
    std::fs::write(&options.path, bytes).unwrap();
    let refused = Store::open(&options).unwrap_err();
    assert!(std::fs::read(&options.path).unwrap() == bytes, "the refused file was changed");
    assert!(Store::open(&options).is_err(), "a refusal frees the lock and stays one");
    refused
}

#[test]
fn a_file_that_is_no_store_is_refused_and_left_as_it_is() {
    let magic = [&b"redb\x1a\x0a\xa9\x0d\x0a"[..], &[7; 8000]].concat();
    let garbage: Vec<u8> = (0..100_000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    for bytes in [&b""[..], b"hello, I am a text file\n", &garbage, &magic] {
        let refused = refusal(bytes);
        assert!(matches!(refused, Error::Damaged { .. }), "{refused}");
    }
}

#[test]
fn a_redb_file_of_another_program_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("foreign");
    let other: TableDefinition<'_, u64, &str> = TableDefinition::new("meta");
    for table in [TableDefinition::new("books"), other] {
        let db = Database::create(&path).unwrap();
        let transaction = db.begin_write().unwrap();
        transaction.open_table(table).unwrap().insert(1, "one").unwrap();
        transaction.commit().unwrap();
        drop(db);
        let refused = refusal(&std::fs::read(&path).unwrap()).to_string();
        assert!(refused.contains("without Nightmail's tables"), "{refused}");
        std::fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_store_of_a_newer_format_is_refused_by_its_number_and_left_as_it_is() {
    let mut world = World::new();
    world.close();
    let path = world.options().path;
    tamper(&path, "meta", b"format", &7_u64.to_be_bytes());
    let refused = refusal(&std::fs::read(&path).unwrap());
    assert!(matches!(refused, Error::Newer { found: 7, known: 4, .. }), "{refused}");
    tamper(&path, "meta", b"format", b"seven");
    let refused = refusal(&std::fs::read(&path).unwrap());
    assert!(matches!(refused, Error::Damaged { .. }), "{refused}");
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let refused = Store::open(&Options::at(file.join("nightmail.redb"))).unwrap_err();
    assert!(matches!(&refused, Error::Open { path, .. } if *path == file), "{refused}");
}

#[tokio::test]
async fn queue_numbers_are_small_however_many_ids_were_given_out() {
    let mut world = World::new();
    let first = world.queues().ensure("first", &forever()).await.unwrap();
    world.close();
    tamper(&world.options().path, "meta", b"last-id", &(1_u64 << 40).to_be_bytes());
    world.reopen().await;
    let second = world.queues().ensure("second", &forever()).await.unwrap();
    assert_eq!((first, second), (1, 2));
    assert_eq!(world.queues().send("second", Send::text("x")).await.map(|sent| sent.sequence), Ok((1 << 40) + 1));
}

#[test]
fn every_table_is_made_with_the_file() {
    let mut world = World::new();
    world.close();
    let db = Database::open(world.options().path).unwrap();
    let transaction = db.begin_read().unwrap();
    let mut names: Vec<String> =
        transaction.list_tables().unwrap().map(|table| redb::TableHandle::name(&table).to_owned()).collect();
    names.sort();
    insta::assert_snapshot!(names.join(" "), @"announced bodies counts dead_letter_sources effects expiries grouped groups history intents kept_attributes letter_groups letters mail_quotas meta notifications queue_names queues ready recent recent_times recipients redrive_totals redrives row_numbers run_controls run_keys run_paces runs states suppressions suspects ticks timed totals uniques user_records");
}

#[tokio::test]
async fn a_check_refuses_a_file_with_a_damaged_page_before_anything_writes_to_it() {
    let mut world = World::with_orders().await;
    let needle = "a body that is found in the file";
    world.send("orders", needle).await;
    world.close();
    let path = world.options().path;
    let check = || check::integrity(&world.options(), &mut Findings::default());
    check().unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let places: Vec<usize> =
        (0..bytes.len() - needle.len()).filter(|at| bytes[*at..].starts_with(needle.as_bytes())).collect();
    places.iter().for_each(|at| bytes[*at] ^= 1);
    assert!(!places.is_empty());
    std::fs::write(&path, &bytes).unwrap();
    let refused = check().unwrap_err();
    assert!(refused.to_string().contains("does not have the checksum"), "{refused}");
    assert!(std::fs::read(&path).unwrap() == bytes, "the file was changed");
}

#[tokio::test]
async fn a_large_read_runs_on_a_thread_of_its_own_and_its_panic_reaches_the_caller() {
    let world = World::with_orders().await;
    let store = world.queues().store();
    let reader = store.read::<_, Error, _>(|_| Ok(std::thread::current().id())).await.unwrap();
    assert_ne!(reader, std::thread::current().id());
    let broken = std::panic::AssertUnwindSafe(store.read::<(), Error, _>(|_| panic!("an invariant is broken")));
    assert_eq!(broken.catch_unwind().await.unwrap_err().downcast_ref(), Some(&"an invariant is broken"));
}
