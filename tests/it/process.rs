//! The real binary and its neighbours as child processes of a test: started, read, stopped, and never left behind.

#![expect(clippy::disallowed_methods, reason = "processes live by the real clock")]

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// The longest wait of a test, also on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A process whose lines are read as they come; killed when dropped.
pub(crate) struct Process {
    child: Child,
    /// Standard error and standard output, a line at a time.
    lines: Receiver<String>,
    /// What was read so far.
    pub(crate) seen: Vec<String>,
}

impl Process {
    pub(crate) fn start(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let (sender, lines) = channel();
        let pipes: [Box<dyn Read + Send>; 2] =
            [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        for pipe in pipes {
            let sender = sender.clone();
            std::thread::spawn(move || {
                let lines = BufReader::new(pipe).split(b'\n').map_while(Result::ok);
                for line in lines {
                    if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                        return;
                    }
                }
            });
        }
        Self { child, lines, seen: Vec::new() }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the next line that has `text` in it.
    pub(crate) fn wait_for(&mut self, text: &str) -> String {
        let began = Instant::now();
        loop {
            match self.lines.recv_timeout(PATIENCE.saturating_sub(began.elapsed())) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if line.contains(text) {
                        return line;
                    }
                }
                Err(error) => panic!("{text:?} was never said ({error}), but:\n{}", self.seen.join("\n")),
            }
        }
    }

    pub(crate) fn terminate(&self) {
        self.signal(rustix::process::Signal::TERM);
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits for the end; answers the exit code, or the negative signal.
    pub(crate) fn end(&mut self) -> i32 {
        let began = Instant::now();
        loop {
            match self.lines.recv_timeout(PATIENCE.saturating_sub(began.elapsed())) {
                Ok(line) => self.seen.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("it does not end; it said:\n{}", self.seen.join("\n")),
            }
        }
        let status = self.child.wait().unwrap();
        status.code().unwrap_or_else(|| -status.signal().unwrap())
    }

    /// Stops it and waits for a successful exit.
    pub(crate) fn stop(mut self) -> Vec<String> {
        self.terminate();
        assert_eq!(self.end(), 0, "{}", self.seen.join("\n"));
        std::mem::take(&mut self.seen)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The output of a finished command.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    /// Runs any command to its end, with nothing on standard input.
    pub(crate) fn of(command: &mut Command) -> Self {
        Self::new(&command.stdin(Stdio::null()).output().unwrap())
    }

    fn new(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("the command writes UTF-8");
        Self { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) }
    }

    /// The JSON value that a successful command printed, with nothing around it.
    pub(crate) fn json(&self) -> serde_json::Value {
        assert_eq!(self.code, 0, "{self:?}");
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The output of a successful command.
    #[track_caller]
    pub(crate) fn good(&self) -> &str {
        assert_eq!(self.code, 0, "{self:?}");
        &self.out
    }
}

/// A directory with the example configuration, the demo's bank, a relay of the test's choice, and the variables that
/// point the configuration to both.
pub(crate) struct Harness {
    pub(crate) dir: TempDir,
    variables: Vec<(String, String)>,
    /// Kept for the duration of the test.
    servers: Vec<Process>,
}

impl Harness {
    /// A harness without bank and relay.
    pub(crate) fn empty() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("config.toml");
        std::fs::copy(example, dir.path().join("config.toml")).unwrap();
        let mut harness = Self { dir, variables: Vec::new(), servers: Vec::new() };
        // Tests do not wait as long between attempts as a night run does.
        harness.set("FUNCTIONS__STATEMENT__BACKOFF__FIRST", "20ms");
        harness.set("FUNCTIONS__STATEMENT__BACKOFF__MAX", "50ms");
        harness.set("FUNCTIONS__STATEMENT__ACCOUNT__RETRIES", "0");
        harness
    }

    /// A harness with a bank of these options.
    pub(crate) fn with_bank(options: &[&str]) -> Self {
        let mut harness = Self::empty();
        harness.start_bank(options);
        harness
    }

    /// The same with the demo's mail sink as the relay.
    pub(crate) fn with_bank_and_sink(options: &[&str]) -> Self {
        let mut harness = Self::with_bank(options);
        harness.start_sink();
        harness
    }

    /// Starts a bank for what is started from now on.
    pub(crate) fn start_bank(&mut self, options: &[&str]) {
        let mut bank = Process::start(self.command(&["demo", "bank", "--listen", "127.0.0.1:0"]).args(options));
        let line = bank.wait_for("on http://");
        let url = line.split_whitespace().find(|word| word.starts_with("http://")).unwrap();
        self.set("FUNCTIONS__FAN_OUT__USERS__URL", &format!("{url}/users?period={{period}}"));
        let account = format!("{url}/accounts/{{account_id}}/transactions?period={{period}}");
        self.set("FUNCTIONS__STATEMENT__ACCOUNT__URL", &account);
        self.servers.push(bank);
    }

    /// Starts the demo's mail sink as the relay of what is started from now on.
    pub(crate) fn start_sink(&mut self) {
        let mut sink = Process::start(&mut self.command(&["demo", "mail-sink", "--listen", "127.0.0.1:0"]));
        let line = sink.wait_for("mail sink on ");
        let port = line.split_whitespace().nth(3).unwrap().rsplit(':').next().unwrap().to_owned();
        self.set("FUNCTIONS__STATEMENT__MAIL__RELAY__PORT", &port);
        self.servers.push(sink);
    }

    /// Sets a key of the configuration for all that is started from now on.
    pub(crate) fn set(&mut self, key: &str, value: &str) {
        self.set_variable(&format!("NIGHTMAIL__{key}"), value);
    }

    pub(crate) fn set_variable(&mut self, name: &str, value: &str) {
        self.variables.push((name.into(), value.into()));
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.dir.path().join(name), text).unwrap();
    }

    /// Appends to the configuration.
    pub(crate) fn append(&self, text: &str) {
        let path = self.dir.path().join("config.toml");
        let before = std::fs::read_to_string(&path).unwrap();
        std::fs::write(path, before + text).unwrap();
    }

    /// The binary with these arguments and only the harness's variables.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.bare(env!("CARGO_BIN_EXE_nightmail"));
        command.args(arguments);
        command
    }

    /// Any program in the harness's directory with the harness's variables.
    pub(crate) fn bare(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.dir.path()).env_clear().envs(self.variables.clone());
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("TERM", "xterm-256color");
        command
    }

    /// Runs a command to its end, with nothing on standard input.
    pub(crate) fn run(&self, arguments: &[&str]) -> Said {
        Said::of(&mut self.command(arguments))
    }

    /// The same with a text on standard input.
    pub(crate) fn run_with_input(&self, arguments: &[&str], input: &[u8]) -> Said {
        let path = self.dir.path().join("input");
        std::fs::write(&path, input).unwrap();
        let file = std::fs::File::open(path).unwrap();
        Said::new(&self.command(arguments).stdin(file).output().unwrap())
    }

    /// The same on a terminal, with a line typed; standard error comes with standard output. `None` without script(1).
    pub(crate) fn run_on_terminal(&self, arguments: &[&str], typed: &str) -> Option<Said> {
        if !has_tools(&["script"]) {
            return None;
        }
        let line = format!("{} {}", env!("CARGO_BIN_EXE_nightmail"), arguments.join(" "));
        let path = self.dir.path().join("typed");
        std::fs::write(&path, typed).unwrap();
        let mut command = self.bare("script");
        let file = std::fs::File::open(path).unwrap();
        command.args(["-qec", &line, "/dev/null"]).env("SHELL", "/bin/sh").stdin(file);
        Some(Said::new(&command.output().unwrap()))
    }

    /// Starts the daemon and waits until it is ready.
    pub(crate) fn serve(&self) -> Process {
        let mut daemon = Process::start(&mut self.command(&["serve"]));
        daemon.wait_for("ready: ");
        daemon
    }

    /// Starts a run and waits until each of its recipients has an outcome.
    pub(crate) fn run_to_the_end(&self, daemon: &mut Process) {
        assert_eq!(self.run(&["run", "start", "monthly-statements", "--param", "period=2026-10"]).code, 0);
        daemon.wait_for("the run is complete");
        // That it has ended is on record within a second.
        while self.run(&["run", "show", "1", "--json"]).json()["ended_at"].is_null() {}
    }
}

