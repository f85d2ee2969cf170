//! One SMTP dialogue: the order of commands, the replies, and the steps at which a script may intervene.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;

use super::body::{Body, Taken};
use super::command::{Command, Mechanism, Sender};
use super::store::{NotKept, Received};
use super::wire::{Lost, Wire};
use super::{Action, LINE_BYTES_MAX, RECIPIENTS_MAX, Shared, Step, ViolationKind};

/// Where the cut of [`Action::CloseAfterHalfBody`] is when MAIL declared no SIZE, in bytes.
const HALF_BODY_BYTES: u64 = 1024;

/// One connection.
struct Session {
    wire: Wire,
    sink: Arc<Shared>,
    /// Counted from 1 over the sink's life.
    connection: u64,
    /// MAIL commands so far.
    mails: u64,
    /// EHLO or HELO has been accepted.
    greeted: bool,
    /// AUTH has been accepted.
    authenticated: bool,
    /// Set by MAIL; ends with RSET, EHLO or the mail.
    envelope: Option<Envelope>,
    /// The last MAIL was refused, so that the RCPT and DATA pipelined after it are no fault of the client's.
    mail_refused: bool,
}

/// The mail that is being built up.
struct Envelope {
    sender: Sender,
    recipients: Vec<String>,
}

/// Whether the dialogue goes on.
#[derive(PartialEq, Eq)]
enum Go {
    On,
    Away,
}

/// Serves one connection to its end.
pub(super) async fn run(socket: TcpStream, sink: Arc<Shared>, connection: u64) {
    // A socket that does not take the option still works, only slower.
    drop(socket.set_nodelay(true));
    let wire = Wire::new(socket, sink.options.idle_timeout, sink.shutdown.clone());
    let mut session = Session {
        wire,
        sink,
        connection,
        mails: 0,
        greeted: false,
        authenticated: false,
        envelope: None,
        mail_refused: false,
    };
    let ended = session.dialogue().await;
    let last_words = match ended {
        Ok(()) | Err(Lost::Closed | Lost::Scripted) => None,
        Err(Lost::Idle) => Some((421, "4.4.2 nothing came for too long")),
        Err(Lost::Shutdown) => Some((421, "4.3.2 the sink stops")),
        Err(Lost::Endless) => {
            session.violation(ViolationKind::LongLine, "a line without an end");
            Some((500, "5.5.2 line too long"))
        }
    };
    if let Some((code, text)) = last_words {
        session.wire.say(code, text);
    }
    match ended {
        Err(Lost::Closed | Lost::Scripted) => session.wire.flush().await.unwrap_or_default(),
        _ => session.wire.farewell().await,
    }
}

impl Session {
    async fn dialogue(&mut self) -> Result<(), Lost> {
        let greeting = format!("{} ESMTP demo sink", self.sink.options.name);
        if !self.step(Step::Greeting, 220, &greeting).await? {
            return Ok(());
        }
        loop {
            let line = self.wire.line().await?;
            if self.one(&line).await? == Go::Away {
                return Ok(());
            }
        }
    }

    /// Answers one line.
    async fn one(&mut self, line: &[u8]) -> Result<Go, Lost> {
        let text = match line.strip_suffix(b"\r\n") {
            Some(text) if text.len() > LINE_BYTES_MAX - 2 => {
                self.refuse(ViolationKind::LongLine, 500, "5.5.2 line too long");
                return Ok(Go::On);
            }
            Some(text) => text,
            None => {
                self.refuse(ViolationKind::BareLf, 521, "5.5.2 bare LF in a command");
                return Ok(Go::Away);
            }
        };
        let command = match Command::read(text) {
            Ok(command) => command,
            Err((code, reason)) => {
                self.refuse(ViolationKind::Syntax, code, reason);
                return Ok(Go::On);
            }
        };
        match command {
            Command::Ehlo => self.ehlo().await,
            Command::Helo => {
                self.greeted = self.step(Step::Ehlo, 250, &self.sink.options.name.clone()).await?;
                self.envelope = None;
                Ok(Go::On)
            }
            Command::Mail(sender) => self.mail(sender).await,
            Command::Rcpt(recipient) => self.rcpt(recipient).await,
            Command::Data => self.data().await,
            Command::Rset => {
                (self.envelope, self.mail_refused) = (None, false);
                self.reply(250, "2.0.0 forgotten")
            }
            Command::Noop => self.reply(250, "2.0.0 still here"),
            Command::Vrfy => self.reply(252, "2.5.0 send it and see"),
            Command::Auth(mechanism, initial) => self.auth(mechanism, initial).await,
            Command::Quit => {
                self.wire.say(221, "2.0.0 bye");
                Ok(Go::Away)
            }
        }
    }

