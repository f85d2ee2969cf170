//! One SMTP session: sends one mail after another, each step under its own time limit.
//!
//! Any failure leaves the session unusable for another mail; the pool must not keep it. Must not know of other
//! sessions, nor how one is opened.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use lettre::Address;
use lettre::transport::smtp::client::AsyncSmtpConnection;
use lettre::transport::smtp::commands::{Data, Mail, Rcpt};
use lettre::transport::smtp::response::{Response, Severity};
use tokio::time::{sleep, timeout};

use super::fault::{SmtpFailure, Step};
use super::wire::Closing;
use crate::base::{outcome, units};
use crate::function::silence::Wait;
use crate::function::statement::DialogueLimits;
use crate::function::{EffectInProgress, Effects, Intent};

/// The message is written in pieces of this size, each under its own time limit: a stalled relay is noticed early.
const PIECE_BYTES: usize = 64 * 1024;
/// QUIT takes at most this long. The mail's fate is decided before it, and the session's permit is held until it ends,
/// so a relay that is slow to say goodbye must not keep the next mail waiting.
const QUIT_TIMEOUT: Duration = Duration::from_secs(1);

/// The time limit of one step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    /// Its key in `config.toml`, below `relay`.
    pub(super) key: &'static str,
    pub(super) span: Duration,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "within relay.{} ({})", self.key, units::show_duration(self.span))
    }
}

/// One mail with its envelope.
#[derive(Debug)]
pub(super) struct OutgoingMail {
    pub(super) from: Address,
    pub(super) to: Address,
    /// The message in ASCII with CRLF line endings, before dot-stuffing.
    pub(super) bytes: Vec<u8>,
    /// Where its intent is written down before DATA.
    pub(super) effects: Arc<dyn Effects>,
    /// Its intent.
    pub(super) intent: Intent,
}

/// An open session, ready for a mail.
pub(super) struct Connection {
    smtp: AsyncSmtpConnection,
    /// How many mails the relay has accepted in this session.
    pub(super) mails: u32,
}

impl Connection {
    /// A session that has sent no mail yet.
    pub(super) fn new(smtp: AsyncSmtpConnection) -> Self {
        Self { smtp, mails: 0 }
    }

    /// The name that the relay gave itself in its reply to EHLO.
    pub(super) fn relay_name(&self) -> String {
        outcome::printable(self.smtp.server_info().name())
    }

    /// Sends one mail and returns the relay's final reply. After an error the connection must not be used for another
    /// mail. `wait` is restarted with each step; the intent is written down once the relay takes the recipient, so that
    /// one that it refuses costs no commit; `effect` begins just before the final dot.
    pub(super) async fn deliver(
        &mut self,
        outgoing: &OutgoingMail,
        limits: &DialogueLimits,
        wait: &Wait,
        effect: &EffectInProgress,
    ) -> Result<String, SmtpFailure> {
        // One command at a time, without PIPELINING: the wire can then tell a surplus reply, and every failure names
        // the step at which it happened.
        let command = Limit { key: "command_timeout", span: limits.command };
        let data = Limit { key: "data_timeout", span: limits.data };
        let mail = Mail::new(Some(outgoing.from.clone()), Vec::new());
        self.command(Step::MailFrom, command, wait, mail).await?;
        self.command(Step::RcptTo, command, wait, Rcpt::new(outgoing.to.clone(), Vec::new())).await?;
        let permission = outgoing.effects.intend(outgoing.intent.clone()).await;
        if let Some(withheld) = SmtpFailure::withheld(permission) {
            return Err(withheld);
        }
        self.command(Step::Data, data, wait, Data).await?;
        let response = self.message(&outgoing.bytes, limits, wait, effect).await?;
        let reply = expect_reply(Step::EndOfData, response)?;
        self.mails += 1;
        Ok(one_line(&reply))
    }

    async fn command(
        &mut self,
        step: Step,
        limit: Limit,
        wait: &Wait,
        command: impl fmt::Display,
    ) -> Result<(), SmtpFailure> {
        wait.restart();
        let reply = timeout(limit.span, self.smtp.command(command)).await;
        let response = reply.map_err(|_| no_reply(step, limit))?.map_err(|e| failure(step, &e))?;
        expect_reply(step, response).map(drop)
    }

