//! The daemon end to end: a schedule's run, its fan-out, its workers and its books, with the demo's bank and relay.

mod bounded;
mod breakers;
mod clock;
mod cuts;
pub(crate) mod document;
mod doubts;
mod fan_out;
mod gate;
mod outage;
mod poison;
mod relay;
mod schedule;
mod statements;
mod throttle;
