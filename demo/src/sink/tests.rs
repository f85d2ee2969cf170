//! Tests of the sink with lettre's client, with raw sockets, and with scripted misbehaviour.

use std::collections::BTreeMap;
use std::sync::Mutex;

use lettre::message::{Attachment, Mailbox, MultiPart, header::ContentType};
use lettre::transport::smtp::authentication::Credentials;
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio_util::sync::DropGuard;

use super::*;

async fn sink(options: Options) -> (Handle, DropGuard) {
    let shutdown = CancellationToken::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    (Sink::start(listener, options, shutdown.clone()).unwrap(), shutdown.drop_guard())
}

fn scripted(script: impl Fn(u64, u64, Step) -> Action + Send + Sync + 'static) -> Options {
    Options { script: Some(Arc::new(script)), ..Options::default() }
}

/// A client that sends exactly what a test tells it to.
struct Raw(BufReader<TcpStream>);

impl Raw {
    async fn connect(sink: &Handle) -> Self {
        let socket = TcpStream::connect(sink.address()).await.unwrap();
        socket.set_nodelay(true).unwrap();
        Self(BufReader::new(socket))
    }

    /// Connected and past EHLO.
    async fn greeted(sink: &Handle) -> Self {
        let mut raw = Self::connect(sink).await;
        assert!(raw.reply().await.starts_with("220 "));
        assert!(raw.ask("EHLO client.example.test").await.starts_with("250 "));
        raw
    }

    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.unwrap();
    }

    /// The last line of the next reply; empty when the connection is closed.
    async fn reply(&mut self) -> String {
        loop {
            let mut line = String::new();
            let read = tokio::time::timeout(Duration::from_secs(60), self.0.read_line(&mut line));
            match read.await.expect("the sink answers or closes") {
                Ok(0) | Err(_) => return String::new(),
                Ok(_) if line.as_bytes()[3] == b'-' => {}
                Ok(_) => return line.trim_end().to_owned(),
            }
        }
    }

    async fn ask(&mut self, command: &str) -> String {
        self.send(format!("{command}\r\n")).await;
        self.reply().await
    }

    /// The first three characters of each reply to one command after the other.
    async fn codes(&mut self, commands: &[&str]) -> Vec<String> {
        let mut codes = Vec::new();
        for command in commands {
            codes.push(self.ask(command).await.chars().take(3).collect());
        }
        codes
    }

    /// Envelope and DATA; the sink waits for the mail then.
    async fn envelope(&mut self, recipient: &str) {
        let to = format!("RCPT TO:<{recipient}>");
        assert_eq!(self.codes(&["MAIL FROM:<bank@example.test>", &to, "DATA"]).await, ["250", "250", "354"]);
    }

    /// Sends a whole mail and returns the reply to the end of data.
    async fn mail(&mut self, recipient: &str, text: &str) -> String {
        self.envelope(recipient).await;
        self.ask(&format!("{}\r\n.", plain(recipient, text))).await
    }
}

/// A small, valid mail.
fn plain(recipient: &str, text: &str) -> String {
    format!(
        "From: <bank@example.test>\r\nTo: <{recipient}>\r\nDate: Sun, 01 Nov 2026 06:00:00 +0000\r\n\
         Message-ID: <{text}@example.test>\r\nSubject: {text}\r\n\r\n{text}"
    )
}

fn transport(sink: &Handle) -> AsyncSmtpTransport<Tokio1Executor> {
    let builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous("127.0.0.1").port(sink.address().port());
    builder.credentials(Credentials::new("bank".into(), "s3cret".into())).build()
}

fn statement(recipient: &str, name: &str, text: &str, pdf: &[u8]) -> Message {
    let document = Attachment::new("statement.pdf".into());
    let document = document.body(pdf.to_vec(), ContentType::parse("application/pdf").unwrap());
    let parts = MultiPart::mixed()
        .multipart(MultiPart::alternative_plain_html(text.to_owned(), format!("<p>{text}</p>")))
        .singlepart(document);
    Message::builder()
        .from("Größe & Söhne <bank@example.test>".parse().unwrap())
        .to(Mailbox::new(Some(name.into()), recipient.parse().unwrap()))
        .subject("Kontoauszug Oktober – 10/2026")
        .message_id(Some(format!("<{recipient}>")))
        .multipart(parts)
        .unwrap()
}

