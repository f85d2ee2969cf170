//! Queue URLs and ARNs.

use super::Options;
use super::error::{Code, Error};

/// The name in a queue's URL, its path, or nothing but the name. The host is not looked at: behind a proxy, or by another
/// name of the machine, it is the same queue.
pub(super) fn name_in_url<'a>(url: &'a str, options: &Options) -> Result<&'a str, Error> {
    let path = url.split_once("://").map_or(url, |(_, rest)| rest);
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let mut parts = path.rsplit('/');
    let name = parts.next().filter(|name| !name.is_empty()).ok_or_else(|| {
        Error::new(Code::InvalidAddress, format!("The address {} is not valid for this endpoint.", shown(url)))
    })?;
    match parts.next() {
        // Only a number can be an account; in a bare `host/name` there is none.
        Some(account) if is_account(account) && account != options.account => Err(Error::no_queue()),
        _ => Ok(name),
    }
}

/// The queue's name in an ARN of this endpoint.
pub(super) fn name_in_arn<'a>(arn: &'a str, options: &Options) -> Option<&'a str> {
    let mut parts = arn.splitn(6, ':');
    let (prefix, partition, service) = (parts.next()?, parts.next()?, parts.next()?);
    let (region, account, name) = (parts.next()?, parts.next()?, parts.next()?);
    let is_ours = prefix == "arn" && partition.starts_with("aws") && service == "sqs";
    (is_ours && region == options.region && account == options.account).then_some(name)
}

/// The queue's ARN.
pub(super) fn arn(name: &str, options: &Options) -> String {
    format!("arn:aws:sqs:{}:{}:{name}", options.region, options.account)
}

/// Whether it is the number of an AWS account.
pub(super) fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The start of a text that a client gave, for an error.
pub(super) fn shown(text: &str) -> String {
    text.chars().take(200).collect()
}
