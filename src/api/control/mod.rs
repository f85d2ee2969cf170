//! The control interface: the CLI's requests, executed by the daemon over a Unix socket, or by the CLI itself on the
//! store when no daemon runs. One JSON request, one JSON response.

pub mod answer;
pub mod client;
mod forecast;
pub mod import;
pub mod overview;
mod refusal;
pub mod request;
pub mod server;
pub mod views;

pub use answer::Control;
pub use client::Client;
pub use overview::Overview;
pub use request::{Answer, Failure, Request};
