//! Faults of recovery, simulated by changing the image that the correct recovery reads.

use super::disk::{Bytes, LOGS, Machine, STORE};
use super::log::{self, HEAD_BYTES, Head, START, Write};
use crate::support::{meta_on, table_number, tamper_on};

/// A faulty recovery.
pub(super) type Meddle = fn(&mut Bytes);

/// Leaves the last frame out.
pub(super) fn forget_last(bytes: &mut Bytes) {
    if let Some((disk, last)) = log::last_frame(bytes) {
        bytes[disk][last.at..].fill(0);
    }
}

/// Looks at no checksum.
pub(super) fn believe_torn(bytes: &mut Bytes) {
    if let Some((disk, torn)) = torn(bytes) {
        torn.forge(&mut bytes[disk]);
    }
}

/// Takes the first half of a group whose second half is torn: what a group in two frames leaves.
pub(super) fn take_half(bytes: &mut Bytes) {
    let Some((disk, torn)) = torn(bytes) else { return };
    let writes = Write::all(torn.writes(&bytes[disk]));
    // A group is a number of rows: half of it is at least one, and not all.
    let half = writes.iter().take_while(|write| write.is_sound()).take(writes.len() / 2);
    let length = half.map(|write| write.encode().len()).sum();
    if length > 0 {
        Head { length, ..torn }.forge(&mut bytes[disk]);
    }
}

/// The frame in flight, when the power cut has torn it: it stands where the next one is expected.
fn torn(bytes: &Bytes) -> Option<(usize, Head)> {
    let (disk, last) = log::last_frame(bytes)?;
    let other = LOGS.into_iter().find(|other| *other != disk)?;
    let at = |disk: usize, at| Head::read(&bytes[disk], at).map(|head| (disk, head));
    let is_torn = |(_, head): &(usize, Head)| !head.is_whole && !head.is_mark() && head.sequence == last.sequence + 1;
    let behind = at(disk, last.end()).filter(is_torn).filter(|(_, head)| head.generation == last.generation);
    behind.or_else(|| at(other, START).filter(is_torn).filter(|(_, head)| head.generation == last.generation + 1))
}

/// Looks at no generation: takes each frame whose sequence fits.
pub(super) fn take_other_generations(bytes: &mut Bytes) {
    for disk in LOGS {
        let segment = &mut bytes[disk];
        let Some(mut last) = Head::read(segment, START).filter(|head| head.is_whole && !head.is_mark()) else {
            continue;
        };
        while let Some(next) = Head::read(segment, last.end()).filter(|head| head.is_whole && !head.is_mark())
            && next.sequence == last.sequence + 1
        {
            last = Head { generation: last.generation, ..next };
            last.forge(segment);
        }
    }
}

/// The frames lack the counts of the queues.
pub(super) fn lack_counts(bytes: &mut Bytes) {
    lack(bytes, |write| write.table == table_number("counts"));
}

/// The frames lack the last id given out.
pub(super) fn lack_last_id(bytes: &mut Bytes) {
    lack(bytes, |write| write.table == table_number("meta") && write.key == b"last-id");
}

fn lack(bytes: &mut Bytes, is_lacking: fn(&Write) -> bool) {
    for disk in LOGS {
        let segment = &mut bytes[disk];
        for frame in log::run(segment).0 {
            let mut writes = Write::all(frame.writes(segment));
            writes.retain(|write| !is_lacking(write));
            let mut writes: Vec<u8> = writes.iter().flat_map(Write::encode).collect();
            if writes.len() < frame.length {
                writes.extend(filler(frame.length - writes.len()));
            }
            segment[frame.at + HEAD_BYTES..][..frame.length].copy_from_slice(&writes);
            frame.forge(segment);
        }
    }
}

/// A write of exactly that many bytes that changes nothing: it removes a row that is not there.
fn filler(bytes: usize) -> Vec<u8> {
    let empty = Write { table: table_number("run_keys"), key: Vec::new(), stored: None };
    let key = vec![b'x'; bytes - empty.encode().len()];
    Write { key, ..empty }.encode()
}

/// The commits name one frame more than they hold.
pub(super) fn cover_one_more(bytes: &mut Bytes) {
    change_sequence(bytes, |sequence| sequence + 1);
}

/// The commits name one frame less than they hold.
pub(super) fn cover_one_less(bytes: &mut Bytes) {
    change_sequence(bytes, |sequence| sequence - 1);
}

fn change_sequence(bytes: &mut Bytes, change: fn(u64) -> u64) {
    let machine = Machine::holding(bytes.clone());
    let sequence = change(meta_on(machine.disk(STORE), "sequence"));
    tamper_on(machine.disk(STORE), "meta", b"sequence", &sequence.to_be_bytes());
    *bytes = machine.content();
}
