//! An SMTP server on loopback for tests that misbehaves at a chosen step.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::function::statement::{DialogueLimits, MailOptions, RelayOptions, SuppressOn, Tls};

/// Where the server misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::function) enum At {
    Greeting,
    Ehlo,
    Mail,
    Rcpt,
    Data,
    /// After the first KiB of the message.
    Body,
    EndOfData,
}

/// How it misbehaves.
#[derive(Clone, Debug)]
pub(in crate::function) enum Fault {
    Reply(&'static str),
    /// Closes the connection.
    Cut,
    /// Keeps the connection open and sends nothing.
    Stall,
    /// Takes 64 KiB of the message every 10 ms, and so never comes to its end.
    Slow,
}

/// What the server has seen.
#[derive(Debug, Default)]
pub(in crate::function) struct Seen {
    /// Recipient and message of each mail that was accepted, in order.
    pub(in crate::function) mails: Vec<(String, String)>,
    pub(in crate::function) sessions: usize,
    pub(in crate::function) open: usize,
    pub(in crate::function) open_max: usize,
    pub(in crate::function) quits: usize,
    /// How many final dots have come, accepted or not.
    pub(in crate::function) dots: usize,
    /// How many times the fault struck.
    pub(in crate::function) struck: usize,
}

/// The script: the fault strikes when its step is reached for these times, counted from 0.
struct Script {
    at: Option<(At, Fault)>,
    strikes: std::ops::Range<usize>,
    reached: Mutex<usize>,
    seen: Mutex<Seen>,
    /// Sent together with the reply to each final dot, as a server that is out of step does.
    extra: Mutex<&'static str>,
    dot_delay: Duration,
    /// Called when a step is reached, before its reply.
    at_each_step: Mutex<Option<Box<dyn Fn() + Send>>>,
    tls: Option<(Tls, TlsAcceptor)>,
    /// Sent together with the reply to STARTTLS, as someone in the middle does.
    injected: &'static str,
}

/// The running server; it ends with the test's runtime.
pub(in crate::function) struct Sink {
    pub(in crate::function) port: u16,
    script: Arc<Script>,
}

impl Sink {
    pub(in crate::function) async fn good() -> Self {
        Self::start(Script::good()).await
    }

    /// A server that delays its reply to each final dot.
    pub(in crate::function) async fn slow(dot_delay: Duration) -> Self {
        Self::start(Script { dot_delay, ..Script::good() }).await
    }

    /// A server whose fault strikes the first time, the second time and so on that its step is reached.
    pub(in crate::function) async fn faulty(at: At, fault: Fault, strikes: std::ops::Range<usize>) -> Self {
        Self::start(Script { at: Some((at, fault)), strikes, ..Script::good() }).await
    }

    /// A server with TLS for `localhost`, and the certificate to trust.
    pub(in crate::function) async fn tls(tls: Tls, injected: &'static str) -> (Self, CertificateDer<'static>) {
        let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivatePkcs8KeyDer::from(signed.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![signed.cert.der().clone()], key.into())
            .unwrap();
        let tls = Some((tls, TlsAcceptor::from(Arc::new(config))));
        (Self::start(Script { tls, injected, ..Script::good() }).await, signed.cert.der().clone())
    }

    async fn start(script: Script) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let script = Arc::new(script);
        let shared = Arc::clone(&script);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                let script = Arc::clone(&shared);
                tokio::spawn(async move {
                    script.opened();
                    session(stream, &script).await;
                    script.seen.lock().unwrap().open -= 1;
                });
            }
        });
        Self { port, script }
    }

    pub(in crate::function) fn speak_out_of_turn(&self, extra: &'static str) {
        *self.script.extra.lock().unwrap() = extra;
    }

    pub(in crate::function) fn at_each_step(&self, act: impl Fn() + Send + 'static) {
        *self.script.at_each_step.lock().unwrap() = Some(Box::new(act));
    }

    pub(in crate::function) fn see<T>(&self, look: impl FnOnce(&Seen) -> T) -> T {
        look(&self.script.seen.lock().unwrap())
    }

    pub(in crate::function) fn recipients(&self) -> Vec<String> {
        self.see(|seen| seen.mails.iter().map(|(to, _)| to.clone()).collect())
    }
}

impl Script {
    fn good() -> Self {
        Self {
            at: None,
            strikes: 0..0,
            reached: Mutex::default(),
            seen: Mutex::default(),
            extra: Mutex::default(),
            dot_delay: Duration::ZERO,
            at_each_step: Mutex::default(),
            tls: None,
            injected: "",
        }
    }

    fn opened(&self) {
        let mut seen = self.seen.lock().unwrap();
        seen.sessions += 1;
        seen.open += 1;
        seen.open_max = seen.open_max.max(seen.open);
    }

    fn strikes(&self, at: At) -> Option<Fault> {
        let (_, fault) = self.at.as_ref().filter(|(step, _)| *step == at)?;
        let mut reached = self.reached.lock().unwrap();
        *reached += 1;
        if !self.strikes.contains(&(*reached - 1)) {
            return None;
        }
        self.seen.lock().unwrap().struck += 1;
        Some(fault.clone())
    }
}

