//! The socket of one connection: whole lines in, replies out, nothing without a limit in size and time.

use std::time::Duration;

use bytes::{Buf, BytesMut};
use memchr::memchr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::body::{Body, Taken};

/// A line without an end is given up at this many bytes.
const LINE_BYTES_HELD_MAX: usize = 64 * 1024;
/// How much is read at once, in bytes.
const READ_BYTES: usize = 128 * 1024;
/// How long a client may take to read the last reply and close.
const FAREWELL_MAX: Duration = Duration::from_secs(1);

/// Why a dialogue cannot continue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// The other side closed, or the network broke.
    Closed,
    /// Nothing came, or nothing was taken, for too long.
    Idle,
    /// A line has no end.
    Endless,
    /// The sink stops.
    Shutdown,
    /// The script wants it closed.
    Scripted,
}

/// One connection's socket and buffers.
pub(super) struct Wire {
    socket: TcpStream,
    /// What came and is not read yet.
    input: BytesMut,
    /// Replies that are not sent yet; sent before the next read.
    output: Vec<u8>,
    idle_timeout: Duration,
    shutdown: CancellationToken,
}

impl Wire {
    pub(super) fn new(socket: TcpStream, idle_timeout: Duration, shutdown: CancellationToken) -> Self {
        Self { socket, input: BytesMut::new(), output: Vec::new(), idle_timeout, shutdown }
    }

    /// Queues one reply; replies to pipelined commands leave together.
    pub(super) fn say(&mut self, code: u16, text: &str) {
        self.say_part(code, ' ', text);
    }

    /// Queues one line of a reply; `mark` is `-` before further lines and a space before the last.
    pub(super) fn say_part(&mut self, code: u16, mark: char, text: &str) {
        self.output.extend_from_slice(format!("{code}{mark}").as_bytes());
        self.output.extend(text.bytes().map(|byte| if byte.is_ascii_control() { b' ' } else { byte }));
        self.output.extend_from_slice(b"\r\n");
    }

    /// Whether something came that is not read yet.
    pub(super) fn has_input(&self) -> bool {
        !self.input.is_empty()
    }

    /// Sends the queued replies.
    pub(super) async fn flush(&mut self) -> Result<(), Lost> {
        if self.output.is_empty() {
            return Ok(());
        }
        let sent = tokio::time::timeout(self.idle_timeout, self.socket.write_all(&self.output)).await;
        self.output.clear();
        sent.map_err(|_| Lost::Idle)?.map_err(|_| Lost::Closed)
    }

    /// The next line, with the LF that ends it.
    pub(super) async fn line(&mut self) -> Result<BytesMut, Lost> {
        loop {
            match memchr(b'\n', &self.input) {
                Some(end) => return Ok(self.input.split_to(end + 1)),
                None => self.fill().await?,
            }
        }
    }

    /// Reads a mail's lines into `body` until its end, or until `bytes_max` bytes have come ([`Lost::Scripted`]).
    pub(super) async fn body(&mut self, body: &mut Body, bytes_max: Option<u64>) -> Result<Taken, Lost> {
        let mut left = bytes_max.unwrap_or(u64::MAX);
        loop {
            let mut read = 0;
            while let Some(end) = memchr(b'\n', &self.input[read..]) {
                let taken = body.take(&self.input[read..=read + end]);
                read += end + 1;
                if taken != Taken::Line {
                    self.input.advance(read);
                    return if bytes_max.is_some() { Err(Lost::Scripted) } else { Ok(taken) };
                }
            }
            self.input.advance(read);
            left = left.saturating_sub(read as u64);
            if left <= self.input.len() as u64 {
                return Err(Lost::Scripted);
            }
            self.fill().await?;
        }
    }

    /// Sends nothing and discards input, until the other side closes or the sink stops.
    pub(super) async fn stall(&mut self) -> Lost {
        loop {
            self.input.clear();
            match self.read_some().await {
                Ok(0) | Err(_) => return Lost::Scripted,
                Ok(_) => {}
            }
        }
    }

    /// Sends what is queued, then closes in an order in which the other side can still read it.
    pub(super) async fn farewell(&mut self) {
        let goodbye = async {
            self.flush().await.ok()?;
            self.socket.shutdown().await.ok()?;
            while self.read_some().await.is_ok_and(|read| read > 0) {
                self.input.clear();
            }
            Some(())
        };
        // If the client does not close, the connection is dropped.
        drop(tokio::time::timeout(FAREWELL_MAX, goodbye).await);
    }

    /// Sends what is queued, then waits for more input.
    async fn fill(&mut self) -> Result<(), Lost> {
        self.flush().await?;
        if self.input.len() > LINE_BYTES_HELD_MAX {
            return Err(Lost::Endless);
        }
        match tokio::time::timeout(self.idle_timeout, self.read_some()).await {
            Err(_) => Err(Lost::Idle),
            Ok(Ok(0)) => Err(Lost::Closed),
            Ok(read) => read.map(drop),
        }
    }

    /// One read, unless the sink stops.
    async fn read_some(&mut self) -> Result<usize, Lost> {
        self.input.reserve(READ_BYTES);
        tokio::select! {
            biased;
            () = self.shutdown.cancelled() => Err(Lost::Shutdown),
            read = self.socket.read_buf(&mut self.input) => read.map_err(|_| Lost::Closed),
        }
    }
}
