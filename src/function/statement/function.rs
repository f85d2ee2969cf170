//! The function itself: one message in, one statement mailed.
//!
//! Owns the order of the steps and the format of a message. The [`StatementRenderer`] turns an account into a document;
//! this file must not know about transactions or PDF.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use minijinja::value::Value;
use serde::Deserialize;
use serde_json::value::RawValue;
use url::Url;

use super::archive::{self, Archive};
use super::mail::{Mail, Mailer, MessageIds};
use super::pdf;
use super::template::{Context, Document, Recipient};
use super::url::UrlTemplate;
use super::{Options, User};
use crate::base::{
    Clock, Contact, Destination, Effect, Failure, LeftOutBy, Outcome, RenderedDocument, Report, Verdict, units,
};
use crate::function::timings::{Stopwatch, Timings};
use crate::function::upstream::Answer;
use crate::function::{Error, Function, Intent, Invocation, PaceView, Stage, upstream};

/// The class of the failure of a statement that is not the one that was made before its run's release.
pub const CHANGED: (&str, &str, &str) = ("data", "statement", "changed");

/// The parameter that names the statement's period.
const PERIOD: &str = "period";
/// The purpose of a mail whose message names none.
const PURPOSE: &str = "statement";

/// The largest response whose document is rendered in place: about 180 transactions, 5 ms of work. A longer one would
/// hold up the dialogues of others on the same thread; for a usual one, of 30 transactions and 1 ms, the detour over
/// another thread is not worth it.
const IN_PLACE_BYTES_MAX: usize = 16 * 1024;

/// Renders the document of one account from the service's response. It blocks its thread for about 30 µs a transaction.
pub trait StatementRenderer: Send + Sync + fmt::Debug {
    /// Checks the response against the request and renders it.
    ///
    /// # Errors
    /// A permanent failure: the response is for another account, does not balance, or cannot be drawn.
    fn render(&self, request: &RenderRequest<'_>) -> Result<Rendering, Failure>;

    /// The same for data that a document was made from before: no rule leaves its account out any more.
    ///
    /// # Errors
    /// As for [`Self::render`].
    fn render_again(&self, request: &RenderRequest<'_>) -> Result<Rendering, Failure> {
        self.render(request)
    }
}

/// How a renderer is asked.
type Render = fn(&dyn StatementRenderer, &RenderRequest<'_>) -> Result<Rendering, Failure>;

/// What to render.
#[derive(Clone, Copy, Debug)]
pub struct RenderRequest<'a> {
    /// The account service's response.
    pub body: &'a [u8],
    /// The requested account; the response must name it.
    pub account: &'a str,
    /// The requested period; the response must name it.
    pub period: Option<&'a str>,
    /// The account's holder.
    pub user: &'a User,
}

/// What rendering came to.
#[derive(Clone, Debug)]
pub enum Rendering {
    /// The document.
    Document(RenderedStatement),
    /// None, since a rule leaves the account out; why.
    Skipped(&'static str),
}

/// A rendered document.
#[derive(Clone, Debug)]
pub struct RenderedStatement {
    /// The PDF.
    pub pdf: Vec<u8>,
    /// SHA-256 of the PDF, in hex.
    pub sha256: String,
    /// The values that the mail's templates may use.
    pub document: Document,
    /// Whether the account has no transactions in the period.
    pub is_empty: bool,
}

impl RenderedStatement {
    /// What the ledger keeps of it until it may be mailed.
    fn kept(&self) -> RenderedDocument {
        let sha256 = archive::from_hex(&self.sha256).expect("a renderer gives a SHA-256 in hex");
        RenderedDocument { sha256, bytes: self.pdf.len() as u64, pages: self.document.pages, is_empty: self.is_empty }
    }
}

/// `kind = "statement"`.
#[derive(Debug)]
pub struct Statement {
    account_url: UrlTemplate,
    accounts: upstream::Client,
    renderer: Arc<dyn StatementRenderer>,
    mailer: Mailer,
    default_locale: String,
    archive: Archive,
    clock: Arc<dyn Clock>,
    /// Calls of the account API that were answered.
    fetched: Stopwatch,
    /// Documents.
    rendered: Stopwatch,
}

/// The message's body.
#[derive(Deserialize)]
struct Body<'a> {
    /// The run's number; 0 outside a run.
    #[serde(default)]
    run: u64,
    /// Identifies the run independently of its number; decides the Message-ID. It contains quotes, which JSON escapes,
    /// so it cannot be borrowed.
    #[serde(default)]
    identity: Option<String>,
    /// Checked again, because a message may also come through the SQS API.
    #[serde(borrow)]
    user: &'a RawValue,
    #[serde(default)]
    params: BTreeMap<String, String>,
    /// Distinguishes a resend or a test from the regular mail: it has another Message-ID.
    purpose: Option<String>,
}

impl Statement {
    /// All faults of the settings that can be found without I/O: no certificate is read.
    pub fn faults(options: &Options, params: &[&str]) -> Vec<Error> {
        account_url(options, params).err().into_iter().chain(Mailer::faults(&options.mail)).collect()
    }

