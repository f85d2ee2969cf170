//! The mailer against a relay that stops, stalls, refuses or falls out of step at every point of the dialogue.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::testing::{At, Fault, Sink, limits, options};
use super::*;
use crate::base::{Effect, ManualClock, Timestamp};
use crate::function::statement::Tls;
use crate::function::statement::template::tests::context;
use crate::function::{EffectFlag, Effects, Intent, NoLedger, Permission};

const NOW: Timestamp = Timestamp::from_secs(784_111_777);

pub(super) fn mailer(sink: &Sink, change: impl FnOnce(&mut MailOptions)) -> (Arc<Mailer>, Arc<ManualClock>) {
    let mut options = options();
    options.relay.port = sink.port;
    change(&mut options);
    let clock = ManualClock::new(NOW);
    (Arc::new(Mailer::new(&options, clock.clone()).unwrap()), clock)
}

/// Sends a mail to `name`, whose text and attachment name the recipient.
pub(super) async fn send_with(mailer: &Mailer, name: &str, attachment: &[u8]) -> Result<DeliveryProof, SendFault> {
    send_as(mailer, name, attachment, (&EffectFlag::default(), &NoLedger::shared())).await
}

async fn send_as(
    mailer: &Mailer,
    name: &str,
    attachment: &[u8],
    (effect, effects): (&EffectFlag, &Arc<dyn Effects>),
) -> Result<DeliveryProof, SendFault> {
    let mail = Mail {
        to_name: name,
        to_address: &format!("{name}@example.org"),
        message_key: &format!("run 12 user {name} purpose statement"),
        now: NOW,
        context: context(name, &BTreeMap::new()),
        attachment,
        begin_within: std::time::Duration::from_secs(30),
        effect: effect.clone(),
        effects: effects.clone(),
        intent: Intent::default(),
    };
    mailer.send(&mail, &mut Vec::new()).await
}

pub(super) async fn send(mailer: &Mailer, name: &str) -> Result<DeliveryProof, SendFault> {
    send_with(mailer, name, format!("%PDF of {name}").as_bytes()).await
}

/// The name of the outcome, and the failure's code.
pub(super) fn class(result: &Result<DeliveryProof, SendFault>) -> (&'static str, String) {
    match result {
        Ok(proof) => ("done", proof.reply.clone().unwrap_or_default()),
        Err(fault) => {
            let word = match fault {
                SendFault::Permanent(_) => "permanent",
                SendFault::Deferred(_) | SendFault::Throttled { .. } => "deferred",
                SendFault::Held(_) | SendFault::Paced(_) => "held",
                SendFault::Temporary(_) => "temporary",
                SendFault::Unknown(_) => "unknown",
                SendFault::Duplicate(_) => "duplicate",
                SendFault::Suppressed(_) => "suppressed",
                SendFault::NoMailbox(_) => "no-mailbox",
            };
            (word, fault.failure().code.clone())
        }
    }
}

/// The limit of each step where the relay stalls; long enough for the mails that come after.
const HASTY: Duration = Duration::from_millis(400);

/// Every accepted mail names its own recipient and no other.
fn assert_unmixed(sink: &Sink) {
    sink.see(|seen| {
        for (to, text) in &seen.mails {
            let name = to.split('@').next().unwrap();
            assert!(text.contains(&format!("To: {name} <{to}>")), "{to} got {text}");
            assert!(text.contains(&format!("Dear {name}")), "{to} got {text}");
            assert_eq!(text.matches("Message-ID:").count(), 1, "{text}");
        }
    });
}

/// The first mail meets the fault, the next two do not; what the first one's class is.
async fn after(at: At, fault: Fault, attachment_bytes: usize) -> (&'static str, String) {
    let stalls = matches!(fault, Fault::Stall);
    let sink = Sink::faulty(at, fault, 0..1).await;
    let (mailer, _) = mailer(&sink, |o| {
        o.relay.connections = 1;
        if stalls {
            o.relay.limits = limits(HASTY);
        }
    });
    let first = send_with(&mailer, "ada", &vec![b'x'; attachment_bytes]).await;
    assert_eq!(class(&send(&mailer, "bob").await).0, "done");
    assert_eq!(class(&send(&mailer, "eve").await).0, "done");
    assert_eq!(sink.recipients(), ["bob@example.org", "eve@example.org"], "{at:?}: the first was not taken");
    assert_unmixed(&sink);
    class(&first)
}

