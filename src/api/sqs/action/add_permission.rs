//! AddPermission: adds a statement to the queue's Policy. Policies are kept and answered, and decide over nothing: the
//! rights of a caller stand in the configuration.

use serde::Deserialize;
use serde_json::{Value, json};

use super::super::address;
use super::super::call::{Call, Nothing, Operation};
use super::super::error::{Code, Error};
use super::policy;

/// SQS's limit for the actions of a statement.
const ACTIONS_MAX: usize = 7;
const LABEL_CHARS_MAX: usize = 80;
/// The actions that a policy can name.
const ACTIONS: &[&str] = &[
    "*",
    "ChangeMessageVisibility",
    "DeleteMessage",
    "GetQueueAttributes",
    "GetQueueUrl",
    "ListDeadLetterSourceQueues",
    "PurgeQueue",
    "ReceiveMessage",
    "SendMessage",
];

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Request {
    queue_url: Option<String>,
    label: Option<String>,
    #[serde(rename = "AWSAccountIds")]
    accounts: Option<Vec<String>>,
    actions: Option<Vec<String>>,
}

impl Operation for Request {
    type Answer = Nothing;

    async fn run(self, call: &Call<'_>) -> Result<Nothing, Error> {
        let name = call.name(self.queue_url.as_ref())?;
        let label = label(self.label)?;
        let accounts = self.accounts.filter(|list| !list.is_empty()).ok_or_else(|| Error::missing("AWSAccountIds"))?;
        let actions = self.actions.filter(|list| !list.is_empty()).ok_or_else(|| Error::missing("Actions"))?;
        check(&accounts, &actions)?;
        let arn = call.arn(&name);
        policy::change(call, &name, move |policy| add(policy, &arn, &label, &accounts, &actions)).await?;
        Ok(Nothing {})
    }
}

/// A statement's name.
pub(super) fn label(label: Option<String>) -> Result<String, Error> {
    let label = label.filter(|label| !label.is_empty()).ok_or_else(|| Error::missing("Label"))?;
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if label.len() <= LABEL_CHARS_MAX && label.bytes().all(is_allowed) {
        return Ok(label);
    }
    let reason = "Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length";
    Err(Error::value("Label", address::shown(&label), reason))
}

fn check(accounts: &[String], actions: &[String]) -> Result<(), Error> {
    if let Some(account) = accounts.iter().find(|account| !address::is_account(account)) {
        let reason = "An account is a number of 12 digits.";
        return Err(Error::value("AWSAccountIds", address::shown(account), reason));
    }
    if actions.len() > ACTIONS_MAX {
        let text = format!("{} Actions were found, maximum allowed is {ACTIONS_MAX}.", actions.len());
        return Err(Error::new(Code::OverLimit, text));
    }
    match actions.iter().find(|action| !ACTIONS.contains(&action.as_str())) {
        Some(action) => {
            let reason = "Please refer to the appropriate WSDL for a list of valid actions.";
            Err(Error::value("ActionName", format_args!("SQS:{}", address::shown(action)), reason))
        }
        None => Ok(()),
    }
}

fn add(policy: Option<Value>, arn: &str, label: &str, accounts: &[String], actions: &[String]) -> Result<Value, Error> {
    let mut policy = policy
        .unwrap_or_else(|| json!({"Version": "2008-10-17", "Id": format!("{arn}/SQSDefaultPolicy"), "Statement": []}));
    let statements = policy::statements(&mut policy)?;
    if statements.iter().any(|statement| policy::is_named(statement, label)) {
        return Err(Error::value("Label", label, "Already exists."));
    }
    let users: Vec<String> = accounts.iter().map(|account| format!("arn:aws:iam::{account}:root")).collect();
    let actions: Vec<String> = actions.iter().map(|action| format!("SQS:{action}")).collect();
    statements.push(json!({
        "Sid": label,
        "Effect": "Allow",
        "Principal": {"AWS": one_or_list(users)},
        "Action": one_or_list(actions),
        "Resource": arn,
    }));
    Ok(policy)
}

/// A list of one is written as its item.
fn one_or_list(mut list: Vec<String>) -> Value {
    match list.len() {
        1 => list.pop().into(),
        _ => list.into(),
    }
}
