//! The daemon from end to end: a schedule's run, its fan-out, its workers and its books, against a real bank and relay.

pub(crate) mod document;
mod fan_out;
mod poison;
mod relay;
mod schedule;
mod statements;
