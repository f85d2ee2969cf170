//! A backup of the live store: taken under load it is one consistent state, it never damages an existing file, and an
//! unfinished backup leaves nothing behind.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use nightmail::queue::{Queues, Receive, Send};
use nightmail::store::backup::{Error, Order};
use nightmail::store::{Options, Store};
use tokio_util::sync::CancellationToken;

use crate::harness::{assert_sound, say, size};
use crate::support::{World, forever};

fn order(file: &Path) -> Order {
    Order { file: file.to_owned(), replace: false, verify: true }
}

fn backup(world: &World, order: &Order) -> Result<nightmail::store::backup::Backup, Error> {
    world.queues().store().backup(order, &CancellationToken::new())
}

/// Opens a backup as the store of a directory of its own.
fn restored(world: &World, file: &Path) -> (tempfile::TempDir, Queues) {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::at(dir.path().join("nightmail.redb"));
    std::fs::copy(file, &options.path).unwrap();
    let store = Store::open(&options).unwrap();
    (dir, Queues::new(store, world.clock.clone(), world.observer.clone()))
}

/// Sends numbers to one queue, and receives and deletes numbers in another, until it is stopped.
struct Load {
    stop: AtomicBool,
    /// For each sender: how many numbers are acknowledged.
    sent: Vec<AtomicU64>,
    /// How many messages of `passing` are deleted for good, in the order of sending.
    deleted: AtomicU64,
}

impl Load {
    async fn send(self: Arc<Self>, queues: Queues, sender: usize) {
        while !self.stop.load(Ordering::SeqCst) {
            let number = self.sent[sender].load(Ordering::SeqCst);
            let text = format!("{sender} {number} {}", "x".repeat(1000));
            queues.send("kept", Send::text(text)).await.unwrap();
            self.sent[sender].store(number + 1, Ordering::SeqCst);
        }
    }

    async fn pass(self: Arc<Self>, queues: Queues, queue: u32) {
        while !self.stop.load(Ordering::SeqCst) {
            let number = self.deleted.load(Ordering::SeqCst);
            queues.send("passing", Send::text(number.to_string())).await.unwrap();
            let received = queues.receive_now(queue, Receive::for_client(1)).await.unwrap().messages.pop().unwrap();
            assert!(queues.delete(received.handle).await.unwrap());
            self.deleted.store(number + 1, Ordering::SeqCst);
        }
    }

    fn acknowledged(&self) -> Vec<u64> {
        self.sent.iter().map(|sent| sent.load(Ordering::SeqCst)).collect()
    }
}