    /// Writes the message and the final dot and waits for the reply. Each piece has a limit of its own, and all pieces
    /// together have one: when it passes, the connection is cut before the dot, and the relay has accepted nothing. The
    /// limit after the dot begins with the dot: a relay that times out there may have accepted the mail.
    async fn message(
        &mut self,
        bytes: &[u8],
        limits: &DialogueLimits,
        wait: &Wait,
        effect: &EffectInProgress,
    ) -> Result<Response, SmtpFailure> {
        let piece = Limit { key: "body_piece_timeout", span: limits.body_piece };
        let body = Limit { key: "body_timeout", span: limits.body };
        let end_of_data = Limit { key: "end_of_data_timeout", span: limits.end_of_data };
        let progress = Progress::default();
        let pieces = Pieces { pieces: bytes.chunks(PIECE_BYTES), progress: &progress, effect };
        // Pinned outside the loop: each turn goes on with the same write, not a new one.
        let mut sending = std::pin::pin!(self.smtp.message_iter(pieces));
        let mut body_over = std::pin::pin!(sleep(body.span));
        loop {
            wait.restart();
            let done = progress.count();
            if done == Progress::END_OF_DATA {
                let reply =
                    timeout(end_of_data.span, sending).await.map_err(|_| no_reply(Step::EndOfData, end_of_data))?;
                return reply.map_err(|e| failure(Step::EndOfData, &e));
            }
            let too_slow = tokio::select! {
                // Progress comes first: what was written in time counts, also when a limit passed at the same moment.
                biased;
                ended = progress.beyond(done, sending.as_mut()) => match ended {
                    Some(result) => return result.map_err(|e| failure(progress.step(), &e)),
                    None => continue,
                },
                () = &mut body_over => body,
                () = sleep(piece.span) => piece,
            };
            // Only the last piece's end lets lettre write the dot, so nothing of it was written.
            let text = format!("the message was not taken {too_slow}");
            return Err(SmtpFailure::broken(Step::Body, "timeout", text));
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

    fn step(&self) -> Step {
        if self.count() == Self::END_OF_DATA { Step::EndOfData } else { Step::Body }
    }

    /// Polls `sending` until more than `done` pieces were requested, and answers `None` then, or until it ends.
    async fn beyond<T>(&self, done: u32, mut sending: Pin<&mut impl Future<Output = T>>) -> Option<T> {
        let step = |cx: &mut Context<'_>| match sending.as_mut().poll(cx) {
            Poll::Ready(result) => Poll::Ready(Some(result)),
            Poll::Pending if self.count() != done => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        };
        poll_fn(step).await
    }
}

/// Iterates over the message's pieces. lettre asks for a piece after it has written the one before, so the request
/// beyond the last piece means that all were written and that the dot comes next.
struct Pieces<'a> {
    pieces: std::slice::Chunks<'a, u8>,
    progress: &'a Progress,
    effect: &'a EffectInProgress,
}

impl<'a> Iterator for Pieces<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<Self::Item> {
        let piece = self.pieces.next();
        match piece {
            Some(_) => self.progress.0.fetch_add(1, Ordering::Relaxed),
            None => {
                self.effect.begin();
                self.progress.0.swap(Progress::END_OF_DATA, Ordering::Relaxed)
            }
        };
        piece
    }
}

fn no_reply(step: Step, limit: Limit) -> SmtpFailure {
    SmtpFailure::broken(step, "timeout", format!("no reply {limit}"))
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
pub(super) fn failure(step: Step, error: &lettre::transport::smtp::Error) -> SmtpFailure {
    let cause = std::error::Error::source(error);
    let text = cause.map_or_else(|| error.to_string(), ToString::to_string);
    if let Some(code) = error.status() {
        return SmtpFailure::Reply { step, code: code.into(), text };
    }
    let io = cause.and_then(|cause| cause.downcast_ref::<std::io::Error>());
    if io.and_then(std::io::Error::get_ref).is_some_and(|cause| cause.is::<Closing>()) {
        return SmtpFailure::Reply { step, code: 421, text };
    }
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
