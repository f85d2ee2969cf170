//! The harness of the end-to-end tests: the demo's bank and mail sink in this process, and the real daemon, either in
//! this process too or as a child that can be killed. Tests talk to the daemon only over its control socket.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nightmail::api::control::{Answer, Client, Failure, Request};
use nightmail::base::{Clock, SystemClock, Timestamp};
use nightmail::config::{self, Environment, Settings};
use nightmail::daemon::{self, Daemon};
use nightmail::queue::dead::Group;
use nightmail::queue::peek::Peeked;
use nightmail::queue::redrive::Redrive;
use nightmail::queue::stats::Stats;
use nightmail::queue::{Queues, catalog};
use nightmail::run::Decision;
use nightmail::run::report::{self, Filter, Report, Row};
use nightmail::store::check::{self, Findings};
use nightmail_demo::{Fixtures, Period, bank, sink};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

/// The schedule of the example configuration.
pub(crate) const SCHEDULE: &str = "monthly-statements";
/// The month of most runs.
pub(crate) const PERIOD: &str = "2026-10";
/// The longest wait of a test, so that a test that hangs fails with a reason.
const WAIT_MAX: Duration = Duration::from_secs(1500);
/// The longest wait for one answer, on a busy machine.
const ANSWER_WITHIN: Duration = Duration::from_secs(300);
/// The interval at which a condition is polled.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A number from the environment, so that the same test runs in CI size and in full size.
pub(crate) fn size(variable: &str, in_ci: u32) -> u32 {
    std::env::var(variable).map_or(in_ci, |text| text.parse().expect("a size is a number"))
}

/// Prints what a test measured.
#[expect(clippy::print_stderr, reason = "a test shows its seed and its figures")]
pub(crate) fn say(text: impl std::fmt::Display) {
    eprintln!("{text}");
}

/// Whether a tool of the machine is there; a check without it is skipped, unless the tools are required.
pub(crate) fn has(tool: &str) -> bool {
    let found = std::process::Command::new(tool).arg("--version").output().is_ok();
    let required = std::env::var("NIGHTMAIL_TEST_TOOLS").is_ok_and(|value| value == "required");
    assert!(found || !required, "{tool} is not installed (Debian packages poppler-utils and qpdf)");
    if !found {
        say(format_args!("skipped: {tool} is not installed (Debian packages poppler-utils and qpdf)"));
    }
    found
}

/// The seed of the environment, or a new one; it is printed.
pub(crate) fn seed() -> u64 {
    let seed = std::env::var("NIGHTMAIL_SEED").ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(|| SystemClock::new().wall().as_millis());
    say(format_args!("NIGHTMAIL_SEED={seed}"));
    seed
}

/// A stream of numbers whose seed is printed; `NIGHTMAIL_SEED` replays it.
pub(crate) struct Rng(u64);

impl Rng {
    /// Starts from the seed of the environment, or from a new one.
    pub(crate) fn new() -> Self {
        Self(seed())
    }

    /// A number below `end` (SplitMix64).
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end.max(1)
    }

    /// A span shorter than `end_ms`.
    pub(crate) fn span(&mut self, end_ms: u64) -> Duration {
        Duration::from_millis(self.below(end_ms))
    }
}

/// Bank, sink and a directory; tests start and stop daemons on it.
pub(crate) struct Harness {
    pub(crate) dir: TempDir,
    pub(crate) bank: bank::Handle,
    pub(crate) sink: sink::Handle,
    /// What the configuration has besides the example.
    more: String,
    /// Overriding variables without their prefix.
    overrides: BTreeMap<String, String>,
    /// Other variables of a daemon in a process of its own.
    variables: BTreeMap<String, String>,
    /// Stops bank and sink when the harness is dropped.
    _end: DropGuard,
}

impl Harness {
    /// A bank with this many users and a sink without faults.
    pub(crate) async fn with_users(users: u32) -> Self {
        Self::set(bank::Options { users, ..bank::Options::default() }, sink::Options::default()).await
    }

