//! The night of the 1st: users, faults, outages, clock steps, a suspended machine and kills in one run. Every user ends
//! with exactly one mail, or with a letter or a doubt that says why, and no letter names trouble that was not its own.
//!
//! `NIGHTMAIL_NIGHT_USERS=3000 NIGHTMAIL_NIGHT_SCALE=10` is the full size: all times are ten times as long.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nightmail_demo::sink::{self, Action, Step};
use nightmail_demo::{bank, fixtures};

use crate::harness::{Child, Harness, say, size, until};
use crate::proxy::Proxy;

/// The relay's name, which the daemon looks up: `hosts` resolves it as long as the name is in there.
const RELAY: &str = "relay.night.test";
/// Every mail of this number of connections is answered late.
const LATE_EVERY: u64 = 17;
/// The log of the whole night, in bytes.
const LOG_BYTES_MAX: usize = 200_000;

struct Night {
    harness: Harness,
    relay: Proxy,
    accounts: Proxy,
    /// Where the libraries that are loaded into the daemon read the time and the names from.
    files: Files,
    /// Seconds of the full night are a tenth of this in seconds.
    scale: u32,
    run: u64,
    users: u32,
}

struct Files {
    clock: PathBuf,
    hosts: PathBuf,
    has_clock: bool,
    has_names: bool,
}

impl Files {
    /// Prepares the libraries that fake the clock and the resolver, as far as they are installed.
    fn prepare(harness: &mut Harness) -> Self {
        let (clock, hosts) = (harness.dir.path().join("clock"), harness.dir.path().join("hosts"));
        let faketime = library("faketime/libfaketime.so.1", "libfaketime");
        let wrapper = library("libnss_wrapper.so", "libnss-wrapper");
        let preload: Vec<&str> =
            [&faketime, &wrapper].into_iter().flatten().map(|path| path.to_str().unwrap()).collect();
        harness.set_variable("LD_PRELOAD", preload.join(":"));
        harness.set_variable("FAKETIME_TIMESTAMP_FILE", clock.display());
        harness.set_variable("FAKETIME_NO_CACHE", 1);
        harness.set_variable("FAKETIME_DONT_FAKE_MONOTONIC", 1);
        harness.set_variable("NSS_WRAPPER_HOSTS", hosts.display());
        let files = Self { clock, hosts, has_clock: faketime.is_some(), has_names: wrapper.is_some() };
        files.set_clock("+0s");
        files.resolve(true);
        files
    }

    fn set_clock(&self, offset: &str) {
        replace(&self.clock, offset);
    }

    fn resolve(&self, is_known: bool) {
        replace(&self.hosts, if is_known { "127.0.0.1 relay.night.test\n" } else { "" });
    }
}

/// Replaces a file that another process may be reading.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, path).unwrap();
}

/// A library of the machine; without it a part of the night is skipped, unless the tools are required.
fn library(name: &str, package: &str) -> Option<PathBuf> {
    let found = ["x86_64-linux-gnu", "aarch64-linux-gnu"].map(|arch| Path::new("/usr/lib").join(arch).join(name));
    let found = found.into_iter().find(|path| path.exists());
    let required = std::env::var("NIGHTMAIL_TEST_TOOLS").is_ok_and(|value| value == "required");
    assert!(found.is_some() || !required, "{package} is not installed");
    if found.is_none() {
        say(format_args!("a part is skipped: {package} is not installed (scripts/install-test-tools installs it)"));
    }
    found
}

impl Night {
    async fn prepare() -> (Self, Child) {
        let (users, scale) = (size("NIGHTMAIL_NIGHT_USERS", 400), size("NIGHTMAIL_NIGHT_SCALE", 1));
        let late = Duration::from_secs(7) * scale;
        let script: sink::Script = Arc::new(move |connection, mail, step| match step {
            Step::Dot if connection.is_multiple_of(LATE_EVERY) && mail == 1 => Action::Delay(late),
            _ => Action::Accept,
        });
        let latency = Some(Duration::from_millis(300));
        let options = bank::Options { users, fail_share: 0.01, latency, page_size: 100, ..bank::Options::default() };
        let sink = sink::Options { script: Some(script), ..sink::Options::default() };
        let mut harness = Harness::set(options, sink).await;
        let relay = Proxy::to(harness.sink.address()).await;
        let accounts = Proxy::to(harness.bank.address()).await;
        let files = Files::prepare(&mut harness);
        let host = if files.has_names { RELAY } else { "127.0.0.1" };
        harness.set_key("FUNCTIONS__STATEMENT__MAIL__RELAY__HOST", host);
        harness.set_key("FUNCTIONS__STATEMENT__MAIL__RELAY__PORT", relay.address().port());
        harness.set_key("FUNCTIONS__STATEMENT__MAIL__RELAY__CONNECTIONS", 24);
        harness.set_key("FUNCTIONS__STATEMENT__MAIL__RELAY__MAILS_PER_CONNECTION", 10);
        let url = format!("http://{}/accounts/{{account_id}}/transactions?period={{period}}", accounts.address());
        harness.set_key("FUNCTIONS__STATEMENT__ACCOUNT__URL", url);
        // A tenth of the defaults at scale 1, and the defaults at full size.
        for function in ["FAN_OUT", "STATEMENT"] {
            harness.set_key(&format!("FUNCTIONS__{function}__DEFERRAL_PAUSE"), format!("{}s", 3 * scale));
        }
        harness.set_key("FUNCTIONS__STATEMENT__TIMEOUT", format!("{}s", 6 * scale));
        let limits =
            [("GREETING", 30), ("COMMAND", 30), ("DATA", 12), ("BODY_PIECE", 18), ("BODY", 60), ("END_OF_DATA", 60)];
        for (step, seconds) in limits {
            let key = format!("FUNCTIONS__STATEMENT__MAIL__RELAY__{step}_TIMEOUT");
            harness.set_key(&key, format!("{}s", seconds * scale));
        }
        // Messages in the order in which the bank names users: faulty accounts are done before the kills. One that happened to
        // be alone at several of them would rightly be charged for these.
        harness.set_key("SCHEDULES__MONTHLY_STATEMENTS__GUARD", "off");
        let child = harness.child().await;
        let run = child.operator.start().await;
        (Self { harness, relay, accounts, files, scale, run, users }, child)
    }