    async fn ehlo(&mut self) -> Result<Go, Lost> {
        self.envelope = None;
        match self.sink.action(self.connection, self.mails, Step::Ehlo) {
            Action::Accept => {
                let size = format!("SIZE {}", self.sink.options.mail_bytes_max);
                let name = self.sink.options.name.clone();
                for line in [&name, "PIPELINING", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", &size] {
                    self.wire.say_part(250, '-', line);
                }
                self.wire.say(250, "AUTH PLAIN LOGIN");
                self.greeted = true;
            }
            action => self.greeted = self.perform(action, 250, "").await?,
        }
        Ok(Go::On)
    }

    async fn mail(&mut self, sender: Sender) -> Result<Go, Lost> {
        if !self.greeted || self.envelope.is_some() {
            return self.out_of_order("MAIL before EHLO or within a mail");
        }
        self.mails += 1;
        self.mail_refused = true;
        if sender.size.is_some_and(|size| size > self.sink.options.mail_bytes_max as u64) {
            self.refuse(ViolationKind::TooLarge, 552, "5.3.4 the mail is too large");
            return Ok(Go::On);
        }
        if self.step(Step::Mail, 250, "2.1.0 sender ok").await? {
            self.mail_refused = false;
            self.envelope = Some(Envelope { sender, recipients: Vec::new() });
        }
        Ok(Go::On)
    }

    async fn rcpt(&mut self, recipient: String) -> Result<Go, Lost> {
        let Some(envelope) = &self.envelope else { return self.without_mail("RCPT before MAIL") };
        if envelope.recipients.len() >= RECIPIENTS_MAX {
            return self.reply(452, "4.5.3 too many recipients");
        }
        if !recipient.is_ascii() && !envelope.sender.utf8 {
            self.refuse(ViolationKind::Syntax, 553, "5.6.7 a non-ASCII address needs SMTPUTF8");
            return Ok(Go::On);
        }
        let accepted = self.step(Step::Rcpt, 250, "2.1.5 recipient ok").await?;
        if let Some(envelope) = self.envelope.as_mut().filter(|_| accepted) {
            envelope.recipients.push(recipient);
        }
        Ok(Go::On)
    }

    async fn data(&mut self) -> Result<Go, Lost> {
        let Some(envelope) = &self.envelope else { return self.without_mail("DATA before MAIL") };
        if envelope.recipients.is_empty() {
            return self.reply(554, "5.5.1 no valid recipients");
        }
        let accepted = self.step(Step::Data, 354, "end with CRLF.CRLF").await?;
        let Some(envelope) = self.envelope.take().filter(|_| accepted) else { return Ok(Go::On) };
        let mut violations = Vec::new();
        if self.wire.has_input() {
            violations.push((ViolationKind::SentBeforeReply, "bytes after DATA before its reply".into()));
        }
        let scripted = self.sink.action(self.connection, self.mails, Step::Body);
        let mut bytes_max = None;
        let mut reply_after_dot = None;
        match scripted {
            Action::Accept => {}
            Action::Delay(span) => self.pause(span).await?,
            Action::Reply(code, text) => reply_after_dot = Some((code, text)),
            Action::CloseAfterHalfBody => {
                bytes_max = Some(envelope.sender.size.map_or(HALF_BODY_BYTES, |size| size / 2));
            }
            Action::Close | Action::Lose => {
                self.wire.flush().await?;
                return Err(Lost::Scripted);
            }
            Action::Stall => return Err(self.stall().await),
        }
        let mut body = Body::new(self.sink.options.mail_bytes_max);
        let taken = self.wire.body(&mut body, bytes_max).await?;
        match taken {
            Taken::BareLf => self.refuse(ViolationKind::BareLf, 521, "5.5.2 bare LF in the mail"),
            Taken::BareCr => self.refuse(ViolationKind::BareCr, 521, "5.5.2 bare CR in the mail"),
            Taken::Line | Taken::End => return self.dot(envelope, body, violations, reply_after_dot).await,
        }
        Ok(Go::Away)
    }

    /// The whole mail is here.
    async fn dot(
        &mut self,
        envelope: Envelope,
        body: Body,
        mut violations: Vec<(ViolationKind, String)>,
        reply: Option<(u16, String)>,
    ) -> Result<Go, Lost> {
        if body.too_large {
            self.refuse(ViolationKind::TooLarge, 552, "5.3.4 the mail is too large");
            return Ok(Go::On);
        }
        let action = match reply {
            Some((code, text)) => Action::Reply(code, text),
            None => self.sink.action(self.connection, self.mails, Step::Dot),
        };
        let taken = !matches!(&action, Action::Lose | Action::CloseAfterHalfBody)
            && !matches!(&action, Action::Reply(code, _) if *code >= 400);
        if !taken {
            self.perform(action, 250, "").await?;
            return Ok(Go::On);
        }
        judge(&envelope, &body, &mut violations);
        let received =
            Received { connection: self.connection, recipients: envelope.recipients, raw: body.bytes, violations };
        match self.sink.store.deliver(received).await {
            Ok(number) => {
                self.perform(action, 250, &format!("2.0.0 queued as {number}")).await?;
                Ok(Go::On)
            }
            Err(NotKept::Full) => self.reply(452, "4.3.1 the sink is full"),
            Err(NotKept::File) => self.reply(451, "4.3.0 the mail cannot be written"),
        }
    }

