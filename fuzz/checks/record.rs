//! Rows of every table: bytes that are no row are refused, and what decodes keeps its meaning when it is written again.

use nightmail::base::Attempt;
use nightmail::store::Record;
use nightmail::store::fuzzing::{self, TABLE_COUNT};
use nightmail::store::record::{
    Body, Counts, DedupRecord, EffectRecord, GroupRecord, Headed, IntentRecord, MessageState, QueueRecord,
    RecipientRecord, RedriveRecord, RedriveTotals, RunRecord, RunTotals, TickRecord, UniqueRecord, UserText,
};
use nightmail::store::tx::u32_record::U32;

use super::input::Input;

/// Decodes a row of the table that the first byte names: then come the key's length, the key and the value.
pub(crate) fn check(data: &[u8]) {
    let mut input = Input::of(data);
    let (table, key_bytes) = (input.byte() % TABLE_COUNT, usize::from(input.byte()));
    let key = input.take(key_bytes);
    let value = input.take(usize::MAX);
    // A value without room for a checksum is empty.
    let _ = fuzzing::row(table, key, value);
    let value = value.split_last_chunk::<4>().map_or(value, |(value, _)| value);
    round_trips(value);
    assert!(Body::decode(value).is_err() || Body::decode_head(value).is_ok(), "a body decodes and its head does not");
}

fn round_trips(value: &[u8]) {
    round_trip::<()>(value);
    round_trip::<u64>(value);
    round_trip::<U32>(value);
    round_trip::<Attempt>(value);
    round_trip::<Body>(value);
    round_trip::<Counts>(value);
    round_trip::<DedupRecord>(value);
    round_trip::<EffectRecord>(value);
    round_trip::<GroupRecord>(value);
    round_trip::<IntentRecord>(value);
    round_trip::<MessageState>(value);
    round_trip::<QueueRecord>(value);
    round_trip::<RecipientRecord>(value);
    round_trip::<RedriveRecord>(value);
    round_trip::<RedriveTotals>(value);
    round_trip::<RunRecord>(value);
    round_trip::<RunTotals>(value);
    round_trip::<TickRecord>(value);
    round_trip::<UniqueRecord>(value);
    round_trip::<UserText>(value);
}

/// An older version of a record is written as the newest one, which then stays the same.
fn round_trip<R: Record>(value: &[u8]) {
    let Ok(record) = R::decode(value) else { return };
    let written = record.encode();
    let name = std::any::type_name::<R>();
    let again = R::decode(&written).unwrap_or_else(|why| panic!("{name} does not read what it wrote: {why}"));
    assert_eq!(again.encode(), written, "{name} is another one after it was written");
}
