//! The parameters of a run on the command line.

use std::collections::BTreeMap;

use crate::api::control::Failure;
use crate::api::control::request::FailureKind;

pub(super) fn parse_param(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').map(|(key, value)| (key.trim(), value.trim()));
    match pair.filter(|(key, value)| !key.is_empty() && !value.is_empty()) {
        Some((key, value)) => Ok((key.into(), value.into())),
        None => Err(format!("{text:?} is not KEY=VALUE, e.g. period=2026-10")),
    }
}

/// The parameters by name; one that is given twice is refused, since only one of its values could count.
pub(super) fn params(given: Vec<(String, String)>) -> anyhow::Result<BTreeMap<String, String>> {
    let mut params = BTreeMap::new();
    for (name, value) in given {
        if let Some(first) = params.get(&name) {
            let text = format!("--param {name} is given twice, as {first:?} and {value:?} (give it once)");
            return Err(Failure { kind: FailureKind::Request, text }.into());
        }
        params.insert(name, value);
    }
    Ok(params)
}