    /// Checks the settings; opens no connection. `params` are the names of the run's parameters that the account's
    /// address may use beside `user_id` and `account_id`.
    ///
    /// # Errors
    /// [`Error`] names the setting that cannot work.
    pub fn new(
        options: &Options,
        params: &[&str],
        renderer: Box<dyn StatementRenderer>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Error> {
        let account_url = account_url(options, params)?;
        let destination = Destination::new("account API", &account_url.host_and_port());
        Ok(Self {
            accounts: upstream::Client::new(&options.account.upstream, destination, Arc::clone(&clock))?,
            account_url,
            renderer: Arc::from(renderer),
            mailer: Mailer::new(&options.mail, Arc::clone(&clock))?,
            default_locale: options.document.default_locale.clone(),
            archive: options.archive.clone(),
            clock,
            fetched: Stopwatch::default(),
            rendered: Stopwatch::default(),
        })
    }

    /// Fetches, renders, mails. The first failure is the outcome. While the run's gate is shut, nothing is mailed, and behind it
    /// nothing but what was made before.
    async fn work(&self, invocation: &Invocation, contacts: &mut Vec<Contact>) -> Result<Outcome, Outcome> {
        let dead = |why| Outcome::Dead { why };
        let body = Body::parse(&invocation.body).map_err(dead)?;
        let user = User::check(body.user.get()).map_err(dead)?;
        let mut intent = body.intent(&user);
        if let Some(why) = invocation.effects.suppressed(&intent).map_err(unreadable)? {
            return Err(Outcome::LeftOut { by: LeftOutBy::Suppression, why });
        }
        let stage = invocation.effects.stage(&intent).map_err(unreadable)?;
        let admit = || self.mailer.admit(&user.email, invocation.receive_count);
        let is_to_mail = matches!(stage, Stage::Mail { .. });
        let _admission = is_to_mail.then(admit).transpose().map_err(|after| paced(&user.email, after))?;
        let print = match stage {
            Stage::Wait => return Err(waits_for_release()),
            Stage::Render => return Ok(Outcome::Rendered(self.make(invocation, &body, &user, contacts).await?.kept())),
            Stage::Mail { sha256: None } => self.make(invocation, &body, &user, contacts).await?,
            Stage::Mail { sha256: Some(sha256) } => {
                let sha256 = archive::to_hex(&sha256);
                match self.archived(&body, &user, &sha256).await? {
                    Some(print) => print,
                    None => unchanged(self.make(invocation, &body, &user, contacts).await, &sha256, body.run)?,
                }
            }
        };
        let (pdf, sha256) = (Bytes::from(print.pdf), print.sha256);
        intent.document = archive::from_hex(&sha256);
        let left = self.left(invocation);
        if left.is_zero() {
            return Err(too_late("the mail could begin", ""));
        }
        let user_words = Recipient::of(&user, &self.default_locale);
        let context = Context { run: body.run, user: user_words, params: &body.params, document: print.document };
        let mail = Mail {
            to_name: &user.name,
            to_address: &user.email,
            message_key: &body.message_key(&user),
            begin_within: left,
            now: self.clock.wall(),
            context: Value::from_serialize(&context),
            attachment: &pdf,
            effect: invocation.effect.clone(),
            effects: invocation.effects.clone(),
            intent,
        };
        let mut proof = self.mailer.send(&mail, contacts).await.map_err(super::mail::SendFault::into_outcome)?;
        proof.document_sha256 = (self.archive != Archive::None).then_some(sha256);
        Ok(Outcome::Done(proof))
    }

    /// Fetches the account, renders its statement and keeps that.
    async fn make(
        &self,
        invocation: &Invocation,
        body: &Body<'_>,
        user: &User,
        contacts: &mut Vec<Contact>,
    ) -> Result<RenderedStatement, Outcome> {
        let dead = |why| Outcome::Dead { why };
        let url = self.url_of(user, &body.params).map_err(dead)?;
        let begun = self.clock.monotonic();
        let answer = self.fetch(&url, self.left(invocation), contacts).await?;
        let fetched = self.clock.monotonic();
        self.fetched.add(fetched - begun);
        let render: Render = |renderer, request| renderer.render(request);
        let drawn = self.render(render, answer.body.clone(), body.period(), user).await;
        let print = match drawn.map_err(dead)? {
            Rendering::Document(print) => print,
            Rendering::Skipped(why) => return Err(Outcome::LeftOut { by: LeftOutBy::Rule, why: why.into() }),
        };
        self.rendered.add(self.clock.monotonic() - fetched);
        self.keep(body.run, &print, &answer.body, (body.period(), user)).await?;
        Ok(print)
    }

    /// The document of that hash from the archive, with the words for its mail; `None` when it is not there whole.
    async fn archived(&self, body: &Body<'_>, user: &User, sha256: &str) -> Result<Option<RenderedStatement>, Outcome> {
        let Archive::Files(directory) = &self.archive else { return Ok(None) };
        let (folder, wanted) = (archive::Folder::of(directory, body.run, &user.id), sha256.to_owned());
        let read = tokio::task::spawn_blocking(move || Ok((folder.document(&wanted)?, folder.source(&wanted)?))).await;
        let read: std::io::Result<_> = read.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        let (Some(pdf), Some(source)) = read.map_err(|error| {
            let text = format!("the archive cannot be read: {error} (look at `archive` in data_dir)");
            Outcome::Deferred { why: Failure::new("store", "archive", "failed", text), after: None }
        })?
        else {
            return Ok(None);
        };
        if pdf::sha256(&pdf) != sha256 || source.user != *user {
            return Ok(None);
        }
        // For the words alone: another version of this program may draw it differently.
        let render: Render = |renderer, request| renderer.render_again(request);
        let drawn = self.render(render, source.answer.into(), body.period(), user).await;
        Ok(match drawn {
            Ok(Rendering::Document(print)) => Some(RenderedStatement { pdf, sha256: sha256.into(), ..print }),
            Ok(Rendering::Skipped(_)) | Err(_) => None,
        })
    }

    /// Puts the document into the archive, so that what may have been mailed is there. It is before the mail, whose intent
    /// would be a doubt after a crash in between.
    async fn keep(
        &self,
        run: u64,
        print: &RenderedStatement,
        answer: &Bytes,
        (period, user): (Option<&str>, &User),
    ) -> Result<(), Outcome> {
        let Archive::Files(directory) = &self.archive else { return Ok(()) };
        let source = archive::Source {
            account: user.account().to_owned(),
            period: period.map(str::to_owned),
            user: user.clone(),
            // It was read as JSON, so it is UTF-8.
            answer: String::from_utf8_lossy(answer).into_owned(),
        };
        let (folder, sha256) = (archive::Folder::of(directory, run, &user.id), print.sha256.clone());
        let pdf = print.pdf.clone();
        let kept = tokio::task::spawn_blocking(move || folder.keep(&sha256, &pdf, &source)).await;
        let kept = kept.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        kept.map_err(|error| {
            let text = format!("the archive cannot be written: {error} (look at `archive` in data_dir)");
            Outcome::Deferred { why: Failure::new("store", "archive", "failed", text), after: None }
        })
    }

    fn url_of(&self, user: &User, params: &BTreeMap<String, String>) -> Result<Url, Failure> {
        self.account_url.fill("account", |name| match name {
            "user_id" => Some(user.id.as_str()),
            "account_id" => Some(user.account()),
            name => params.get(name).map(String::as_str),
        })
    }

    /// The account API and the relay, as contacts name them.
    pub fn account_and_relay(&self) -> [Destination; 2] {
        [self.accounts.destination().clone(), self.mailer.destination()]
    }

    /// Fetches and renders one user's statement, and mails nothing; says what came of it.
    ///
    /// # Errors
    /// As for a message: what is wrong, and the remedy.
    pub async fn probe_account(&self, user: &User, params: &BTreeMap<String, String>) -> Result<String, Failure> {
        let (received, rendering) = self.document(user, params).await?;
        let made = match rendering {
            Rendering::Document(print) => format!("makes a statement ({})", units::show_size(print.pdf.len() as u64)),
            Rendering::Skipped(why) => format!("would be skipped ({why})"),
        };
        Ok(format!("the account of user {} ({}) {made}", user.id, units::show_size(received)))
    }

    /// Fetches and renders one user's statement, and mails nothing; returns it with the size of the account's data in bytes.
    ///
    /// # Errors
    /// As for a message: what is wrong, and the remedy.
    pub async fn document(&self, user: &User, params: &BTreeMap<String, String>) -> Result<(u64, Rendering), Failure> {
        let url = self.url_of(user, params)?;
        let answer = self.accounts.get(&url, "account", &mut Vec::new()).await;
        let answer = answer.map_err(|fault| fault.failure().clone())?;
        let (received, period) = (answer.body.len() as u64, params.get(PERIOD).map(String::as_str));
        let render: Render = |renderer, request| renderer.render(request);
        Ok((received, self.render(render, answer.body, period, user).await?))
    }

    /// Opens a session with the relay up to the login, and mails nothing; says what the relay answered.
    ///
    /// # Errors
    /// What is wrong, and the remedy.
    pub async fn probe_relay(&self) -> Result<String, Failure> {
        self.mailer.probe().await
    }

    /// How much of the attempt's time limit is left. Only a mail's dialogue may go on after it.
    fn left(&self, invocation: &Invocation) -> Duration {
        invocation.deadline.since(self.clock.lease())
    }

    /// Fetches the account within the attempt's time limit. The pool waits longer, for the sake of a dialogue that was
    /// begun in time, and would let a slow account API use up that time too.
    async fn fetch(&self, url: &Url, left: Duration, contacts: &mut Vec<Contact>) -> Result<Answer, Outcome> {
        let fetched = tokio::time::timeout(left, self.accounts.get(url, "account", contacts)).await;
        let Ok(answer) = fetched else {
            Contact { destination: self.accounts.destination().clone(), verdict: Verdict::TimedOut }.add_to(contacts);
            return Err(too_late("the account API had answered", "lower account.timeout or account.retries, or "));
        };
        answer.map_err(upstream::Fault::into_outcome)
    }

    /// Renders small documents in place and large ones on a thread of their own.
    async fn render(
        &self,
        render: Render,
        body: Bytes,
        period: Option<&str>,
        user: &User,
    ) -> Result<Rendering, Failure> {
        if body.len() <= IN_PLACE_BYTES_MAX {
            return render(&*self.renderer, &RenderRequest { body: &body, account: user.account(), period, user });
        }
        let renderer = Arc::clone(&self.renderer);
        let (period, user) = (period.map(str::to_owned), user.clone());
        let rendering = tokio::task::spawn_blocking(move || {
            let (account, period) = (user.account(), period.as_deref());
            render(&*renderer, &RenderRequest { body: &body, account, period, user: &user })
        });
        // A panic goes on in the attempt, which records it. Nothing else ends such a task, as nobody cancels it.
        rendering.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
    }
}

/// The document, when it is the one that was made before. An account that a rule leaves out by now has changed, too: its
/// recipient is not passed over in silence.
fn unchanged(made: Result<RenderedStatement, Outcome>, sha256: &str, run: u64) -> Result<RenderedStatement, Outcome> {
    let is = match made {
        Ok(print) if print.sha256 == sha256 => return Ok(print),
        Ok(print) => format!("{}… now", &print.sha256[..print.sha256.len().min(12)]),
        Err(Outcome::LeftOut { by: LeftOutBy::Rule, why }) => format!("and a rule leaves it out now, {why}"),
        Err(end) => return Err(end),
    };
    let was = &sha256[..12];
    let text = format!(
        "the statement is not the one that the run's gate let through: SHA-256 {was}… then, {is} (mend the account's data, \
         or, when the new statement is right, `nightmail run accept {run} --recipient ID`; then redrive this letter)"
    );
    Err(Outcome::Dead { why: Failure::new(CHANGED.0, CHANGED.1, CHANGED.2, text) })
}

/// The document is made, and the run is not let go yet.
fn waits_for_release() -> Outcome {
    let text = "the statement is made, and its run awaits its release";
    Outcome::Waiting { why: Failure::new("run", "statement", "not-released", text), after: None }
}

/// The suppression list, or the run's ledger, could not be read.
fn unreadable(why: Failure) -> Outcome {
    Outcome::Deferred { why, after: None }
}

/// The recipient's domain has no turn soon. The message waits, uncharged and without an end.
fn paced(address: &str, after: Duration) -> Outcome {
    let domain = address.rsplit('@').next().unwrap_or_default();
    let text = format!("the mails to {domain} wait for their turns (`nightmail status` names its limit)");
    Outcome::Paced { why: Failure::new("smtp", "relay", "domain-paced", text), after: Some(after) }
}

/// The attempt's time limit passed before `what` happened; no mail was begun.
fn too_late(what: &str, remedy: &str) -> Outcome {
    let text = format!("the function's time limit passed before {what} ({remedy}raise the function's timeout)");
    let why = Failure::new("timeout", "statement", "attempt", text);
    Outcome::Retry { why, after: None, effect: Effect::None }
}

fn account_url(options: &Options, params: &[&str]) -> Result<UrlTemplate, Error> {
    let known: Vec<&str> = ["user_id", "account_id"].into_iter().chain(params.iter().copied()).collect();
    UrlTemplate::new(&options.account.url, &known)
}

fn message_key(run: &str, user: &str, account: &str, purpose: &str) -> String {
    [run, user, account, purpose].join("\0")
}

impl MessageIds {
    /// The Message-ID of a user's statement in the run with this identity.
    pub fn of(&self, identity: &str, user: &str, account: &str) -> String {
        self.of_key(&message_key(identity, user, account, PURPOSE))
    }
}

impl Body<'_> {
    fn period(&self) -> Option<&str> {
        self.params.get(PERIOD).map(String::as_str)
    }

