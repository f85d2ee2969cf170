//! Random operations on the queues against a small model in memory: after each one the queues hold what the model
//! holds, all books balance, and the observer saw the transitions that the model predicts.
//!
//! `NIGHTMAIL_MODEL_OPS` sets how many operations run, `NIGHTMAIL_MODEL_SEED` replays a failure.

mod driver;
mod letters;
mod operation;
mod state;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use driver::Driver;

/// Operations of one test run unless the environment says otherwise.
const OPS: u64 = 5_000;
/// A new store is started after this many, so that a failure's trace stays short.
const OPS_PER_STORE: u64 = 500;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text:?} is not a number")))
}

#[tokio::test]
async fn the_queues_do_what_the_model_does() {
    let ops = number("NIGHTMAIL_MODEL_OPS").unwrap_or(OPS);
    let first = number("NIGHTMAIL_MODEL_SEED").unwrap_or_else(|| rand::rng().random_range(0..1_000_000_000));
    for seed in first..first + ops.div_ceil(OPS_PER_STORE) {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut driver = Driver::new(seed).await;
        for _ in 0..OPS_PER_STORE.min(ops) {
            driver.step(&mut rng).await;
        }
    }
}
