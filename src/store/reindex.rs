//! Fills the indexes that format 4 has added, after an upgrade: dead letters by their class, and queues by the dead-letter
//! queue that they name. Runs when the log is applied, because that holds letters too; one durable transaction.

use std::collections::BTreeMap;

use redb::{Database, ReadableDatabase, ReadableTable, WriteTransaction};

use crate::base::Attempt;

use super::key::Key;
use super::record::{LetterClass, MessageState, QueueRecord, Record};
use super::table_id::{self, META, TableId};
use super::upgrade::decode;
use super::{Error, checksum, meta};

const STATES: TableId = table_id::table("states");
const HISTORY: TableId = table_id::table("history");
const QUEUES: TableId = table_id::table("queues");
const LETTERS: TableId = table_id::table("letters");
const LETTER_GROUPS: TableId = table_id::table("letter_groups");
const DEAD_LETTER_SOURCES: TableId = table_id::table("dead_letter_sources");

/// Fills the indexes, unless they are filled already.
///
/// # Errors
/// A storage fault, or a row that cannot be read.
pub(super) fn fill(db: &Database) -> Result<(), Error> {
    let row = meta::UNINDEXED.as_bytes();
    if db.begin_read()?.open_table(META.definition())?.get(row)?.is_none() {
        return Ok(());
    }
    let mut transaction = db.begin_write()?;
    transaction.set_quick_repair(true);
    letters(&transaction)?;
    sources(&transaction)?;
    transaction.open_table(META.definition())?.remove(row)?;
    Ok(transaction.commit()?)
}

fn letters(transaction: &WriteTransaction) -> Result<(), Error> {
    let (states, history) =
        (transaction.open_table(STATES.definition())?, transaction.open_table(HISTORY.definition())?);
    let mut letters = transaction.open_table(LETTERS.definition())?;
    let mut groups: BTreeMap<(u32, u64, u32), u64> = BTreeMap::new();
    for row in states.range::<&[u8]>(..)? {
        let (key, value) = row?;
        let state: MessageState = decode(STATES, key.value(), value.value())?;
        let Some((queue, sequence)) = <(u32, u64)>::from_bytes(key.value()).filter(|_| state.source != 0) else {
            continue;
        };
        let (first, last) = ((state.body, 0_u32).to_bytes(), (state.body, u32::MAX).to_bytes());
        let last = history.range::<&[u8]>(&*first..=&*last)?.next_back().transpose()?;
        let last: Option<Attempt> = last.map(|(key, value)| decode(HISTORY, key.value(), value.value())).transpose()?;
        let class = LetterClass::of(last.as_ref());
        let died_at = last.map_or(state.sent_at, |last| last.ended_at).as_millis();
        *groups.entry((queue, class.0, state.source)).or_default() += 1;
        let key = (queue, class.0, died_at, sequence).to_bytes();
        letters.insert(&*key, checksum::seal(LETTERS, &key, ().encode()).as_slice())?;
    }
    let mut counters = transaction.open_table(LETTER_GROUPS.definition())?;
    for (group, count) in groups {
        let key = group.to_bytes();
        counters.insert(&*key, checksum::seal(LETTER_GROUPS, &key, count.encode()).as_slice())?;
    }
    Ok(())
}

fn sources(transaction: &WriteTransaction) -> Result<(), Error> {
    let queues = transaction.open_table(QUEUES.definition())?;
    let mut sources = transaction.open_table(DEAD_LETTER_SOURCES.definition())?;
    for row in queues.range::<&[u8]>(..)? {
        let (key, value) = row?;
        let queue: QueueRecord = decode(QUEUES, key.value(), value.value())?;
        if let (Some((target, _)), None) = (queue.attributes.redrive, queue.deleted_at) {
            let key = (target, u64::from(queue.id)).to_bytes();
            sources.insert(&*key, checksum::seal(DEAD_LETTER_SOURCES, &key, ().encode()).as_slice())?;
        }
    }
    Ok(())
}
