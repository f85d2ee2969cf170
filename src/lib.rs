//! Nightmail: a durable queue, cron fan-out and bounded worker pool in one daemon for one Linux server.
//!
//! The modules form layers; a module imports itself and lower layers, never sideways or up:
//!
//! | layer | module | what it owns |
//! | --- | --- | --- |
//! | 0 | [`base`] | values without I/O |
//! | 1 | [`store`] | the file on disk; the only module that knows redb |
//! | 2 | [`queue`] | SQS semantics as pure steps over one transaction |
//! | 2 | [`function`] | the functions that messages invoke |
//! | 3 | [`run`] | runs and their ledger of recipients |
//! | 4 | [`schedule`] | cron, misfires, ticks, fan-out |
//! | 4 | [`work`] | the worker pool |
//! | 5 | [`api`] | the interfaces to the outside |
//! | 6 | [`config`] | `config.toml` to checked settings |
//! | 7 | [`daemon`] | wiring, start, drain |
//! | 8 | [`cli`] | the commands |
//!
//! The servers of `nightmail demo`, a bank and a mail sink on loopback, are a package of their own (`demo/`), which does
//! not know this one.

pub mod api;
pub mod base;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod function;
pub mod queue;
pub mod run;
pub mod schedule;
pub mod store;
pub mod work;
