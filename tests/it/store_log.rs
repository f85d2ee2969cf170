//! The log beside the store: recovery from it, files that do not belong together, and its size.

use std::path::{Path, PathBuf};

use nightmail::queue::Send;
use nightmail::store::{Error, Options, Store};
use tempfile::TempDir;

use crate::support::World;

const NAMES: [&str; 2] = ["nightmail.redb", "nightmail.log"];

/// The files of a store as a killed process leaves them: copied while it is open.
struct Copy {
    dir: TempDir,
}

impl Copy {
    fn of(world: &World) -> Self {
        let copy = Self { dir: tempfile::tempdir().unwrap() };
        NAMES.iter().for_each(|name| copy.take(world, name));
        copy
    }

    fn take(&self, world: &World, name: &str) {
        std::fs::copy(world.dir.path().join(name), self.path(name)).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn open(&self) -> Result<Store, Error> {
        let path = self.path("nightmail.redb");
        Store::open(&Options { log_bytes: 1 << 20, cache_bytes: 1 << 20, ..Options::at(path) })
    }

    /// The refusal, after checking that no file was changed, created or removed. redb may repair a file that was not
    /// closed.
    fn refusal(&self, unchanged: &[&str]) -> String {
        let bytes = |name: &&str| std::fs::read(self.path(name)).ok();
        let before: Vec<_> = unchanged.iter().map(bytes).collect();
        let refused = self.open().unwrap_err();
        assert!(matches!(refused, Error::Damaged { .. }), "{refused:?}");
        assert!(unchanged.iter().map(bytes).collect::<Vec<_>>() == before, "a refused file was changed: {refused}");
        refused.to_string()
    }
}

fn dump(store: &Store) -> String {
    nightmail::queue::dump::dump(&store.snapshot().unwrap(), "orders", crate::support::START_NOW).unwrap()
}

#[tokio::test]
async fn what_only_the_log_holds_is_there_after_a_kill_and_again_after_a_second_one() {
    let world = World::with_orders().await;
    for text in ["a", "b", "c"] {
        world.send("orders", text).await;
    }
    let copy = Copy::of(&world);
    // redb itself does not hold it durably yet.
    let store = copy.open().unwrap();
    assert_eq!(dump(&store), world.dump("orders"));
    assert_eq!(crate::support::unsound(&store.snapshot().unwrap()), 0);
    drop(store);
    assert_eq!(dump(&copy.open().unwrap()), world.dump("orders"));
}

#[tokio::test]
async fn a_store_that_was_not_closed_is_refused_without_its_log() {
    let world = World::with_orders().await;
    world.send("orders", "only in the log").await;
    let copy = Copy::of(&world);
    std::fs::remove_file(copy.path("nightmail.log")).unwrap();
    let refused = copy.refusal(&["nightmail.log"]);
    assert!(refused.contains("nightmail.log") && refused.contains("not closed cleanly"), "{refused}");
}

#[tokio::test]
async fn a_store_that_was_closed_gets_a_new_log() {
    let mut world = World::with_orders().await;
    world.send("orders", "hello").await;
    let before = world.dump("orders");
    world.close();
    let copy = Copy::of(&world);
    std::fs::remove_file(copy.path("nightmail.log")).unwrap();
    assert_eq!(dump(&copy.open().unwrap()), before);
    assert!(copy.path("nightmail.log").exists());
}

#[tokio::test]
async fn a_log_without_its_store_never_opens_as_an_empty_store() {
    let mut world = World::with_orders().await;
    world.close();
    let copy = Copy::of(&world);
    std::fs::remove_file(copy.path("nightmail.redb")).unwrap();
    let refused = copy.refusal(&NAMES);
    assert!(refused.contains("is missing or empty, but its log"), "{refused}");
    std::fs::write(copy.path("nightmail.redb"), b"").unwrap();
    assert!(copy.refusal(&NAMES).contains("is empty"));
}

#[tokio::test]
async fn a_store_that_is_older_than_its_log_is_refused() {
    let mut world = World::with_orders().await;
    world.close();
    let copy = Copy::of(&world);
    world.reopen().await;
    world.send("orders", "later").await;
    world.close();
    copy.take(&world, "nightmail.log");
    let refused = copy.refusal(&NAMES);
    assert!(refused.contains("it is older than its log"), "{refused}");
}

#[tokio::test]
async fn the_log_of_another_store_is_refused() {
    let (mut world, mut other) = (World::with_orders().await, World::with_orders().await);
    world.close();
    other.close();
    let copy = Copy::of(&world);
    copy.take(&other, "nightmail.log");
    let refused = copy.refusal(&NAMES);
    assert!(refused.contains("the log of another store"), "{refused}");
}

#[tokio::test]
async fn a_file_that_is_no_log_is_refused() {
    let mut world = World::with_orders().await;
    world.close();
    let copy = Copy::of(&world);
    for bytes in [&b""[..], b"a text", &[7; 100_000]] {
        std::fs::write(copy.path("nightmail.log"), bytes).unwrap();
        assert!(copy.refusal(&NAMES).contains("neither of its headers can be read"));
    }
}

#[tokio::test]
async fn a_broken_record_that_was_on_disk_is_refused_with_its_place() {
    let world = World::with_orders().await;
    for text in ["first", "second", "third"] {
        world.send("orders", text).await;
    }
    for text in ["first", "third"] {
        let copy = Copy::of(&world);
        let mut log = std::fs::read(copy.path("nightmail.log")).unwrap();
        let at = log.windows(text.len()).rposition(|bytes| bytes == text.as_bytes()).unwrap();
        log[at] ^= 1;
        std::fs::write(copy.path("nightmail.log"), log).unwrap();
        let refused = copy.refusal(&["nightmail.log"]);
        assert!(refused.contains("nightmail.log") && refused.contains("at byte"), "{refused}");
        assert!(refused.contains("was on disk and cannot be read"), "{refused}");
    }
}

#[tokio::test]
async fn a_group_that_is_larger_than_the_log_is_kept_too() {
    let world = World::with_orders().await;
    let texts: Vec<String> = (0..5).map(|n| format!("{n}").repeat(400_000)).collect();
    let messages = texts.iter().map(|text| Send::text(text.clone())).collect();
    world.queues().send_all("orders", messages).await.unwrap();
    world.send("orders", "and a small one").await;
    let copy = Copy::of(&world);
    let store = copy.open().unwrap();
    assert_eq!(dump(&store), world.dump("orders"));
    assert!(dump(&store).starts_with("orders: 6 ready"));
}

#[tokio::test]
async fn a_log_takes_the_size_that_it_is_told_and_keeps_what_it_holds() {
    let world = World::with_orders().await;
    world.send("orders", "hello").await;
    let copy = Copy::of(&world);
    let length = |path: &Path| std::fs::metadata(path).unwrap().len();
    for log_bytes in [2 << 20, 3 << 19, 1 << 20] {
        let store = Store::open(&Options { log_bytes, ..Options::at(copy.path("nightmail.redb")) }).unwrap();
        assert_eq!(dump(&store), world.dump("orders"));
        drop(store);
        assert_eq!(length(&copy.path("nightmail.log")), log_bytes);
    }
}