#[tokio::test]
async fn a_mail_is_taken_and_the_connection_used_again() {
    let sink = Sink::good().await;
    let (mailer, _) = mailer(&sink, |_| ());
    let proof = send(&mailer, "ada").await.unwrap();
    assert_eq!(proof.reply.as_deref(), Some("250 2.0.0 queued as 1"));
    assert_eq!(proof.message_id, Some(mailer.message_id("run 12 user ada purpose statement")));
    send(&mailer, "bob").await.unwrap();
    assert_eq!((sink.recipients().len(), sink.see(|seen| seen.sessions)), (2, 1));
    assert_unmixed(&sink);
}

#[tokio::test]
async fn a_cut_or_a_stall_before_the_dot_is_temporary_and_the_next_mail_is_not_mixed() {
    for at in [At::Greeting, At::Ehlo] {
        assert_eq!(after(at, Fault::Cut, 10).await, ("deferred", "lost".into()), "{at:?}");
        assert_eq!(after(at, Fault::Stall, 10).await, ("deferred", "timeout".into()), "{at:?}");
    }
    for at in [At::Mail, At::Rcpt, At::Data] {
        assert_eq!(after(at, Fault::Cut, 10).await, ("temporary", "lost".into()), "{at:?}");
        assert_eq!(after(at, Fault::Stall, 10).await, ("temporary", "timeout".into()), "{at:?}");
    }
    // The message is larger than the kernel's buffers, so the sending side notices before the dot.
    let large = 32 << 20;
    assert_eq!(after(At::Body, Fault::Cut, large).await, ("temporary", "lost".into()));
    assert_eq!(after(At::Body, Fault::Stall, large).await, ("temporary", "timeout".into()));
}

#[tokio::test]
async fn a_cut_or_a_stall_after_the_dot_is_unknown() {
    for fault in [Fault::Cut, Fault::Stall, Fault::Reply("nonsense"), Fault::Reply("354 more?")] {
        let end = after(At::EndOfData, fault.clone(), 10).await;
        assert_eq!(end, ("unknown", "unknown-after-dot".into()), "{fault:?}");
    }
    // A small message is in the kernel's buffers together with its dot when the relay goes away.
    assert_eq!(after(At::Body, Fault::Stall, 2000).await.0, "unknown");
}

#[tokio::test]
async fn refusals_are_classed_at_each_step() {
    for at in [At::Mail, At::Rcpt, At::Data, At::EndOfData] {
        for (reply, end) in [
            ("421 4.3.2 going down", "deferred"),
            ("450 4.7.1 greylisted", "deferred"),
            ("450 4.2.1 mailbox busy", "temporary"),
            ("550 5.1.1 no such user", if at == At::Rcpt { "no-mailbox" } else { "permanent" }),
        ] {
            let code = reply.split(' ').take(2).collect::<Vec<_>>().join(" ");
            assert_eq!(after(at, Fault::Reply(reply), 10).await, (end, code), "{at:?} {reply}");
        }
    }
    for at in [At::Greeting, At::Ehlo] {
        assert_eq!(after(at, Fault::Reply("421 busy"), 10).await, ("deferred", "421".into()), "{at:?}");
        assert_eq!(after(at, Fault::Reply("450 busy"), 10).await, ("deferred", "450".into()), "{at:?}");
        assert_eq!(after(at, Fault::Reply("550 no"), 10).await, ("deferred", "550".into()), "{at:?}");
    }
    for (at, reply) in
        [(At::Mail, "250 2.1.0 ok\r\n421 4.3.2 going down"), (At::Rcpt, "250 2.1.5 ok\r\n421 4.3.2 going down")]
    {
        assert_eq!(after(at, Fault::Reply(reply), 10).await, ("deferred", "421".into()), "421 after the reply: {at:?}");
    }
    assert_eq!(after(At::Data, Fault::Reply("250 not 354"), 10).await, ("temporary", "protocol".into()));
}

