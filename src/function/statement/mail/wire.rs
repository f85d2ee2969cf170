//! A byte stream to the relay that detects unexpected replies.
//!
//! SMTP without pipelining strictly alternates: one command, one reply. A surplus reply would be read as the reply to
//! the next command, and a mail of the next user could count as accepted that the relay never saw. The wire therefore
//! tracks whose turn it is: bytes that arrive when no reply is due end the connection. It must not know commands.

use std::io::{Error, ErrorKind, Result};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use lettre::transport::smtp::client::AsyncTokioStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// Replaces the greeting, which was read before: lettre expects one on every new stream.
const GREETING: &[u8] = b"220 greeted\r\n";

/// The underlying stream.
#[derive(Debug)]
pub(super) enum Stream {
    /// Without TLS.
    Plain(TcpStream),
    /// With TLS.
    Tls(Box<TlsStream<TcpStream>>),
}

/// The stream with the state of the dialogue.
#[derive(Debug)]
pub(super) struct Wire {
    stream: Stream,
    /// Bytes that the reader gets before those of the stream; shrinks as they are read.
    preface: &'static [u8],
    /// Whether a reply is due: set by our first byte of a command, cleared at the end of the reply's last line.
    reply_due: bool,
    /// The state of the current reply line; reset at each line's end.
    line: Line,
    /// Set when a 421 follows a reply: the relay is closing, so no further command is sent. Never cleared.
    closing: bool,
}

/// A reply line as far as it was read. Its fourth byte tells whether it is the last: `-` means that more lines follow.
#[derive(Debug, Default)]
struct Line {
    bytes: u8,
    continues: bool,
}

impl Wire {
    /// A connection whose greeting was read: the client speaks next.
    pub(super) fn after_greeting(stream: Stream) -> Self {
        Self { stream, preface: GREETING, reply_due: false, line: Line::default(), closing: false }
    }

    /// Tracks the reply and returns how many of the bytes belong to it. Only a 421 may follow a reply, as RFC 5321
    /// section 3.8 allows it at any time; anything else is an error.
    fn accept_reply_bytes(&mut self, bytes: &[u8]) -> Result<usize> {
        for (at, &byte) in bytes.iter().enumerate() {
            if !self.reply_due {
                // The 421 is cut off and not passed on: it would be read as the reply to the next command.
                self.closing = bytes[at..].starts_with(b"421");
                return if self.closing { Ok(at) } else { Err(out_of_step()) };
            }
            if byte == b'\n' {
                self.reply_due = self.line.continues;
                self.line = Line::default();
            } else {
                self.line.continues |= self.line.bytes == 3 && byte == b'-';
                self.line.bytes = self.line.bytes.saturating_add(1);
            }
        }
        Ok(bytes.len())
    }

    /// Checks before a command that nothing is there to read: neither a reply that is not due nor the end of the
    /// stream. A parked session whose relay has gone fails here, before anything of the mail is sent.
    fn check_nothing_unread(&mut self, cx: &mut Context<'_>) -> Result<()> {
        if self.closing {
            return Err(Closing.into());
        }
        let mut bytes = [0; 64];
        let mut buffer = ReadBuf::new(&mut bytes);
        // A read cannot be undone, but every byte that it may return is an error anyway.
        match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
            Poll::Pending => Ok(()),
            Poll::Ready(Err(error)) => Err(error),
            Poll::Ready(Ok(())) if buffer.filled().is_empty() => Err(ErrorKind::ConnectionAborted.into()),
            Poll::Ready(Ok(())) if buffer.filled().starts_with(b"421") => Err(Closing.into()),
            Poll::Ready(Ok(())) => Err(out_of_step()),
        }
    }
}

/// The relay has sent 421 without being asked: it closes the connection, and nobody is at fault.
#[derive(Debug, thiserror::Error)]
#[error("the relay closes the connection")]
pub(super) struct Closing;

impl From<Closing> for Error {
    fn from(closing: Closing) -> Self {
        Self::new(ErrorKind::ConnectionAborted, closing)
    }
}

