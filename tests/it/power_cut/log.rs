//! Reads the log's bytes as `docs/format.md` describes them, and changes them to simulate a faulty recovery.

use super::disk::{Bytes, LOG, STORE};

const SECTOR_BYTES: usize = 512;
const START: usize = 8192;
const HEAD_BYTES: usize = 48;

fn number(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// The header of a record or mark.
#[derive(Clone, Copy)]
struct Head {
    at: usize,
    lap: u64,
    number: u64,
    length: usize,
    is_whole: bool,
}

fn checksum(record: &[u8]) -> [u8; 4] {
    crc32fast::hash(&[&record[..44], &record[HEAD_BYTES..]].concat()).to_be_bytes()
}

fn head(log: &[u8], at: usize) -> Option<Head> {
    let head = log.get(at..at + HEAD_BYTES).filter(|head| head.starts_with(b"nm-rec"))?;
    let length = u32::from_be_bytes(head[40..44].try_into().unwrap()) as usize;
    let is_whole = log.get(at..at + HEAD_BYTES + length).is_some_and(|record| checksum(record) == head[44..]);
    Some(Head { at, lap: number(head, 16), number: number(head, 24), length, is_whole })
}

/// The checkpoint of the newest header.
fn lap(log: &[u8]) -> u64 {
    let is_header = |at: &usize| crc32fast::hash(&log[*at..at + 32]).to_be_bytes() == log[at + 32..at + 36];
    [0, 4096].into_iter().filter(is_header).map(|at| number(log, at + 16)).max().unwrap()
}

/// The records of this lap, and the offset of the next one.
fn records(log: &[u8]) -> (Vec<Head>, usize) {
    let (lap, mut found, mut at) = (lap(log), Vec::new(), START);
    let mut next = lap + 1;
    while let Some(head) = head(log, at).filter(|head| head.is_whole && head.lap == lap && head.number == next) {
        found.push(head);
        at += (HEAD_BYTES + head.length).next_multiple_of(SECTOR_BYTES);
        next += 1;
    }
    (found, at)
}

/// Gives a record these numbers and a matching checksum.
fn forge(log: &mut [u8], head: Head, lap: u64, number: u64) {
    let end = (head.at + HEAD_BYTES + head.length).min(log.len());
    log[head.at + 16..head.at + 24].copy_from_slice(&lap.to_be_bytes());
    log[head.at + 24..head.at + 32].copy_from_slice(&number.to_be_bytes());
    let checksum = checksum(&log[head.at..end]);
    log[head.at + 44..head.at + 48].copy_from_slice(&checksum);
}

/// A replay that omits the last record.
pub(super) fn forget_last(bytes: &mut Bytes) {
    let log = &mut bytes[LOG];
    let (found, end) = records(log);
    if let Some(last) = found.last() {
        log[last.at..].fill(0);
        assert!(end <= log.len());
    }
}

/// A replay that ignores lap and number: it also takes old records behind the last one.
pub(super) fn take_earlier_laps(bytes: &mut Bytes) {
    let log = &mut bytes[LOG];
    let (found, end) = records(log);
    let lap = lap(log);
    if let Some(stale) = head(log, end).filter(|head| head.is_whole && head.length > 0) {
        forge(log, stale, lap, lap + found.len() as u64 + 1);
    }
}

/// A replay that ignores checksums.
pub(super) fn believe_torn(bytes: &mut Bytes) {
    let log = &mut bytes[LOG];
    let (found, end) = records(log);
    let (lap, next) = (lap(log), lap(log) + found.len() as u64 + 1);
    let torn = head(log, end).filter(|head| !head.is_whole && head.lap == lap && head.number == next);
    if let Some(torn) = torn.filter(|torn| torn.at + HEAD_BYTES + torn.length <= log.len()) {
        forge(log, torn, lap, next);
    }
}

/// Records without the rows that the group keeps in memory until its end.
pub(super) fn lack_counts(bytes: &mut Bytes) {
    let log = &mut bytes[LOG];
    let (found, _) = records(log);
    for head in found {
        let begin = head.at + HEAD_BYTES;
        let kept = without(&log[begin..begin + head.length], "counts");
        // The length stays the same: a second write of the last row fills the gap.
        let missing = head.length - kept.len();
        if missing == 0 {
            continue;
        }
        log[begin..begin + kept.len()].copy_from_slice(&kept);
        let filler = filler(missing);
        log[begin + kept.len()..begin + head.length].copy_from_slice(&filler);
        forge(log, head, head.lap, head.number);
    }
}

/// A write of exactly that many bytes to a table that nobody reads.
fn filler(bytes: usize) -> Vec<u8> {
    let value = bytes - 1 - 1 - 4 - 4;
    let mut out = vec![1, b'x', 0, 0, 0, 0];
    out.extend(u32::try_from(value).unwrap().to_be_bytes());
    out.resize(bytes, 0);
    out
}

fn without(writes: &[u8], table: &str) -> Vec<u8> {
    let length = |at: usize| u32::from_be_bytes(writes[at..at + 4].try_into().unwrap());
    let (mut out, mut at) = (Vec::new(), 0);
    while at < writes.len() {
        let name = at + 1..at + 1 + writes[at] as usize;
        let key_at = name.end + 4;
        let value_at = key_at + length(name.end) as usize + 4;
        let value = length(value_at - 4);
        let end = value_at + if value == u32::MAX { 0 } else { value as usize };
        if &writes[name] != table.as_bytes() {
            out.extend_from_slice(&writes[at..end]);
        }
        at = end;
    }
    out
}

/// A store whose commits lack the number of the record that they contain.
pub(super) fn lack_numbers(bytes: &mut Bytes) {
    let machine = super::disk::Machine::holding(bytes.clone());
    let disk = machine.disk(STORE);
    crate::support::tamper_on(disk, "meta", b"applied", &1_u64.to_be_bytes());
    *bytes = machine.content();
}
