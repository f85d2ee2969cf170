//! The names and numbers of tables: redb knows them by name, the log by number.

/// A table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TableId {
    /// Its place in [`TABLES`], which is part of the format.
    pub(super) number: u8,
    /// Its name in redb.
    pub(super) name: &'static str,
}

impl TableId {
    /// The place of its rows in a list with one entry a table.
    pub(super) const fn index(self) -> usize {
        self.number as usize
    }

    /// The table with that number.
    pub(super) fn numbered(number: u8) -> Option<Self> {
        TABLES.get(usize::from(number)).copied()
    }

    /// Its definition in redb.
    pub(super) const fn definition(self) -> redb::TableDefinition<'static, &'static [u8], &'static [u8]> {
        redb::TableDefinition::new(self.name)
    }
}

/// All tables; they are made with the store. A new one goes to the end.
pub(super) const TABLES: [TableId; NAMES.len()] = {
    let mut tables = [TableId { number: 0, name: "" }; NAMES.len()];
    let mut number = 0;
    while number < NAMES.len() {
        tables[number] = TableId { number: number as u8, name: NAMES[number] };
        number += 1;
    }
    tables
};

const NAMES: [&str; 37] = [
    "meta",
    "queues",
    "queue_names",
    "counts",
    "bodies",
    "states",
    "ready",
    "timed",
    "suspects",
    "groups",
    "grouped",
    "expiries",
    "recent",
    "recent_times",
    "uniques",
    "history",
    "runs",
    "run_keys",
    "totals",
    "recipients",
    "ticks",
    "redrives",
    "redrive_totals",
    "intents",
    "effects",
    "user_records",
    "kept_attributes",
    "row_numbers",
    "letters",
    "letter_groups",
    "dead_letter_sources",
    "suppressions",
    "notifications",
    "announced",
    "run_controls",
    "mail_quotas",
    "run_paces",
];

/// The table of that name.
///
/// # Panics
/// While compiling, when there is none.
pub(super) const fn table(name: &str) -> TableId {
    let mut at = 0;
    while at < TABLES.len() {
        if is_same(NAMES[at].as_bytes(), name.as_bytes()) {
            return TABLES[at];
        }
        at += 1;
    }
    panic!("no table has that name")
}

const fn is_same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let mut at = 0;
    while at < a.len() {
        if a[at] != b[at] {
            return false;
        }
        at += 1;
    }
    true
}

/// The numbers of the store itself.
pub(super) const META: TableId = table("meta");