#[tokio::test]
async fn a_mail_of_lettres_arrives_as_it_was_sent() {
    let directory = tempfile::tempdir().unwrap();
    let (keep, pdf_dir) = (directory.path().join("keep"), directory.path().join("pdf"));
    let journal = directory.path().join("journal.jsonl");
    let options = Options {
        keep: Some(keep.clone()),
        pdf_dir: Some(pdf_dir.clone()),
        journal: Some(journal.clone()),
        keep_raw_in_memory: true,
        ..Options::default()
    };
    let (sink, _stop) = sink(options).await;
    let pdf: Vec<u8> = b"%PDF-1.7\n".iter().copied().chain((0..60_000_u32).map(|i| ((i * 7919) >> 3) as u8)).collect();
    let mail = statement("u-000001@example.test", "Łukasz O'Brien, Jr.", "one\n.\n..two\n.three\n", &pdf);
    let reply = transport(&sink).send(mail.clone()).await.unwrap();
    assert_eq!(reply.first_line(), Some("2.0.0 queued as 1"));

    let record = sink.records().remove(0);
    assert_eq!(record.recipient, "u-000001@example.test");
    assert_eq!(record.to.as_deref(), Some("u-000001@example.test"));
    assert_eq!(record.to_name.as_deref(), Some("Łukasz O'Brien, Jr."));
    assert_eq!(record.from.as_deref(), Some("bank@example.test"));
    assert_eq!(record.subject.as_deref(), Some("Kontoauszug Oktober – 10/2026"));
    assert_eq!(record.message_id.as_deref(), Some("u-000001@example.test"));
    assert_eq!(record.pdf.as_ref().unwrap().bytes, pdf.len() as u64);
    assert_eq!(std::fs::read(pdf_dir.join("1-u-000001@example.test.pdf")).unwrap(), pdf);
    let raw = record.raw.clone().unwrap();
    // lettre sends CRLF before the final dot also after a text that ends with one. The mails are too long to be shown.
    let formatted = [mail.formatted(), b"\r\n".to_vec()].concat();
    let differs = raw.iter().zip(&formatted).position(|(one, other)| one != other);
    assert_eq!((differs, raw.len()), (None, formatted.len()));
    assert_eq!(std::fs::read(keep.join("1-u-000001@example.test.eml")).unwrap(), raw);
    let line: Record = serde_json::from_slice(&std::fs::read(&journal).unwrap()).unwrap();
    assert_eq!(Record { raw: Some(raw), ..line }, record);
    // The text has a line of one dot: quoted-printable would hide it, and lettre sends it as it is.
    assert!(record.violations.iter().all(|kind| *kind == ViolationKind::DotLine), "{:?}", record.violations);
}

#[tokio::test]
async fn a_recipient_with_two_mails_is_found_with_both_message_ids() {
    let (sink, _stop) = sink(Options::default()).await;
    let mut raw = Raw::greeted(&sink).await;
    for (recipient, text) in [("a@example.test", "m1"), ("b@example.test", "m2"), ("a@example.test", "m3")] {
        assert!(raw.mail(recipient, text).await.starts_with("250 "));
    }
    let summary = sink.summary();
    let doubled = Doubled {
        recipient: "a@example.test".into(),
        message_ids: vec!["m1@example.test".into(), "m3@example.test".into()],
    };
    assert_eq!((summary.total, summary.distinct, summary.doubled), (3, 2, vec![doubled]));
    assert_eq!(summary.violations, BTreeMap::new());
}