    /// A bank and a sink with these options.
    pub(crate) async fn set(bank: bank::Options, mut sink: sink::Options) -> Self {
        let end = CancellationToken::new();
        let dir = tempfile::tempdir().unwrap();
        sink.pdf_dir = sink.pdf_dir.map(|name| dir.path().join(name));
        let bank = bank::Bank::start(listener().await, bank, end.clone());
        let sink = sink::Sink::start(listener().await, sink, end.clone()).unwrap();
        let mut harness = Self {
            dir,
            bank,
            sink,
            more: String::new(),
            overrides: BTreeMap::new(),
            variables: BTreeMap::new(),
            _end: end.drop_guard(),
        };
        harness.override_addresses();
        harness
    }

    fn override_addresses(&mut self) {
        self.set_key("DATA_DIR", self.dir.path().join("data").display());
        self.set_key("LOG__LEVEL", "warn");
        self.set_key("FUNCTIONS__FAN_OUT__USERS__URL", self.bank.url("/users?period={period}"));
        let account = self.bank.url("/accounts/{account_id}/transactions?period={period}");
        self.set_key("FUNCTIONS__STATEMENT__ACCOUNT__URL", account);
        self.set_key("FUNCTIONS__STATEMENT__MAIL__RELAY__HOST", self.sink.address().ip());
        self.set_key("FUNCTIONS__STATEMENT__MAIL__RELAY__PORT", self.sink.address().port());
        for function in ["FAN_OUT", "FAN_OUT__USERS", "STATEMENT", "STATEMENT__ACCOUNT"] {
            self.set_key(&format!("FUNCTIONS__{function}__BACKOFF__FIRST"), "20ms");
            self.set_key(&format!("FUNCTIONS__{function}__BACKOFF__MAX"), "200ms");
        }
    }

    /// Sets a key of the configuration as its variable would: `LOG__LEVEL`.
    pub(crate) fn set_key(&mut self, name: &str, value: impl std::fmt::Display) {
        self.overrides.insert(name.into(), value.to_string());
    }

    /// Takes such a key back.
    pub(crate) fn unset_key(&mut self, name: &str) {
        self.overrides.remove(name);
    }

    /// Adds sections to the configuration.
    pub(crate) fn add_sections(&mut self, text: &str) {
        self.more += text;
    }

    fn text(&self) -> String {
        format!("{}\n{}", config::EXAMPLE, self.more)
    }

    /// Sets a variable of the daemon's process.
    pub(crate) fn set_variable(&mut self, name: &str, value: impl std::fmt::Display) {
        self.variables.insert(name.into(), value.to_string());
    }

    fn variables(&self) -> impl Iterator<Item = (String, String)> {
        self.overrides.iter().map(|(name, value)| (format!("NIGHTMAIL__{name}"), value.clone()))
    }

    pub(crate) fn settings(&self) -> Settings {
        let secrets = self.variables.iter().map(|(name, value)| (name.clone(), value.clone()));
        let environment: Environment = self.variables().chain(secrets).collect();
        config::load_text("(test)", Path::new(""), &self.text(), &environment).unwrap()
    }

    /// Starts the daemon in this process.
    pub(crate) async fn daemon(&self) -> Inner {
        self.daemon_by(SystemClock::shared()).await
    }

    /// The same with a clock of the test's.
    pub(crate) async fn daemon_by(&self, clock: Arc<dyn Clock>) -> Inner {
        let settings = self.settings();
        let socket = settings.control_socket.clone();
        let daemon = Daemon::open(settings, clock).await.unwrap();
        let (queues, sqs) = (daemon.queues().clone(), daemon.sqs_address());
        let stop = CancellationToken::new();
        let working = tokio::spawn(daemon.work(stop.clone(), CancellationToken::new()));
        Inner { operator: Operator::new(&socket), queues, sqs, stop, working }
    }

