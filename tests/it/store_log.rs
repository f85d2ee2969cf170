//! The log beside the store: recovery from it, files that are missing or do not belong together, and its size.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nightmail::queue::{Queues, Send};
use nightmail::store::{Error, Options, Store};
use tempfile::TempDir;

use crate::power_cut::log::run;
use crate::support::{FILES, LOGS, START_NOW, World, unsound};

/// Says that there is a store.
const MARKER: &str = "nightmail.store";

/// The files of a store as a killed process leaves them: copied while it is open.
struct Copy {
    dir: TempDir,
}

impl Copy {
    fn of(world: &World) -> Self {
        let copy = Self { dir: tempfile::tempdir().unwrap() };
        FILES.iter().chain([&MARKER]).for_each(|name| copy.take(world, name));
        copy
    }

    fn take(&self, world: &World, name: &str) {
        std::fs::copy(world.dir.path().join(name), self.path(name)).unwrap();
    }

    fn remove(&self, name: &str) {
        std::fs::remove_file(self.path(name)).unwrap();
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
    nightmail::queue::dump::dump(&store.snapshot().unwrap(), "orders", START_NOW).unwrap()
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
    assert_eq!(unsound(&store.snapshot().unwrap()), 0);
    drop(store);
    assert_eq!(dump(&copy.open().unwrap()), world.dump("orders"));
}

#[tokio::test]
async fn a_store_that_was_not_closed_is_refused_without_both_segments_of_its_log() {
    let (world, other) = (World::with_orders().await, World::with_orders().await);
    world.send("orders", "only in the log").await;
    for name in LOGS {
        let copy = Copy::of(&world);
        copy.remove(name);
        let refused = copy.refusal(&LOGS);
        assert!(refused.contains(name) && refused.contains("not closed cleanly"), "{refused}");
        copy.take(&other, name);
        let refused = copy.refusal(&LOGS);
        assert!(refused.contains(name) && refused.contains("the log of another store"), "{refused}");
        for bytes in [&b""[..], b"a text", &[7; 100_000]] {
            std::fs::write(copy.path(name), bytes).unwrap();
            let refused = copy.refusal(&LOGS);
            assert!(refused.contains(name), "{refused}");
        }
        copy.take(&world, name);
        std::fs::File::options().write(true).open(copy.path(name)).unwrap().set_len(100_000).unwrap();
        let refused = copy.refusal(&LOGS);
        assert!(refused.contains(name) && refused.contains("it has 100000 bytes and had 524288"), "{refused}");
        copy.take(&world, name);
        assert_eq!(dump(&copy.open().unwrap()), world.dump("orders"));
    }
}

#[tokio::test]
async fn a_store_that_was_closed_gets_new_segments_for_missing_ones() {
    let mut world = World::with_orders().await;
    world.send("orders", "hello").await;
    let before = world.dump("orders");
    world.close();
    for names in [&LOGS[..1], &LOGS[1..], &LOGS] {
        let copy = Copy::of(&world);
        names.iter().for_each(|name| copy.remove(name));
        let store = copy.open().unwrap();
        assert_eq!(dump(&store), before);
        LOGS.iter().for_each(|name| assert!(copy.path(name).exists(), "{name}"));
        send(&store, &world, "again").await;
        let after = dump(&store);
        drop(store);
        assert_eq!(dump(&copy.open().unwrap()), after);
    }
}

#[tokio::test]
async fn a_store_that_was_closed_puts_the_segments_of_another_store_aside() {
    let (mut world, mut other) = (World::with_orders().await, World::with_orders().await);
    world.send("orders", "hello").await;
    other.send("orders", "of another store").await;
    let before = world.dump("orders");
    other.close();
    world.close();
    let copy = Copy::of(&world);
    LOGS.iter().for_each(|name| copy.take(&other, name));
    let store = copy.open().unwrap();
    assert_eq!(dump(&store), before);
    send(&store, &world, "again").await;
    let after = dump(&store);
    drop(store);
    for name in LOGS {
        let aside = std::fs::read(copy.path(&format!("{name}.foreign"))).unwrap();
        assert!(aside == std::fs::read(other.dir.path().join(name)).unwrap(), "{name} is kept as it was");
    }
    assert_eq!(dump(&copy.open().unwrap()), after);
}

async fn send(store: &Store, world: &World, text: &'static str) {
    let queues = Queues::new(store.clone(), world.clock.clone(), world.observer.clone());
    queues.send("orders", Send::text(text)).await.unwrap();
}

#[tokio::test]
async fn a_store_that_was_there_and_is_gone_is_refused_with_the_remedy() {
    let mut world = World::with_orders().await;
    world.close();
    let copy = Copy::of(&world);
    FILES.iter().for_each(|name| copy.remove(name));
    let refused = copy.refusal(&[MARKER]);
    assert!(refused.contains("nightmail.redb") && refused.contains(MARKER), "{refused}");
    assert!(refused.contains("restore a backup") && refused.contains("move these files away"), "{refused}");
    // As it says.
    copy.remove(MARKER);
    drop(copy.open().unwrap());
    FILES.iter().chain([&MARKER]).for_each(|name| assert!(copy.path(name).exists(), "{name}"));
}

#[tokio::test]
async fn a_log_without_its_store_never_opens_as_an_empty_store() {
    let mut world = World::with_orders().await;
    world.close();
    let copy = Copy::of(&world);
    copy.remove("nightmail.redb");
    copy.refusal(&FILES);
    std::fs::write(copy.path("nightmail.redb"), b"").unwrap();
    assert!(copy.refusal(&FILES).contains("is empty"));
}

#[tokio::test]
async fn a_store_that_is_older_than_its_log_is_refused() {
    let mut world = World::with_orders().await;
    world.send("orders", "first").await;
    let killed = Copy::of(&world);
    world.close();
    let closed = Copy::of(&world);
    world.reopen().await;
    world.send("orders", "later").await;
    world.reopen().await;
    world.send("orders", "last").await;
    for copy in [killed, closed] {
        LOGS.iter().for_each(|name| copy.take(&world, name));
        let refused = copy.refusal(&LOGS);
        assert!(refused.contains("nightmail.redb") && refused.contains("older than its log"), "{refused}");
    }
}

#[tokio::test]
async fn a_broken_frame_that_was_on_disk_is_refused_with_its_place() {
    let world = World::with_orders().await;
    for text in ["first", "second", "third"] {
        world.send("orders", text).await;
    }
    for text in ["first", "third"] {
        let copy = Copy::of(&world);
        let (name, log) = LOGS.iter().find_map(|name| Some((name, broken(&copy.path(name), text)?))).unwrap();
        std::fs::write(copy.path(name), &log).unwrap();
        let refused = copy.refusal(&LOGS);
        let place = format!("{name} at byte {}", run(&log).1);
        assert!(refused.contains(&place), "{place}: {refused}");
        assert!(refused.contains("was on disk and cannot be read"), "{refused}");
    }
}

/// A segment with one bit of a text flipped, if it holds that text.
fn broken(path: &Path, text: &str) -> Option<Vec<u8>> {
    let mut log = std::fs::read(path).unwrap();
    let at = log.windows(text.len()).rposition(|bytes| bytes == text.as_bytes())?;
    log[at] ^= 1;
    Some(log)
}

#[tokio::test]
async fn a_group_that_is_larger_than_a_segment_is_kept_too() {
    let world = World::with_orders().await;
    let texts: Vec<String> = (0..5).map(|n| format!("{n}").repeat(400_000)).collect();
    let messages = texts.iter().map(|text| Send::text(text.clone())).collect();
    let checkpoints = world.queues().store().checkpoints();
    world.queues().send_all("orders", messages).await.unwrap();
    assert!(world.queues().store().checkpoints() > checkpoints, "it is in redb when it is answered");
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
        LOGS.iter().for_each(|name| assert_eq!(length(&copy.path(name)), log_bytes / 2, "{name}"));
    }
}

