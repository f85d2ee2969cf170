//! `nightmail probe`.

use clap::Args;

use crate::api::control::{Answer, Request};

use super::ask::{ask, strange};
use super::context::Context;

/// `nightmail probe`
#[derive(Debug, Args)]
pub(super) struct Probe {
    /// The destination as `nightmail status` names it, e.g. "relay mail.example:587" [default: all that are away]
    destination: Option<String>,
}

pub(super) async fn probe(context: &Context, probe: Probe) -> anyhow::Result<()> {
    match ask(context, Request::Probe { destination: probe.destination }).await? {
        Answer::Probed(destinations) => {
            let probed = serde_json::json!({ "probed": destinations });
            context.output.show(&probed, |_| match destinations.as_slice() {
                [] => "nothing to probe: no destination is away".into(),
                all => format!("the next message tries {}", all.join(", ")),
            })
        }
        other => Err(strange(&other)),
    }
}
