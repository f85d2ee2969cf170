//! Other queues on the same machine in the same run: the same messages, each over its own client.
//!
//! A rival is a file: how its server starts, how its client sends, takes and acknowledges.

mod apalis_redb;
mod arrivals;
mod beanstalkd;
mod bullmq;
mod clients;
mod compare;
mod nats;
mod ours;
mod over_http;
mod postgres;
mod rabbitmq;
mod redis;
mod rust_queue;
mod server;
mod side;
mod syncs;
mod verdict;

pub(crate) use compare::run;