#[tokio::test]
async fn a_pipelined_dialogue_is_answered_in_order() {
    let (sink, _stop) = sink(Options::default()).await;
    let mut raw = Raw::greeted(&sink).await;
    raw.send("MAIL FROM:<a@example.test>\r\nRCPT TO:<b@example.test>\r\nRCPT TO:<bad>\r\nDATA\r\n").await;
    let mut codes = Vec::new();
    for _ in 0..4 {
        codes.push(raw.reply().await[..3].to_owned());
    }
    assert_eq!(codes, ["250", "250", "501", "354"]);
    raw.send(format!("{}\r\n.\r\nNOOP\r\nQUIT\r\n", plain("b@example.test", "m"))).await;
    assert!(raw.reply().await.starts_with("250 2.0.0 queued as 1"));
    assert!(raw.reply().await.starts_with("250 ") && raw.reply().await.starts_with("221 "));
    assert_eq!(raw.reply().await, "");
    assert_eq!(sink.summary().violations, BTreeMap::from([(ViolationKind::Syntax, 1)]));
}

#[tokio::test]
async fn commands_out_of_order_are_refused() {
    let (sink, _stop) = sink(Options::default()).await;
    let mut raw = Raw::connect(&sink).await;
    raw.reply().await;
    let commands = ["MAIL FROM:<a@b>", "EHLO c", "RCPT TO:<a@b>", "DATA", "MAIL FROM:<a@b>", "MAIL FROM:<a@b>", "DATA"];
    assert_eq!(raw.codes(&commands).await, ["503", "250", "503", "503", "250", "503", "554"]);
    let rest = ["RCPT TO:<b@c>", "RSET", "DATA", "AUTH PLAIN AGEAYg==", "AUTH PLAIN AGEAYg==", "NOOP", "FOO"];
    assert_eq!(raw.codes(&rest).await, ["250", "250", "503", "235", "503", "250", "500"]);
    assert_eq!(sink.summary().violations[&ViolationKind::OutOfOrder], 6);
}

#[tokio::test]
async fn line_ends_other_than_crlf_are_refused_and_long_lines_counted() {
    use ViolationKind::{BareCr, BareLf, LongLine};
    for (text, code, kind) in [
        ("a\nb\r\n.\r\n".to_owned(), "521", BareLf),
        ("a\n.\nMAIL FROM:<x@y>\r\n.\r\n".to_owned(), "521", BareLf),
        ("a\r.\r\n.\r\n".to_owned(), "521", BareCr),
        (format!("{}\r\n.\r\n", "x".repeat(999)), "250", LongLine),
    ] {
        let (sink, _stop) = sink(Options::default()).await;
        let mut raw = Raw::greeted(&sink).await;
        raw.envelope("a@example.test").await;
        raw.send(format!("{}\r\n{text}", plain("a@example.test", "m"))).await;
        assert_eq!(&raw.reply().await[..3], code, "{text:?}");
        let summary = sink.summary();
        assert_eq!(summary.violations, BTreeMap::from([(kind, 1)]), "{text:?}");
        assert_eq!(summary.total, u64::from(code == "250"));
        assert_eq!(raw.ask("NOOP").await.is_empty(), code == "521", "{text:?}");
    }
}

#[tokio::test]
async fn limits_of_size_line_and_connections_hold() {
    let options = Options { mail_bytes_max: 2000, connections_max: 1, ..Options::default() };
    let (sink, _stop) = sink(options).await;
    let mut raw = Raw::greeted(&sink).await;
    assert!(raw.ask("MAIL FROM:<a@b> SIZE=2001").await.starts_with("552 "));
    assert!(raw.mail("a@example.test", &"x\r\n".repeat(1000)).await.starts_with("552 "));
    assert!(raw.mail("a@example.test", "small").await.starts_with("250 "));
    assert!(Raw::connect(&sink).await.reply().await.starts_with("421 "));
    raw.send("x".repeat(200_000)).await;
    assert!(raw.reply().await.starts_with("500 "));
    assert_eq!((sink.summary().total, sink.summary().turned_away), (1, 1));
}

