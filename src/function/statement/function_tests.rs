//! The whole function against an account service and a relay on loopback.

use super::super::mail::testing::{At, Fault, Sink, options as mail_options};
use super::super::{AccountOptions, DocumentOptions, Skip};
use super::*;
use crate::base::{LeaseTime, ManualClock, MessageId, Timestamp, Verdict};
use crate::function::upstream::stub::{Part, Stub, answer, options as upstream_options};
use crate::function::{EffectFlag, Effects, NoLedger, Permission};

const USER: &str = r#"{"id":"u/1","name":"Ada","email":"ada@example.org"}"#;

/// Of every document of [`Echo`].
const SHA256: &str = "abababababababababababababababababababababababababababababababab";

/// A renderer whose document shows its request.
#[derive(Debug)]
struct Echo;

impl StatementRenderer for Echo {
    fn render(&self, request: &RenderRequest<'_>) -> Result<Rendering, Failure> {
        let pdf = format!("%PDF {} {:?} {}", request.account, request.period, request.user.name);
        let document = Document { account: request.account.into(), ..Document::default() };
        match request.body {
            b"good" => {
                let (pdf, sha256) = (pdf.into_bytes(), SHA256.into());
                Ok(Rendering::Document(RenderedStatement { pdf, sha256, document, is_empty: false }))
            }
            b"quiet" => Ok(Rendering::Skipped("no transactions")),
            _ => Err(Failure::new("data", "account", "wrong-account", "the answer names another account")),
        }
    }

    fn render_again(&self, request: &RenderRequest<'_>) -> Result<Rendering, Failure> {
        self.render(&RenderRequest { body: b"good", ..*request })
    }
}

const NOW: Timestamp = Timestamp::from_secs(784_111_777);

fn statement(accounts: &Stub, sink: &Sink) -> Statement {
    statement_with(accounts, sink, upstream_options(), Box::new(Echo), ManualClock::new(NOW))
}

fn statement_with(
    accounts: &Stub,
    sink: &Sink,
    upstream: upstream::Options,
    renderer: Box<dyn StatementRenderer>,
    clock: Arc<ManualClock>,
) -> Statement {
    Statement::new(&options(accounts, sink, upstream, Archive::Hash), &["period"], renderer, clock).unwrap()
}

fn options(accounts: &Stub, sink: &Sink, upstream: upstream::Options, archive: Archive) -> Options {
    let mut mail = mail_options();
    mail.relay.port = sink.port;
    mail.text = "Dear {{ user.name }}, {{ params.period }} of {{ document.account }} ({{ user.locale }})".into();
    let document = DocumentOptions {
        issuer: "Bank".into(),
        issuer_lines: Vec::new(),
        footer: String::new(),
        default_locale: "en-GB".into(),
        pages_max: 10,
    };
    let url = accounts.url("/accounts/{account_id}/tx?m={period}");
    Options { account: AccountOptions { url, upstream }, document, mail, skip: Skip::Never, archive }
}

async fn report(statement: &Statement, body: String) -> Report {
    report_until(statement, body, LeaseTime::from_millis(u64::MAX)).await
}

async fn report_until(statement: &Statement, body: String, deadline: LeaseTime) -> Report {
    statement.call(invocation(body, deadline, NoLedger::shared())).await
}

fn invocation(body: String, deadline: LeaseTime, effects: Arc<dyn Effects>) -> Invocation {
    Invocation {
        message_id: MessageId::from_bytes([7; 16]),
        queue: "statements".into(),
        body: body.into(),
        run: Some(12),
        receive_count: 1,
        received_at: LeaseTime::ZERO,
        deadline,
        receipt_handle: String::new(),
        effect: EffectFlag::default(),
        effects,
    }
}

async fn call(statement: &Statement, body: String) -> Outcome {
    report(statement, body).await.outcome
}

