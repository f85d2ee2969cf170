//! The transaction that the steps of a group share: its tables, counters and signals.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::base::Attempt;

use super::changes::{Changes, Mark};
use super::hints::Hints;
use super::layers::{Bytes, Layers};
use super::memtable::Memtable;
use super::meta::{LAST_ID, LAST_QUEUE};
use super::record::{
    Announced, Body, Counts, DedupRecord, Digest, EffectRecord, GroupRecord, IntentRecord, KeptAttributes,
    MessageState, NotificationRecord, QueueRecord, RecipientRecord, RedriveRecord, RedriveTotals, RunControl, RunPace,
    RunRecord, RunTotals, Shown, SuppressionRecord, TickRecord, UniqueRecord, UserText,
};
use super::table::{self, TableMut, TableRef};
use super::table_id::{self, TableId};
use super::{Error, Snapshot};

/// Declares the types of the tables once, for transactions and for snapshots.
macro_rules! tables {
    ($($(#[$doc:meta])+ $field:ident ($name:literal): $key:ty => $record:ty;)+) => {
        impl<'t> Tx<'t> {
            $($(#[$doc])+
            ///
            /// # Errors
            /// A storage fault.
            pub fn $field(&mut self) -> Result<TableMut<'_, 't, $key, $record>, Error> {
                const TABLE: TableId = table_id::table($name);
                Ok(TableMut::new(TABLE, &mut self.changes))
            })+
        }

        impl Snapshot {
            $($(#[$doc])+
            ///
            /// # Errors
            /// A storage fault.
            pub fn $field(&self) -> Result<TableRef<$key, $record>, Error> {
                const TABLE: TableId = table_id::table($name);
                Ok(TableRef::new(TABLE, self.layers().clone()))
            })+
        }

        /// Decodes one row; returns its key as text and what is wrong with it.
        pub(super) fn read_row(table: TableId, key: &[u8], value: &Bytes<'_>) -> Result<(), (String, String)> {
            match table.name {
                $($name => table::read_row::<$key, $record>(table, key, value),)+
                other => unreachable!("table {other} is declared nowhere"),
            }
        }
    };
}

tables! {
    /// Numbers of the store itself: `format`, the last id and the last queue number given out.
    meta ("meta"): String => u64;
    /// Queues by number.
    queues ("queues"): u32 => QueueRecord;
    /// Numbers of queues by name.
    queue_names ("queue_names"): String => u32_record::U32;
    /// Counts by queue.
    counts ("counts"): u32 => Counts;
    /// Bodies by inner id.
    bodies ("bodies"): u64 => Body;
    /// States by queue and sequence number, which is the order of sending.
    states ("states"): (u32, u64) => MessageState;
    /// Messages that can be received, by queue, priority and place: those without a group, and one of each group. The
    /// place is the sequence number, or the turn of a FIFO queue's group.
    ready ("ready"): (u32, u32, u64) => Shown;
    /// Delayed messages and messages in flight by queue, moment of becoming visible, and sequence number.
    timed ("timed"): (u32, u64, u64) => ();
    /// Suspects that wait to be tried alone, by queue, attempts charged and sequence number.
    suspects ("suspects"): (u32, u32, u64) => ();
    /// Message groups by queue and digest.
    groups ("groups"): (u32, Digest) => GroupRecord;
    /// Waiting messages of groups, by queue, group, priority and sequence number.
    grouped ("grouped"): (u32, Digest, u32, u64) => ();
    /// Messages that expire while they wait, by queue, moment and sequence number.
    expiries ("expiries"): (u32, u64, u64) => ();
    /// Deduplication entries, by queue and digest.
    dedup ("recent"): (u32, Digest) => DedupRecord;
    /// When deduplication entries expire, by queue, moment and digest.
    dedup_times ("recent_times"): (u32, u64, Digest) => ();
    /// Unique keys by queue and digest.
    uniques ("uniques"): (u32, Digest) => UniqueRecord;
    /// Attempts that failed by inner id and number.
    history ("history"): (u64, u32) => Attempt;
    /// Runs by number.
    runs ("runs"): u64 => RunRecord;
    /// Numbers of runs by identity: schedule and identifying parameters.
    run_keys ("run_keys"): String => u64;
    /// Totals by run.
    totals ("totals"): u64 => RunTotals;
    /// Recipients by run and hash of the user's id.
    recipients ("recipients"): (u64, [u8; 16]) => RecipientRecord;
    /// Ticks by schedule and the moment they are for.
    ticks ("ticks"): (String, u64) => TickRecord;
    /// Redrives by number.
    redrives ("redrives"): u64 => RedriveRecord;
    /// Outcomes of redriven letters, by redrive.
    redrive_totals ("redrive_totals"): u64 => RedriveTotals;
    /// Effects that attempts are about to have, by run and recipient; those with a purpose of their own by a hash of both.
    intents ("intents"): (u64, [u8; 16]) => IntentRecord;
    /// Effects beyond the first of a recipient, by run, recipient and digest of the purpose.
    effects ("effects"): (u64, [u8; 16], Digest) => EffectRecord;
    /// The recipients' user records, by run and hash of the user's id.
    user_records ("user_records"): (u64, [u8; 16]) => UserText;
    /// Attributes of queues that are kept for clients and mean nothing here, by queue.
    kept_attributes ("kept_attributes"): u32 => KeptAttributes;
    /// Queues by the numbers that the keys of their messages carry, or did before a purge; a number without a row is the
    /// queue's own.
    row_numbers ("row_numbers"): u32 => u32_record::U32;
    /// Dead letters by row number, class of the last failure, moment of death and sequence number.
    letters ("letters"): (u32, u64, u64, u64) => ();
    /// How many dead letters, by row number, class and the queue that they died from.
    letter_groups ("letter_groups"): (u32, u64, u32) => u64;
    /// The queues that name a dead-letter queue, by its name and their number.
    dead_letter_sources ("dead_letter_sources"): (String, u64) => ();
    /// The suppression list, by address in lower case.
    suppressions ("suppressions"): String => SuppressionRecord;
    /// What is owed to those who are told about runs, by a number of the store's series.
    notifications ("notifications"): u64 => NotificationRecord;
    /// What was announced, by run.
    announced ("announced"): u64 => Announced;
    /// What operators decided about runs, by run; a run without a row goes on by itself.
    run_controls ("run_controls"): u64 => RunControl;
    /// Mails that were begun, by relay and hour since 1970.
    mail_quotas ("mail_quotas"): (String, u64) => u64;
    /// How fast runs go, and how they stand to their deadlines, by run.
    run_paces ("run_paces"): u64 => RunPace;
}

/// The number stored under a queue's name.
pub mod u32_record {
    use super::super::Record;

    /// A 32-bit number on its own, big-endian.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct U32(pub u32);

    impl Record for U32 {
        fn encode(&self) -> Vec<u8> {
            self.0.to_be_bytes().to_vec()
        }

        fn decode(bytes: &[u8]) -> Result<Self, String> {
            let bytes = bytes.try_into().map_err(|_| format!("expected 4 bytes, found {}", bytes.len()))?;
            Ok(Self(u32::from_be_bytes(bytes)))
        }
    }
}

/// One write transaction, shared by the steps of a group. A step checks first and writes after, so that a refused step
/// writes nothing; if one did, the writer rolls its writes back.
pub struct Tx<'t> {
    changes: Changes<'t>,
    /// Counts of the queues that this group touched; written back at its end.
    touched_counts: BTreeMap<u32, Counts>,
    /// Totals of the runs that this group touched; written back at its end.
    touched_totals: BTreeMap<u64, RunTotals>,
    /// The last id given out, once a step needed it; written back at the group's end.
    last_id: Option<u64>,
    /// Topics whose subscribers are woken once the group is durable.
    signals: BTreeSet<u64>,
    /// What the current step changed in memory, oldest first; emptied by [`Tx::begin_step`].
    undo: Vec<Undo>,
    /// The writes of the steps before the current one; set by [`Tx::begin_step`].
    before_step: Mark,
}

/// A value in memory before the current step changed it.
#[derive(Debug)]
enum Undo {
    Counts(u32, Option<Counts>),
    /// Boxed, since it is much larger than the others, which most steps have alone.
    Totals(u64, Option<Box<RunTotals>>),
    LastId(Option<u64>),
}

impl<'t> Tx<'t> {
    pub(super) fn new(layers: &'t mut Layers, hints: &'t mut Hints) -> Self {
        Self {
            changes: Changes::new(layers, hints),
            touched_counts: BTreeMap::new(),
            touched_totals: BTreeMap::new(),
            last_id: None,
            signals: BTreeSet::new(),
            undo: Vec::new(),
            before_step: Mark::default(),
        }
    }

    /// Marks the point to which [`Tx::roll_back_step`] returns.
    pub(super) fn begin_step(&mut self) {
        self.undo.clear();
        self.before_step = self.changes.mark();
    }

    /// Whether the current step has written anything.
    pub(super) fn has_step_written(&self) -> bool {
        self.changes.mark() != self.before_step
    }

    /// Takes back what the current step wrote. A signal too many only makes its subscribers look once more.
    ///
    /// # Errors
    /// The writes of the other steps cannot be read: a bug.
    pub(super) fn roll_back_step(&mut self) -> Result<(), Error> {
        for undo in std::mem::take(&mut self.undo).into_iter().rev() {
            match undo {
                Undo::Counts(queue, counts) => restore(&mut self.touched_counts, queue, counts),
                Undo::Totals(run, totals) => {
                    restore(&mut self.touched_totals, run, totals.map(|totals| *totals));
                }
                Undo::LastId(last) => self.last_id = last,
            }
        }
        self.changes.roll_back(self.before_step)
    }

    /// A number greater than every one given out before, over the whole life of the store. Sequence numbers, body ids,
    /// arrival numbers, leases, runs and redrives share this one series.
    ///
    /// # Errors
    /// A storage fault.
    pub fn fresh_id(&mut self) -> Result<u64, Error> {
        let last = match self.last_id {
            Some(last) => last,
            None => self.meta()?.get(&LAST_ID.to_owned())?.unwrap_or(0),
        };
        self.changes.wrote();
        self.undo.push(Undo::LastId(self.last_id));
        self.last_id = Some(last + 1);
        Ok(last + 1)
    }

    /// A number for a queue or its rows, of a series of its own: keys carry it in 32 bits, which the series of
    /// [`Tx::fresh_id`] outgrows. Never given out twice.
    ///
    /// # Errors
    /// A storage fault.
    pub fn fresh_queue(&mut self) -> Result<u32, Error> {
        let last = self.meta()?.get(&LAST_QUEUE.to_owned())?.unwrap_or(0);
        self.meta()?.insert(&LAST_QUEUE.to_owned(), &(last + 1))?;
        Ok(u32::try_from(last + 1).expect("no store makes four thousand million queues"))
    }

    /// The queue of that number.
    ///
    /// # Errors
    /// A storage fault.
    pub fn queue(&mut self, id: u32) -> Result<Option<Arc<QueueRecord>>, Error> {
        if let Some(known) = self.changes.queues().get(id) {
            return Ok(Some(known));
        }
        let found = self.queues()?.get(&id)?.map(Arc::new);
        if let Some(queue) = &found {
            self.changes.queues().keep(id, queue.clone());
        }
        Ok(found)
    }

    /// The number of the queue of that name.
    ///
    /// # Errors
    /// A storage fault.
    pub fn queue_id(&mut self, name: &str) -> Result<Option<u32>, Error> {
        if let Some(known) = self.changes.queues().id(name) {
            return Ok(Some(known));
        }
        let found = self.queue_names()?.get(&name.to_owned())?.map(|number| number.0);
        if let Some(id) = found {
            self.changes.queues().keep_id(name, id);
        }
        Ok(found)
    }

    /// The number of the queue whose messages have keys with the number `rows`, or had before a purge.
    ///
    /// # Errors
    /// A storage fault.
    pub fn queue_of_rows(&mut self, rows: u32) -> Result<u32, Error> {
        if let Some(known) = self.changes.queues().of_rows(rows) {
            return Ok(known);
        }
        let found = self.row_numbers()?.get(&rows)?.map_or(rows, |number| number.0);
        self.changes.queues().keep_rows(rows, found);
        Ok(found)
    }

    /// The error for a record that contradicts another one. Like one that does not decode, it ends the group and stops
    /// the store.
    pub fn damaged(&self, table: &'static str, reason: String) -> Error {
        let fault = Error::Record { table, reason };
        let noted: Result<(), Error> = self.changes.note(Err(fault.clone()));
        noted.err().unwrap_or(fault)
    }

    /// The counts of a queue, for reading.
    ///
    /// # Errors
    /// A storage fault.
    pub fn counts_of(&mut self, queue: u32) -> Result<Counts, Error> {
        match self.touched_counts.get(&queue) {
            Some(counts) => Ok(*counts),
            None => Ok(self.counts()?.get(&queue)?.unwrap_or_default()),
        }
    }

    /// The counts of a queue, for writing.
    ///
    /// # Errors
    /// A storage fault.
    pub fn counts_mut(&mut self, queue: u32) -> Result<&mut Counts, Error> {
        let counts = self.counts_of(queue)?;
        self.changes.wrote();
        self.undo.push(Undo::Counts(queue, self.touched_counts.get(&queue).copied()));
        Ok(self.touched_counts.entry(queue).or_insert(counts))
    }

    /// Removes the counts of a deleted queue.
    ///
    /// # Errors
    /// A storage fault.
    pub fn forget_counts(&mut self, queue: u32) -> Result<(), Error> {
        let touched = self.touched_counts.remove(&queue);
        self.undo.push(Undo::Counts(queue, touched));
        self.counts()?.remove(&queue)?;
        Ok(())
    }

    /// The totals of a run, for reading.
    ///
    /// # Errors
    /// A storage fault.
    pub fn totals_of(&mut self, run: u64) -> Result<RunTotals, Error> {
        match self.touched_totals.get(&run) {
            Some(totals) => Ok(*totals),
            None => Ok(self.totals()?.get(&run)?.unwrap_or_default()),
        }
    }

    /// The totals of a run, for writing.
    ///
    /// # Errors
    /// A storage fault.
    pub fn totals_mut(&mut self, run: u64) -> Result<&mut RunTotals, Error> {
        let totals = self.totals_of(run)?;
        self.changes.wrote();
        self.undo.push(Undo::Totals(run, self.touched_totals.get(&run).copied().map(Box::new)));
        Ok(self.touched_totals.entry(run).or_insert(totals))
    }

    /// Wakes the subscribers of `topic` after the commit.
    pub fn signal(&mut self, topic: u64) {
        self.signals.insert(topic);
    }

    /// The first storage fault of this group.
    pub(super) fn failure(&self) -> Option<&Error> {
        self.changes.failure()
    }

    /// Whether the group has written anything so far.
    pub(super) fn has_written(&self) -> bool {
        self.changes.mark() != Mark::default()
    }

    /// The length of its writes so far, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.changes.bytes()
    }

    /// Writes back the counters kept in memory.
    ///
    /// # Errors
    /// A storage fault.
    pub(super) fn finish(mut self) -> Result<Finished, Error> {
        for (queue, counts) in std::mem::take(&mut self.touched_counts) {
            self.counts()?.insert(&queue, &counts)?;
        }
        for (run, totals) in std::mem::take(&mut self.touched_totals) {
            self.totals()?.insert(&run, &totals)?;
        }
        if let Some(last) = self.last_id {
            self.meta()?.insert(&LAST_ID.to_owned(), &last)?;
        }
        let (frame, before) = self.changes.finish();
        Ok(Finished { frame, before, signals: self.signals })
    }

    /// The topics to signal after a group that wrote nothing.
    pub(super) fn into_signals(self) -> BTreeSet<u64> {
        self.signals
    }
}

/// The results of a group that are to be made durable.
pub(super) struct Finished {
    /// Its writes, after the room for the frame's head.
    pub(super) frame: Vec<u8>,
    /// The newest rows before the group.
    pub(super) before: Memtable,
    /// Topics to signal once the frame is durable.
    pub(super) signals: BTreeSet<u64>,
}

/// Puts the value back that a map had before; `None` when it had none.
fn restore<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => drop(map.insert(key, value)),
        None => drop(map.remove(&key)),
    }
}
