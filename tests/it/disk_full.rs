//! The disk fills up: sends are refused in time, steps that end messages continue, and sends resume by themselves when
//! there is room again.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nightmail::api::control::{Failure, Request};
use nightmail::base::{Clock, SystemClock};
use nightmail_demo::bank::{self, Behaviour, Route};
use nightmail_demo::sink;
use tempfile::TempDir;

use crate::harness::{Harness, Operator, assert_sound, messages, say, until};

const MIB: u64 = 1 << 20;
/// `store.reserve` of the test on a small disk; the ballast is a quarter of it.
const RESERVE: u64 = 16 * MIB;

/// A small ext4 of its own in a file, unmounted when dropped.
struct Disk {
    /// Holds the image and the mount point.
    dir: TempDir,
}

impl Disk {
    /// Mounts one; `None`, after saying why, where that is not possible.
    fn mount(bytes: u64) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            say("skipped: only root may mount a disk");
            return None;
        }
        let disk = Self { dir: tempfile::tempdir().unwrap() };
        let (image, at) = (disk.dir.path().join("image"), disk.at());
        std::fs::File::create(&image).unwrap().set_len(bytes).unwrap();
        std::fs::create_dir(&at).unwrap();
        let made = run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&image));
        match made.and_then(|()| run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&at))) {
            Ok(()) => Some(disk),
            Err(why) => {
                say(format_args!("skipped: no disk can be mounted here ({why})"));
                None
            }
        }
    }

    fn at(&self) -> PathBuf {
        self.dir.path().join("disk")
    }

    fn free(&self) -> u64 {
        let disk = rustix::fs::statvfs(self.at()).unwrap();
        disk.f_bavail * disk.f_frsize
    }

    /// Another process writes a file; returns whether all of it fitted.
    fn fill(&self, name: &str, mib: u64) -> bool {
        let target = format!("of={}", self.at().join(name).display());
        run(Command::new("dd").args(["if=/dev/zero", "bs=64k", &format!("count={}", mib * 16), &target])).is_ok()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a daemon that a failing test leaves behind may take a moment to be gone.
        let _ = run(Command::new("umount").arg("-l").arg(self.at()));
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()) }
}

/// Sends a filler of 32 KiB to a queue that no function serves.
async fn send_filler(operator: &Operator) -> Result<(), Failure> {
    let request = Request::Send { queue: "fan-out-dead".into(), body: "x".repeat(32 << 10), with: Box::default() };
    operator.try_ask(request).await.map(drop)
}

/// Sends fillers until one is refused; answers how many were taken, and the refusal.
async fn send_until_refused(operator: &Operator) -> (usize, String) {
    for taken in 0..10_000 {
        if let Err(refused) = send_filler(operator).await {
            return (taken, refused.text);
        }
    }
    panic!("the disk never fills up");
}

/// Waits until the ballast is there, or is not.
async fn ballast(data: &Path, is_there: bool) {
    until("the ballast", async || (data.join("nightmail.reserve").exists() == is_there).then_some(())).await;
}

async fn send_statements(harness: &Harness, operator: &Operator, users: std::ops::Range<u32>) {
    for user in users {
        operator.send_statement(&harness.fixtures().user(user)).await.unwrap();
    }
}