#[tokio::test]
async fn a_closed_port_is_a_deferral() {
    let sink = Sink::good().await;
    let (mailer, _) = mailer(&sink, |o| o.relay.port = 1);
    assert_eq!(class(&send(&mailer, "ada").await), ("deferred", "refused".into()));
}

#[tokio::test]
async fn a_parked_connection_that_proves_dead_is_replaced_once_and_no_mail_is_lost() {
    for fault in [Fault::Cut, Fault::Stall, Fault::Reply("421 idle too long")] {
        let sink = Sink::faulty(At::Mail, fault.clone(), 1..2).await;
        let (mailer, _) = mailer(&sink, |o| o.relay.limits = limits(HASTY));
        for name in ["ada", "bob", "eve"] {
            assert_eq!(class(&send(&mailer, name).await).0, "done", "{name} {fault:?}");
        }
        assert_eq!((sink.recipients().len(), sink.see(|seen| seen.sessions)), (3, 2), "{fault:?}");
        assert_unmixed(&sink);
        let sink = Sink::faulty(At::Mail, fault.clone(), 1..3).await;
        let (mailer, _) = self::mailer(&sink, |o| o.relay.limits = limits(HASTY));
        send(&mailer, "ada").await.unwrap();
        assert_ne!(class(&send(&mailer, "bob").await).0, "done", "the fresh one is not replaced: {fault:?}");
        assert_eq!(sink.see(|seen| seen.sessions), 2);
    }
    // A refusal of this mail is no dead connection.
    let sink = Sink::faulty(At::Mail, Fault::Reply("550 no"), 1..2).await;
    let (mailer, _) = mailer(&sink, |_| ());
    send(&mailer, "ada").await.unwrap();
    assert_eq!(class(&send(&mailer, "bob").await), ("permanent", "550".into()));
}

#[tokio::test]
async fn a_connection_out_of_step_is_never_used_again() {
    for (extra, end) in [("\r\n421 closing", "done"), ("\r\n250 2.0.0 once more", "unknown")] {
        let sink = Sink::good().await;
        sink.speak_out_of_turn(extra);
        let (mailer, _) = mailer(&sink, |o| o.relay.connections = 1);
        for name in ["ada", "bob", "eve"] {
            assert_eq!(class(&send(&mailer, name).await).0, end, "{extra:?}");
        }
        assert_eq!(sink.see(|seen| (seen.mails.len(), seen.sessions)), (3, 3), "{extra:?}");
        assert_unmixed(&sink);
    }
}

#[tokio::test]
async fn small_mails_do_not_wait_for_delayed_acknowledgements() {
    let sink = Sink::good().await;
    let (mailer, _) = mailer(&sink, |_| ());
    let mails = async {
        for number in 0..50 {
            send(&mailer, &format!("user{number}")).await.unwrap();
        }
    };
    // With Nagle's algorithm on, each of the 50 waits 40 ms.
    tokio::time::timeout(Duration::from_millis(50 * 40), mails).await.unwrap();
}

#[tokio::test]
async fn a_probe_goes_up_to_the_login_and_mails_nobody() {
    for (mode, trusted) in [(Tls::StartTls, true), (Tls::Implicit, true), (Tls::StartTls, false)] {
        let (sink, certificate) = Sink::tls(mode, "").await;
        let mut options = options();
        options.relay.port = sink.port;
        options.relay.host = "localhost".into();
        options.relay.tls = mode;
        let mut roots = rustls::RootCertStore::empty();
        if trusted {
            roots.add(certificate).unwrap();
        }
        let mailer = |options: &MailOptions| {
            let roots = roots.clone();
            Mailer::with_tls(options, ManualClock::new(NOW), || tls::with_roots(roots)).unwrap()
        };
        let answered = mailer(&options).probe().await;
        options.relay.credentials = Some(("bank".into(), "secret".to_owned().into()));
        let with_login = mailer(&options).probe().await;
        if trusted {
            let tls = if mode == Tls::StartTls { "STARTTLS" } else { "TLS" };
            let text =
                format!("sink greeted and answered EHLO, {tls} with a trusted certificate, no login is configured");
            assert_eq!(answered, Ok(text));
            let refused = with_login.unwrap_err().text;
            assert!(refused.contains("no login is possible") && refused.contains("relay.username"), "{refused}");
        } else {
            let refused = answered.unwrap_err().text;
            assert!(refused.contains("certificate"), "{refused}");
        }
        assert_eq!(sink.see(|seen| seen.mails.len()), 0);
        assert!(!trusted || sink.see(|seen| seen.quits) >= 1, "a session is ended with QUIT");
    }
}

