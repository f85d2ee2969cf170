//! The promises of the shared breakers: one probe for all pools, wake-ups, one log line per change, views.

use std::io;
use std::sync::OnceLock;

use super::*;
use crate::base::{ManualClock, MessageId, Verdict};

/// 2026-11-01T02:14:00Z.
const START: Timestamp = Timestamp::from_secs(1_793_499_240);

fn relay() -> Destination {
    Destination::new("relay", "mail.example:587")
}

fn accounts() -> Destination {
    Destination::new("account API", "bank.example:443")
}

fn refused() -> Verdict {
    Verdict::Unreachable { needs_operator: false, why: "connection refused".into() }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

struct World {
    clock: Arc<ManualClock>,
    breakers: Breakers,
}

impl World {
    fn new() -> Self {
        let clock = ManualClock::new(START);
        Self { breakers: Breakers::new(clock.clone()), clock }
    }

    /// A function that runs one attempt at once, so that one failure is enough.
    fn gate(&self, destinations: &[Destination]) -> Gate {
        self.breakers.gate(destinations.to_vec(), 1)
    }

    fn is_changed_since(&self, version: u64) -> bool {
        *self.breakers.0.changed.borrow() != version
    }
}

/// The attempt at a new message, which began at that moment.
fn voter(began: LeaseTime) -> Voter {
    Voter { message: MessageId::fresh(), attempts_charged: 1, not_before: began, is_probe: false }
}

fn record(gate: &Gate, destination: Destination, verdict: Verdict, probe: Option<&Probe>) {
    gate.record(&[Contact { destination, verdict }], voter(LeaseTime::ZERO), probe);
}

fn probe(gate: &Gate) -> Probe {
    match gate.admit() {
        Pass::Probe(probe) => probe,
        other => panic!("no probe is due: {other:?}"),
    }
}

fn wait(gate: &Gate) -> (Option<LeaseTime>, u64) {
    match gate.admit() {
        Pass::Wait { until, version } => (until, version),
        other => panic!("it must wait: {other:?}"),
    }
}

#[tokio::test]
async fn a_destination_that_is_away_stops_all_functions_that_need_it_and_an_answer_wakes_them_at_once() {
    let world = World::new();
    let (statements, other) = (world.gate(&[accounts(), relay()]), world.gate(&[accounts()]));
    let third = world.gate(&[relay()]);
    assert!(matches!(statements.admit(), Pass::All));
    record(&statements, relay(), refused(), None);
    record(&third, relay(), refused(), None);
    assert!(matches!(other.admit(), Pass::All), "it does not use the relay");
    let (until, version) = wait(&statements);
    assert!(until.unwrap() <= world.clock.lease().after(seconds(1)));
    assert!(wait(&third).0.is_some());
    record(&third, relay(), Verdict::Answered, None);
    tokio::time::timeout(seconds(10), statements.changed(version)).await.unwrap();
    assert!(matches!((statements.admit(), third.admit()), (Pass::All, Pass::All)));
}

#[test]
fn functions_share_the_one_probe_of_a_destination_and_its_end_wakes_whoever_was_refused() {
    let world = World::new();
    let (one, other) = (world.breakers.gate(vec![relay()], 1), world.breakers.gate(vec![relay()], 0));
    record(&one, relay(), refused(), None);
    world.clock.advance(seconds(1));
    let held = probe(&one);
    let (until, version) = wait(&other);
    assert_eq!(until, None, "nobody knows how long a probe takes");
    record(&one, relay(), refused(), Some(&held));
    drop(held);
    assert!(world.is_changed_since(version));
    assert!(wait(&other).0.unwrap() > world.clock.lease(), "the failed probe set the next one");
    world.clock.advance(seconds(2));
    drop(probe(&other));
    drop(probe(&one));
}

#[test]
fn a_probe_that_found_no_message_wakes_nobody_who_did_not_ask() {
    let world = World::new();
    let (one, other) = (world.breakers.gate(vec![relay()], 1), world.breakers.gate(vec![relay()], 0));
    record(&one, relay(), refused(), None);
    world.clock.advance(seconds(1));
    let before = probe(&one).give_back();
    assert!(!world.is_changed_since(before));
    assert_eq!(probe(&other).give_back(), before, "two empty queues would wake each other for ever");
    let held = probe(&one);
    wait(&other);
    let after = held.give_back();
    assert_ne!(after, before);
    assert!(!world.is_changed_since(after), "but not the one that gave it back");
}

#[test]
fn a_function_with_two_destinations_away_tries_both_with_one_message() {
    let world = World::new();
    let gate = world.gate(&[accounts(), relay()]);
    record(&gate, relay(), refused(), None);
    world.clock.advance(seconds(1));
    record(&gate, accounts(), refused(), None);
    assert!(wait(&gate).0.unwrap() > world.clock.lease(), "the account API is not due yet");
    world.clock.advance(seconds(1));
    let held = probe(&gate);
    // The account API answers, so the attempt reaches the relay, which does not.
    record(&gate, accounts(), Verdict::Answered, Some(&held));
    record(&gate, relay(), refused(), Some(&held));
    drop(held);
    let away: Vec<String> = world.breakers.probe_now(None).unwrap();
    assert_eq!(away, ["relay mail.example:587"]);
    drop(probe(&gate));
}

#[test]
fn only_the_last_contact_decides_whether_the_attempt_failed_because_of_a_destination_that_is_away() {
    let world = World::new();
    let gate = world.gate(&[accounts(), relay()]);
    let contact = |destination| Contact { destination, verdict: Verdict::Answered };
    let ends_with = |last: Destination| gate.is_away(&[contact(accounts()), contact(last)]);
    assert!(!ends_with(relay()));
    record(&gate, relay(), refused(), None);
    assert!(ends_with(relay()) && !ends_with(accounts()) && !gate.is_away(&[]));
    assert!(!ends_with(Destination::new("relay", "unknown:25")), "a destination that no function names");
}

#[test]
fn only_the_last_contact_of_an_attempt_is_known_to_be_new() {
    let world = World::new();
    let gate = world.gate(&[accounts(), relay()]);
    let began = world.clock.lease();
    world.clock.advance(seconds(1));
    record(&gate, accounts(), refused(), None);
    record(&gate, relay(), refused(), None);
    // The attempt fetched the account before the outage, and its mail was taken just now.
    let contacts = [accounts(), relay()].map(|destination| Contact { destination, verdict: Verdict::Answered });
    gate.record(&contacts, voter(began), None);
    assert!(gate.is_away(&contacts[..1]) && !gate.is_away(&contacts));
    gate.record(&contacts, voter(world.clock.lease()), None);
    assert!(!gate.is_away(&contacts[..1]), "this one began later");
}

#[test]
fn the_time_away_is_counted_once_for_all_destinations_of_a_function() {
    let world = World::new();
    let gate = world.gate(&[accounts(), relay()]);
    let start = world.clock.lease();
    world.clock.advance(seconds(10));
    record(&gate, relay(), refused(), None);
    world.clock.advance(seconds(10));
    record(&gate, accounts(), refused(), None);
    world.clock.advance(seconds(10));
    record(&gate, relay(), Verdict::Answered, None);
    world.clock.advance(seconds(10));
    assert_eq!(gate.away_since(start), seconds(30));
    assert_eq!(gate.away_since(start.after(seconds(25))), seconds(15));
    record(&gate, accounts(), Verdict::Answered, None);
    world.clock.advance(seconds(10));
    assert_eq!(gate.away_since(start), seconds(30), "and it ended");
    assert_eq!(world.gate(&[relay()]).away_since(start), seconds(20));
}

#[test]
fn views_name_what_is_away_since_when_and_when_it_is_tried() {
    let world = World::new();
    let gate = world.gate(&[accounts(), relay()]);
    record(&gate, relay(), refused(), None);
    let views = world.breakers.views();
    assert_eq!(views.iter().map(|view| view.state).collect::<Vec<_>>(), [BreakerState::Closed, BreakerState::Open]);
    assert_eq!(views[0].line(START), None);
    assert_eq!((views[1].since, views[1].cause.as_deref()), (Some(START), Some("connection refused")));
    let next = views[1].next_try.unwrap();
    assert!(next > START && next <= START.after(seconds(1)), "{next}");
    let json = serde_json::to_value(&views[1]).unwrap();
    assert_eq!((&json["state"], &json["since"]), (&"open".into(), &START.as_millis().into()));
    world.clock.advance(seconds(1));
    let held = probe(&gate);
    assert_eq!(world.breakers.views()[1].state, BreakerState::Probing);
    drop(held);
    // An operator sets the clock: the moments are shown by the clock as it stands.
    world.clock.set(START.after(seconds(601)));
    assert_eq!(world.breakers.views()[1].since, Some(START.after(seconds(600))));
}

#[test]
fn a_line_says_what_the_status_of_systemd_shows() {
    let view = BreakerView {
        destination: "relay mail.example:587".into(),
        state: BreakerState::Open,
        since: Some(START),
        next_try: Some(START.after(seconds(95))),
        cause: Some("connection refused".into()),
        needs_operator: false,
    };
    let line = |view: &BreakerView, later| view.line(START.after(seconds(later))).unwrap();
    let since = clock_time(START, START);
    assert_eq!(line(&view, 65), format!("relay mail.example:587 away since {since}, next try in 30s"));
    assert_eq!(line(&view, 99), format!("relay mail.example:587 away since {since}, the next message tries it"));
    assert_eq!(since.len(), "02:14".len());
    assert_eq!(clock_time(START, START.after(seconds(86_400))).len(), "2026-11-01 02:14".len());
    let probing = BreakerView { state: BreakerState::Probing, needs_operator: true, ..view };
    let said = format!("relay mail.example:587 away since {since}, needs an operator, one message tries it now");
    assert_eq!(line(&probing, 65), said);
}

#[test]
fn an_operator_probes_one_destination_or_all_and_a_name_that_nobody_has_is_refused() {
    let world = World::new();
    let gate = world.gate(&[relay()]);
    world.gate(&[accounts()]);
    assert_eq!(world.breakers.probe_now(Some("relay mail.example:587")), Some(vec![]), "it is not away");
    assert_eq!(world.breakers.probe_now(Some("mail")), None);
    record(&gate, relay(), refused(), None);
    let (_, version) = wait(&gate);
    assert_eq!(world.breakers.probe_now(Some("account API bank.example:443")), Some(vec![]));
    wait(&gate);
    assert_eq!(world.breakers.probe_now(Some("relay mail.example:587")), Some(vec!["relay mail.example:587".into()]));
    assert!(world.is_changed_since(version));
    drop(probe(&gate));
}

/// Where the log goes.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What `work` logs at the levels INFO and above, one line per entry.
pub(in crate::work) fn logged(work: impl FnOnce()) -> Vec<String> {
    // With one dispatcher in the process, tracing asks only the thread that meets an event first whether anybody wants it:
    // another test, which has no subscriber, would turn it off for this one. With two it asks them all.
    static SECOND: OnceLock<tracing::Dispatch> = OnceLock::new();
    SECOND.get_or_init(|| tracing_subscriber::fmt().with_writer(io::sink).into());
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).without_time().with_target(false);
    tracing::subscriber::with_default(subscriber.with_writer(move || writer.clone()).finish(), work);
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    text.lines().map(|line| line.trim().to_owned()).collect()
}

