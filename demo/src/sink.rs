//! The mail sink: a strict SMTP server (RFC 5321) that accepts every mail, delivers none and records what it saw.
//!
//! Owns the server, its limits and its scripted misbehaviour. Knows nothing of queues, functions or lettre.

mod body;
mod command;
mod deliveries;
mod examine;
mod session;
mod store;
mod wire;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use self::deliveries::{Doubled, Pdf, Record, Summary, Violation, ViolationKind};
use self::store::Store;
use super::Error;

/// A line may have this many bytes with its CRLF (RFC 5321, 4.5.3.1.6); longer ones are violations.
pub const LINE_BYTES_MAX: usize = 1000;
/// The envelope of one mail may name this many recipients (RFC 5321, 4.5.3.1.8).
pub const RECIPIENTS_MAX: usize = 100;
/// Raw mails kept in memory may have this many bytes together; then mails are answered 452.
pub const RAW_BYTES_MAX: u64 = 512 * 1024 * 1024;
/// The summary covers this many deliveries; then mails are answered 452.
pub const DELIVERIES_MAX: u64 = 5_000_000;
/// How long open dialogues may take after the shutdown.
const SHUTDOWN_MAX: Duration = Duration::from_secs(2);

/// Decides what happens at a step: connection (counted from 1), mail on that connection (counted from 1 at each MAIL
/// command, 0 before the first), step.
pub type Script = Arc<dyn Fn(u64, u64, Step) -> Action + Send + Sync>;

/// A moment of the dialogue at which a script is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// The connection is open.
    Greeting,
    /// EHLO or HELO has come.
    Ehlo,
    /// MAIL FROM has come.
    Mail,
    /// RCPT TO has come.
    Rcpt,
    /// DATA has come.
    Data,
    /// The reply 354 is sent; the mail follows.
    Body,
    /// The final dot has come.
    Dot,
}

/// What the sink does at a [`Step`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// What a good server does.
    Accept,
    /// What a good server does, but this much later: the reply waits, at [`Step::Body`] the reading. At [`Step::Dot`] the
    /// mail is recorded first.
    Delay(Duration),
    /// Sends this code and text (with its enhanced code) instead. From 400 on the step has failed; after 421 the
    /// connection closes. At [`Step::Body`] the reply comes after the final dot. A mail whose dot is answered
    /// below 400 is recorded.
    Reply(u16, String),
    /// Closes without a reply. At [`Step::Dot`] the mail is recorded first: it is delivered, and the client does not
    /// know. At [`Step::Body`] it closes before a byte of the mail is read.
    Close,
    /// Never replies, until the client closes or the sink stops. At [`Step::Dot`] the mail is recorded first.
    Stall,
    /// Closes when half of the mail has come: half of the SIZE that MAIL declared, else 1 KiB; for mails that end
    /// sooner, at the dot. Nothing is recorded. At other steps the same as [`Action::Close`].
    CloseAfterHalfBody,
    /// At [`Step::Dot`]: closes without a reply, and the mail is lost. At other steps the same as [`Action::Close`].
    Lose,
}

/// The options of a sink.
#[derive(Clone)]
pub struct Options {
    /// The host name in greeting and EHLO reply.
    pub name: String,
    /// Each mail is written here as `<n>-<recipient>.eml` before it is acknowledged.
    pub keep: Option<PathBuf>,
    /// Each mail's PDF is written here as `<n>-<recipient>.pdf` before it is acknowledged.
    pub pdf_dir: Option<PathBuf>,
    /// Records carry the whole mail, up to [`RAW_BYTES_MAX`] together.
    pub keep_raw_in_memory: bool,
    /// One [`Record`] a line as JSON, written (not synced) before the mail is acknowledged: it survives the sink's
    /// death, not the machine's. What the file already says counts as received.
    pub journal: Option<PathBuf>,
    /// Scripted misbehaviour.
    pub script: Option<Script>,
    /// This many connections at once; further ones are answered 421.
    pub connections_max: usize,
    /// The largest mail, in bytes; larger ones are answered 552.
    pub mail_bytes_max: usize,
    /// A connection without progress for this long is closed.
    pub idle_timeout: Duration,
    /// [`Handle::records`] holds this many; the journal has all.
    pub records_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            name: "sink.example.test".into(),
            keep: None,
            pdf_dir: None,
            keep_raw_in_memory: false,
            journal: None,
            script: None,
            connections_max: 1024,
            mail_bytes_max: 32 * 1024 * 1024,
            idle_timeout: Duration::from_secs(300),
            records_max: 200_000,
        }
    }
}