async fn worked_off(operator: &Operator) {
    until("the statements", async || (operator.queue("statements").await.total() == 0).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_a_full_disk_refuses_sends_alone_and_sends_go_on_when_there_is_room() {
    const USERS: u32 = 40;
    let Some(disk) = Disk::mount(64 * MIB) else { return };
    let options = bank::Options { users: USERS, fail_share: 0.2, ..bank::Options::default() };
    let mut harness = Harness::set(options, sink::Options::default()).await;
    let data = disk.at().join("data");
    harness.set_key("DATA_DIR", data.display());
    harness.set_key("CONTROL__SOCKET", harness.dir.path().join("control.sock").display());
    harness.set_key("STORE__RESERVE", format!("{RESERVE}B"));
    harness.set_key("STORE__LOG", "1MiB");
    harness.set_key("FUNCTIONS__STATEMENT__ACCOUNT__RETRIES", 0);
    assert!(disk.fill("others", 16));
    let mut child = harness.child().await;
    ballast(&data, true).await;

    let (fillers, refused) = send_until_refused(&child.operator).await;
    assert!(fillers > 50, "{fillers}");
    assert!(refused.starts_with("queue \"fan-out-dead\" takes no message now: "), "{refused}");
    assert!(refused.contains("less than the 16.0 MiB that are kept"), "{refused}");
    let left = disk.free();
    assert!(left > RESERVE / 2, "only {left} bytes are left when the first send is refused");

    // The queues of functions go on into the second half; receiving, deleting, dying and redriving too.
    send_statements(&harness, &child.operator, 0..USERS / 2).await;
    worked_off(&child.operator).await;
    let died = child.operator.queue("statements-dead").await.total();
    assert!(died > 0 && harness.sink.summary().distinct + died == u64::from(USERS / 2), "{died} died");
    assert_eq!(child.operator.redrive("statements-dead").await, died);
    worked_off(&child.operator).await;

    // These wait for the bank while another process takes all that is left.
    harness.bank.set(Route::Account, Behaviour::Status { status: 503, retry_after: Some(1) });
    send_statements(&harness, &child.operator, USERS / 2..USERS).await;
    assert!(!disk.fill("filler", 64), "the disk is full");
    ballast(&data, false).await;
    let refused = child.operator.send_statement(&harness.fixtures().user(0)).await.unwrap_err().text;
    assert!(refused.contains("less than the 8.0 MiB that are kept"), "{refused}");
    harness.bank.set(Route::Account, Behaviour::Normal);
    worked_off(&child.operator).await;
    let died = child.operator.queue("statements-dead").await.total();
    assert_eq!(harness.sink.summary().distinct + died, u64::from(USERS), "mailed, or dead");
    harness.bank.fix();
    assert_eq!(child.operator.redrive("statements-dead").await, died);
    worked_off(&child.operator).await;
    harness.assert_one_mail_each(USERS);
    child.ready(&harness).await;
    let full = disk.free();

    let clock = SystemClock::new();
    let freed = clock.monotonic();
    std::fs::remove_file(disk.at().join("filler")).unwrap();
    std::fs::remove_file(disk.at().join("others")).unwrap();
    until("sends to go on", async || send_filler(&child.operator).await.is_ok().then_some(())).await;
    let waited = clock.monotonic() - freed;
    assert!(waited < Duration::from_secs(5), "sends went on after {waited:?}");
    ballast(&data, true).await;

    child.kill().await;
    let child = harness.child().await;
    assert!(child.terminate(Duration::from_secs(30)).await.success());
    let queues = harness.queues();
    assert_eq!(messages(&queues, "fan-out-dead").len(), fillers + 1, "what was acknowledged is there");
    assert_sound(&queues);
    say(format_args!(
        "{fillers} fillers taken, {} KiB left at the first refusal, {} KiB when the disk was full; sends went on after \
         {waited:?}",
        left >> 10,
        full >> 10
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_a_daemon_starts_on_a_full_disk_by_giving_up_its_ballast() {
    let Some(disk) = Disk::mount(64 * MIB) else { return };
    let mut harness = Harness::with_users(3).await;
    let data = disk.at().join("data");
    harness.set_key("DATA_DIR", data.display());
    harness.set_key("CONTROL__SOCKET", harness.dir.path().join("control.sock").display());
    harness.set_key("STORE__RESERVE", format!("{RESERVE}B"));
    harness.set_key("STORE__LOG", "1MiB");
    let child = harness.child().await;
    send_filler(&child.operator).await.unwrap();
    ballast(&data, true).await;
    child.kill().await;
    assert!(!disk.fill("filler", 64));
    assert!(disk.free() < MIB, "{} bytes are free", disk.free());

    let child = harness.child().await;
    ballast(&data, false).await;
    assert!(send_filler(&child.operator).await.is_err());
    assert_eq!(child.operator.queue("fan-out-dead").await.total(), 1);
    std::fs::remove_file(disk.at().join("filler")).unwrap();
    until("sends to go on", async || send_filler(&child.operator).await.is_ok().then_some(())).await;
    assert!(child.terminate(Duration::from_secs(30)).await.success());
    assert_sound(&harness.queues());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_meets_a_full_disk_waits_at_no_cost_and_goes_on_when_there_is_room() {
    const USERS: u32 = 5;
    let mut harness = Harness::with_users(USERS).await;
    // More than any disk has: sends are always refused.
    harness.set_key("STORE__RESERVE", "1PiB");
    harness.set_key("FUNCTIONS__FAN_OUT__DEFERRAL_PAUSE", "20ms");
    let child = harness.child().await;
    assert!(send_filler(&child.operator).await.is_err());
    let run = child.operator.start().await;
    let put_off = until("the fan-out to be put off", async || {
        let found = child.operator.peek("fan-out").await.into_iter().next()?;
        (found.history.len() >= 3).then_some(found)
    })
    .await;
    assert!(put_off.attempts_charged <= 1, "{put_off:?}");
    let why = put_off.history[0].failure.as_ref().unwrap().to_string();
    assert!(why.starts_with("store fan-out disk-full: queue \"statements\" takes no message now"), "{why}");
    assert_eq!(child.operator.report(run).await.fetched, 0);
    assert!(child.terminate(Duration::from_secs(30)).await.success());

    harness.set_key("STORE__RESERVE", "1MiB");
    let child = harness.child().await;
    let report = child.operator.complete(run).await;
    assert_eq!((report.fetched, report.sent), (u64::from(USERS), u64::from(USERS)));
    assert!(child.terminate(Duration::from_secs(30)).await.success());
}