#[test]
fn each_change_of_state_is_one_line_whatever_happens_in_between() {
    let world = World::new();
    let gate = world.breakers.gate(vec![relay()], 24);
    let lines = logged(|| {
        for _ in 0..200 {
            record(&gate, relay(), refused(), None);
        }
        for _ in 0..5 {
            world.clock.advance(seconds(60));
            let held = probe(&gate);
            record(&gate, relay(), refused(), Some(&held));
        }
        world.clock.advance(seconds(50));
        for _ in 0..200 {
            record(&gate, relay(), Verdict::Answered, None);
        }
    });
    let expected = [
        "WARN relay mail.example:587 is away: connection refused; 5 messages deferred, next try in 1s",
        "INFO relay mail.example:587 answers again; it was away for 5m 50s",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn what_needs_an_operator_is_an_error_with_its_remedy_once() {
    let world = World::new();
    let gate = world.gate(&[relay()]);
    let untrusted = || Verdict::Unreachable { needs_operator: true, why: "the certificate is not trusted".into() };
    let remedy = "(mend it, then run `nightmail probe`, or wait for the next try)";
    let lines = logged(|| {
        record(&gate, relay(), untrusted(), None);
        record(&gate, relay(), untrusted(), None);
    });
    let text =
        "ERROR relay mail.example:587 is away: the certificate is not trusted; 1 message deferred, next try in 1s";
    assert_eq!(lines, [format!("{text} {remedy}")]);
    record(&gate, relay(), Verdict::Answered, None);
    let lines = logged(|| {
        record(&gate, relay(), refused(), None);
        record(&gate, relay(), untrusted(), None);
        record(&gate, relay(), untrusted(), None);
    });
    let text = "ERROR relay mail.example:587 is still away: the certificate is not trusted; next try in 1s";
    assert_eq!(lines[1..], [format!("{text} {remedy}")]);
}

#[test]
fn the_time_before_the_process_began_counts_as_away() {
    let world = World::new();
    let began = world.clock.lease();
    let gate = world.gate(&[relay()]);
    world.clock.advance(seconds(100));
    record(&gate, relay(), refused(), None);
    world.clock.advance(seconds(10));
    let before = LeaseTime::from_millis(began.as_millis() - 25 * 3_600_000);
    assert_eq!(gate.away_since(before), seconds(25 * 3600 + 10), "outages of an earlier process are not known");
    assert_eq!(gate.away_since(began), seconds(10));
}