    /// Starts the daemon as a process of its own; it may not answer yet.
    pub(crate) fn spawn(&self) -> Child {
        let path = self.dir.path().join("config.toml");
        std::fs::write(&path, self.text()).unwrap();
        let log = self.dir.path().join("log.txt");
        let log = std::fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_nightmail"));
        command
            .arg("serve")
            .arg("--config")
            .arg(path)
            .envs(self.variables())
            .envs(&self.variables)
            .env_remove("NOTIFY_SOCKET");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).kill_on_drop(true);
        let process = command.spawn().unwrap();
        Child { operator: Operator::new(&self.settings().control_socket), process }
    }

    /// Starts the daemon as a process and waits until it answers.
    pub(crate) async fn child(&self) -> Child {
        let mut child = self.spawn();
        child.ready(self).await;
        child
    }

    /// The store while no daemon runs.
    pub(crate) fn queues(&self) -> Queues {
        daemon::serve::open_queues(&self.settings().store, SystemClock::shared()).unwrap()
    }

    /// The log of all children so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log.txt")).unwrap_or_default()
    }

    pub(crate) fn fixtures(&self) -> Fixtures {
        self.bank.fixtures()
    }

    /// Checks that each of these users got one mail and nobody else got any.
    pub(crate) fn assert_one_mail_each(&self, users: u32) {
        let summary = self.sink.summary();
        let found = (summary.distinct, summary.total, summary.doubled.len());
        assert_eq!(found, (u64::from(users), u64::from(users), 0), "recipients, mails, doubled: {summary:?}");
        self.assert_recipients(users);
    }

    /// Checks that exactly these users are among the recipients, and that no mail broke a rule.
    pub(crate) fn assert_recipients(&self, users: u32) {
        let got: BTreeSet<String> = self.sink.records().into_iter().map(|record| record.recipient).collect();
        let expected: BTreeSet<String> = (0..users).map(|index| self.fixtures().user(index).email).collect();
        let (lost, strange) = (expected.difference(&got).count(), got.difference(&expected).count());
        assert_eq!((lost, strange), (0, 0), "users without a mail, and mails to others");
        assert_eq!(self.sink.summary().violations, BTreeMap::new());
    }
}

/// A listener on a free port of the loopback.
pub(crate) async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

/// The month of most runs, for the population.
pub(crate) fn period() -> Period {
    PERIOD.parse().unwrap()
}

/// Waits until `look` finds something.
pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let found = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    tokio::time::timeout(WAIT_MAX, found).await.unwrap_or_else(|_| panic!("waited too long for {what}"))
}

/// A client of the daemon's control socket.
#[derive(Clone)]
pub(crate) struct Operator(Client);

impl Operator {
    fn new(socket: &Path) -> Self {
        Self(Client::new(socket).with_timeout(ANSWER_WITHIN))
    }

    pub(crate) async fn try_ask(&self, request: Request) -> Result<Answer, Failure> {
        self.0.ask(&request).await
    }

    async fn ask(&self, request: Request) -> Answer {
        self.try_ask(request).await.unwrap()
    }

    pub(crate) async fn try_start(&self, period: &str) -> Result<u64, Failure> {
        let params = BTreeMap::from([("period".to_owned(), period.to_owned())]);
        match self.try_ask(Request::StartRun { schedule: SCHEDULE.into(), params, note: String::new() }).await? {
            Answer::Started(run) => Ok(run),
            other => panic!("{other:?}"),
        }
    }

    /// Starts the run of October.
    pub(crate) async fn start(&self) -> u64 {
        self.try_start(PERIOD).await.unwrap()
    }

    /// Starts the run that the schedule would start now.
    pub(crate) async fn start_this_month(&self) -> u64 {
        match self
            .ask(Request::StartRun { schedule: SCHEDULE.into(), params: BTreeMap::new(), note: String::new() })
            .await
        {
            Answer::Started(run) => run,
            other => panic!("{other:?}"),
        }
    }

