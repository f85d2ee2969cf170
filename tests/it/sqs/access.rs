//! Who may call: signatures as boto3 makes them, and keys of limited rights.

use super::Endpoint;
use super::clients::{python, run, tool};
use crate::harness::Harness;

/// The keys that `tests/clients/boto3_access.py` calls with.
const KEYS: &str = r#"
[api.sqs.keys.admin]
id = "AKIAADMIN"
secret = { env = "ADMIN_SECRET" }
[api.sqs.keys.next]
id = "AKIANEXT"
secret = { env = "NEXT_SECRET" }
[api.sqs.keys.reader]
id = "AKIAREADER"
secret = { env = "READER_SECRET" }
queues = ["orders-*"]
actions = ["Receive*", "Delete*", "List*", "GetQueueUrl", "CreateQueue"]
"#;

async fn with_keys() -> Endpoint {
    let mut harness = Harness::with_users(0).await;
    harness.add_sections(KEYS);
    for (name, secret) in [("ADMIN", "admin's secret/+"), ("NEXT", "next secret"), ("READER", "reader secret")] {
        harness.set_variable(&format!("{name}_SECRET"), secret);
    }
    Endpoint::of(harness).await
}

#[tokio::test(flavor = "multi_thread")]
async fn signatures_and_rights_decide_over_each_request() {
    for boto3 in ["boto3", "boto3-query"] {
        let Some(tool) = tool(boto3) else { continue };
        let endpoint = with_keys().await;
        let mut command = python(&tool, "boto3_access.py");
        command.arg(endpoint.url());
        run(command).await;
        endpoint.daemon.stop().await;
    }
}
