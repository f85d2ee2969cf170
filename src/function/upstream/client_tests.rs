//! The client against servers that respond slowly, endlessly, with redirects or not at all.

use secrecy::SecretString;
use tokio::io::AsyncWriteExt;

use super::super::stub::{Part, Stub, answer, options};
use super::*;
use crate::base::{ManualClock, Outcome, Timestamp};

const NOW: Timestamp = Timestamp::from_secs(784_111_777); // Sun, 06 Nov 1994 08:49:37 GMT

fn client(options: &Options) -> Result<Client, Error> {
    Client::new(options, Destination::new("account API", "test:80"), ManualClock::new(NOW))
}

async fn get(options: &Options, url: &str) -> Result<Answer, Fault> {
    let mut contacts = Vec::new();
    let result = client(options).unwrap().get(&url.parse().unwrap(), "account", &mut contacts).await;
    let verdict = result.as_ref().map_or_else(|fault| fault.verdict().cloned(), |_| Some(Verdict::Answered));
    assert_eq!(contacts.pop().map(|contact| contact.verdict), verdict);
    result
}

/// The class of a fault, the outcome that it becomes, and what it says about the service.
async fn fault_of(stub: &Stub) -> (String, Outcome, Option<Verdict>) {
    fault_within(options().timeout, stub).await
}

async fn fault_within(timeout: Duration, stub: &Stub) -> (String, Outcome, Option<Verdict>) {
    let fault = get(&Options { timeout, ..options() }, &stub.url("/accounts/7?key=geheim")).await.unwrap_err();
    let text = fault.failure().text.clone();
    assert!(!text.contains("geheim"), "the query is not shown: {text}");
    assert!(text.starts_with("GET http://127.0.0.1:"), "{text}");
    (fault.failure().class(), fault.clone().into_outcome(), fault.verdict().cloned())
}

async fn answer_class(status: &str, headers: &[&str]) -> (String, &'static str, Option<u64>) {
    let (class, outcome, _) = fault_of(&Stub::always(answer(status, headers, "no")).await).await;
    let after = match &outcome {
        Outcome::Deferred { after, .. } => after.map(|wait| wait.as_secs()),
        _ => None,
    };
    (class, outcome.name(), after)
}

#[tokio::test]
async fn a_good_answer_brings_body_type_and_next_link() {
    let headers = ["Content-Type: application/json", "Link: </p2>; rel=\"next\""];
    let stub = Stub::always(answer("200 OK", &headers, "[1]")).await;
    let mut options = options();
    options.token = Some(SecretString::from("t0ken"));
    options.headers = vec![("X-Team".into(), SecretString::from("billing"))];
    let answer = get(&options, &stub.url("/users")).await.unwrap();
    assert_eq!((&answer.body[..], answer.link_next.as_deref()), (&b"[1]"[..], Some("/p2")));
    assert_eq!(answer.content_type.as_deref(), Some("application/json"));
    let request = stub.requests().remove(0).to_lowercase();
    for line in ["authorization: bearer t0ken\r\n", "x-team: billing\r\n", "accept-encoding: identity\r\n"] {
        assert!(request.contains(line), "{line:?} in {request}");
    }
}

#[tokio::test]
async fn statuses_are_classed_as_dead_retry_or_deferred() {
    let throttled = Verdict::Throttled { after: None };
    for (status, code, end, verdict) in [
        ("404 Not Found", "404", "dead", Verdict::Answered),
        ("400 Bad Request", "400", "dead", Verdict::Answered),
        ("403 Forbidden", "403", "dead", Verdict::Answered),
        ("408 Request Timeout", "408", "retry", Verdict::Answered),
        ("425 Too Early", "425", "retry", Verdict::Answered),
        ("500 Oops", "500", "retry", Verdict::ServerError),
        ("502 Bad Gateway", "502", "retry", Verdict::ServerError),
        ("503 Unavailable", "503", "retry", Verdict::ServerError),
        ("429 Too Many Requests", "429", "deferred", throttled),
        ("302 Found", "redirect", "dead", Verdict::Answered),
    ] {
        let stub = Stub::always(answer(status, &["Location: http://127.0.0.1:1/"], "no")).await;
        let (class, outcome, said) = fault_of(&stub).await;
        assert_eq!((class, outcome.name(), said), (format!("http account {code}"), end, Some(verdict)), "{status}");
    }
}

#[tokio::test]
async fn refused_credentials_kill_no_message_and_wait_for_an_operator() {
    for (status, code) in [("401 Unauthorized", "401"), ("407 Proxy Authentication Required", "407")] {
        let (class, outcome, said) = fault_of(&Stub::always(answer(status, &[], "no")).await).await;
        assert_eq!((class, outcome.name()), (format!("http account {code}"), "deferred"));
        let Some(Verdict::Unauthorized { why }) = said else { panic!("{said:?}") };
        assert_eq!(why, outcome.failure().unwrap().text);
    }
}

