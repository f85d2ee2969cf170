//! The time limit of each step of a dialogue: which one ends it, what that means for the mail, and how long all of them
//! are together.

use std::time::Duration;

use super::super::testing::{At, Fault, Seen, Sink, limits, options};
use super::tests::{class, mailer, send, send_with};
use super::*;
use crate::base::Timestamp;
use crate::function::statement::{DialogueLimits, Tls};

/// Longer than any test: a limit that is not the one under test.
const NEVER: Duration = Duration::from_secs(24 * 3600);
const SHORT: Duration = Duration::from_millis(50);

/// No step ends by itself but those that the test shortens.
fn endless() -> DialogueLimits {
    limits(NEVER)
}

/// Larger than the kernel's buffers: it is not written before the relay has read.
const LARGE_BYTES: usize = 32 << 20;

/// Sends one mail to a relay with this fault; the class of the failure and its text.
async fn end(at: At, fault: Fault, bytes: usize, limits: DialogueLimits) -> (&'static str, String, String) {
    let sink = Sink::faulty(at, fault, 0..usize::MAX).await;
    let (mailer, _) = mailer(&sink, |o| o.relay.limits = limits);
    let attachment = vec![b'x'; bytes];
    let sending = tokio::time::timeout(Duration::from_secs(60), send_with(&mailer, "ada", &attachment));
    let result = sending.await.expect("a limit ends the dialogue");
    assert!(sink.recipients().is_empty());
    let (end, code) = class(&result);
    (end, code, result.unwrap_err().failure().text.clone())
}

#[tokio::test]
async fn each_step_ends_at_its_own_limit_and_the_failure_names_the_key() {
    let greeting = DialogueLimits { greeting: SHORT, ..endless() };
    let command = DialogueLimits { command: SHORT, ..endless() };
    let data = DialogueLimits { data: SHORT, ..endless() };
    let end_of_data = DialogueLimits { end_of_data: SHORT, ..endless() };
    for (at, limits, key, expected) in [
        (At::Greeting, greeting, "no greeting within relay.greeting_timeout (50ms)", ("deferred", "timeout")),
        (At::Ehlo, command, "no reply to EHLO within relay.command_timeout (50ms)", ("deferred", "timeout")),
        (At::Mail, command, "at MAIL FROM: no reply within relay.command_timeout (50ms)", ("temporary", "timeout")),
        (At::Rcpt, command, "at RCPT TO: no reply within relay.command_timeout (50ms)", ("temporary", "timeout")),
        (At::Data, data, "at DATA: no reply within relay.data_timeout (50ms)", ("temporary", "timeout")),
        (
            At::EndOfData,
            end_of_data,
            "no reply within relay.end_of_data_timeout (50ms)",
            ("unknown", "unknown-after-dot"),
        ),
    ] {
        let (end, code, text) = end(at, Fault::Stall, 10, limits).await;
        assert_eq!((end, code.as_str()), expected, "{at:?} {text}");
        assert!(text.ends_with(key), "{at:?} {text}");
    }
}

#[tokio::test]
async fn a_relay_that_takes_no_more_of_a_mail_is_left_at_the_limit_of_a_piece() {
    let limits = DialogueLimits { body_piece: SHORT, ..endless() };
    let (end, code, text) = end(At::Body, Fault::Stall, LARGE_BYTES, limits).await;
    assert_eq!((end, code.as_str()), ("temporary", "timeout"));
    assert!(text.ends_with("the message was not taken within relay.body_piece_timeout (50ms)"), "{text}");
}

#[tokio::test]
async fn a_mail_that_is_taken_too_slowly_is_cut_before_its_dot() {
    let limits = DialogueLimits { body: Duration::from_millis(200), ..endless() };
    let (end, code, text) = end(At::Body, Fault::Slow, LARGE_BYTES, limits).await;
    assert_eq!((end, code.as_str()), ("temporary", "timeout"));
    assert!(text.ends_with("the message was not taken within relay.body_timeout (200ms)"), "{text}");
}