fn out_of_step() -> Error {
    Error::new(ErrorKind::InvalidData, "the relay spoke out of turn")
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        if !self.preface.is_empty() {
            let (now, later) = self.preface.split_at(self.preface.len().min(buf.remaining()));
            buf.put_slice(now);
            self.preface = later;
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let accepted = self.accept_reply_bytes(&buf.filled()[before..])?;
        buf.set_filled(before + accepted);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<Result<usize>> {
        // Once per command: a command or a message may take several writes, and a relay may reply before the last of
        // them, for example when it refuses a message half-way.
        if !self.reply_due {
            self.check_nothing_unread(cx)?;
            self.reply_due = true;
        }
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl AsyncTokioStream for Wire {
    fn peer_addr(&self) -> Result<SocketAddr> {
        match &self.stream {
            Stream::Plain(stream) => stream.peer_addr(),
            Stream::Tls(stream) => stream.get_ref().0.peer_addr(),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// A wire and the relay's end of it.
    async fn pair() -> (Wire, TcpStream) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let wire = Wire { preface: b"", reply_due: true, ..Wire::after_greeting(Stream::Plain(ours)) };
        (wire, listener.accept().await.unwrap().0)
    }

    /// Sends `words` from the relay and reads them.
    async fn receive(wire: &mut Wire, relay: &mut TcpStream, words: &str) -> Result<String> {
        relay.write_all(words.as_bytes()).await.unwrap();
        let mut bytes = vec![0; 256];
        let read = wire.read(&mut bytes).await?;
        Ok(String::from_utf8_lossy(&bytes[..read]).into_owned())
    }

    #[tokio::test]
    async fn one_reply_a_turn_passes_however_many_lines_it_has() {
        let (mut wire, mut relay) = pair().await;
        for words in ["220 hi\r\n", "250-a\r\n250-b - c\r\n250 d\r\n", "250\r\n", "354 go-on\r\n"] {
            assert_eq!(receive(&mut wire, &mut relay, words).await.unwrap(), words);
            wire.write_all(b"NOOP\r\n").await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_second_reply_ends_the_connection_whenever_it_comes() {
        let (mut wire, mut relay) = pair().await;
        let error = receive(&mut wire, &mut relay, "220 hi\r\n250 early\r\n").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        let (mut wire, mut relay) = pair().await;
        receive(&mut wire, &mut relay, "220 hi\r\n").await.unwrap();
        relay.write_all(b"250 early\r\n").await.unwrap();
        let Stream::Plain(stream) = &wire.stream else { panic!("plain") };
        stream.readable().await.unwrap();
        assert_eq!(wire.write(b"MAIL").await.unwrap_err().kind(), ErrorKind::InvalidData);
    }

    #[tokio::test]
    async fn a_421_behind_a_reply_or_a_closed_end_is_found_before_the_next_word() {
        let (mut wire, mut relay) = pair().await;
        let accepted = receive(&mut wire, &mut relay, "250 ok\r\n421 closing\r\n").await.unwrap();
        assert_eq!(accepted, "250 ok\r\n");
        let is_closing = |error: Error| error.get_ref().is_some_and(|cause| cause.is::<Closing>());
        assert!(is_closing(wire.write(b"MAIL").await.unwrap_err()));
        let (mut wire, mut relay) = pair().await;
        receive(&mut wire, &mut relay, "220 hi\r\n").await.unwrap();
        relay.write_all(b"421 4.4.2 idle for too long\r\n").await.unwrap();
        let Stream::Plain(stream) = &wire.stream else { panic!("plain") };
        stream.readable().await.unwrap();
        assert!(is_closing(wire.write(b"MAIL").await.unwrap_err()));
        let (mut wire, mut relay) = pair().await;
        receive(&mut wire, &mut relay, "220 hi\r\n").await.unwrap();
        drop(relay);
        let Stream::Plain(stream) = &wire.stream else { panic!("plain") };
        stream.readable().await.unwrap();
        assert_eq!(wire.write(b"MAIL").await.unwrap_err().kind(), ErrorKind::ConnectionAborted);
    }
}