    /// The key that identifies a mail: run, user's account and purpose, separated by a byte that none of them contains.
    fn message_key(&self, user: &User) -> String {
        let run = self.identity.clone().unwrap_or_else(|| format!("run {}", self.run));
        message_key(&run, &user.id, user.account(), self.purpose.as_deref().unwrap_or(PURPOSE))
    }

    /// The key of the mail in the ledger of effects.
    fn intent(&self, user: &User) -> Intent {
        Intent {
            run: self.run,
            user: user.id.clone(),
            account: user.account().to_owned(),
            purpose: self.purpose.clone().filter(|purpose| purpose != PURPOSE).unwrap_or_default(),
            message_id: String::new(),
            address: user.email.clone(),
            quota: None,
            document: None,
        }
    }

    fn parse(body: &[u8]) -> Result<Body<'_>, Failure> {
        serde_json::from_slice(body).map_err(|e| {
            let text = format!("the message is not {{\"run\":…,\"user\":{{…}},\"params\":{{…}}}}: {e}");
            Failure::new("data", "message", "malformed", text)
        })
    }
}

impl Function for Statement {
    fn call(&self, invocation: Invocation) -> BoxFuture<'_, Report> {
        Box::pin(async move {
            let mut contacts = Vec::new();
            let outcome = self.work(&invocation, &mut contacts).await.unwrap_or_else(|end| end);
            Report { outcome, contacts }
        })
    }

    fn destinations(&self) -> Vec<Destination> {
        self.account_and_relay().into()
    }

    fn silences(&self) -> Vec<(Destination, Duration)> {
        let silence = |destination, longest: Option<Duration>| longest.map(|silence| (destination, silence));
        let account = silence(self.accounts.destination().clone(), self.accounts.longest_silence());
        account.into_iter().chain(silence(self.mailer.destination(), self.mailer.longest_silence())).collect()
    }

    fn paces(&self) -> Vec<PaceView> {
        self.mailer.paces()
    }

    fn timings(&self) -> Option<Timings> {
        let (account, document) = (self.fetched.calls(), self.rendered.calls());
        Some(Timings { account, document, mail: self.mailer.dialogues() })
    }

    fn overtime(&self) -> Duration {
        self.mailer.dialogue_max()
    }
}

#[cfg(test)]
#[path = "function_tests.rs"]
mod tests;
