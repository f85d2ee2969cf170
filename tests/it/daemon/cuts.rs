//! A relay that cuts, stalls or refuses at each step of the dialogue: every cut point leads to its state, and in doubt is
//! exactly who may have been mailed.

use std::sync::Arc;

use futures_util::future::join_all;
use nightmail::api::control::{Answer, Request};
use nightmail::run::{Resolution, Resolve};
use nightmail_demo::bank;
use nightmail_demo::sink::{self, Action, Step};

use crate::harness::{Harness, assert_recounted, assert_sound};

/// What a cut leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Nothing was accepted: it is tried again, and then sent.
    SentLater,
    /// The relay refused it for good.
    Dead,
    /// The final dot may have been written; so many mails were taken.
    Unknown(u64),
    /// The relay closes or falls silent while it has the mail half: how much the kernel took is not known, so it is one
    /// or the other.
    SentLaterOrUnknown,
}

fn reply(code: u16) -> Action {
    Action::Reply(code, format!("{}.0.0 scripted", code / 100))
}

/// Every step with what may happen there, and what it leads to.
fn cuts() -> Vec<(Step, Action, End)> {
    let session = [Step::Greeting, Step::Ehlo];
    let mail = [Step::Mail, Step::Rcpt, Step::Data];
    let mut cuts = Vec::new();
    for step in session.into_iter().chain(mail) {
        for action in [Action::Close, Action::Stall, reply(421), reply(451)] {
            cuts.push((step, action, End::SentLater));
        }
        // What refuses a session says nothing about the mail.
        cuts.push((step, reply(554), if session.contains(&step) { End::SentLater } else { End::Dead }));
    }
    for action in [Action::Close, Action::Stall, Action::CloseAfterHalfBody] {
        cuts.push((Step::Body, action, End::SentLaterOrUnknown));
    }
    for step in [Step::Body, Step::Dot] {
        cuts.push((step, reply(451), End::SentLater));
        cuts.push((step, reply(554), End::Dead));
    }
    cuts.push((Step::Dot, reply(421), End::SentLater));
    cuts.push((Step::Dot, Action::Close, End::Unknown(1)));
    cuts.push((Step::Dot, Action::Stall, End::Unknown(1)));
    cuts.push((Step::Dot, Action::Lose, End::Unknown(0)));
    cuts
}

/// A relay whose first connection is cut there.
async fn cut_at(step: Step, action: Action) -> Harness {
    let script: sink::Script = Arc::new(move |connection, _, at| match at == step && connection == 1 {
        true => action.clone(),
        false => Action::Accept,
    });
    let options = bank::Options { users: 1, ..bank::Options::default() };
    let mut harness = Harness::set(options, sink::Options { script: Some(script), ..sink::Options::default() }).await;
    harness.set_key("FUNCTIONS__STATEMENT__DEFERRAL_PAUSE", "50ms");
    for limit in ["GREETING", "COMMAND", "DATA", "BODY_PIECE", "BODY", "END_OF_DATA"] {
        harness.set_key(&format!("FUNCTIONS__STATEMENT__MAIL__RELAY__{limit}_TIMEOUT"), "2s");
    }
    harness
}

async fn judge(step: Step, action: Action, expected: End) {
    let at = format!("{step:?} {action:?}");
    let harness = cut_at(step, action).await;
    let daemon = harness.daemon().await;
    let run = daemon.operator.start().await;
    let report = daemon.operator.complete(run).await;
    let summary = harness.sink.summary();
    let found = match (report.sent, report.dead, report.unknown) {
        (1, 0, 0) => End::SentLater,
        (0, 1, 0) => End::Dead,
        (0, 0, 1) => End::Unknown(summary.total),
        other => panic!("{at}: {other:?}"),
    };
    match expected {
        End::SentLaterOrUnknown => assert!(matches!(found, End::SentLater | End::Unknown(0)), "{at}: {found:?}"),
        expected => assert_eq!(found, expected, "{at}"),
    }
    let is_unknown = matches!(found, End::Unknown(_));
    assert_eq!(daemon.operator.in_doubt(run).await.len(), usize::from(is_unknown), "{at}");
    assert_eq!(report.interrupted, u64::from(is_unknown), "{at}");
    assert!(summary.doubled.is_empty(), "{at}: {summary:?}");
    if is_unknown {
        let resolution = if summary.total == 1 { Resolution::Sent } else { Resolution::Resend };
        let order = Resolve { run, users: Vec::new(), resolution, accounts: Vec::new() };
        assert_eq!(daemon.operator.try_ask(Request::Resolve(order)).await, Ok(Answer::Count(1)), "{at}");
        assert_eq!(daemon.operator.complete(run).await.sent, 1, "{at}");
        harness.assert_one_mail_each(1);
    }
    assert_recounted(&daemon.queues, run);
    assert_sound(&daemon.queues);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_cut_of_the_dialogue_leads_to_its_state_and_only_a_final_dot_leaves_a_doubt() {
    // A few at once: most of the time they wait for a limit.
    for some in cuts().chunks(8) {
        join_all(some.iter().cloned().map(|(step, action, expected)| judge(step, action, expected))).await;
    }
}