#[tokio::test]
async fn retry_after_is_obeyed_up_to_an_hour() {
    let deferred = |code: &str, after| (format!("http account {code}"), "deferred", Some(after));
    assert_eq!(answer_class("429 Slow", &["Retry-After: 7"]).await, deferred("429", 7));
    assert_eq!(answer_class("503 Busy", &["Retry-After: 99999"]).await, deferred("503", 3600));
    let date = "Retry-After: Sun, 06 Nov 1994 08:50:07 GMT";
    assert_eq!(answer_class("429 Slow", &[date]).await, deferred("429", 30));
}

#[tokio::test]
async fn an_endless_body_is_cut_at_the_limit() {
    let stub = Stub::start(|_, _| {
        vec![Part::Bytes(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_vec()), Part::Endless(vec![b'x'; 65_536])]
    });
    let (class, outcome, said) = fault_of(&stub.await).await;
    assert_eq!((class.as_str(), outcome.name()), ("http account too-large", "dead"));
    assert_eq!(said, Some(Verdict::Answered));
}

#[tokio::test]
async fn a_body_announced_above_the_limit_is_not_read_at_all() {
    let stub = Stub::start(|_, _| {
        vec![
            Part::Bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 524288000\r\n\r\n".to_vec()),
            Part::Pause(Duration::from_secs(60)),
        ]
    });
    let (class, ..) = fault_of(&stub.await).await;
    assert_eq!(class, "http account too-large");
}

#[tokio::test]
async fn a_body_of_exactly_the_limit_is_read() {
    let stub = Stub::always(answer("200 OK", &[], "12345")).await;
    let mut options = options();
    options.response_bytes_max = 5;
    assert_eq!(get(&options, &stub.url("/")).await.unwrap().body.len(), 5);
    options.response_bytes_max = 4;
    let fault = get(&options, &stub.url("/")).await.unwrap_err();
    assert_eq!(fault.failure().code, "too-large");
    assert!(fault.failure().text.ends_with("(send less at once, or raise account.response_max)"), "{fault:?}");
}

#[tokio::test]
async fn messages_name_the_keys_as_the_configuration_does_and_the_remedy_stands_last() {
    let foreign = "é".repeat(2000);
    for (status, remedy) in [
        ("404 Not Found", "(check account.url and that the record exists)"),
        ("401 Unauthorized", "(check account.token and its rights)"),
        ("407 Proxy Authentication Required", "(check account.url: a proxy there asks for a login)"),
        ("302 Found", "(set account.url to the final address)"),
    ] {
        let stub = Stub::always(answer(status, &[], &foreign)).await;
        let url = stub.url(&format!("/{}", "x".repeat(2000)));
        let text = get(&options(), &url).await.unwrap_err().failure().text.clone();
        assert!(text.ends_with(remedy), "{text}");
    }
    let refused = get(&options(), "http://127.0.0.1:1/").await.unwrap_err().failure().text.clone();
    assert!(refused.ends_with("(is it up? check account.url)"), "{refused}");
}