fn message(user: &str) -> String {
    format!(r#"{{"run":12,"user":{user},"params":{{"period":"2026-10"}}}}"#)
}

async fn end(accounts: &Stub, sink: &Sink, body: String) -> (&'static str, String) {
    let outcome = call(&statement(accounts, sink), body).await;
    (outcome.name(), outcome.failure().map(Failure::class).unwrap_or_default())
}

#[tokio::test]
async fn a_statement_is_fetched_printed_and_mailed() {
    let (accounts, sink) = (Stub::always(answer("200 OK", &[], "good")).await, Sink::good().await);
    let statement = statement(&accounts, &sink);
    let Outcome::Done(proof) = call(&statement, message(USER)).await else { panic!("not done") };
    assert_eq!(proof.document_sha256.as_deref(), Some(SHA256));
    assert_eq!(proof.message_id, Some(statement.mailer.message_id("run 12\0u/1\0u/1\0statement")));
    assert!(accounts.requests()[0].starts_with("GET /accounts/u%2F1/tx?m=2026-10 HTTP/1.1"));
    let (to, text) = sink.see(|seen| seen.mails[0].clone());
    assert!(to == "ada@example.org" && text.contains("Dear Ada, 2026-10 of u/1 (en-GB)"), "{text}");
}

#[tokio::test]
async fn another_purpose_has_another_message_id_and_account_id_wins_over_id() {
    let (accounts, sink) = (Stub::always(answer("200 OK", &[], "good")).await, Sink::good().await);
    let statement = statement(&accounts, &sink);
    let body = message(r#"{"id":"u","account_id":"A9","name":"Ada","email":"ada@example.org"}"#);
    let resend = body.replacen('{', r#"{"purpose":"resend-1","#, 1);
    let Outcome::Done(first) = call(&statement, body).await else { panic!("not done") };
    let Outcome::Done(second) = call(&statement, resend).await else { panic!("not done") };
    assert_ne!(first.message_id, second.message_id);
    assert!(accounts.requests()[0].starts_with("GET /accounts/A9/tx"));
}

#[tokio::test]
async fn each_stage_ends_the_work_with_its_own_class() {
    let sink = Sink::good().await;
    let good = Stub::always(answer("200 OK", &[], "good")).await;
    for body in ["", "{}", "null", r#"{"run":"x"}"#, r#"{"run":1,"user":{},"params":{"a":1}}"#] {
        let class = "data message malformed".to_owned();
        assert_eq!(end(&good, &sink, body.into()).await, ("dead", class), "{body}");
    }
    assert_eq!(end(&good, &sink, message("{}")).await, ("dead", "data users missing-id".into()));
    let dots = message(&USER.replace("u/1", ".."));
    assert_eq!(end(&good, &sink, dots).await, ("dead", "data account address-value".into()));
    assert!(good.requests().is_empty(), "nothing was fetched for a bad message");
    let missing = Stub::always(answer("404 Not Found", &[], "")).await;
    assert_eq!(end(&missing, &sink, message(USER)).await, ("dead", "http account 404".into()));
    let busy = Stub::start(|_, _| vec![Part::Bytes(answer("429 Slow", &["Retry-After: 9"], "").into_bytes())]).await;
    assert_eq!(end(&busy, &sink, message(USER)).await, ("deferred", "http account 429".into()));
    let foreign = Stub::always(answer("200 OK", &[], "of another account")).await;
    assert_eq!(end(&foreign, &sink, message(USER)).await, ("dead", "data account wrong-account".into()));
    assert!(sink.recipients().is_empty());
    let refusing = Sink::faulty(At::Rcpt, Fault::Reply("550 5.1.1 unknown"), 0..1).await;
    assert_eq!(end(&good, &refusing, message(USER)).await, ("dead", "smtp relay 550 5.1.1".into()));
}

#[tokio::test]
async fn a_report_names_each_destination_that_was_called_and_what_it_said() {
    let (good, sink) = (Stub::always(answer("200 OK", &[], "good")).await, Sink::good().await);
    let verdicts = async |statement: &Statement| {
        let report = report(statement, message(USER)).await;
        report
            .contacts
            .into_iter()
            .map(|contact| (contact.destination.to_string(), contact.verdict))
            .collect::<Vec<_>>()
    };
    let statement_of_both = statement(&good, &sink);
    let [account, relay] = statement_of_both.destinations().try_into().unwrap();
    assert_eq!(account.to_string(), format!("account API {}", good.url("").strip_prefix("http://").unwrap()));
    assert_eq!(relay.to_string(), format!("relay 127.0.0.1:{}", sink.port));
    let answered = |destination: &Destination| (destination.to_string(), Verdict::Answered);
    assert_eq!(verdicts(&statement_of_both).await, [answered(&account), answered(&relay)]);
    let broken = Stub::always(answer("500 Oops", &[], "")).await;
    let statement_of_broken = statement(&broken, &sink);
    let account = statement_of_broken.destinations().remove(0);
    assert_eq!(verdicts(&statement_of_broken).await, [(account.to_string(), Verdict::ServerError)]);
    let report = report(&statement_of_both, "not a message".into()).await;
    assert!(report.contacts.is_empty(), "nothing was called: {report:?}");
}

#[test]
fn the_identity_of_a_run_is_read_with_its_quotes() {
    let identity = r#"monthly-statements period="2026-10""#;
    let body = serde_json::json!({"run": 12, "identity": identity, "user": {"id": "u-1"}}).to_string();
    let body = Body::parse(body.as_bytes()).unwrap();
    assert_eq!(body.identity.as_deref(), Some(identity));
}

#[tokio::test]
async fn a_slow_account_api_ends_with_the_attempts_own_time_limit_and_not_with_its_overtime() {
    let (silent, sink) = (Stub::start(|_, _| vec![Part::Pause(Duration::from_secs(60))]).await, Sink::good().await);
    let mut upstream = upstream_options();
    upstream.timeout = Duration::from_secs(60);
    let clock = ManualClock::new(NOW);
    let statement = statement_with(&silent, &sink, upstream, Box::new(Echo), clock.clone());
    assert!(statement.overtime() > Duration::from_secs(3), "the pool would wait so much longer");
    let deadline = clock.lease().after(Duration::from_millis(50));
    let report = report_until(&statement, message(USER), deadline).await;
    let Outcome::Retry { why, effect: Effect::None, .. } = &report.outcome else { panic!("{report:?}") };
    assert_eq!(why.class(), "timeout statement attempt");
    let verdicts: Vec<&Verdict> = report.contacts.iter().map(|contact| &contact.verdict).collect();
    assert_eq!(verdicts, [&Verdict::TimedOut]);
}

/// A renderer that takes longer than any time limit.
#[derive(Debug)]
struct Slow(Arc<ManualClock>);

impl StatementRenderer for Slow {
    fn render(&self, request: &RenderRequest<'_>) -> Result<Rendering, Failure> {
        self.0.advance(Duration::from_secs(3600));
        Echo.render(request)
    }
}

#[tokio::test]
async fn no_mail_begins_after_the_attempts_time_limit() {
    let (accounts, sink) = (Stub::always(answer("200 OK", &[], "good")).await, Sink::good().await);
    let clock = ManualClock::new(NOW);
    let statement = statement_with(&accounts, &sink, upstream_options(), Box::new(Slow(clock.clone())), clock.clone());
    let report = report_until(&statement, message(USER), clock.lease().after(Duration::from_secs(60))).await;
    let Outcome::Retry { why, effect: Effect::None, .. } = report.outcome else { panic!("{report:?}") };
    assert_eq!(why.class(), "timeout statement attempt");
    assert_eq!(sink.see(|seen| seen.sessions), 0, "the relay was not called");
}

/// Tells the thread that renders.
#[derive(Debug, Default)]
struct Threads(Arc<std::sync::Mutex<Vec<std::thread::ThreadId>>>);

impl StatementRenderer for Threads {
    fn render(&self, _: &RenderRequest<'_>) -> Result<Rendering, Failure> {
        self.0.lock().unwrap().push(std::thread::current().id());
        Err(Failure::new("data", "account", "seen", ""))
    }
}

#[tokio::test]
async fn a_large_document_is_rendered_beside_the_runtime() {
    let sink = Sink::good().await;
    for (bytes, is_beside) in [(IN_PLACE_BYTES_MAX, false), (IN_PLACE_BYTES_MAX + 1, true)] {
        let accounts = Stub::always(answer("200 OK", &[], &"x".repeat(bytes))).await;
        let threads = Arc::default();
        let renderer = Box::new(Threads(Arc::clone(&threads)));
        let statement = statement_with(&accounts, &sink, upstream_options(), renderer, ManualClock::new(NOW));
        assert_eq!(call(&statement, message(USER)).await.name(), "dead");
        let rendered_on = threads.lock().unwrap().clone();
        assert_eq!(rendered_on.iter().map(|id| *id != std::thread::current().id()).collect::<Vec<_>>(), [is_beside]);
    }
}

/// Writes down whether the document was in the archive when the mail's intent was.
#[derive(Debug)]
struct Watcher {
    folder: archive::Folder,
    was_there: std::sync::Mutex<Vec<bool>>,
}

impl Effects for Watcher {
    fn intend(&self, _: Intent) -> BoxFuture<'_, Result<Permission, Failure>> {
        let source = self.folder.source(SHA256).unwrap();
        let document = self.folder.document(SHA256).unwrap();
        self.was_there.lock().unwrap().push(source.is_some() && document.is_some());
        Box::pin(async { Ok(Permission::Granted) })
    }
}

#[tokio::test]
async fn a_document_is_in_the_archive_before_its_mail_may_begin() {
    let dir = tempfile::tempdir().unwrap();
    let archive = dir.path().join("archive");
    let (accounts, sink) = (Stub::always(answer("200 OK", &[], "good")).await, Sink::good().await);
    let options = options(&accounts, &sink, upstream_options(), Archive::Files(archive.clone()));
    let statement = Statement::new(&options, &["period"], Box::new(Echo), ManualClock::new(NOW)).unwrap();
    let folder = archive::Folder::of(&archive, 12, "u/1");
    let watcher = Arc::new(Watcher { folder: folder.clone(), was_there: std::sync::Mutex::default() });
    let never = LeaseTime::from_millis(u64::MAX);
    let outcome = statement.call(invocation(message(USER), never, watcher.clone())).await.outcome;
    let Outcome::Done(proof) = outcome else { panic!("{outcome:?}") };
    assert_eq!((proof.document_sha256.as_deref(), &*watcher.was_there.lock().unwrap()), (Some(SHA256), &vec![true]));
    let source = folder.source(SHA256).unwrap().unwrap();
    assert_eq!((&*source.account, &*source.answer, source.period.as_deref()), ("u/1", "good", Some("2026-10")));
}

#[tokio::test]
async fn without_room_in_the_archive_nothing_is_mailed_and_no_attempt_is_charged() {
    let dir = tempfile::tempdir().unwrap();
    let archive = dir.path().join("archive");
    std::fs::write(&archive, "a file in its place").unwrap();
    let (accounts, sink) = (Stub::always(answer("200 OK", &[], "good")).await, Sink::good().await);
    let options = options(&accounts, &sink, upstream_options(), Archive::Files(archive));
    let statement = Statement::new(&options, &["period"], Box::new(Echo), ManualClock::new(NOW)).unwrap();
    let outcome = call(&statement, message(USER)).await;
    assert_eq!((outcome.name(), outcome.failure().unwrap().class()), ("deferred", "store archive failed".into()));
    assert!(sink.recipients().is_empty());
}

/// The run was released with this document.
#[derive(Debug)]
struct Released([u8; 32]);

impl Effects for Released {
    fn intend(&self, _: Intent) -> BoxFuture<'_, Result<Permission, Failure>> {
        Box::pin(async { Ok(Permission::Granted) })
    }

    fn stage(&self, _: &Intent) -> Result<Stage, Failure> {
        Ok(Stage::Mail { sha256: Some(self.0) })
    }
}

#[tokio::test]
async fn an_account_that_a_rule_leaves_out_after_the_release_has_changed_unless_its_document_is_archived() {
    let dir = tempfile::tempdir().unwrap();
    let archive = dir.path().join("archive");
    let (quiet, sink) = (Stub::always(answer("200 OK", &[], "quiet")).await, Sink::good().await);
    let options = options(&quiet, &sink, upstream_options(), Archive::Files(archive.clone()));
    let statement = Statement::new(&options, &["period"], Box::new(Echo), ManualClock::new(NOW)).unwrap();
    let pdf = b"%PDF of before";
    let sha256 = pdf::sha256(pdf);
    let released = Arc::new(Released(archive::from_hex(&sha256).unwrap()));
    let call = async || {
        let never = LeaseTime::from_millis(u64::MAX);
        statement.call(invocation(message(USER), never, released.clone())).await.outcome
    };
    let Outcome::Dead { why } = call().await else { panic!("not dead") };
    assert_eq!(why.class(), "data statement changed");
    assert!(why.text.contains("and a rule leaves it out now, no transactions"), "{why}");
    let folder = archive::Folder::of(&archive, 12, "u/1");
    let user = User::check(USER).unwrap();
    let source = archive::Source { account: "u/1".into(), period: None, user, answer: "quiet".into() };
    folder.keep(&sha256, pdf, &source).unwrap();
    let Outcome::Done(proof) = call().await else { panic!("not done") };
    assert_eq!(proof.document_sha256, Some(sha256));
}