    /// AUTH, accepted with any user and password that are encoded as they should be.
    async fn auth(&mut self, mechanism: Mechanism, initial: Option<String>) -> Result<Go, Lost> {
        if !self.greeted || self.authenticated || self.envelope.is_some() {
            return self.out_of_order("AUTH before EHLO, twice or within a mail");
        }
        let questions: &[&str] = match mechanism {
            Mechanism::Plain => &[""],
            Mechanism::Login => &["VXNlcm5hbWU6", "UGFzc3dvcmQ6"],
        };
        let mut answer = initial;
        for question in questions {
            let text = match answer.take() {
                Some(text) => text,
                None => {
                    self.wire.say(334, question);
                    let line = self.wire.line().await?;
                    String::from_utf8_lossy(&line).trim_end().to_owned()
                }
            };
            if text == "*" || !base64_like(&text) {
                self.refuse(ViolationKind::Syntax, 501, "5.5.2 cancelled, or not base64");
                return Ok(Go::On);
            }
        }
        self.authenticated = true;
        self.reply(235, "2.7.0 welcome")
    }

    /// Asks the script, does what it says; otherwise replies with `code` and `text`. Whether the step went well.
    async fn step(&mut self, step: Step, code: u16, text: &str) -> Result<bool, Lost> {
        let action = self.sink.action(self.connection, self.mails, step);
        self.perform(action, code, text).await
    }

    async fn perform(&mut self, action: Action, code: u16, text: &str) -> Result<bool, Lost> {
        match action {
            Action::Accept => {
                self.wire.say(code, text);
                Ok(true)
            }
            Action::Delay(span) => {
                self.pause(span).await?;
                self.wire.say(code, text);
                Ok(true)
            }
            Action::Reply(421, text) => {
                self.wire.say(421, &text);
                Err(Lost::Scripted)
            }
            Action::Reply(code, text) => {
                self.wire.say(code, &text);
                Ok(code < 400)
            }
            Action::Stall => Err(self.stall().await),
            Action::Close | Action::CloseAfterHalfBody | Action::Lose => Err(Lost::Scripted),
        }
    }

    /// Sends the replies of earlier steps, then waits.
    async fn pause(&mut self, span: Duration) -> Result<(), Lost> {
        self.wire.flush().await?;
        tokio::time::sleep(span).await;
        Ok(())
    }

    /// Sends the replies of earlier steps, then nothing more.
    async fn stall(&mut self) -> Lost {
        match self.wire.flush().await {
            Ok(()) => self.wire.stall().await,
            Err(lost) => lost,
        }
    }

    fn reply(&mut self, code: u16, text: &str) -> Result<Go, Lost> {
        self.wire.say(code, text);
        Ok(Go::On)
    }

    /// RCPT or DATA without a mail: right after a refused MAIL that is what pipelining clients do (RFC 2920, 3.1).
    fn without_mail(&mut self, detail: &str) -> Result<Go, Lost> {
        match self.mail_refused {
            true => self.reply(503, "5.5.1 the mail was refused"),
            false => self.out_of_order(detail),
        }
    }

    fn out_of_order(&mut self, detail: &str) -> Result<Go, Lost> {
        self.violation(ViolationKind::OutOfOrder, detail);
        self.reply(503, "5.5.1 bad sequence of commands")
    }

    /// Replies and remembers why.
    fn refuse(&mut self, kind: ViolationKind, code: u16, text: &str) {
        self.violation(kind, text);
        self.wire.say(code, text);
    }

    fn violation(&self, kind: ViolationKind, detail: &str) {
        self.sink.store.violation(self.connection, kind, detail);
    }
}

/// What the envelope and the raw lines of a mail have wrong.
fn judge(envelope: &Envelope, body: &Body, violations: &mut Vec<(ViolationKind, String)>) {
    if envelope.recipients.len() > 1 {
        violations.push((ViolationKind::SeveralRecipients, format!("{} recipients", envelope.recipients.len())));
    }
    if body.long_lines > 0 {
        violations.push((ViolationKind::LongLine, format!("{} lines over {LINE_BYTES_MAX} bytes", body.long_lines)));
    }
    if body.nul {
        violations.push((ViolationKind::Nul, "the mail has a NUL byte".into()));
    }
    if body.eight_bit && !envelope.sender.eight_bit {
        violations.push((ViolationKind::EightBit, "bytes above 127 without BODY=8BITMIME".into()));
    }
}

/// Base64 by its alphabet; `=` alone is the empty answer (RFC 4954).
fn base64_like(text: &str) -> bool {
    let letters = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte);
    text == "=" || (text.len().is_multiple_of(4) && text.bytes().all(letters))
}
