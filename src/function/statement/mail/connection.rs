//! One SMTP session: opens it and sends one mail after another, each step under its own time limit.
//!
//! Any failure leaves the session unusable for another mail; the pool must not keep it. Must not know of other
//! sessions.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use lettre::Address;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::AsyncSmtpConnection;
use lettre::transport::smtp::commands::{Data, Ehlo, Mail, Rcpt, Starttls};
use lettre::transport::smtp::extension::ClientId;
use lettre::transport::smtp::response::{Response, Severity};
use rustls::pki_types::ServerName;
use secrecy::ExposeSecret;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::fault::{SmtpFailure, Step};
use super::wire::{Stream, Wire};
use crate::base::{outcome, units};
use crate::function::Error;
use crate::function::statement::{RelayOptions, Tls};

/// The message is written in pieces of this size. Each piece must be written within the command time limit, so a large
/// message on a slow line has time, and a stalled relay is noticed.
const PIECE_BYTES: usize = 64 * 1024;
/// A reply before STARTTLS may have this many bytes; a relay that never ends its reply must not fill the memory.
const EARLY_REPLY_BYTES_MAX: usize = 8 * 1024;
/// QUIT takes at most this long.
const QUIT_TIMEOUT: Duration = Duration::from_secs(1);

/// The relay's checked settings.
#[derive(Debug)]
pub(super) struct Relay {
    pub(super) options: RelayOptions,
    /// The name in EHLO.
    hello: ClientId,
    /// None when the connection is plain.
    tls: Option<(ConnectorOf, ServerName<'static>)>,
}

/// A connector whose `Debug` does not print the whole TLS configuration.
struct ConnectorOf(TlsConnector);

impl std::fmt::Debug for ConnectorOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsConnector")
    }
}

impl Relay {
    /// Checks the settings. `tls` is called only when the relay uses TLS.
    pub(super) fn new(
        options: RelayOptions,
        tls: impl FnOnce() -> Result<rustls::ClientConfig, Error>,
    ) -> Result<Self, Error> {
        let refused = |why: String| Err(Error::Relay(why));
        if options.helo.is_empty() || !options.helo.bytes().all(|b| b.is_ascii_graphic()) {
            return refused(format!("helo {:?} is not a host name (write the name of this machine)", options.helo));
        }
        if options.connections == 0 || options.mails_per_connection == 0 {
            return refused("connections and mails_per_connection must be at least 1".into());
        }
        if options.credentials.is_some() && options.tls == Tls::None && !is_loopback(&options.host) {
            return refused(format!(
                "{} would get the password in plain text (set tls to starttls or implicit)",
                options.host
            ));
        }
        let hello = match options.helo.parse() {
            Ok(std::net::IpAddr::V4(ip)) => ClientId::Ipv4(ip),
            Ok(std::net::IpAddr::V6(ip)) => ClientId::Ipv6(ip),
            Err(_) => ClientId::Domain(options.helo.clone()),
        };
        let tls = match options.tls {
            Tls::None => None,
            Tls::StartTls | Tls::Implicit => {
                let name = ServerName::try_from(options.host.clone())
                    .map_err(|_| Error::Relay(format!("host {:?} is not a host name or address", options.host)))?;
                Some((ConnectorOf(TlsConnector::from(Arc::new(tls()?))), name))
            }
        };
        Ok(Self { options, hello, tls })
    }

    /// Host and port, for messages to people.
    pub(super) fn address(&self) -> String {
        format!("{}:{}", self.options.host, self.options.port)
    }

    /// Opens a session: TCP, TLS, greeting, EHLO and AUTH, all within the connect time limit.
    pub(super) async fn open(&self) -> Result<Connection, SmtpFailure> {
        let limit = self.options.connect_timeout;
        let too_late = |_| {
            let text = format!("no session within connect_timeout ({})", units::show_duration(limit));
            Err(SmtpFailure::broken(Step::Session, "timeout", text))
        };
        timeout(limit, Box::pin(self.greet())).await.unwrap_or_else(too_late)
    }

    async fn greet(&self) -> Result<Connection, SmtpFailure> {
        let at_connect = |error: std::io::Error| SmtpFailure::unreachable(&error);
        let address = (self.options.host.as_str(), self.options.port);
        // Without Nagle's algorithm: each command is a small write that waits for a reply, and would be held back 40
        // ms.
        let mut tcp = TcpStream::connect(address).await.map_err(at_connect)?;
        tcp.set_nodelay(true).map_err(at_connect)?;
        let wire = match (&self.tls, self.options.tls) {
            (Some((connector, name)), Tls::Implicit) => Wire::new(handshake(connector, name, tcp).await?),
            (Some((connector, name)), _) => {
                self.starttls(&mut tcp).await?;
                Wire::after_starttls(handshake(connector, name, tcp).await?)
            }
            (None, _) => Wire::new(Stream::Plain(tcp)),
        };
        let session = |e| failure(Step::Session, &e);
        let mut smtp =
            AsyncSmtpConnection::connect_with_transport(Box::new(wire), &self.hello).await.map_err(session)?;
        if let Some((user, password)) = &self.options.credentials {
            let credentials = Credentials::new(user.clone(), password.expose_secret().to_owned());
            smtp.auth(&[Mechanism::Plain, Mechanism::Login], &credentials).await.map_err(session)?;
        }
        Ok(Connection { smtp, mails: 0 })
    }