    /// Stops, resumes or abandons a run.
    pub(crate) async fn decide(&self, id: u64, decision: Decision) -> Report {
        match self.ask(Request::DecideRun { id, decision }).await {
            Answer::Run(report) => report,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn runs(&self) -> Vec<Report> {
        match self.ask(Request::Runs { max: 100 }).await {
            Answer::Runs(runs) => runs,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn report(&self, id: u64) -> Report {
        match self.ask(Request::Run { id }).await {
            Answer::Run(report) => report,
            other => panic!("{other:?}"),
        }
    }

    /// Waits until every recipient of the run has an outcome.
    pub(crate) async fn complete(&self, id: u64) -> Report {
        until("the run to be complete", async || Some(self.report(id).await).filter(Report::is_complete)).await
    }

    pub(crate) async fn queues(&self) -> Vec<Stats> {
        match self.ask(Request::Queues).await {
            Answer::Queues(queues) => queues,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn queue(&self, name: &str) -> Stats {
        self.queues().await.into_iter().find(|queue| queue.name == name).unwrap()
    }

    pub(crate) async fn peek(&self, queue: &str) -> Vec<Peeked> {
        match self.ask(Request::Peek { queue: queue.into(), max: 1000 }).await {
            Answer::Messages(messages) => messages,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn dead(&self, queue: &str) -> Vec<Group> {
        match self.ask(Request::Dead { queue: queue.into() }).await {
            Answer::Dead(groups) => groups,
            other => panic!("{other:?}"),
        }
    }

    /// The letters of a queue: the user's id and the class of the last failure.
    pub(crate) async fn letters(&self, queue: &str) -> BTreeMap<String, String> {
        let letter = |letter: Peeked| {
            let body: serde_json::Value = serde_json::from_str(&letter.body).unwrap();
            let class = letter.history.last().and_then(|attempt| attempt.failure.as_ref()).unwrap().class();
            (body["user"]["id"].as_str().unwrap().to_owned(), class)
        };
        self.peek(queue).await.into_iter().map(letter).collect()
    }

    /// Sends a message of no run that mails the statement of that user.
    pub(crate) async fn send_statement(&self, user: &nightmail_demo::fixtures::User) -> Result<(), Failure> {
        let body = serde_json::json!({ "user": user, "params": { "period": PERIOD } }).to_string();
        self.try_ask(Request::Send { queue: "statements".into(), body, with: Box::default() }).await.map(drop)
    }

    /// Waits until so many letters are in the dead-letter queue.
    pub(crate) async fn died(&self, queue: &str, letters: u64) -> Vec<Group> {
        until("dead letters", async || (self.queue(queue).await.total() >= letters).then_some(())).await;
        self.dead(queue).await
    }

    /// The recipients whose attempts were cut off.
    pub(crate) async fn in_doubt(&self, id: u64) -> Vec<Row> {
        self.rows(Request::Recipients { id, filter: Filter { interrupted: true, ..Filter::default() }, after: None })
            .await
    }

    async fn rows(&self, request: Request) -> Vec<Row> {
        match self.ask(request).await {
            Answer::Recipients(rows) => rows,
            other => panic!("{other:?}"),
        }
    }

    /// Redrives all letters of a dead-letter queue and waits for the end; returns how many moved.
    pub(crate) async fn redrive(&self, queue: &str) -> u64 {
        let redrive = Redrive { from: queue.into(), ..Redrive::default() };
        let Answer::Started(id) = self.ask(Request::StartRedrive(redrive)).await else { panic!("no redrive") };
        until("the redrive", async || {
            let Answer::Redrives(all) = self.ask(Request::Redrives).await else { panic!("no redrives") };
            let this = all.into_iter().find(|redrive| redrive.id == id).unwrap();
            (this.state != "running").then_some(this.moved)
        })
        .await
    }

    /// Waits until every user has a mail, redriving whatever dies meanwhile; returns the number of letters.
    pub(crate) async fn all_sent(&self, id: u64) -> (Report, u64) {
        let mut driven = 0;
        let report = until("every user to have a mail", async || {
            for queue in ["fan-out-dead", "statements-dead"] {
                if self.queue(queue).await.total() > 0 {
                    driven += self.redrive(queue).await;
                }
            }
            Some(self.report(id).await).filter(|report| report.is_complete() && report.dead == 0)
        })
        .await;
        (report, driven)
    }

    /// Checks that nothing is left in any queue.
    pub(crate) async fn assert_empty(&self) {
        for queue in self.queues().await {
            assert_eq!(queue.total(), 0, "messages are left in {}", queue.name);
        }
    }
}

/// Recounts the run's rows and checks that the books agree.
pub(crate) fn assert_recounted(queues: &Queues, run: u64) -> Report {
    let snapshot = queues.store().snapshot().unwrap();
    let counted = report::recount(&snapshot, run).unwrap();
    let kept = snapshot.totals().unwrap().get(&run).unwrap().unwrap();
    assert_eq!(counted, kept, "the kept totals are not what the rows say");
    report::report(&snapshot, run).unwrap()
}

/// Checks every row of the store and the rules between them.
pub(crate) fn assert_sound(queues: &Queues) {
    let (snapshot, mut findings) = (queues.store().snapshot().unwrap(), Findings::new(CancellationToken::new()));
    check::records(&snapshot, &mut findings).unwrap();
    nightmail::queue::check::check(&snapshot, &mut findings).unwrap();
    nightmail::run::check::check(&snapshot, &mut findings).unwrap();
    assert_eq!((findings.total, findings.shown), (0, Vec::new()));
    assert!(findings.rows > 0);
}

/// All messages of a queue, read from the store.
pub(crate) fn messages(queues: &Queues, queue: &str) -> Vec<Peeked> {
    let snapshot = queues.store().snapshot().unwrap();
    let queue = catalog::look_up(&snapshot, queue).unwrap();
    nightmail::queue::peek::peek(&snapshot, &queue, usize::MAX, 4096, queues.now()).unwrap()
}

/// A daemon in this process.
pub(crate) struct Inner {
    pub(crate) operator: Operator,
    pub(crate) queues: Queues,
    /// Where SQS clients are answered, when the endpoint is on.
    pub(crate) sqs: Option<SocketAddr>,
    stop: CancellationToken,
    working: JoinHandle<Result<(), daemon::Error>>,
}

impl Inner {
    /// Drains the daemon and waits for its end.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.working.await.unwrap().unwrap();
    }
}

/// A daemon in a process of its own; killed when it is dropped.
pub(crate) struct Child {
    pub(crate) operator: Operator,
    process: tokio::process::Child,
}

impl Child {
    /// Waits until this process answers on its socket.
    pub(crate) async fn ready(&mut self, harness: &Harness) {
        let pid = self.process.id().unwrap();
        until("the daemon's answer", async || {
            if let Ok(Answer::Status(status)) = self.operator.try_ask(Request::Status).await
                && status.pid == pid
            {
                return Some(());
            }
            let ended = self.process.try_wait().unwrap();
            assert!(ended.is_none(), "the daemon ended with {ended:?}:\n{}", harness.log());
            None
        })
        .await;
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.process.id().unwrap()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    }

    /// The process's number.
    pub(crate) fn pid(&self) -> u32 {
        self.process.id().unwrap()
    }

    /// SIGSTOP: the process gets no time until [`Child::resume`].
    pub(crate) fn suspend(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub(crate) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// SIGKILL, and the process is gone.
    pub(crate) async fn kill(mut self) {
        self.signal(Signal::KILL);
        self.process.wait().await.unwrap();
    }

    /// SIGTERM, and its end within `limit`.
    pub(crate) async fn terminate(mut self, limit: Duration) -> ExitStatus {
        self.signal(Signal::TERM);
        let ended = tokio::time::timeout(limit, self.process.wait()).await;
        ended.unwrap_or_else(|_| panic!("it did not end within {limit:?}")).unwrap()
    }

    /// The most memory that it had so far (VmHWM), in MiB.
    pub(crate) fn peak_mib(&self) -> u64 {
        let path = PathBuf::from(format!("/proc/{}/status", self.process.id().unwrap()));
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib / 1024
    }
}

/// A rule of six fields that is due once a year, at that second (UTC).
pub(crate) fn cron_at(moment: Timestamp) -> String {
    let at = moment.to_jiff().unwrap().to_zoned(jiff::tz::TimeZone::UTC);
    format!("{} {} {} {} {} *", at.second(), at.minute(), at.hour(), at.day(), at.month())
}