    /// A span of the full night, scaled.
    async fn wait(&self, full_s: u32) {
        tokio::time::sleep(Duration::from_secs(u64::from(full_s)) * self.scale / 10).await;
    }

    /// Waits until another share of the users has mails, so that each trouble meets work.
    async fn progress(&self, percent: u32) {
        let wanted = u64::from(self.users) * u64::from(percent) / 100;
        until("progress", async || (self.harness.sink.summary().distinct >= wanted).then_some(())).await;
    }

    async fn outages(&mut self) {
        self.progress(10).await;
        self.relay.goes_away().await;
        self.wait(120).await;
        self.relay.comes_back();
        self.progress(20).await;
        if self.files.has_names {
            self.files.resolve(false);
            // A parked connection needs no name: only new ones meet this trouble.
            self.relay.cut();
            self.wait(60).await;
            self.files.resolve(true);
        }
        self.progress(35).await;
        self.accounts.goes_away().await;
        self.wait(60).await;
        self.accounts.comes_back();
    }

    async fn clock_steps(&self) {
        self.progress(45).await;
        if self.files.has_clock {
            for offset in ["+600s", "-600s", "+0s"] {
                self.files.set_clock(offset);
                self.wait(20).await;
            }
        }
    }

    /// Suspends the daemon, then kills it twelve times; returns the last one.
    async fn suspend_and_kill(&self, child: Child) -> Child {
        self.progress(55).await;
        child.suspend();
        self.wait(70).await;
        child.resume();
        self.progress(65).await;
        let mut child = child;
        for _ in 0..12 {
            tokio::time::sleep(Duration::from_millis(500)).await;
            child.kill().await;
            child = self.harness.child().await;
        }
        child
    }

    async fn judge(&self, child: Child) {
        let report = child.operator.complete(self.run).await;
        let in_doubt: BTreeMap<String, String> = child
            .operator
            .in_doubt(self.run)
            .await
            .into_iter()
            .map(|row| (row.user, row.reason.unwrap_or_default()))
            .collect();
        let letters: BTreeMap<String, String> = child.operator.letters("statements-dead").await;
        assert_eq!(child.operator.queue("fan-out-dead").await.total(), 0, "the fan-out survives the night");
        assert!(child.terminate(Duration::from_secs(60)).await.success());

        let summary = self.harness.sink.summary();
        let mailed: BTreeSet<String> = self.harness.sink.records().into_iter().map(|mail| mail.recipient).collect();
        let fixtures = self.harness.fixtures();
        for index in 0..self.users {
            let user: fixtures::User = fixtures.user(index);
            let has_mail = mailed.contains(&user.email);
            match self.harness.bank.plan().fault(index) {
                Some(fault) => {
                    let class = letters.get(&user.id).unwrap_or_else(|| panic!("{}: {fault:?} is no letter", user.id));
                    assert!(!has_mail && is_own(class), "{}: {fault:?} became {class}", user.id);
                }
                None => {
                    assert!(!letters.contains_key(&user.id), "{}: a letter names {}", user.id, letters[&user.id]);
                    let says_why = in_doubt.get(&user.id).is_some_and(|why| !why.is_empty());
                    assert!(has_mail || says_why, "{} got nothing, and there is no reason", user.id);
                }
            }
        }
        assert!(summary.doubled.is_empty(), "{:?}", summary.doubled);
        assert_eq!(report.fetched, u64::from(self.users));
        assert_eq!(report.sent + report.dead + report.unknown, u64::from(self.users), "{report:?}");
        let log = self.harness.log();
        assert!(log.len() < LOG_BYTES_MAX, "the log has {} bytes", log.len());
        say(format_args!(
            "{} users: {} sent, {} letters of faulty accounts, {} in doubt; the log has {} bytes",
            self.users,
            report.sent,
            letters.len(),
            in_doubt.len(),
            log.len()
        ));
    }
}

/// Whether the class is one of the bank's faulty accounts.
fn is_own(class: &str) -> bool {
    ["http account 404", "http account 500", "data account account-mismatch", "data account balance-mismatch"]
        .contains(&class)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_run_survives_the_night() {
    let (mut night, child) = Night::prepare().await;
    night.outages().await;
    night.clock_steps().await;
    let child = night.suspend_and_kill(child).await;
    night.judge(child).await;
}
