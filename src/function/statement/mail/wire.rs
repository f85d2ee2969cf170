//! A byte stream to the relay that notices when the relay falls out of step.
//!
//! SMTP without pipelining is strictly turn by turn: a command, one reply. A reply too many would be taken for the
//! answer to the next command, and so for the fate of the next user's mail. The wire counts turns: bytes that come
//! when it is not the relay's turn end the connection. It must not know what the words mean.

use std::io::{Error, ErrorKind, Result};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use lettre::transport::smtp::client::AsyncTokioStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// Stands in for the greeting that was read before STARTTLS.
const GREETING: &[u8] = b"220 STARTTLS done\r\n";

/// The stream below.
#[derive(Debug)]
pub(super) enum Stream {
    /// Without TLS.
    Plain(TcpStream),
    /// With TLS.
    Tls(Box<TlsStream<TcpStream>>),
}

/// The stream with its turns.
#[derive(Debug)]
pub(super) struct Wire {
    stream: Stream,
    /// What is given to the reader before the stream's own bytes.
    preface: &'static [u8],
    /// Whether the relay owes a reply: from our first byte to its last line's end.
    relays_turn: bool,
    /// How far the current reply line has come.
    line: Line,
    /// Set when the relay said 421 behind a reply: it closes, and our next word is not worth sending.
    closing: bool,
}

/// The part of a reply line that tells whether it is the last one: its fourth byte.
#[derive(Debug, Default)]
struct Line {
    bytes: u8,
    continues: bool,
}

impl Wire {
    /// A fresh connection: the relay greets first.
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream, preface: b"", relays_turn: true, line: Line::default(), closing: false }
    }

    /// A connection that went through STARTTLS: its greeting is past.
    pub(super) fn after_starttls(stream: Stream) -> Self {
        Self { stream, preface: GREETING, relays_turn: false, line: Line::default(), closing: false }
    }

    /// Follows the reply and returns how many of the bytes belong to it; an error when more comes than one reply and a
    /// 421, which RFC 5321 section 3.8 allows at any time.
    fn heard(&mut self, bytes: &[u8]) -> Result<usize> {
        for (at, &byte) in bytes.iter().enumerate() {
            if !self.relays_turn {
                self.closing = bytes[at..].starts_with(b"421");
                return if self.closing { Ok(at) } else { Err(out_of_step()) };
            }
            if byte == b'\n' {
                self.relays_turn = self.line.continues;
                self.line = Line::default();
            } else {
                self.line.continues |= self.line.bytes == 3 && byte == b'-';
                self.line.bytes = self.line.bytes.saturating_add(1);
            }
        }
        Ok(bytes.len())
    }

    /// At the start of our turn nothing may be there to read, neither a word nor the end of the stream.
    fn check_silence(&mut self, cx: &mut Context<'_>) -> Result<()> {
        if self.closing {
            return Err(ErrorKind::ConnectionAborted.into());
        }
        let mut bytes = [0; 64];
        let mut buffer = ReadBuf::new(&mut bytes);
        match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
            Poll::Pending => Ok(()),
            Poll::Ready(Err(error)) => Err(error),
            Poll::Ready(Ok(())) if buffer.filled().is_empty() => Err(ErrorKind::ConnectionAborted.into()),
            Poll::Ready(Ok(())) => Err(out_of_step()),
        }
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
        let heard = self.heard(&buf.filled()[before..])?;
        buf.set_filled(before + heard);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<Result<usize>> {
        if !self.relays_turn {
            self.check_silence(cx)?;
            self.relays_turn = true;
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

    /// A wire whose other end is in the test's hands.
    async fn pair() -> (Wire, TcpStream) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (Wire::new(Stream::Plain(ours)), listener.accept().await.unwrap().0)
    }

    /// Lets the relay say `words` and reads them.
    async fn hear(wire: &mut Wire, relay: &mut TcpStream, words: &str) -> Result<String> {
        relay.write_all(words.as_bytes()).await.unwrap();
        let mut bytes = vec![0; 256];
        let read = wire.read(&mut bytes).await?;
        Ok(String::from_utf8_lossy(&bytes[..read]).into_owned())
    }

    #[tokio::test]
    async fn one_reply_a_turn_passes_however_many_lines_it_has() {
        let (mut wire, mut relay) = pair().await;
        for words in ["220 hi\r\n", "250-a\r\n250-b - c\r\n250 d\r\n", "250\r\n", "354 go-on\r\n"] {
            assert_eq!(hear(&mut wire, &mut relay, words).await.unwrap(), words);
            wire.write_all(b"NOOP\r\n").await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_second_reply_ends_the_connection_whenever_it_comes() {
        let (mut wire, mut relay) = pair().await;
        let error = hear(&mut wire, &mut relay, "220 hi\r\n250 early\r\n").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        let (mut wire, mut relay) = pair().await;
        hear(&mut wire, &mut relay, "220 hi\r\n").await.unwrap();
        relay.write_all(b"250 early\r\n").await.unwrap();
        let Stream::Plain(stream) = &wire.stream else { panic!("plain") };
        stream.readable().await.unwrap();
        assert_eq!(wire.write(b"MAIL").await.unwrap_err().kind(), ErrorKind::InvalidData);
    }

    #[tokio::test]
    async fn a_421_behind_a_reply_or_a_closed_end_is_found_before_the_next_word() {
        let (mut wire, mut relay) = pair().await;
        let heard = hear(&mut wire, &mut relay, "250 ok\r\n421 closing\r\n").await.unwrap();
        assert_eq!(heard, "250 ok\r\n");
        assert_eq!(wire.write(b"MAIL").await.unwrap_err().kind(), ErrorKind::ConnectionAborted);
        let (mut wire, mut relay) = pair().await;
        hear(&mut wire, &mut relay, "220 hi\r\n").await.unwrap();
        drop(relay);
        let Stream::Plain(stream) = &wire.stream else { panic!("plain") };
        stream.readable().await.unwrap();
        assert_eq!(wire.write(b"MAIL").await.unwrap_err().kind(), ErrorKind::ConnectionAborted);
    }
}