#[tokio::test]
async fn a_connection_that_nobody_accepts_ends_at_the_connect_limit() {
    // Whoever has no place in the backlog of a listener gets no answer at all.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let connecting = (0..8).map(|_| tokio::net::TcpStream::connect(address));
    let _ = tokio::time::timeout(SHORT, futures_util::future::join_all(connecting)).await;
    let mut options = options();
    options.relay.port = address.port();
    options.relay.limits = DialogueLimits { connect: SHORT, ..endless() };
    let mailer = Mailer::new(&options, crate::base::ManualClock::new(Timestamp::ZERO)).unwrap();
    assert_eq!(class(&send(&mailer, "ada").await), ("deferred", "connect-timeout".into()));
}

#[tokio::test]
async fn a_tls_handshake_that_never_ends_is_left_at_the_connect_limit() {
    // A good relay without TLS waits for a command while the client waits for its handshake.
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let held = tokio::spawn(async move { listener.accept().await.unwrap() });
    let mut options = options();
    options.relay.port = port;
    options.relay.tls = Tls::Implicit;
    options.relay.limits = DialogueLimits { connect: SHORT, ..endless() };
    let mailer = Mailer::new(&options, crate::base::ManualClock::new(Timestamp::ZERO)).unwrap();
    let fault = send(&mailer, "ada").await.unwrap_err();
    assert_eq!(class(&Err(fault.clone())), ("deferred", "timeout".into()));
    assert!(fault.failure().text.ends_with("no TLS session within relay.connect_timeout (50ms)"), "{fault:?}");
    drop(held);
}

#[tokio::test]
async fn a_relay_that_answers_long_after_the_dot_gets_one_mail_and_its_silence_is_seen() {
    let sink = Sink::slow(Duration::from_millis(300)).await;
    let (mailer, clock) = mailer(&sink, |o| o.relay.limits = endless());
    let sending = tokio::spawn({
        let mailer = Arc::clone(&mailer);
        async move { send(&mailer, "ada").await }
    });
    seen(&sink, |seen| seen.dots == 1).await;
    clock.advance(Duration::from_secs(70));
    assert_eq!(mailer.longest_silence(), Some(Duration::from_secs(70)));
    assert_eq!(class(&sending.await.unwrap()).0, "done");
    assert_eq!((sink.recipients().len(), mailer.longest_silence()), (1, None));
}

/// Waits until the relay has seen something.
async fn seen(sink: &Sink, what: impl Fn(&Seen) -> bool) {
    for _ in 0..2000 {
        if sink.see(&what) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("the relay never saw it");
}

#[tokio::test]
async fn a_silence_begins_anew_with_each_step() {
    let sink = Sink::faulty(At::Rcpt, Fault::Stall, 0..1).await;
    let (mailer, clock) = mailer(&sink, |o| o.relay.limits = endless());
    assert_eq!(mailer.longest_silence(), None);
    // The relay thinks for half a minute at the greeting, EHLO, MAIL and RCPT.
    sink.at_each_step(move || clock.advance(Duration::from_secs(30)));
    tokio::spawn({
        let mailer = Arc::clone(&mailer);
        async move { send(&mailer, "ada").await }
    });
    seen(&sink, |seen| seen.struck == 1).await;
    assert_eq!(mailer.longest_silence(), Some(Duration::from_secs(30)));
}

#[test]
fn the_bound_of_a_dialogue_is_the_sum_of_its_steps_limits() {
    let none = limits(Duration::ZERO);
    let second = Duration::from_secs(1);
    let cost = |limits: DialogueLimits| (limits.dialogue_max() - none.dialogue_max()).as_secs();
    // TCP and TLS; MAIL on a session that proves to be dead, EHLO, STARTTLS, EHLO, AUTH, MAIL, RCPT.
    assert_eq!(cost(DialogueLimits { connect: second, ..none }), 2);
    assert_eq!(cost(DialogueLimits { greeting: second, ..none }), 1);
    assert_eq!(cost(DialogueLimits { command: second, ..none }), 7);
    assert_eq!(cost(DialogueLimits { data: second, ..none }), 1);
    assert_eq!(cost(DialogueLimits { body_piece: second, ..none }), 0, "pieces are within the body's limit");
    assert_eq!(cost(DialogueLimits { body: second, ..none }), 1);
    assert_eq!(cost(DialogueLimits { end_of_data: second, ..none }), 1);
}