/// What all connections share.
struct Shared {
    options: Options,
    store: Store,
    shutdown: CancellationToken,
}

impl Shared {
    /// What the script says; without one, everything is accepted.
    fn action(&self, connection: u64, mail: u64, step: Step) -> Action {
        self.options.script.as_ref().map_or(Action::Accept, |script| script(connection, mail, step))
    }
}

/// The mail sink.
pub struct Sink;

impl Sink {
    /// Serves on `listener` until `shutdown` is cancelled; must be called within a tokio runtime.
    ///
    /// # Errors
    /// When a directory cannot be made or the journal cannot be read or opened.
    pub fn start(listener: TcpListener, options: Options, shutdown: CancellationToken) -> Result<Handle, Error> {
        let address = listener.local_addr().expect("a bound listener has an address");
        let store = Store::open(&options)?;
        let shared = Arc::new(Shared { options, store, shutdown });
        let (ended, end) = watch::channel(());
        let server = Arc::clone(&shared);
        tokio::spawn(async move {
            let _ended_when_dropped = ended;
            accept(listener, server).await;
        });
        Ok(Handle { shared, address, end })
    }
}

/// Serves until `shutdown` is cancelled, for the stand-alone server; answers with the final summary.
///
/// # Errors
/// As [`Sink::start`].
pub async fn run_sink(listener: TcpListener, options: Options, shutdown: CancellationToken) -> Result<Summary, Error> {
    let handle = Sink::start(listener, options, shutdown)?;
    handle.stopped().await;
    Ok(handle.summary())
}

/// Accepts connections until the shutdown, then waits briefly for open dialogues.
async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let slots = Arc::new(Semaphore::new(shared.options.connections_max));
    let mut dialogues = JoinSet::new();
    loop {
        tokio::select! {
            () = shared.shutdown.cancelled() => break,
            Some(ended) = dialogues.join_next() => surface_panic(ended),
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => match Arc::clone(&slots).try_acquire_owned() {
                    Ok(slot) => {
                        let dialogue = session::run(socket, Arc::clone(&shared), shared.store.connected());
                        dialogues.spawn(async move {
                            let _slot = slot;
                            dialogue.await;
                        });
                    }
                    Err(_) => turn_away(&socket, &shared),
                },
                // Out of file descriptors, mostly: connections that end make room.
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            },
        }
    }
    drop(listener);
    let all = async { while dialogues.join_next().await.is_some() {} };
    if tokio::time::timeout(SHUTDOWN_MAX, all).await.is_err() {
        dialogues.shutdown().await;
    }
}

/// A panic in a dialogue ends the sink: an oracle that may have missed something must not continue.
fn surface_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        std::panic::resume_unwind(error.into_panic());
    }
}

/// Refuses a connection that is one too many.
fn turn_away(socket: &TcpStream, shared: &Shared) {
    shared.store.turned_away();
    // A fresh socket has room for one line; a client that is gone needs none.
    drop(socket.try_write(b"421 4.7.0 too many connections, try again later\r\n"));
}

/// A running sink; clones speak to the same one, and dropping them does not stop it.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
    address: SocketAddr,
    end: watch::Receiver<()>,
}

impl Handle {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it has seen so far.
    pub fn summary(&self) -> Summary {
        self.shared.store.summary()
    }

    /// The deliveries in the order in which they were received, the first [`Options::records_max`] of them.
    pub fn records(&self) -> Vec<Record> {
        self.shared.store.records()
    }

    /// Waits until `total` deliveries are recorded.
    pub async fn received(&self, total: u64) {
        self.shared.store.received(total).await;
    }

    /// Waits for the end of the server; every mail that it acknowledged is in the summary then.
    pub async fn stopped(&self) {
        // The other end says nothing: it is dropped with the server.
        let _ = self.end.clone().changed().await;
    }
}

#[cfg(test)]
mod tests;
