//! The SQS endpoint: the API of 2012-11-05 over HTTP, for AWS's own clients.
//!
//! A request takes one way: `server` (connections) → `http` (one request, its limits; `rate`) → `call` (who calls, on which
//! queue) → `action` (one file for each action). The wire protocols, `json` and `query`, only decode and encode: an action
//! knows neither. The rules of the queues are in the module `queue`.

mod access;
mod action;
mod address;
mod attributes;
mod batch;
mod browser;
mod call;
mod error;
mod http;
mod json;
mod md5;
mod message;
mod options;
mod query;
mod rate;
mod receipt;
mod refusal;
mod server;
mod service;
mod socket;
mod text;
mod tls;
mod xml;

pub use access::{AccessKey, Credentials, sign};
pub use options::{Access, Options};
pub use server::{ListenError, SqsListener, serve};
pub use service::Service;
pub use tls::TlsOptions;