#[tokio::test]
async fn one_byte_at_a_time_ends_at_the_time_limit() {
    let stub = Stub::start(|_, _| {
        let mut parts = vec![Part::Bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n".to_vec())];
        for _ in 0..100 {
            parts.extend([Part::Bytes(b"x".to_vec()), Part::Pause(Duration::from_millis(50))]);
        }
        parts
    });
    let (class, outcome, said) = fault_within(Duration::from_millis(200), &stub.await).await;
    assert_eq!((class.as_str(), outcome.name(), said), ("http account timeout", "retry", Some(Verdict::TimedOut)));
}

#[tokio::test]
async fn silence_and_a_cut_are_temporary_because_the_message_may_be_their_cause() {
    let silent = Stub::start(|_, _| vec![Part::Pause(Duration::from_secs(60))]).await;
    let (class, outcome, said) = fault_within(Duration::from_millis(200), &silent).await;
    assert_eq!((class.as_str(), outcome.name(), said), ("http account timeout", "retry", Some(Verdict::TimedOut)));
    let cut = Stub::start(|_, _| vec![Part::Bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc".to_vec())]).await;
    let (class, outcome, said) = fault_of(&cut).await;
    assert_eq!((class.as_str(), outcome.name(), said), ("http account connection", "retry", Some(Verdict::TimedOut)));
}

/// The code of a call that found no session, and whether it waits for an operator. It is deferred.
async fn unreachable(options: &Options, url: &str) -> (String, bool) {
    let fault = get(options, url).await.unwrap_err();
    let Some(Verdict::Unreachable { needs_operator, why }) = fault.verdict().cloned() else { panic!("{fault:?}") };
    assert_eq!(why, fault.failure().text);
    assert!(!fault.is_temporary(), "no try of its own for each message of a run");
    let code = fault.failure().code.clone();
    assert_eq!(fault.into_outcome().name(), "deferred");
    (code, needs_operator)
}

#[tokio::test]
async fn a_service_that_cannot_be_reached_charges_no_attempt() {
    assert_eq!(unreachable(&options(), "http://127.0.0.1:1/").await, ("refused".into(), false));
    // A listener that nobody accepts from and whose backlog is full answers no further connection.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let connecting = (0..8).map(|_| tokio::net::TcpStream::connect(address));
    let held = tokio::time::timeout(Duration::from_millis(50), futures_util::future::join_all(connecting)).await;
    assert!(held.is_err(), "the backlog is full");
    let hasty = Options { connect_timeout: Duration::from_millis(50), ..options() };
    assert_eq!(unreachable(&hasty, &format!("http://{address}/")).await, ("connect-timeout".into(), false));
    // Plain text where TLS is expected.
    let plain = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("https://{}/", plain.local_addr().unwrap());
    tokio::spawn(async move { plain.accept().await.unwrap().0.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await });
    assert_eq!(unreachable(&options(), &url).await, ("tls".into(), false));
}

#[tokio::test]
async fn a_name_that_does_not_exist_and_an_untrusted_certificate_wait_for_an_operator() {
    // No host has such a name, so the platform's resolver refuses it without asking anyone.
    assert_eq!(unreachable(&options(), "http://-/").await, ("name-unknown".into(), true));
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(signed.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![signed.cert.der().clone()], key.into()).unwrap();
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("https://localhost:{}/", listener.local_addr().unwrap().port());
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move { acceptor.accept(listener.accept().await.unwrap().0).await.map(drop) });
    assert_eq!(unreachable(&options(), &url).await, ("certificate".into(), true));
}

#[test]
fn a_connection_is_given_up_before_the_whole_call_is() {
    let limit = |connect, whole| {
        let options =
            Options { connect_timeout: Duration::from_secs(connect), timeout: Duration::from_secs(whole), ..options() };
        connect_limit(&options).as_secs()
    };
    assert_eq!((limit(5, 30), limit(30, 30), limit(60, 10)), (5, 27, 9));
}

#[tokio::test]
async fn a_compressed_answer_that_nobody_asked_for_is_refused() {
    let stub = Stub::always(answer("200 OK", &["Content-Encoding: gzip"], "\u{1f}")).await;
    assert_eq!(fault_of(&stub).await.0, "http account encoding");
}

#[tokio::test]
async fn passing_faults_are_tried_again_within_the_call_and_lasting_ones_are_not() {
    let stub = Stub::start(|n, _| {
        let status = if n < 2 { "500 Oops" } else { "200 OK" };
        vec![Part::Bytes(answer(status, &[], "ok").into_bytes())]
    })
    .await;
    let mut options = options();
    options.retries = 1;
    assert_eq!(get(&options, &stub.url("/")).await.unwrap_err().failure().code, "500");
    assert_eq!(stub.requests().len(), 2);
    assert_eq!(&get(&options, &stub.url("/")).await.unwrap().body[..], b"ok");
    let gone = Stub::always(answer("404 Gone", &[], "")).await;
    get(&options, &gone.url("/")).await.unwrap_err();
    assert_eq!(gone.requests().len(), 1);
}

#[tokio::test]
async fn an_echoed_token_and_the_user_info_are_not_shown() {
    let body = format!("<html>\n you sent Bearer t0ken-t0ken {}</html>", "y".repeat(5000));
    let stub = Stub::always(answer("403 Forbidden", &[], &body)).await;
    let mut options = options();
    options.token = Some(SecretString::from("t0ken-t0ken"));
    let url = stub.url("/a?sig=geheim").replace("http://", "http://user:passwort@");
    let client = client(&options).unwrap();
    let text = client.get(&url.parse().unwrap(), "users", &mut Vec::new()).await.unwrap_err().failure().text.clone();
    assert!(text.contains("<html> you sent Bearer [secret] yyy"), "{text}");
    let shown = format!("{text} {client:?} {options:?}");
    for secret in ["t0ken", "passwort", "geheim"] {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
    assert!(text.chars().count() < 500, "{text}");
}

#[test]
fn a_token_or_header_that_cannot_be_sent_is_an_error_without_the_secret() {
    let mut options = options();
    options.token = Some(SecretString::from("line\nbreak"));
    assert_eq!(client(&options).unwrap_err(), Error::Token);
    options.token = None;
    options.headers = vec![("X Y".into(), SecretString::from("v"))];
    assert_eq!(client(&options).unwrap_err(), Error::Header("X Y".into()));
}
