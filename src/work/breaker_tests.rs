//! The promises of one breaker, with time as an argument and without jitter.

use super::*;

const NOW: LeaseTime = LeaseTime::from_millis(1_000_000);

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn message(number: u8) -> MessageId {
    MessageId::from_bytes([number; 16])
}

fn refused() -> Verdict {
    Verdict::Unreachable { needs_operator: false, why: "connection refused".into() }
}

fn untrusted() -> Verdict {
    Verdict::Unreachable { needs_operator: true, why: "the certificate is not trusted".into() }
}

fn throttled(after: u64) -> Verdict {
    Verdict::Throttled { after: Some(secs(after)) }
}

/// A breaker and its time.
struct World {
    breaker: Breaker,
    now: LeaseTime,
}

impl World {
    fn new(concurrency: usize) -> Self {
        let mut breaker = Breaker::default();
        breaker.add_concurrency(concurrency);
        Self { breaker, now: NOW }
    }

    /// Open because of five refused connections.
    fn open() -> Self {
        let mut world = Self::new(24);
        for number in 0..5 {
            world.fails(number, &refused());
        }
        assert!(world.is_open());
        world
    }

    fn attempt(&mut self, number: u8, attempts_charged: u32, is_probe: bool, verdict: &Verdict) -> Option<Change> {
        let voter = Voter { message: message(number), attempts_charged, not_before: self.now, is_probe };
        self.breaker.record(voter, verdict, self.now, 0.0)
    }

    /// The first attempt of that message.
    fn fails(&mut self, number: u8, verdict: &Verdict) -> Option<Change> {
        self.attempt(number, 1, false, verdict)
    }

    fn answers(&mut self, number: u8) -> Option<Change> {
        self.attempt(number, 1, false, &Verdict::Answered)
    }

    fn is_open(&self) -> bool {
        self.breaker.outage().is_some()
    }

    /// Moves to the moment at which the next probe is due, takes it and lets it fail; returns how long the wait was.
    fn probe_fails(&mut self, verdict: &Verdict) -> Duration {
        let wait = self.due().since(self.now);
        self.now = self.due();
        assert_eq!(self.breaker.admit(self.now), Admission::Probe);
        self.breaker.begin_probe();
        self.attempt(99, 1, true, verdict);
        self.breaker.end_probe();
        wait
    }

    fn due(&self) -> LeaseTime {
        self.breaker.outage().unwrap().due
    }
}

#[test]
fn five_messages_that_find_nobody_open_it_and_say_why() {
    for verdict in [refused(), throttled(0), Verdict::Throttled { after: None }, Verdict::TimedOut] {
        let mut world = World::new(24);
        for number in 0..4 {
            assert_eq!(world.fails(number, &verdict), None);
            assert_eq!(world.breaker.admit(world.now), Admission::All);
        }
        let are_deferred = verdict != Verdict::TimedOut;
        assert_eq!(world.fails(4, &verdict), Some(Change::Opened { messages: 5, are_deferred }), "{verdict:?}");
        assert_eq!(world.breaker.admit(world.now), Admission::At(NOW.after(secs(1))));
    }
    assert_eq!(World::open().breaker.outage().unwrap().cause, "connection refused");
}

#[test]
fn a_daily_quota_that_is_used_up_opens_it_at_once_until_something_comes_free() {
    let mut world = World::new(24);
    let over = |after| Verdict::OverQuota { after: secs(after) };
    world.fails(1, &throttled(0));
    assert_eq!(world.fails(1, &over(600)), Some(Change::Opened { messages: 1, are_deferred: true }), "a lone message");
    assert_eq!(world.answers(2), None, "a mail that was permitted before");
    assert_eq!(world.breaker.admit(world.now), Admission::At(NOW.after(secs(600))));
    assert_eq!(world.probe_fails(&over(40_000)), secs(600));
    assert_eq!(world.probe_fails(&over(40_000)), secs(3600), "the clock may be put right meanwhile");
    world.now = world.due();
    assert_eq!(world.breaker.admit(world.now), Admission::Probe);
    world.breaker.begin_probe();
    assert!(matches!(world.attempt(3, 1, true, &Verdict::Answered), Some(Change::Closed { .. })));
}

#[test]
fn a_message_votes_once_by_its_first_failure() {
    let mut world = World::new(24);
    for _ in 0..50 {
        world.fails(1, &throttled(0));
        world.fails(1, &Verdict::ServerError);
    }
    assert!(!world.is_open(), "one message is no outage");
    for number in 2..5 {
        world.fails(number, &throttled(0));
    }
    assert!(!world.is_open(), "four are not five");
    world.fails(5, &throttled(0));
    assert!(world.is_open());
}

#[test]
fn functions_that_run_fewer_attempts_at_once_need_fewer_votes() {
    let mut alone = World::new(1);
    assert_eq!(alone.fails(1, &refused()), Some(Change::Opened { messages: 1, are_deferred: true }));
    let mut shared = World::new(1);
    shared.breaker.add_concurrency(2);
    assert_eq!(shared.fails(1, &refused()), None);
    assert_eq!(shared.fails(2, &refused()), None);
    assert!(shared.fails(3, &refused()).is_some(), "one and two make three");
    let mut unused = World::new(0);
    assert!(unused.fails(1, &refused()).is_some());
}

