//! Nightmail: a durable queue, cron fan-out and bounded worker pool in one daemon for one Linux server.
//!
//! The rooms stand on floors; a room imports itself and lower floors, never sideways or up:
//!
//! | floor | room | what it owns |
//! | --- | --- | --- |
//! | 0 | [`base`] | values without I/O |
//! | 1 | [`store`] | the file on disk; the only room that knows redb |
//! | 2 | [`queue`] | SQS semantics as pure steps over one transaction |
//! | 2 | [`function`] | what a message makes happen |
//! | 3 | [`run`] | runs and their ledger of recipients |
//! | 4 | [`schedule`] | cron, misfires, ticks, fan-out |
//! | 4 | [`work`] | the worker pool |
//! | 5 | [`api`] | what speaks to the outside |
//! | 6 | [`config`] | `config.toml` to checked settings |
//! | 7 | [`daemon`] | wiring, start, drain |
//! | 8 | `demo` | a bank and a mail sink on loopback |
//! | 9 | [`cli`] | the commands |

pub mod base;
pub mod config;
pub mod function;
pub mod queue;
pub mod schedule;
pub mod store;
pub mod work;