    /// The plain-text part before TLS. Reads byte by byte and so never beyond a reply: bytes that an attacker injects
    /// after the reply to STARTTLS go to the TLS handshake, which fails. They never count as the relay's replies.
    async fn starttls(&self, tcp: &mut TcpStream) -> Result<(), SmtpFailure> {
        early_reply(tcp).await?;
        let hello = Ehlo::new(self.hello.clone()).to_string();
        let extensions = early_command(tcp, &hello).await?;
        let offered = extensions.message().any(|line| line.trim().eq_ignore_ascii_case("STARTTLS"));
        // STARTTLS is required: an attacker can remove it from the list, and plain text would expose mail and password.
        if !offered {
            let text =
                "the relay does not offer STARTTLS (set tls to implicit, or to none for a relay on this machine)";
            return Err(SmtpFailure::needs_operator("starttls", text));
        }
        early_command(tcp, &Starttls.to_string()).await.map(drop)
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

async fn handshake(connector: &ConnectorOf, name: &ServerName<'static>, tcp: TcpStream) -> Result<Stream, SmtpFailure> {
    let stream = connector.0.connect(name.clone(), tcp).await;
    Ok(Stream::Tls(Box::new(stream.map_err(|error| SmtpFailure::unreachable(&error))?)))
}

async fn early_command(tcp: &mut TcpStream, command: &str) -> Result<Response, SmtpFailure> {
    let lost = |e: std::io::Error| SmtpFailure::broken(Step::Session, "lost", e);
    tcp.write_all(command.as_bytes()).await.map_err(lost)?;
    early_reply(tcp).await
}

async fn early_reply(tcp: &mut TcpStream) -> Result<Response, SmtpFailure> {
    let mut reply = String::new();
    let mut line_start = 0;
    loop {
        let byte = tcp.read_u8().await.map_err(|e| SmtpFailure::broken(Step::Session, "lost", e))?;
        reply.push(char::from(byte));
        if reply.len() > EARLY_REPLY_BYTES_MAX {
            return Err(SmtpFailure::broken(Step::Session, "protocol", "the reply is too long"));
        }
        if byte == b'\n' {
            // `250-` continues the reply, `250 ` or a bare `250` ends it (RFC 5321 section 4.2.1).
            if reply.as_bytes().get(line_start + 3) != Some(&b'-') {
                break;
            }
            line_start = reply.len();
        }
    }
    let response: Response = reply.parse().map_err(|e| failure(Step::Session, &e))?;
    if response.is_positive() {
        return Ok(response);
    }
    let text = response.message().collect::<Vec<_>>().join(" ");
    Err(SmtpFailure::Reply { step: Step::Session, code: response.code().into(), text })
}

/// One mail with its envelope.
#[derive(Debug)]
pub(super) struct OutgoingMail {
    pub(super) from: Address,
    pub(super) to: Address,
    /// The message in ASCII with CRLF line endings, before dot-stuffing.
    pub(super) bytes: Vec<u8>,
}

/// An open session, ready for a mail.
pub(super) struct Connection {
    smtp: AsyncSmtpConnection,
    /// How many mails the relay has accepted in this session.
    pub(super) mails: u32,
}

impl Connection {
    /// Sends one mail and returns the relay's final reply. After an error the connection must not be used for another
    /// mail.
    pub(super) async fn deliver(&mut self, outgoing: &OutgoingMail, limit: Duration) -> Result<String, SmtpFailure> {
        // One command at a time, without PIPELINING: the wire can then tell a surplus reply, and every failure names
        // the step at which it happened.
        let mail = Mail::new(Some(outgoing.from.clone()), Vec::new());
        self.command(Step::MailFrom, limit, mail).await?;
        self.command(Step::RcptTo, limit, Rcpt::new(outgoing.to.clone(), Vec::new())).await?;
        self.command(Step::Data, limit, Data).await?;
        let response = self.message(&outgoing.bytes, limit).await?;
        let reply = expect_reply(Step::EndOfData, response)?;
        self.mails += 1;
        Ok(one_line(&reply))
    }

    async fn command(
        &mut self,
        step: Step,
        limit: Duration,
        command: impl std::fmt::Display,
    ) -> Result<(), SmtpFailure> {
        let reply = timeout(limit, self.smtp.command(command)).await;
        let response = reply.map_err(|_| timed_out(step, limit))?.map_err(|e| failure(step, &e))?;
        expect_reply(step, response).map(drop)
    }

    /// Writes the message and the final dot and waits for the reply. The limit restarts with each piece that is
    /// written, and is twice as long after the dot: a relay that times out there may have accepted the mail, and RFC
    /// 5321 section 4.5.3.2.6 asks for a long limit.
    async fn message(&mut self, bytes: &[u8], limit: Duration) -> Result<Response, SmtpFailure> {
        let progress = Progress::default();
        let pieces = Pieces { pieces: bytes.chunks(PIECE_BYTES), progress: &progress };
        // Pinned outside the loop: a time limit that passes with progress goes on with the same write, not a new one.
        let mut sending = std::pin::pin!(self.smtp.message_iter(pieces));
        loop {
            let before = progress.count();
            let limit = if progress.at_end_of_data() { limit * 2 } else { limit };
            match timeout(limit, &mut sending).await {
                Ok(result) => return result.map_err(|e| failure(progress.step(), &e)),
                Err(_) if progress.count() != before => {}
                Err(_) => return Err(timed_out(progress.step(), limit)),
            }
        }
    }

    /// Sends QUIT, waits briefly for the reply and closes.
    pub(super) async fn quit(mut self) {
        // The mail's fate is decided already; the reply to QUIT changes nothing.
        let _ = timeout(QUIT_TIMEOUT, self.smtp.quit()).await;
    }
}

/// How many pieces of the message were requested for writing; shared by the writer and the time limit.
#[derive(Default)]
struct Progress(AtomicU32);

impl Progress {
    /// All pieces were written and the final dot is next. From here on a missing reply means an unknown outcome.
    const END_OF_DATA: u32 = u32::MAX;

    fn count(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    fn at_end_of_data(&self) -> bool {
        self.count() == Self::END_OF_DATA
    }

    fn step(&self) -> Step {
        if self.at_end_of_data() { Step::EndOfData } else { Step::Body }
    }
}

/// Iterates over the message's pieces. lettre asks for a piece after it has written the one before, so the request
/// beyond the last piece means that all were written and that the dot comes next.
struct Pieces<'a> {
    pieces: std::slice::Chunks<'a, u8>,
    progress: &'a Progress,
}

impl<'a> Iterator for Pieces<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<Self::Item> {
        let piece = self.pieces.next();
        match piece {
            Some(_) => self.progress.0.fetch_add(1, Ordering::Relaxed),
            None => self.progress.0.swap(Progress::END_OF_DATA, Ordering::Relaxed),
        };
        piece
    }
}