/// One connection, with TLS where the script says so.
async fn session(mut stream: TcpStream, script: &Script) -> Option<()> {
    match &script.tls {
        Some((Tls::StartTls, acceptor)) => {
            say(&mut stream, "220 sink ready").await?;
            let mut lines = BufReader::new(&mut stream).lines();
            assert!(lines.next_line().await.ok()??.starts_with("EHLO"));
            say(lines.get_mut(), "250-sink\r\n250 STARTTLS").await?;
            assert_eq!(lines.next_line().await.ok()??, "STARTTLS");
            say(lines.get_mut(), &format!("220 go{}", script.injected)).await?;
            drop(lines);
            serve(BufReader::new(acceptor.accept(stream).await.ok()?), script).await
        }
        Some((_, acceptor)) => greet(acceptor.accept(stream).await.ok()?, script).await,
        None => greet(stream, script).await,
    }
}

async fn greet(stream: impl AsyncRead + AsyncWrite + Unpin, script: &Script) -> Option<()> {
    let mut stream = BufReader::new(stream);
    step(&mut stream, script, At::Greeting, "220 sink ready").await?;
    serve(stream, script).await
}

async fn serve(mut stream: BufReader<impl AsyncRead + AsyncWrite + Unpin>, script: &Script) -> Option<()> {
    let mut to = String::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        let verb = line.get(..4)?.to_ascii_uppercase();
        match verb.as_str() {
            "EHLO" => step(&mut stream, script, At::Ehlo, "250-sink\r\n250 8BITMIME").await?,
            "MAIL" => step(&mut stream, script, At::Mail, "250 2.1.0 ok").await?,
            "RCPT" => {
                to = line.split(['<', '>']).nth(1)?.to_owned();
                step(&mut stream, script, At::Rcpt, "250 2.1.5 ok").await?;
            }
            "DATA" => {
                step(&mut stream, script, At::Data, "354 go ahead").await?;
                message(&mut stream, script, &to).await?;
            }
            "QUIT" => {
                script.seen.lock().unwrap().quits += 1;
                say(&mut stream, "221 bye").await?;
                return Some(());
            }
            _ => say(&mut stream, "500 what?").await?,
        }
    }
}

/// Reads a message to its dot and accepts it.
async fn message(stream: &mut (impl AsyncBufReadExt + AsyncWrite + Unpin), script: &Script, to: &str) -> Option<()> {
    if let Some(fault) = script.strikes(At::Body) {
        let mut begin = [0; 1024];
        stream.read_exact(&mut begin).await.ok()?;
        let mut piece = vec![0; 64 * 1024];
        while let Fault::Slow = fault {
            tokio::time::sleep(Duration::from_millis(10)).await;
            stream.read_exact(&mut piece).await.ok()?;
        }
        misbehave(stream, fault).await?;
    }
    let (mut text, mut line) = (String::new(), String::new());
    loop {
        line.clear();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        assert!(line.ends_with("\r\n"), "each line ends with CRLF: {line:?}");
        if line == ".\r\n" {
            break;
        }
        text.push_str(line.strip_prefix('.').unwrap_or(&line));
    }
    script.seen.lock().unwrap().dots += 1;
    tokio::time::sleep(script.dot_delay).await;
    if let Some(fault) = script.strikes(At::EndOfData) {
        return misbehave(stream, fault).await;
    }
    let number = {
        let mut seen = script.seen.lock().unwrap();
        seen.mails.push((to.to_owned(), text));
        seen.mails.len()
    };
    let extra = *script.extra.lock().unwrap();
    say(stream, &format!("250 2.0.0 queued as {number}{extra}")).await
}

async fn step(stream: &mut (impl AsyncWrite + Unpin), script: &Script, at: At, good: &str) -> Option<()> {
    if let Some(act) = &*script.at_each_step.lock().unwrap() {
        act();
    }
    match script.strikes(at) {
        None => say(stream, good).await,
        Some(fault) => misbehave(stream, fault).await,
    }
}

async fn misbehave(stream: &mut (impl AsyncWrite + Unpin), fault: Fault) -> Option<()> {
    match fault {
        Fault::Reply(reply) => say(stream, reply).await,
        Fault::Cut => None,
        Fault::Stall => std::future::pending().await,
        // Only in the message: see there.
        Fault::Slow => Some(()),
    }
}

async fn say(stream: &mut (impl AsyncWrite + Unpin), reply: &str) -> Option<()> {
    stream.write_all(format!("{reply}\r\n").as_bytes()).await.ok()?;
    stream.flush().await.ok()
}

/// The same limit for each step.
pub(in crate::function) fn limits(step: Duration) -> DialogueLimits {
    DialogueLimits {
        connect: step,
        greeting: step,
        command: step,
        data: step,
        body_piece: step,
        body: step,
        end_of_data: step,
    }
}

/// Options for the sink with more time for each step than a busy machine needs; port 1 until it is set.
pub(in crate::function) fn options() -> MailOptions {
    MailOptions {
        relay: RelayOptions {
            host: "127.0.0.1".into(),
            port: 1,
            tls: Tls::None,
            credentials: None,
            connections: 2,
            per_second: None,
            per_day: None,
            domains: std::collections::BTreeMap::new(),
            limits: limits(Duration::from_secs(20)),
            idle_max: Duration::from_secs(30),
            mails_per_connection: 100,
            helo: "test.example".into(),
        },
        from: "Example Bank <statements@example.com>".into(),
        reply_to: None,
        message_id_domain: None,
        subject: "Your statement".into(),
        text: "Dear {{ user.name }}".into(),
        html: "<p>Dear {{ user.name }}</p>".into(),
        attachment_name: "statement.pdf".into(),
        suppress_on: SuppressOn::Never,
    }
}