#[tokio::test]
async fn another_users_mail_inside_a_mail_is_found() {
    let (sink, _stop) = sink(Options::default()).await;
    let mut raw = Raw::greeted(&sink).await;
    raw.envelope("a@example.test").await;
    let first = plain("a@example.test", "m1");
    raw.send(&first.as_bytes()[..first.len() - 1]).await;
    // What a client that reuses a connection after a cancelled send does next.
    let second = format!(
        "MAIL FROM:<bank@example.test>\r\nRCPT TO:<b@example.test>\r\nDATA\r\n{}\r\n.",
        plain("b@example.test", "m2")
    );
    assert!(raw.ask(&format!("\r\n{second}")).await.starts_with("250 "));
    let summary = sink.summary();
    let expected = BTreeMap::from([(ViolationKind::ForeignDialogue, 3), (ViolationKind::ForeignHeaders, 1)]);
    assert_eq!((summary.total, summary.violations), (1, expected));
    assert!(raw.mail("c@example.test", "m3").await.starts_with("250 "));
    raw.envelope("d@example.test").await;
    assert!(raw.ask(&format!("{}\r\n.", plain("e@example.test", "m4"))).await.starts_with("250 "));
    assert_eq!(sink.summary().violations[&ViolationKind::ToMismatch], 1);
    assert_eq!(sink.records()[2].violations, [ViolationKind::ToMismatch]);
}

#[tokio::test]
async fn text_before_the_reply_to_data_is_a_violation() {
    let (sink, _stop) = sink(Options::default()).await;
    let mut raw = Raw::greeted(&sink).await;
    let mail = plain("b@example.test", "m");
    raw.send(format!("MAIL FROM:<a@b>\r\nRCPT TO:<b@example.test>\r\nDATA\r\n{mail}\r\n.\r\n")).await;
    while !raw.reply().await.starts_with("250 2.0.0 queued") {}
    assert_eq!(sink.summary().violations, BTreeMap::from([(ViolationKind::SentBeforeReply, 1)]));
}

/// What a client sees that sends one whole mail: the code of each reply, `closed` or `silent` at the end.
async fn dialogue(sink: &Handle) -> String {
    let mut raw = Raw::connect(sink).await;
    let mail = format!("{}\r\n.\r\n", plain("a@example.test", &"long ".repeat(500)));
    let steps = [
        "",
        "EHLO c.example.test\r\n",
        "MAIL FROM:<x@example.test>\r\n",
        "RCPT TO:<a@example.test>\r\n",
        "DATA\r\n",
        &mail,
    ];
    let mut seen = Vec::new();
    for step in steps {
        // A closed connection shows at the next read.
        drop(raw.0.write_all(step.as_bytes()).await);
        match tokio::time::timeout(Duration::from_millis(300), raw.reply()).await {
            Err(_) => seen.push("silent".into()),
            Ok(reply) if reply.is_empty() => seen.push("closed".into()),
            Ok(reply) => seen.push(reply[..3].to_owned()),
        }
        if !seen.last().is_some_and(|last| last.starts_with(['2', '3'])) {
            break;
        }
    }
    seen.join(" ")
}

#[tokio::test]
async fn each_action_of_a_script_does_what_it_says_at_each_step() {
    use Step::{Body, Data, Dot, Ehlo, Greeting, Mail, Rcpt};
    let steps = [(Greeting, ""), (Ehlo, "220 "), (Mail, "220 250 "), (Rcpt, "220 250 250 ")];
    let data = (Data, "220 250 250 250 ");
    let mail = [(Body, "220 250 250 250 354 "), (Dot, "220 250 250 250 354 ")];
    let actions = [
        (Action::Reply(451, "4.3.0 later".into()), "451"),
        (Action::Reply(550, "5.1.1 no".into()), "550"),
        (Action::Reply(421, "4.3.2 bye".into()), "421"),
        (Action::Close, "closed"),
        (Action::Stall, "silent"),
        (Action::CloseAfterHalfBody, "closed"),
        (Action::Lose, "closed"),
    ];
    for (step, before) in steps.into_iter().chain([data]).chain(mail) {
        for (action, end) in &actions {
            let told = action.clone();
            let script = move |_, _, at| if at == step { told.clone() } else { Action::Accept };
            let (sink, _stop) = sink(scripted(script)).await;
            assert_eq!(dialogue(&sink).await, format!("{before}{end}"), "{action:?} at {step:?}");
            let recorded = step == Dot && matches!(action, Action::Close | Action::Stall);
            assert_eq!(sink.summary().total, u64::from(recorded), "{action:?} at {step:?}");
        }
    }
    let (sink, _stop) = self::sink(scripted(|_, _, _| Action::Accept)).await;
    assert_eq!(dialogue(&sink).await, "220 250 250 250 354 250");
    let (sink, _stop) = self::sink(scripted(|_, _, _| Action::Delay(Duration::from_millis(1)))).await;
    assert_eq!(dialogue(&sink).await, "220 250 250 250 354 250");
    assert_eq!(sink.summary().total, 1);
}

