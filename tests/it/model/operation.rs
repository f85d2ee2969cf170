//! The operations on the queues, and how a random one is drawn.

use nightmail::store::record::Owner;
use rand::RngExt;
use rand::rngs::StdRng;

use super::state::{DEAD, FREE, ORDERS};

/// The codes that letters die of.
pub(super) const CODES: [&str; 2] = ["404", "500"];

/// How an attempt ends.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    Done,
    Retry,
    MoveToDlq,
    Defer,
    Release,
}

/// One operation. Durations are in seconds; handles are indexes.
#[derive(Clone, Debug)]
pub(super) enum Operation {
    Send { queue: usize, count: usize, delay: u64 },
    Receive { queue: usize, max: usize, visibility: u64, owner: Owner },
    Delete { handle: usize },
    Change { handle: usize, timeout: u64 },
    Settle { handle: usize, end: End, code: &'static str, wait: u64 },
    StartRedrive { code: Option<&'static str>, to: Option<usize> },
    StepRedrive { budget: usize },
    CancelRedrive,
    Undo,
    Purge { queue: usize },
    RemovePurged,
    Expire,
    Pass { seconds: u64 },
    Reopen,
}

fn one_of<T: Copy>(rng: &mut StdRng, from: &[T]) -> T {
    from[rng.random_range(0..from.len())]
}

/// A handle given out before; recent ones are more likely.
fn handle(rng: &mut StdRng, handles: usize) -> usize {
    let back = rng.random_range(0..12_usize) * rng.random_range(0..2_usize) + rng.random_range(0..3_usize);
    handles.saturating_sub(1 + back)
}

/// Draws the next operation; `messages` and `handles` are how many there are.
pub(super) fn draw(rng: &mut StdRng, messages: usize, handles: usize) -> Operation {
    let queue = one_of(rng, &[ORDERS, ORDERS, ORDERS, FREE, DEAD]);
    let code = one_of(rng, &CODES);
    match rng.random_range(0..100) {
        0..18 if messages < 60 => {
            let delay = one_of(rng, &[0, 0, 0, 5, 900]);
            let queue = if rng.random_range(0..8) == 0 { queue } else { one_of(rng, &[ORDERS, FREE]) };
            Operation::Send { queue, count: rng.random_range(1..4), delay }
        }
        18..46 => Operation::Receive {
            queue,
            max: rng.random_range(1..6),
            visibility: one_of(rng, &[0, 1, 30, 60, 600]),
            owner: one_of(rng, &[Owner::Client, Owner::Worker, Owner::Worker]),
        },
        46..52 if handles > 0 => Operation::Delete { handle: handle(rng, handles) },
        52..57 if handles > 0 => {
            Operation::Change { handle: handle(rng, handles), timeout: one_of(rng, &[0, 0, 1, 30, 43_200]) }
        }
        57..78 if handles > 0 => Operation::Settle {
            handle: handle(rng, handles),
            end: one_of(
                rng,
                &[End::Done, End::Retry, End::Retry, End::MoveToDlq, End::MoveToDlq, End::Defer, End::Release],
            ),
            code,
            wait: one_of(rng, &[0, 3, 40]),
        },
        78..82 => Operation::StartRedrive {
            code: one_of(rng, &[None, None, Some(code)]),
            to: one_of(rng, &[None, None, None, Some(FREE)]),
        },
        82..86 => Operation::StepRedrive { budget: rng.random_range(1..5) },
        86 if rng.random_range(0..2) == 0 => Operation::CancelRedrive,
        86 => Operation::Undo,
        87 => Operation::Purge { queue },
        88 => Operation::RemovePurged,
        89 => Operation::Expire,
        90..92 => Operation::Reopen,
        _ => Operation::Pass { seconds: one_of(rng, &[1, 5, 30, 60, 130, 1000]) },
    }
}