#[test]
fn any_answer_forgets_the_votes_and_closes_at_once() {
    let mut world = World::new(24);
    for number in 0..4 {
        world.fails(number, &refused());
    }
    assert_eq!(world.answers(9), None);
    for number in 0..4 {
        world.fails(number, &refused());
    }
    assert!(!world.is_open());
    world.fails(4, &refused());
    world.now = world.now.after(secs(7));
    assert_eq!(world.answers(9), Some(Change::Closed { away: secs(7) }));
    assert_eq!(world.breaker.admit(world.now), Admission::All);
}

#[test]
fn an_answer_that_may_be_older_than_the_outage_does_not_end_it() {
    let mut world = World::open();
    world.now = world.now.after(secs(3));
    let mut answered = |not_before| {
        let voter = Voter { message: message(9), attempts_charged: 1, not_before, is_probe: false };
        world.breaker.record(voter, &Verdict::Answered, world.now, 0.0)
    };
    assert_eq!(answered(LeaseTime::from_millis(NOW.as_millis() - 1)), None);
    assert_eq!(answered(NOW), Some(Change::Closed { away: secs(3) }));
}

#[test]
fn ten_first_server_errors_without_an_answer_between_open_it() {
    let mut world = World::new(24);
    for number in 0..9 {
        assert_eq!(world.fails(number, &Verdict::ServerError), None);
    }
    world.answers(99);
    for number in 10..19 {
        assert_eq!(world.fails(number, &Verdict::ServerError), None);
    }
    let opened = world.fails(19, &Verdict::ServerError);
    assert_eq!(opened, Some(Change::Opened { messages: 10, are_deferred: false }));
}

#[test]
fn server_errors_and_outages_are_counted_apart() {
    let mut world = World::new(24);
    for number in 0..9 {
        world.fails(number, &Verdict::ServerError);
    }
    for number in 10..14 {
        world.fails(number, &Verdict::TimedOut);
    }
    assert!(!world.is_open());
}

#[test]
fn messages_that_failed_before_do_not_open_it_again_by_a_charged_failure() {
    for verdict in [Verdict::ServerError, Verdict::TimedOut] {
        let mut world = World::new(1);
        for number in 0..50 {
            world.attempt(number, 2, false, &verdict);
        }
        assert!(!world.is_open(), "{verdict:?} of second attempts");
        // Their first attempts open it, and are deferred: the second ones look like first ones again.
        let mut world = World::new(1);
        for number in 0..10 {
            world.fails(number, &verdict);
        }
        assert!(world.is_open());
        world.answers(99);
        for number in 0..10 {
            world.fails(number, &verdict);
        }
        assert!(world.is_open() == (verdict == Verdict::TimedOut), "only those that had not voted do");
    }
}

#[test]
fn a_message_that_was_answered_votes_again() {
    let mut world = World::new(1);
    world.fails(1, &Verdict::TimedOut);
    world.answers(2);
    world.fails(1, &Verdict::TimedOut);
    assert!(!world.is_open(), "it voted within the hour");
    world.answers(1);
    world.fails(1, &Verdict::TimedOut);
    assert!(world.is_open(), "it worked in the meantime");
    world.answers(2);
    world.now = world.now.after(VOTE_LASTS + secs(1));
    world.fails(1, &Verdict::TimedOut);
    assert!(world.is_open(), "the hour is over");
}

#[test]
fn what_it_remembers_is_bounded() {
    let mut world = World::new(24);
    for round in 0..u32::try_from(VOTES_MAX).unwrap() * 2 {
        let message = MessageId::from_bytes(u128::from(round).to_be_bytes());
        let voter = Voter { message, attempts_charged: 1, not_before: NOW, is_probe: false };
        world.breaker.record(voter, &Verdict::TimedOut, world.now, 0.0);
        world.now = world.now.after(secs(1));
        world.answers(99);
    }
    assert_eq!(world.breaker.voted.len(), VOTES_MAX);
    let mut world = World::new(1);
    for _ in 0..3 * OUTAGES_MAX {
        world.fails(1, &refused());
        world.now = world.now.after(secs(1));
        world.answers(1);
        world.now = world.now.after(secs(1));
    }
    assert_eq!(world.breaker.past.len(), OUTAGES_MAX);
    let recalled = world.breaker.outages(LeaseTime::ZERO, world.now).next().unwrap();
    assert_eq!(recalled.0, NOW, "the oldest outages are joined, not forgotten");
}

#[test]
fn the_waits_between_probes_double_to_a_minute_and_start_anew_after_an_answer() {
    let mut world = World::open();
    let waits: Vec<u64> = (0..9).map(|_| world.probe_fails(&refused()).as_secs()).collect();
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    world.answers(1);
    for number in 0..5 {
        world.fails(number, &refused());
    }
    assert_eq!(world.probe_fails(&refused()), secs(1));
}

