//! RemovePermission: removes a statement from the queue's Policy.

use serde::Deserialize;

use super::super::call::{Call, Nothing, Operation};
use super::super::error::Error;
use super::{add_permission, policy};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Request {
    queue_url: Option<String>,
    label: Option<String>,
}

impl Operation for Request {
    type Answer = Nothing;

    async fn run(self, call: &Call<'_>) -> Result<Nothing, Error> {
        let name = call.name(self.queue_url.as_ref())?;
        let label = add_permission::label(self.label)?;
        policy::change(call, &name, move |policy| {
            let unknown = || Error::value("Label", &label, "can't find label.");
            let mut policy = policy.ok_or_else(unknown)?;
            let statements = policy::statements(&mut policy)?;
            let before = statements.len();
            statements.retain(|statement| !policy::is_named(statement, &label));
            if statements.len() == before { Err(unknown()) } else { Ok(policy) }
        })
        .await?;
        Ok(Nothing {})
    }
}
