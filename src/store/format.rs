//! The format of the store as a whole: its tables, its number, and whether this version can open it.

use redb::{Database, ReadTransaction, ReadableDatabase as _, TableHandle as _};

use super::checkpoint::{self, Covers};
use super::log::Position;
use super::meta::{FORMAT as FORMAT_ROW, STORE};
use super::table_id::{META, TABLES};
use super::{Error, Options, checksum, guard};

/// The format that this version writes, and the newest that it reads. See `docs/format.md`.
pub const FORMAT: u64 = 4;

/// Creates the tables of a new store.
///
/// # Errors
/// A storage fault.
pub(super) fn make_tables(db: &Database) -> Result<(), Error> {
    let transaction = db.begin_write()?;
    for table in TABLES {
        transaction.open_table(table.definition())?;
    }
    begin_life(&transaction)?;
    Ok(transaction.commit()?)
}

/// Creates the tables that this format has gained since the store was made.
///
/// # Errors
/// A storage fault.
pub(super) fn add_tables(db: &Database) -> Result<(), Error> {
    let known: Vec<String> = db.begin_read()?.list_tables()?.map(|table| table.name().to_owned()).collect();
    if TABLES.iter().all(|table| known.iter().any(|known| known == table.name)) {
        return Ok(());
    }
    let mut transaction = db.begin_write()?;
    transaction.set_quick_repair(true);
    for table in TABLES {
        transaction.open_table(table.definition())?;
    }
    Ok(transaction.commit()?)
}

/// Gives a store the rows of this format: a number of its own, and no log yet.
///
/// # Errors
/// A storage fault.
pub(super) fn begin_life(transaction: &redb::WriteTransaction) -> Result<(), Error> {
    checkpoint::put_number(transaction, FORMAT_ROW, FORMAT)?;
    checkpoint::put_number(transaction, STORE, rand::random())?;
    let through = Position { generation: 0, sequence: 0 };
    checkpoint::put_covers(transaction, Covers { through, is_log_open: false })
}

/// A format that this version can open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    One,
    Two,
    Three,
    Current,
}

/// Whether this version can open the store.
///
/// # Errors
/// It is no store, damaged, or of a newer version.
pub(super) fn check(transaction: &ReadTransaction, options: &Options) -> Result<Format, Error> {
    let path = &options.path;
    let damaged = |reason: String| Error::Damaged { path: path.clone(), reason };
    let meta = guard::table(META, || Ok(transaction.open_table(META.definition())?));
    let meta = meta.map_err(|_| damaged("it is a redb file without Nightmail's tables".into()))?;
    let key = FORMAT_ROW.as_bytes();
    let row = guard::table(META, || Ok(meta.get(key)?.map(|row| row.value().to_vec())))?;
    let row = row.ok_or_else(|| damaged("it names no format".into()))?;
    // Formats 1 and 2 have no checksums.
    let value = match row.len() {
        8 => &row[..],
        _ => checksum::open(META, key, &row).map_err(|why| damaged(format!("its format cannot be read: {why}")))?,
    };
    let found = u64::from_be_bytes(value.try_into().map_err(|_| damaged("its format is no number".into()))?);
    match found {
        0 => Err(damaged("it names format 0, which never was".into())),
        1 => Ok(Format::One),
        2 => Ok(Format::Two),
        3 | FORMAT if row.len() == 8 => Err(damaged("its format has no checksum".into())),
        3 => Ok(Format::Three),
        FORMAT => Ok(Format::Current),
        newer => Err(Error::Newer {
            path: path.clone(),
            found: u32::try_from(newer).unwrap_or(u32::MAX),
            known: u32::try_from(FORMAT).expect("the format number is small"),
        }),
    }
}