#[test]
fn a_wait_is_shortened_by_a_tenth_at_most() {
    let waited = |jitter| {
        let mut world = World::new(1);
        let voter = Voter { message: message(1), attempts_charged: 1, not_before: NOW, is_probe: false };
        world.breaker.record(voter, &refused(), NOW, jitter);
        world.due().since(NOW)
    };
    assert_eq!(waited(0.0), secs(1));
    assert_eq!(waited(1.0), Duration::from_millis(900));
}

#[test]
fn a_pause_that_it_asks_for_is_the_least_wait_up_to_five_minutes() {
    let mut world = World::new(1);
    world.fails(1, &throttled(30));
    assert_eq!(world.due(), NOW.after(secs(30)));
    assert_eq!(world.probe_fails(&throttled(86_400)), secs(30));
    assert_eq!(world.probe_fails(&throttled(0)), PAUSE_MAX);
    // An attempt that was under way at the opening asks for a pause too.
    let mut world = World::open();
    world.fails(7, &throttled(20));
    assert_eq!(world.due(), NOW.after(secs(20)));
    world.fails(8, &refused());
    assert_eq!(world.due(), NOW.after(secs(20)), "and only a probe changes the wait");
}

#[test]
fn one_probe_at_a_time_and_whoever_was_refused_is_remembered() {
    let mut world = World::open();
    world.now = world.due();
    assert_eq!(world.breaker.admit(world.now), Admission::Probe);
    world.breaker.begin_probe();
    assert!(!world.breaker.end_probe(), "nobody was refused");
    world.breaker.begin_probe();
    assert_eq!(world.breaker.admit(world.now), Admission::Busy);
    assert!(world.breaker.end_probe(), "somebody was");
    assert_eq!(world.breaker.admit(world.now), Admission::Probe, "a probe that found nothing out is not waited for");
}

#[test]
fn an_operator_can_probe_at_once() {
    let mut world = World::open();
    assert!(world.breaker.probe_now(world.now));
    assert_eq!(world.breaker.admit(world.now), Admission::Probe);
    assert!(!World::new(1).breaker.probe_now(NOW), "a closed one has nothing to probe");
}

#[test]
fn what_only_an_operator_can_mend_is_told_once_an_outage() {
    let mut world = World::open();
    assert_eq!(world.fails(7, &untrusted()), Some(Change::NeedsOperator));
    assert!(world.breaker.outage().unwrap().needs_operator);
    assert_eq!(world.fails(8, &untrusted()), None);
    assert_eq!(world.fails(8, &refused()), None);
    assert!(!world.breaker.outage().unwrap().needs_operator, "the latest cause counts");
    assert_eq!(world.fails(8, &untrusted()), None);
    world.answers(1);
    assert!(matches!(world.fails(4, &untrusted()), Some(Change::Opened { .. })));
    assert_eq!(world.fails(7, &untrusted()), None, "the opening told it");
}

#[test]
fn outages_are_recalled_within_a_span() {
    let mut world = World::new(1);
    world.fails(1, &refused());
    world.now = world.now.after(secs(10));
    world.answers(1);
    world.now = world.now.after(secs(10));
    world.fails(1, &refused());
    world.now = world.now.after(secs(5));
    let recalled = |from| world.breaker.outages(from, world.now).collect::<Vec<_>>();
    assert_eq!(recalled(LeaseTime::ZERO), [(NOW, NOW.after(secs(10))), (NOW.after(secs(20)), NOW.after(secs(25)))]);
    assert_eq!(recalled(NOW.after(secs(4)))[0], (NOW.after(secs(4)), NOW.after(secs(10))));
    assert_eq!(recalled(NOW.after(secs(15))).len(), 1);
    assert_eq!(recalled(world.now), []);
}

#[test]
fn a_few_messages_that_find_nobody_again_and_again_open_it_too() {
    let mut world = World::new(24);
    for number in [1, 2, 3, 1] {
        assert_eq!(world.fails(number, &refused()), None);
    }
    assert_eq!(world.fails(2, &refused()), Some(Change::Opened { messages: 3, are_deferred: true }));
    let mut world = World::new(24);
    for _ in 0..20 {
        assert_eq!(world.fails(1, &throttled(1)), None, "a session was had: it may be the message");
    }
}

#[test]
fn one_failure_that_needs_an_operator_opens_it() {
    let mut world = World::new(24);
    assert_eq!(world.fails(1, &untrusted()), Some(Change::Opened { messages: 1, are_deferred: true }));
}

#[test]
fn one_message_whose_credentials_are_refused_never_opens_it() {
    let mut world = World::new(24);
    for _ in 0..20 {
        assert_eq!(world.fails(1, &Verdict::Unauthorized { why: "answered 401".into() }), None);
    }
    for number in 2..5 {
        world.fails(number, &Verdict::Unauthorized { why: "answered 401".into() });
    }
    assert!(world.fails(5, &Verdict::Unauthorized { why: "answered 401".into() }).is_some());
    assert!(world.breaker.outage().unwrap().needs_operator);
}
