//! Opens a session with the relay: TCP, TLS, greeting, EHLO and login, each step under its own time limit.
//!
//! Every failure here stands before the mail and says nothing about it. Must not know what is sent in a session.

use std::future::Future;
use std::sync::Arc;

use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::AsyncSmtpConnection;
use lettre::transport::smtp::commands::{Ehlo, Starttls};
use lettre::transport::smtp::extension::ClientId;
use lettre::transport::smtp::response::Response;
use rustls::pki_types::ServerName;
use secrecy::ExposeSecret;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::connection::{Connection, Limit, failure};
use super::fault::{SmtpFailure, Step};
use super::wire::{Stream, Wire};
use crate::function::Error;
use crate::function::silence::Wait;
use crate::function::statement::{RelayOptions, Tls};

/// A reply that is read here may have this many bytes; a relay that never ends its reply must not fill the memory.
const EARLY_REPLY_BYTES_MAX: usize = 8 * 1024;

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

    /// Opens a session. `wait` is restarted with each step.
    pub(super) async fn open(&self, wait: &Wait) -> Result<Connection, SmtpFailure> {
        let limits = &self.options.limits;
        let command = Limit { key: "command_timeout", span: limits.command };
        let wire = Wire::after_greeting(self.greeted(wait).await?);
        let hello = async {
            // The greeting that lettre reads here is the one that the wire puts in front.
            let smtp = AsyncSmtpConnection::connect_with_transport(Box::new(wire), &self.hello).await;
            smtp.map_err(|e| failure(Step::Session, &e))
        };
        let mut smtp = within("reply to EHLO", command, wait, Box::pin(hello)).await?;
        if let Some((user, password)) = &self.options.credentials {
            let credentials = Credentials::new(user.clone(), password.expose_secret().to_owned());
            let login = async {
                let accepted = smtp.auth(&[Mechanism::Plain, Mechanism::Login], &credentials).await;
                accepted.map_err(|e| failure(Step::Session, &e))
            };
            within("reply to AUTH", command, wait, Box::pin(login)).await?;
        }
        Ok(Connection::new(smtp))
    }

    /// What an open session shows of the relay.
    pub(super) fn describe(&self, session: &Connection) -> String {
        let tls = match self.options.tls {
            Tls::None => "without TLS",
            Tls::StartTls => "STARTTLS with a trusted certificate",
            Tls::Implicit => "TLS with a trusted certificate",
        };
        let login = match &self.options.credentials {
            Some((user, _)) => format!("logged in as {user}"),
            None => "no login is configured".into(),
        };
        format!("{} greeted and answered EHLO, {tls}, {login}", session.relay_name())
    }

    /// A stream whose greeting was read, with TLS where it is set.
    async fn greeted(&self, wait: &Wait) -> Result<Stream, SmtpFailure> {
        let limits = &self.options.limits;
        let greeting = Limit { key: "greeting_timeout", span: limits.greeting };
        let mut tcp = self.connect(wait).await?;
        let Some((connector, name)) = &self.tls else {
            within("greeting", greeting, wait, early_reply(&mut tcp, 220)).await?;
            return Ok(Stream::Plain(tcp));
        };
        if self.options.tls == Tls::Implicit {
            let mut stream = self.handshake(connector, name, tcp, wait).await?;
            within("greeting", greeting, wait, early_reply(&mut stream, 220)).await?;
            return Ok(stream);
        }
        within("greeting", greeting, wait, early_reply(&mut tcp, 220)).await?;
        self.starttls(&mut tcp, wait).await?;
        self.handshake(connector, name, tcp, wait).await
    }

    async fn connect(&self, wait: &Wait) -> Result<TcpStream, SmtpFailure> {
        let limit = self.options.limits.connect;
        wait.restart();
        let connecting = async {
            let tcp = TcpStream::connect((self.options.host.as_str(), self.options.port)).await?;
            // Without Nagle's algorithm: each command is a small write that waits for a reply, and would be held back
            // 40 ms.
            tcp.set_nodelay(true)?;
            Ok(tcp)
        };
        let connected = timeout(limit, connecting).await;
        connected.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into())).map_err(|e| SmtpFailure::unreachable(&e))
    }

    async fn handshake(
        &self,
        connector: &ConnectorOf,
        name: &ServerName<'static>,
        tcp: TcpStream,
        wait: &Wait,
    ) -> Result<Stream, SmtpFailure> {
        let limit = Limit { key: "connect_timeout", span: self.options.limits.connect };
        let shaking_hands = async {
            let stream = connector.0.connect(name.clone(), tcp).await;
            stream.map_err(|e| SmtpFailure::unreachable(&e))
        };
        Ok(Stream::Tls(Box::new(within("TLS session", limit, wait, Box::pin(shaking_hands)).await?)))
    }

    /// The plain-text part before TLS. Reads byte by byte and so never beyond a reply: bytes that an attacker injects
    /// after the reply to STARTTLS go to the TLS handshake, which fails. They never count as the relay's replies.
    async fn starttls(&self, tcp: &mut TcpStream, wait: &Wait) -> Result<(), SmtpFailure> {
        let limit = Limit { key: "command_timeout", span: self.options.limits.command };
        let hello = Ehlo::new(self.hello.clone()).to_string();
        let extensions = within("reply to EHLO", limit, wait, early_command(tcp, &hello, 250)).await?;
        let offered = extensions.message().any(|line| line.trim().eq_ignore_ascii_case("STARTTLS"));
        // STARTTLS is required: an attacker can remove it from the list, and plain text would expose mail and password.
        if !offered {
            let text = "the relay does not offer STARTTLS (set relay.tls to \"implicit\", or to \"none\" for a relay on \
                        this machine)";
            return Err(SmtpFailure::needs_operator("starttls", text));
        }
        within("reply to STARTTLS", limit, wait, early_command(tcp, &Starttls.to_string(), 220)).await.map(drop)
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// One step under its time limit; `awaited` is what the relay owes.
async fn within<T>(
    awaited: &str,
    limit: Limit,
    wait: &Wait,
    step: impl Future<Output = Result<T, SmtpFailure>>,
) -> Result<T, SmtpFailure> {
    wait.restart();
    let too_late = |_| Err(SmtpFailure::broken(Step::Session, "timeout", format!("no {awaited} {limit}")));
    timeout(limit.span, step).await.unwrap_or_else(too_late)
}

async fn early_command(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    command: &str,
    expected: u16,
) -> Result<Response, SmtpFailure> {
    let lost = |e: std::io::Error| SmtpFailure::broken(Step::Session, "lost", e);
    stream.write_all(command.as_bytes()).await.map_err(lost)?;
    stream.flush().await.map_err(lost)?;
    early_reply(stream, expected).await
}

/// Reads one reply before lettre speaks.
async fn early_reply(stream: &mut (impl AsyncRead + Unpin), expected: u16) -> Result<Response, SmtpFailure> {
    let broken = |code, text: String| SmtpFailure::broken(Step::Session, code, text);
    let mut reply = String::new();
    let mut line_start = 0;
    loop {
        let byte = stream.read_u8().await.map_err(|e| match e.kind() {
            std::io::ErrorKind::UnexpectedEof => broken("lost", "the relay closed the connection".into()),
            _ => broken("lost", e.to_string()),
        })?;
        reply.push(char::from(byte));
        if reply.len() > EARLY_REPLY_BYTES_MAX {
            return Err(broken("protocol", "the reply is too long".into()));
        }
        if byte == b'\n' {
            // `250-` continues the reply, `250 ` or a bare `250` ends it (RFC 5321 section 4.2.1).
            if reply.as_bytes().get(line_start + 3) != Some(&b'-') {
                break;
            }
            line_start = reply.len();
        }
    }
    let response: Response = reply.parse().map_err(|_| {
        let beginning: String = reply.chars().take(80).collect();
        broken("protocol", format!("{beginning:?} is not an SMTP reply (is relay.port that of a mail server?)"))
    })?;
    let text = response.message().collect::<Vec<_>>().join(" ");
    let code = u16::from(response.code());
    if code == expected {
        Ok(response)
    } else if code >= 400 {
        Err(SmtpFailure::Reply { step: Step::Session, code, text })
    } else {
        Err(broken("protocol", format!("unexpected reply {code} {text}")))
    }
}
