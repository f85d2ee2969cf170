//! What an overview says of the daemon's functions.

use std::time::Duration;

use futures_util::future::BoxFuture;
use nightmail::api::control::{Answer, Control, Request};
use nightmail::base::{Destination, Outcome, Report};
use nightmail::function::{Function, Invocation};
use nightmail::work::Breakers;
use tokio_util::sync::CancellationToken;

use crate::support::World;

/// A function whose destinations have been silent for so many seconds.
#[derive(Debug)]
struct Waiting(Vec<(&'static str, u64)>);

impl Function for Waiting {
    fn call(&self, _: Invocation) -> BoxFuture<'_, Report> {
        Box::pin(async { Outcome::done().into() })
    }

    fn silences(&self) -> Vec<(Destination, Duration)> {
        let silence =
            |(address, seconds): &(&str, u64)| (Destination::new("relay", address), Duration::from_secs(*seconds));
        self.0.iter().map(silence).collect()
    }
}

#[tokio::test]
async fn a_destination_that_owes_a_reply_for_over_thirty_seconds_is_named_with_its_longest_silence() {
    let world = World::new();
    let breakers = Breakers::new(world.clock.clone());
    let control = Control::of_daemon(world.queues().clone(), Vec::new(), breakers, CancellationToken::new());
    let functions: Vec<std::sync::Arc<dyn Function>> = vec![
        std::sync::Arc::new(Waiting(vec![("a:25", 31), ("b:25", 30)])),
        std::sync::Arc::new(Waiting(vec![("a:25", 70)])),
    ];
    let Ok(Answer::Overview(overview)) = control.with_functions(functions).answer(Request::Overview).await else {
        panic!("no overview")
    };
    let silences: Vec<_> =
        overview.silences.iter().map(|silence| (silence.destination.as_str(), silence.silent_ms)).collect();
    assert_eq!(silences, [("relay a:25", 70_000)]);
    assert_eq!(overview.problems(), Vec::<String>::new(), "slow is not broken");
}
