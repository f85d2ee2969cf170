//! The commands: one file each, over the modules below.
//!
//! Layer 8, and the only module that prints: data to standard output, everything else to standard error.

mod args;
mod ask;
mod check;
mod config;
mod confirm;
mod context;
#[cfg(feature = "demo")]
mod demo;
mod exit;
mod forecast;
mod gate;
mod import;
mod output;
mod params;
mod pdf;
mod probe;
mod queues;
mod redrive;
mod report;
mod run_table;
mod runs;
mod schedules;
mod serve;
mod sheet;
mod sink;
mod status;
mod store;
mod suppress;
mod trial;

pub use args::main;
pub use exit::Exit;