#[tokio::test]
async fn a_script_is_asked_with_connection_mail_and_step() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&asked);
    let (sink, _stop) = sink(scripted(move |connection, mail, step| {
        log.lock().unwrap().push((connection, mail, step));
        if (mail, step) == (1, Step::Rcpt) { Action::Reply(550, "5.1.1 unknown".into()) } else { Action::Accept }
    }))
    .await;
    let mut raw = Raw::greeted(&sink).await;
    assert_eq!(raw.codes(&["MAIL FROM:<a@b>", "RCPT TO:<b@c>", "RSET"]).await, ["250", "550", "250"]);
    assert!(raw.mail("a@example.test", "m").await.starts_with("250 "));
    use Step::{Body, Data, Dot, Ehlo, Greeting, Mail, Rcpt};
    let first = [(1, 0, Greeting), (1, 0, Ehlo), (1, 1, Mail), (1, 1, Rcpt)];
    let second = [(1, 2, Mail), (1, 2, Rcpt), (1, 2, Data), (1, 2, Body), (1, 2, Dot)];
    assert_eq!(*asked.lock().unwrap(), [&first[..], &second[..]].concat());
}

#[tokio::test]
async fn what_was_pipelined_after_a_refused_mail_is_no_violation() {
    let (sink, _stop) = sink(scripted(|_, mail, step| match (mail, step) {
        (1, Step::Mail) => Action::Reply(451, "4.3.0 later".into()),
        _ => Action::Accept,
    }))
    .await;
    let mut raw = Raw::greeted(&sink).await;
    assert_eq!(raw.codes(&["MAIL FROM:<a@b>", "RCPT TO:<b@c>", "DATA"]).await, ["451", "503", "503"]);
    assert!(raw.mail("a@example.test", "m").await.starts_with("250 "));
    assert_eq!(sink.summary().violations, BTreeMap::new());
}

#[tokio::test]
async fn the_journal_survives_the_sink_and_a_torn_line_does_not_count() {
    let directory = tempfile::tempdir().unwrap();
    let journal = directory.path().join("journal.jsonl");
    let options = Options { journal: Some(journal.clone()), ..Options::default() };
    let (first, stop) = sink(options.clone()).await;
    Raw::greeted(&first).await.mail("a@example.test", "m1").await;
    drop(stop);
    first.stopped().await;
    let mut torn = std::fs::read(&journal).unwrap();
    torn.extend_from_slice(b"{\"number\":2,\"conn");
    std::fs::write(&journal, torn).unwrap();

    let (second, _stop) = sink(options.clone()).await;
    Raw::greeted(&second).await.mail("a@example.test", "m2").await;
    let numbers: Vec<u64> = second.records().iter().map(|record| record.number).collect();
    assert_eq!((numbers, second.summary().doubled.len()), (vec![1, 2], 1));
    assert_eq!(std::fs::read_to_string(&journal).unwrap().lines().count(), 2);

    std::fs::write(&journal, "not a record\n").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let refused = Sink::start(listener, options, CancellationToken::new()).err().unwrap();
    assert!(matches!(refused, Error::JournalLine { line: 1, .. }), "{refused}");
}