async fn send_over_tls(mode: Tls, injected: &'static str, trusted: bool) -> (Sink, (&'static str, String)) {
    let (sink, certificate) = Sink::tls(mode, injected).await;
    let mut options = options();
    options.relay.port = sink.port;
    options.relay.host = "localhost".into();
    options.relay.tls = mode;
    let roots = || {
        let mut roots = rustls::RootCertStore::empty();
        if trusted {
            roots.add(certificate).unwrap();
        }
        tls::with_roots(roots)
    };
    let mailer = Mailer::with_tls(&options, ManualClock::new(NOW), roots).unwrap();
    let first = class(&send(&mailer, "ada").await);
    if first.0 == "done" {
        assert_eq!(class(&send(&mailer, "bob").await).0, "done");
        assert_eq!(sink.see(|seen| seen.sessions), 1);
        assert_unmixed(&sink);
    }
    (sink, first)
}

#[tokio::test]
async fn mails_go_over_starttls_and_implicit_tls_to_a_trusted_relay_only() {
    for mode in [Tls::StartTls, Tls::Implicit] {
        let (sink, (end, _)) = send_over_tls(mode, "", true).await;
        assert_eq!((end, sink.recipients().len()), ("done", 2), "{mode:?}");
        let (sink, end) = send_over_tls(mode, "", false).await;
        assert_eq!(end, ("deferred", "certificate".into()), "{mode:?}");
        assert!(sink.recipients().is_empty());
    }
}

#[tokio::test]
async fn words_slipped_in_behind_starttls_are_not_taken_for_the_relays() {
    let (sink, end) = send_over_tls(Tls::StartTls, "\r\n250 AUTH PLAIN", true).await;
    assert_eq!(end, ("deferred", "tls".into()));
    assert!(sink.recipients().is_empty());
}

#[tokio::test]
async fn dropping_the_caller_does_not_stop_the_dialogue_nor_mix_the_next_mail() {
    let sink = Sink::slow(Duration::from_millis(40)).await;
    let (mailer, _) = mailer(&sink, |o| o.relay.connections = 1);
    for (number, name) in ["ada", "bob", "eve", "joe", "kim"].into_iter().enumerate() {
        let cut = Duration::from_millis(10 * number as u64);
        assert!(tokio::time::timeout(cut, send(&mailer, name)).await.is_err());
        assert_eq!(class(&send(&mailer, &format!("x{name}")).await).0, "done");
    }
    let recipients = sink.recipients();
    assert!(recipients.len() >= 5, "{recipients:?}");
    assert_unmixed(&sink);
    assert_eq!(sink.see(|seen| seen.open_max), 1);
}

#[tokio::test]
async fn never_more_connections_than_the_limit_and_nobody_starves() {
    let sink = Sink::slow(Duration::from_millis(5)).await;
    let (mailer, _) = mailer(&sink, |o| o.relay.connections = 3);
    let names: Vec<String> = (0..40).map(|n| format!("user{n}")).collect();
    let sends = names.iter().map(|name| send(&mailer, name));
    for result in futures_util::future::join_all(sends).await {
        assert_eq!(class(&result).0, "done");
    }
    assert_eq!((sink.recipients().len(), sink.see(|seen| seen.open_max)), (40, 3));
    assert_unmixed(&sink);
}

#[tokio::test]
async fn mails_of_all_connections_together_keep_to_the_rate() {
    let sink = Sink::good().await;
    let (mailer, _) = mailer(&sink, |o| {
        (o.relay.connections, o.relay.per_second) = (4, std::num::NonZeroU32::new(20));
    });
    let time = crate::base::SystemClock::shared();
    let began = time.monotonic();
    let names: Vec<String> = (0..8).map(|n| format!("user{n}")).collect();
    for result in futures_util::future::join_all(names.iter().map(|name| send(&mailer, name))).await {
        assert_eq!(class(&result).0, "done");
    }
    // Seven distances of 1/20 s and 2 %; without the limit it is done in a tenth of that.
    let took = time.monotonic() - began;
    assert!(took >= Duration::from_millis(7 * 51), "{took:?}");
}

