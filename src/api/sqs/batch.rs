//! What the three batch actions share: the rules for entries, and the answer for each of them.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::queue;

use super::error::{Code, Error};

/// The most entries of a batch.
const ENTRIES_MAX: usize = 10;
const ID_CHARS_MAX: usize = 80;

/// An entry that was refused.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Failed {
    id: String,
    sender_fault: bool,
    code: &'static str,
    message: String,
}

/// The answer to a batch: each entry stands in one of the lists.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Answer<T> {
    successful: Vec<T>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    failed: Vec<Failed>,
}

/// An entry that succeeded and has nothing more to say.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Done {
    pub(super) id: String,
}

impl<T> Answer<T> {
    /// Sorts what became of the entries, whose ids are in the same order.
    pub(super) fn of(ids: Vec<String>, results: Vec<Result<T, Error>>) -> Self {
        let mut answer = Self { successful: Vec::new(), failed: Vec::new() };
        for (id, result) in ids.into_iter().zip(results) {
            match result {
                Ok(done) => answer.successful.push(done),
                Err(error) => answer.failed.push(failed(id, error)),
            }
        }
        answer
    }
}

impl Answer<Done> {
    /// Sorts what became of entries that have no more to say than their ids.
    pub(super) fn done(ids: Vec<String>, results: Vec<Result<(), Error>>) -> Self {
        let results = ids.iter().zip(results).map(|(id, result)| result.map(|()| Done { id: id.clone() })).collect();
        Self::of(ids, results)
    }
}

/// The entries of a batch that name receipt handles: those that read, and what is wrong with the others.
#[derive(Debug)]
pub(super) struct Handled<T> {
    pub(super) sound: Vec<T>,
    /// In the order of the entries; `Ok` for each of `sound`.
    entries: Vec<Result<(), Error>>,
}

impl<T> Default for Handled<T> {
    fn default() -> Self {
        Self { sound: Vec::new(), entries: Vec::new() }
    }
}

impl<T> Handled<T> {
    pub(super) fn add(&mut self, entry: Result<T, Error>) {
        self.entries.push(entry.map(|entry| self.sound.push(entry)));
    }

    /// What became of all entries, when `results` is what became of `sound`. `texts` are the handles as they were given.
    pub(super) fn join<'a, R>(
        self,
        results: Vec<Result<R, queue::Error>>,
        texts: impl Iterator<Item = Option<&'a String>>,
        refused: impl Fn(queue::Error, Option<&String>) -> Error,
    ) -> Vec<Result<(), Error>> {
        let mut results = results.into_iter();
        let join = |(entry, text): (Result<(), Error>, _)| {
            entry?;
            let result = results.next().expect("each entry that was given has a result");
            result.map(drop).map_err(|error| refused(error, text))
        };
        self.entries.into_iter().zip(texts).map(join).collect()
    }
}

fn failed(id: String, error: Error) -> Failed {
    Failed { id, sender_fault: error.code.status() < 500, code: error.code.query(), message: error.message }
}

/// The ids of a batch's entries, checked.
pub(super) fn check_ids<'a>(entry: &str, ids: impl Iterator<Item = Option<&'a String>>) -> Result<Vec<String>, Error> {
    let ids: Vec<Option<&String>> = ids.collect();
    if ids.is_empty() {
        let text = format!("There should be at least one {entry} in the request.");
        return Err(Error::new(Code::EmptyBatchRequest, text));
    }
    if ids.len() > ENTRIES_MAX {
        let text = format!("Maximum number of entries per request are {ENTRIES_MAX}. You have sent {}.", ids.len());
        return Err(Error::new(Code::TooManyEntriesInBatchRequest, text));
    }
    let mut seen = BTreeSet::new();
    for id in &ids {
        let id = id.ok_or_else(|| Error::missing("Id"))?;
        if !is_id(id) {
            let text = "A batch entry id can only contain alphanumeric characters, hyphens and underscores. It can be at \
                        most 80 letters long.";
            return Err(Error::new(Code::InvalidBatchEntryId, text));
        }
        if !seen.insert(id.as_str()) {
            return Err(Error::new(Code::BatchEntryIdsNotDistinct, format!("Id {id} repeated.")));
        }
    }
    Ok(ids.into_iter().flatten().cloned().collect())
}

fn is_id(id: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=ID_CHARS_MAX).contains(&id.len()) && id.bytes().all(is_allowed)
}