/// The numbers of each sender that a queue holds, in the order of sending.
fn numbers(queues: &Queues, senders: usize) -> Vec<Vec<u64>> {
    let mut found = vec![Vec::new(); senders];
    for message in crate::harness::messages(queues, "kept") {
        let mut words = message.body.split(' ').map(|word| word.parse::<u64>());
        let (sender, number) = (words.next().unwrap().unwrap(), words.next().unwrap().unwrap());
        found[usize::try_from(sender).unwrap()].push(number);
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_under_load_is_one_consistent_state_not_older_than_its_beginning() {
    const SENDERS: usize = 8;
    let (world, phase) = (World::new(), tempfile::tempdir().unwrap());
    world.queues().ensure("kept", &forever()).await.unwrap();
    let passing = world.queues().ensure("passing", &forever()).await.unwrap();
    let filling = size("NIGHTMAIL_BACKUP_MESSAGES", 20_000);
    for _ in 0..filling / 1000 {
        let bodies = (0..1000).map(|n| Send::text(format!("9 {n} {}", "y".repeat(1000))));
        world.queues().send_all("kept", bodies.collect()).await.unwrap();
    }
    let sent = (0..SENDERS).map(|_| AtomicU64::new(0)).collect();
    let load = Arc::new(Load { stop: AtomicBool::new(false), sent, deleted: AtomicU64::new(0) });
    let mut loops: Vec<_> = (0..SENDERS).map(|n| tokio::spawn(load.clone().send(world.queues().clone(), n))).collect();
    loops.push(tokio::spawn(load.clone().pass(world.queues().clone(), passing)));
    crate::harness::until("the load to run", async || load.acknowledged().iter().all(|sent| *sent > 10).then_some(()))
        .await;

    let (before, deleted_before) = (load.acknowledged(), load.deleted.load(Ordering::SeqCst));
    let (store, wanted) = (world.queues().store().clone(), order(&phase.path().join("nightmail.backup")));
    let taking = tokio::task::spawn_blocking(move || store.backup(&wanted, &CancellationToken::new()));
    let made = taking.await.unwrap().unwrap();
    let after = load.acknowledged();
    load.stop.store(true, Ordering::SeqCst);
    for end in loops {
        end.await.unwrap();
    }

    assert!(after.iter().sum::<u64>() > before.iter().sum::<u64>(), "sends went on while the backup ran");
    assert_eq!(made.file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let (_dir, queues) = restored(&world, &made.file);
    assert_sound(&queues);
    for (sender, found) in numbers(&queues, SENDERS + 2).into_iter().take(SENDERS).enumerate() {
        let count = found.len() as u64;
        assert_eq!(found, (0..count).collect::<Vec<_>>(), "sender {sender}: a number without those before it");
        assert!((before[sender]..=after[sender] + 1).contains(&count), "sender {sender}: {count} of {before:?}");
    }
    for message in crate::harness::messages(&queues, "passing") {
        assert!(message.body.parse::<u64>().unwrap() >= deleted_before, "{} was deleted before", message.body);
    }
    queues.send("kept", Send::text("0 0 and it goes on")).await.unwrap();
    let kib = |bytes: u64| bytes >> 10;
    say(format_args!(
        "{} rows, backup {} KiB; the live file {} KiB before and {} KiB after, {} messages sent meanwhile",
        made.rows,
        kib(made.bytes),
        kib(made.store_bytes_before),
        kib(made.store_bytes_after),
        after.iter().sum::<u64>() - before.iter().sum::<u64>()
    ));
}

#[tokio::test]
async fn a_file_that_is_there_is_kept_unless_it_is_to_be_replaced() {
    let (world, phase) = (World::with_orders().await, tempfile::tempdir().unwrap());
    world.send("orders", "hello").await;
    let file = phase.path().join("backup");
    std::fs::write(&file, "something dear").unwrap();
    let refused = backup(&world, &order(&file)).unwrap_err();
    assert!(matches!(refused, Error::Exists(_)), "{refused}");
    assert_eq!(std::fs::read(&file).unwrap(), b"something dear");
    let made = backup(&world, &Order { replace: true, ..order(&file) }).unwrap();
    assert!(made.is_verified);
    let states = made.tables.iter().find(|table| table.table == "states").unwrap();
    assert_eq!((states.rows, states.sha256.len()), (1, 64));
    let (_dir, queues) = restored(&world, &file);
    assert_eq!(
        nightmail::queue::dump::dump(&world.snapshot(), "orders", world.now()),
        nightmail::queue::dump::dump(&queues.store().snapshot().unwrap(), "orders", world.now())
    );
}

#[test]
fn what_a_backup_cannot_be_is_refused_by_name_and_leaves_nothing() {
    let (world, phase) = (World::new(), tempfile::tempdir().unwrap());
    let refusal = |file: &Path| backup(&world, &Order { replace: true, ..order(file) }).unwrap_err();
    assert!(matches!(refusal(Path::new("backup")), Error::Relative(_)));
    for own in ["nightmail.redb", "nightmail.lock", "nightmail.reserve"] {
        assert!(matches!(refusal(&world.dir.path().join(own)), Error::OwnFile(_)), "{own}");
    }
    let nowhere = refusal(&phase.path().join("no such directory/backup"));
    assert!(matches!(&nowhere, Error::Target { path, .. } if path.ends_with("no such directory")), "{nowhere}");
    let directory = phase.path().join("directory");
    std::fs::create_dir(&directory).unwrap();
    let refused = refusal(&directory);
    assert!(matches!(&refused, Error::Target { .. }), "{refused}");
    let left: Vec<_> = std::fs::read_dir(phase.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["directory"]);
}

#[test]
fn a_backup_that_is_cut_off_leaves_nothing_and_one_that_is_being_written_is_left_alone() {
    let (world, phase) = (World::new(), tempfile::tempdir().unwrap());
    let file = phase.path().join("backup");
    let stop = CancellationToken::new();
    stop.cancel();
    let cut = world.queues().store().backup(&order(&file), &stop).unwrap_err();
    assert!(matches!(cut, Error::Stopped), "{cut}");
    assert_eq!(std::fs::read_dir(phase.path()).unwrap().count(), 0);

    let new = phase.path().join("backup.new");
    let other = std::fs::File::create(&new).unwrap();
    rustix::fs::flock(&other, rustix::fs::FlockOperation::LockExclusive).unwrap();
    assert!(matches!(backup(&world, &order(&file)).unwrap_err(), Error::Busy(_)));
    assert!(new.exists(), "the other backup goes on");
    drop(other);
    backup(&world, &order(&file)).unwrap();
    assert!(!new.exists(), "what a crash left behind was replaced");
}