/// What becomes of a file under a running store.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Moved,
    Removed,
    Replaced,
    CutOff,
}

impl Fate {
    fn befall(self, path: &Path) {
        let aside = path.with_extension("aside");
        match self {
            Self::Moved => std::fs::rename(path, aside).unwrap(),
            Self::Removed => std::fs::remove_file(path).unwrap(),
            Self::Replaced => {
                std::fs::copy(path, &aside).unwrap();
                std::fs::rename(aside, path).unwrap();
            }
            Self::CutOff => {
                let file = std::fs::File::options().write(true).open(path).unwrap();
                file.set_len(file.metadata().unwrap().len() - 4096).unwrap();
            }
        }
    }
}

#[tokio::test]
async fn a_running_store_whose_file_is_moved_removed_replaced_or_cut_off_stops_and_names_it() {
    let fates = [Fate::Moved, Fate::Removed, Fate::Replaced, Fate::CutOff];
    let lives = FILES.iter().flat_map(|name| fates.map(|fate| (name, fate))).map(|(name, fate)| async move {
        let world = World::with_orders().await;
        world.send("orders", "before").await;
        fate.befall(&world.dir.path().join(name));
        let stopped = tokio::time::timeout(Duration::from_secs(10), world.queues().store().stopped()).await;
        let why = stopped.unwrap_or_else(|_| panic!("{name} {fate:?}: the store goes on")).to_string();
        assert!(why.contains(name), "{name} {fate:?}: {why}");
        let late = world.queues().send("orders", Send::text("late")).await.unwrap_err().to_string();
        assert!(late.starts_with("the store has stopped") && late.contains(name), "{name} {fate:?}: {late}");
    });
    futures_util::future::join_all(lives).await;
}

#[tokio::test]
async fn a_generation_that_cannot_be_counted_on_from_is_refused() {
    let mut world = World::with_orders().await;
    world.close();
    let copy = Copy::of(&world);
    crate::support::tamper(&copy.path("nightmail.redb"), "meta", b"generation", &u64::MAX.to_be_bytes());
    let refused = copy.refusal(&LOGS);
    assert!(refused.contains("names generation 18446744073709551615"), "{refused}");
}