fn timed_out(step: Step, limit: Duration) -> SmtpFailure {
    let text = format!("no reply within {} (command_timeout)", units::show_duration(limit));
    SmtpFailure::broken(step, "timeout", text)
}

/// Checks that a positive reply is the one that the step expects: 354 to DATA, 2xx otherwise. lettre has turned 4xx and
/// 5xx into errors before.
fn expect_reply(step: Step, response: Response) -> Result<Response, SmtpFailure> {
    let expected = match step {
        Step::Data => response.has_code(354),
        _ => response.code().severity == Severity::PositiveCompletion,
    };
    if expected {
        return Ok(response);
    }
    Err(SmtpFailure::broken(step, "protocol", format!("unexpected reply {}", one_line(&response))))
}

/// The reply as one line of bounded length.
fn one_line(response: &Response) -> String {
    let text = response.message().collect::<Vec<_>>().join(" ");
    let line: String = format!("{} {text}", response.code()).trim().chars().take(300).collect();
    outcome::printable(&line)
}

/// Distinguishes a 4xx or 5xx reply from a broken dialogue. lettre has no variants for the latter, so its cause and its
/// text decide.
fn failure(step: Step, error: &lettre::transport::smtp::Error) -> SmtpFailure {
    let cause = std::error::Error::source(error);
    let text = cause.map_or_else(|| error.to_string(), ToString::to_string);
    if let Some(code) = error.status() {
        return SmtpFailure::Reply { step, code: code.into(), text };
    }
    let io = cause.and_then(|cause| cause.downcast_ref::<std::io::Error>());
    let code = match io {
        Some(io) if io.kind() == std::io::ErrorKind::InvalidData => "protocol",
        Some(_) => "lost",
        None if text == "incomplete response" => "lost",
        None if error.is_client() => "auth",
        None => "protocol",
    };
    if code == "auth" {
        let text = format!("no login is possible: {text} (remove relay.username, or ask for AUTH PLAIN or LOGIN)");
        return SmtpFailure::needs_operator("auth", text);
    }
    let text = if text == "incomplete response" { "the relay closed the connection".into() } else { text };
    SmtpFailure::broken(step, code, text)
}
