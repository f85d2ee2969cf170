//! Integration tests: the modules through their public interfaces, with a real store in a temporary directory and a
//! manual clock; the whole daemon end to end, with a bank and a mail sink on loopback; and the binary as its users run
//! it.

#[cfg(feature = "demo")]
#[cfg(test)]
mod archive;
#[cfg(test)]
mod backup;
#[cfg(test)]
mod bad_input;
#[cfg(test)]
mod callbacks;
#[cfg(feature = "demo")]
#[cfg(test)]
mod commands;
#[cfg(test)]
mod daemon;
#[cfg(test)]
mod disk_full;
#[cfg(test)]
mod drain;
#[cfg(test)]
mod effects;
#[cfg(test)]
mod erase;
#[cfg(test)]
mod format;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
#[cfg(test)]
mod harness;
#[cfg(test)]
mod kills;
#[cfg(test)]
mod left_out;
#[cfg(test)]
mod model;
#[cfg(test)]
mod night;
#[cfg(test)]
#[cfg(feature = "demo")]
#[cfg(test)]
mod operator;
#[cfg(test)]
mod overview;
#[cfg(test)]
mod power_cut;
#[cfg(feature = "demo")]
#[cfg(test)]
mod process;
#[cfg(test)]
mod proxy;
#[cfg(test)]
mod queue;
#[cfg(feature = "demo")]
#[cfg(test)]
mod relay;
#[cfg(test)]
mod report;
#[cfg(feature = "demo")]
#[cfg(test)]
mod retention;
#[cfg(feature = "demo")]
#[cfg(test)]
mod run_again;
#[cfg(feature = "demo")]
#[cfg(test)]
mod run_control;
#[cfg(feature = "demo")]
#[cfg(test)]
mod run_deadline;
#[cfg(feature = "demo")]
#[cfg(test)]
mod run_fold;
#[cfg(feature = "demo")]
#[cfg(test)]
mod run_gate;
#[cfg(feature = "demo")]
#[cfg(test)]
mod run_guard;
#[cfg(feature = "demo")]
#[cfg(test)]
mod run_refetch;
#[cfg(feature = "demo")]
#[cfg(test)]
mod run_remake;
#[cfg(feature = "demo")]
#[cfg(test)]
mod run_report;
#[cfg(feature = "demo")]
#[cfg(test)]
mod run_resend;
#[cfg(test)]
mod schedule;
#[cfg(test)]
mod sigkill;
#[cfg(test)]
mod slices;
#[cfg(test)]
mod sound;
#[cfg(test)]
mod sqs;
#[cfg(test)]
mod store;
#[cfg(test)]
mod store_log;
#[cfg(test)]
mod support;
#[cfg(feature = "demo")]
#[cfg(test)]
mod suppress;
#[cfg(test)]
mod suspects;
#[cfg(test)]
mod torture;
#[cfg(feature = "demo")]
#[cfg(test)]
mod trial;