#[tokio::test]
async fn a_mail_that_cannot_be_written_is_not_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let keep = directory.path().join("keep");
    let (sink, _stop) = sink(Options { keep: Some(keep.clone()), ..Options::default() }).await;
    std::fs::remove_dir(&keep).unwrap();
    assert!(Raw::greeted(&sink).await.mail("a@example.test", "m").await.starts_with("451 "));
    assert_eq!((sink.summary().total, sink.summary().not_kept), (0, 1));
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_a_shutdown_says_so() {
    let (idle, _stop) = sink(Options { idle_timeout: Duration::from_millis(100), ..Options::default() }).await;
    assert!(Raw::greeted(&idle).await.reply().await.starts_with("421 4.4.2"));
    let (sink, stop) = sink(Options::default()).await;
    let mut raw = Raw::greeted(&sink).await;
    drop(stop);
    assert!(raw.reply().await.starts_with("421 4.3.2"));
    tokio::time::timeout(Duration::from_secs(5), sink.stopped()).await.unwrap();
    assert!(TcpStream::connect(sink.address()).await.is_err());
}

#[tokio::test]
async fn many_connections_at_once_lose_nothing() {
    let (sink, _stop) = sink(Options::default()).await;
    let clients = (0..20).map(|client| {
        let sink = sink.clone();
        async move {
            let mut raw = Raw::greeted(&sink).await;
            for mail in 0..20 {
                let text = format!("c{client}-m{mail}");
                assert!(raw.mail(&format!("{text}@example.test"), &text).await.starts_with("250 "));
            }
        }
    });
    let received = tokio::time::timeout(Duration::from_secs(60), sink.received(400));
    let (_, received) = tokio::join!(futures_util::future::join_all(clients), received);
    received.expect("400 mails come");
    let summary = sink.summary();
    assert_eq!((summary.total, summary.distinct, summary.doubled.len()), (400, 400, 0));
    let numbers: Vec<u64> = sink.records().iter().map(|record| record.number).collect();
    assert_eq!(numbers, (1..=400).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_login_in_two_questions_is_accepted() {
    let (sink, _stop) = sink(Options::default()).await;
    let mut raw = Raw::greeted(&sink).await;
    assert_eq!(
        raw.codes(&["AUTH LOGIN", "*", "AUTH LOGIN", "YmFuaw==", "czNjcmV0"]).await,
        ["334", "501", "334", "334", "235"]
    );
    let mut rest = Vec::new();
    raw.send("QUIT\r\n").await;
    raw.0.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"221 2.0.0 bye\r\n");
}

#[tokio::test]
async fn undeclared_bytes_and_several_recipients_are_violations_and_smtputf8_is_needed_for_its_addresses() {
    let (sink, _stop) = sink(Options::default()).await;
    let mut raw = Raw::greeted(&sink).await;
    let to = ["MAIL FROM:<x@example.test>", "RCPT TO:<jörg@example.test>", "RCPT TO:<a@example.test>"];
    assert_eq!(raw.codes(&to).await, ["250", "553", "250"]);
    assert_eq!(raw.codes(&["RCPT TO:<b@example.test>", "DATA"]).await, ["250", "354"]);
    assert!(raw.ask(&format!("{}\r\nü\0\r\n.", plain("a@example.test", "m"))).await.starts_with("250 "));
    use ViolationKind::{EightBit, Nul, SeveralRecipients, ToMismatch};
    assert_eq!(sink.records()[0].violations, [SeveralRecipients, Nul, EightBit, ToMismatch]);
    assert_eq!(sink.summary().total, 2);

    let to = ["MAIL FROM:<x@example.test> BODY=8BITMIME SMTPUTF8", "RCPT TO:<jörg@example.test>", "DATA"];
    assert_eq!(raw.codes(&to).await, ["250", "250", "354"]);
    assert!(raw.ask(&format!("{}\r\nü\r\n.", plain("jörg@example.test", "m"))).await.starts_with("250 "));
    assert_eq!((sink.records()[2].recipient.as_str(), sink.records()[2].violations.len()), ("jörg@example.test", 0));
}