#[tokio::test]
async fn a_daily_quota_is_asked_of_the_ledger_by_the_relays_address() {
    let sink = Sink::good().await;
    let (mailer, _) = mailer(&sink, |o| o.relay.per_day = Some(5));
    let relay = mailer.destination().to_string();
    let ledger = Arc::new(Says(Ok(Permission::Granted), std::sync::Mutex::default()));
    let effects: Arc<dyn Effects> = ledger.clone();
    send_as(&mailer, "ada", b"%PDF", (&EffectFlag::default(), &effects)).await.unwrap();
    let quota = ledger.1.lock().unwrap().remove(0).quota.unwrap();
    assert_eq!((format!("relay {}", quota.relay), quota.per_day), (relay, 5));
}

#[tokio::test]
async fn connections_end_after_their_share_of_mails_and_after_idling() {
    let sink = Sink::good().await;
    let (mailer, clock) = mailer(&sink, |o| o.relay.mails_per_connection = 2);
    for name in ["ada", "bob", "eve"] {
        send(&mailer, name).await.unwrap();
    }
    assert_eq!(sink.see(|seen| seen.sessions), 2);
    clock.advance(Duration::from_secs(30));
    send(&mailer, "joe").await.unwrap();
    assert_eq!(sink.see(|seen| seen.sessions), 3);
}

#[tokio::test]
async fn idle_connections_are_closed_without_further_mail() {
    let sink = Sink::good().await;
    let (mailer, clock) = mailer(&sink, |o| o.relay.idle_max = Duration::from_millis(60));
    send(&mailer, "ada").await.unwrap();
    clock.advance(Duration::from_millis(60));
    for _ in 0..100 {
        if sink.see(|seen| seen.open) == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(sink.see(|seen| (seen.open, seen.quits)), (0, 1));
}

#[tokio::test]
async fn starttls_is_required_when_it_is_set() {
    let sink = Sink::good().await;
    let (mailer, _) = mailer(&sink, |o| o.relay.tls = Tls::StartTls);
    assert_eq!(class(&send(&mailer, "ada").await), ("deferred", "starttls".into()));
    assert!(sink.recipients().is_empty());
}

#[test]
fn wrong_settings_are_found_at_construction() {
    let refused = |change: &dyn Fn(&mut MailOptions)| {
        let mut options = options();
        change(&mut options);
        Mailer::new(&options, ManualClock::new(NOW)).unwrap_err().to_string()
    };
    assert!(refused(&|o| o.from = "nobody".into()).starts_with("from: \"nobody\" is not a mailbox"));
    assert!(refused(&|o| o.from = "A\r\nBcc: x <a@b.cd>".into()).starts_with("from"));
    assert!(refused(&|o| o.reply_to = Some("x@".into())).starts_with("reply_to"));
    assert!(refused(&|o| o.message_id_domain = Some("a b".into())).starts_with("message_id_domain"));
    assert!(refused(&|o| o.relay.helo = "a\r\nb".into()).starts_with("relay helo"));
    assert!(refused(&|o| o.relay.connections = 0).starts_with("relay connections"));
    let credentials = Some(("me".to_owned(), secrecy::SecretString::from("geheim")));
    let message = refused(&|o| {
        o.relay.credentials.clone_from(&credentials);
        o.relay.host = "mx.example.com".into();
    });
    assert!(message.contains("plain text") && !message.contains("geheim"), "{message}");
}

/// Aborts a mail's effect when the relay has stalled at that step; answers what the abort says, and the final dots that
/// the relay has seen by the time when the mail's end is known.
async fn aborted_at(at: At) -> (Effect, usize) {
    let sink = Sink::faulty(at, Fault::Stall, 0..1).await;
    let (mailer, _) = mailer(&sink, |options| options.relay.connections = 1);
    let effect = EffectFlag::default();
    let (sending, flag) = (Arc::clone(&mailer), effect.clone());
    let caller = tokio::spawn(async move { send_as(&sending, "ada", b"%PDF", (&flag, &NoLedger::shared())).await });
    let struck = async {
        while sink.see(|seen| seen.struck == 0) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), struck).await.expect("the relay stalls");
    // As a drain does: the attempt's future goes first.
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    let effect = effect.abort().await;
    if effect == Effect::None {
        // The only connection is free again, and the next mail is not mixed with the first.
        assert_eq!(class(&send(&mailer, "bob").await).0, "done");
        assert_eq!(sink.recipients(), ["bob@example.org"], "{at:?}");
        return (effect, sink.see(|seen| seen.dots) - 1);
    }
    (effect, sink.see(|seen| seen.dots))
}