/// Whether all these programs are installed. A test that misses one says so and is skipped, unless
/// `NIGHTMAIL_TEST_TOOLS=required`. `aiosmtpd` is a Python module.
#[expect(clippy::print_stderr, reason = "a skipped test says why")]
pub(crate) fn has_tools(names: &[&str]) -> bool {
    let is_there = |name: &&&str| match **name {
        "aiosmtpd" => runs(Command::new("python3").args(["-c", "import aiosmtpd"])),
        name => runs(Command::new("sh").args(["-c", "command -v \"$0\"", name])),
    };
    let missing: Vec<_> = names.iter().filter(|name| !is_there(name)).collect();
    if missing.is_empty() {
        return true;
    }
    let is_required = std::env::var("NIGHTMAIL_TEST_TOOLS").is_ok_and(|value| value == "required");
    assert!(!is_required, "{missing:?} not installed (scripts/install-test-tools installs them)");
    eprintln!("skipped: {missing:?} not installed (scripts/install-test-tools installs them)");
    false
}

fn runs(command: &mut Command) -> bool {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

/// Measures how long something takes.
pub(crate) fn timed<T>(what: impl FnOnce() -> T) -> (T, Duration) {
    let began = Instant::now();
    let done = what();
    (done, began.elapsed())
}

/// Polls until the answer is there.
pub(crate) fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(began.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
