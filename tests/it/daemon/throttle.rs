//! A relay that takes so many mails in a second and tells nobody, and a recipient domain with limits of its own.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use nightmail::api::control::{Answer, Request};
use nightmail::base::{Clock, SystemClock};
use nightmail_demo::bank;
use nightmail_demo::sink::{self, Action, Step};

use crate::harness::{Harness, say, size, until};

/// A bucket that fills with so many tokens a second, and what was taken from it.
struct Bucket {
    clock: SystemClock,
    per_second: f64,
    depth: f64,
    tokens: f64,
    filled: f64,
    /// What an oracle could have taken since the first mail.
    oracle: f64,
    taken: u32,
    refused: u32,
}

impl Bucket {
    fn new(per_second: f64, depth: f64) -> Self {
        let (clock, tokens) = (SystemClock::new(), depth);
        Self { clock, per_second, depth, tokens, filled: f64::NAN, oracle: depth, taken: 0, refused: 0 }
    }

    fn takes(&mut self) -> bool {
        let now = self.clock.monotonic().as_secs_f64();
        if self.filled.is_nan() {
            self.filled = now;
        }
        let fresh = (now - self.filled) * self.per_second;
        (self.tokens, self.filled) = ((self.tokens + fresh).min(self.depth), now);
        self.oracle += fresh;
        let takes = self.tokens >= 1.0;
        self.tokens -= f64::from(u8::from(takes));
        (self.taken, self.refused) = (self.taken + u32::from(takes), self.refused + u32::from(!takes));
        takes
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hidden_limit_that_changes_is_used_well_and_nobody_dies_of_it() {
    let users = size("NIGHTMAIL_THROTTLED_USERS", 900);
    let bucket = Arc::new(Mutex::new(Bucket::new(40.0, 10.0)));
    let taken = bucket.clone();
    let script: sink::Script = Arc::new(move |_, _, step| {
        if step == Step::Rcpt && !taken.lock().unwrap().takes() {
            return Action::Reply(450, "4.7.0 too many mails, slow down".into());
        }
        Action::Accept
    });
    let options = bank::Options { users, ..bank::Options::default() };
    let harness = Harness::set(options, sink::Options { script: Some(script), ..sink::Options::default() }).await;
    let daemon = harness.daemon().await;
    let run = daemon.operator.start().await;
    let sent = async |share: f64| {
        let wanted = (f64::from(users) * share) as u32;
        until("mails", async || (bucket.lock().unwrap().taken >= wanted).then_some(())).await;
    };
    sent(0.5).await;
    let Ok(Answer::Overview(overview)) = daemon.operator.try_ask(Request::Overview).await else {
        panic!("no overview")
    };
    let pace = overview.paces.iter().find(|pace| pace.found_per_hour.is_some());
    let pace = pace.unwrap_or_else(|| panic!("status names what was found: {:?}", overview.paces));
    assert!(pace.refusals > 0 && pace.domain.as_deref() == Some("example.test"), "{pace:?}");
    bucket.lock().unwrap().per_second = 20.0;
    // What is left at the end are stragglers, who wait for their turns.
    sent(0.95).await;
    let (share, refused) = {
        let bucket = bucket.lock().unwrap();
        (f64::from(bucket.taken) / bucket.oracle, bucket.refused)
    };
    say(format_args!("{users} users: {share:.3} of what an oracle would have sent, {refused} refused"));
    // On a quiet machine it is more; the rule itself is tested on a clock that is a number.
    assert!(share > 0.6, "{share:.3} of what an oracle would have sent");
    let report = daemon.operator.complete(run).await;
    assert_eq!((report.sent, report.dead, report.interrupted), (u64::from(users), 0, 0));
    harness.assert_one_mail_each(users);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_domain_never_gets_more_mails_in_a_second_nor_more_connections_than_it_is_given() {
    const USERS: u32 = 120;
    let (clock, begun) = (SystemClock::new(), Arc::new(Mutex::new(Vec::<Duration>::new())));
    let open = Arc::new(Mutex::new((0_u32, 0_u32)));
    let (times, at_once) = (begun.clone(), open.clone());
    let script: sink::Script = Arc::new(move |_, _, step| {
        match step {
            Step::Mail => {
                times.lock().unwrap().push(clock.monotonic());
                let mut open = at_once.lock().unwrap();
                *open = (open.0 + 1, open.1.max(open.0 + 1));
            }
            Step::Dot => at_once.lock().unwrap().0 -= 1,
            _ => {}
        }
        // Longer than the distance of two mails.
        if step == Step::Data { Action::Delay(Duration::from_millis(60)) } else { Action::Accept }
    });
    let options = bank::Options { users: USERS, ..bank::Options::default() };
    let mut harness = Harness::set(options, sink::Options { script: Some(script), ..sink::Options::default() }).await;
    let section = "[functions.statement.mail.relay.domains.\"Example.test\"]\nper_second = 20\nconnections = 2\n";
    harness.add_sections(section);
    let daemon = harness.daemon().await;
    let run = daemon.operator.start().await;
    let report = daemon.operator.complete(run).await;
    assert_eq!((report.sent, report.dead), (u64::from(USERS), 0));
    let begun = begun.lock().unwrap().clone();
    let second = Duration::from_secs(1);
    let within = |at: &Duration| begun.iter().filter(|other| *other >= at && **other - *at < second).count();
    let most = begun.iter().map(within).max().unwrap();
    assert!(most <= 20 && open.lock().unwrap().1 <= 2, "{most} in a second, {} at once", open.lock().unwrap().1);
    harness.assert_one_mail_each(USERS);
    daemon.stop().await;
}