#[tokio::test]
async fn an_aborted_mail_stops_in_front_of_its_final_dot_and_is_in_doubt_behind_it() {
    for at in [At::Greeting, At::Ehlo, At::Mail, At::Rcpt, At::Data] {
        assert_eq!(aborted_at(at).await, (Effect::None, 0), "{at:?}");
    }
    assert_eq!(aborted_at(At::EndOfData).await, (Effect::Unknown, 1));
}

#[tokio::test]
async fn a_mail_that_the_relay_refuses_behind_its_final_dot_is_in_no_doubt() {
    let sink = Sink::faulty(At::EndOfData, Fault::Reply("554 5.7.1 no"), 0..1).await;
    let (mailer, _) = mailer(&sink, |_| ());
    let effect = EffectFlag::default();
    assert_eq!(class(&send_as(&mailer, "ada", b"%PDF", (&effect, &NoLedger::shared())).await).0, "permanent");
    assert_eq!(effect.abort().await, Effect::None);
}

/// A ledger that always says the same, and remembers the Message-IDs that it was asked about.
#[derive(Debug)]
struct Says(Result<Permission, Failure>, std::sync::Mutex<Vec<Intent>>);

impl Effects for Says {
    fn intend(&self, intent: Intent) -> futures_util::future::BoxFuture<'_, Result<Permission, Failure>> {
        self.1.lock().unwrap().push(intent);
        Box::pin(std::future::ready(self.0.clone()))
    }
}

#[tokio::test]
async fn a_mail_is_begun_only_when_the_ledger_permits_it() {
    let broken = Failure::new("store", "ledger", "failed", "no");
    for (said, end, code) in [
        (Ok(Permission::Duplicate), "duplicate", "duplicate"),
        (Ok(Permission::InWork), "deferred", "in-work"),
        (Ok(Permission::Held), "held", "held"),
        (Ok(Permission::OtherDocument), "held", "other-document"),
        (Ok(Permission::Abandoned), "permanent", "abandoned"),
        (Ok(Permission::Folded), "permanent", "folded"),
        (Ok(Permission::Lost), "deferred", "lost"),
        (Ok(Permission::Suppressed), "suppressed", "suppressed"),
        (Ok(Permission::OverQuota(Duration::from_secs(90))), "deferred", "over-quota"),
        (Err(broken), "deferred", "failed"),
    ] {
        let sink = Sink::good().await;
        let (mailer, _) = mailer(&sink, |options| options.relay.connections = 1);
        let ledger = Arc::new(Says(said, std::sync::Mutex::default()));
        let effects: Arc<dyn Effects> = ledger.clone();
        let flag = EffectFlag::default();
        let refused = send_as(&mailer, "ada", b"%PDF", (&flag, &effects)).await;
        assert_eq!(class(&refused), (end, code.to_owned()));
        assert_eq!(flag.abort().await, Effect::None, "no doubt is left");
        let asked: Vec<String> = ledger.1.lock().unwrap().iter().map(|intent| intent.message_id.clone()).collect();
        assert_eq!(asked, [mailer.message_id("run 12 user ada purpose statement")]);
        assert_eq!(class(&send(&mailer, "bob").await).0, "done");
        assert_eq!((sink.recipients(), sink.see(|seen| seen.dots)), (vec!["bob@example.org".to_owned()], 1), "{code}");
    }
}
