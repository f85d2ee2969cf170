//! Stores what the sink receives: mail and PDF files, the journal, the record of deliveries. Everything is written
//! before the mail is acknowledged.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

use super::deliveries::{Deliveries, Record, Summary, Violation, ViolationKind};
use super::examine::{self, Examined};
use super::{DELIVERIES_MAX, Error, Options, RAW_BYTES_MAX};

/// A file name carries this much of the recipient, in characters.
const NAME_CHARS_MAX: usize = 100;
/// The detail of a violation has at most this many characters.
const DETAIL_CHARS_MAX: usize = 1000;

/// A mail as the session received it.
pub(super) struct Received {
    /// The connection, counted from 1.
    pub(super) connection: u64,
    /// The envelope's recipients.
    pub(super) recipients: Vec<String>,
    /// The whole mail, unstuffed.
    pub(super) raw: Vec<u8>,
    /// What the session found wrong with it.
    pub(super) violations: Vec<(ViolationKind, String)>,
}

/// Why a mail cannot be kept.
#[derive(Debug)]
pub(super) enum NotKept {
    /// [`RAW_BYTES_MAX`] or [`DELIVERIES_MAX`] is reached.
    Full,
    /// A file cannot be written.
    File,
}

/// Where mails are stored, and the record of all deliveries.
pub(super) struct Store {
    keep: Option<PathBuf>,
    pdf_dir: Option<PathBuf>,
    keep_raw: bool,
    records_max: usize,
    /// The last delivery's number.
    numbers: AtomicU64,
    connections: AtomicU64,
    turned_away: AtomicU64,
    not_kept: AtomicU64,
    raw_bytes: AtomicU64,
    ledger: Mutex<Ledger>,
    /// Told after each delivery.
    delivered: Notify,
}

/// What must change together.
struct Ledger {
    deliveries: Deliveries,
    journal: Option<File>,
}

impl Store {
    /// Makes the directories and takes over what the journal says.
    pub(super) fn open(options: &Options) -> Result<Self, Error> {
        for path in [&options.keep, &options.pdf_dir].into_iter().flatten() {
            std::fs::create_dir_all(path).map_err(|source| Error::Directory { path: path.clone(), source })?;
        }
        let mut deliveries = Deliveries::default();
        let mut last = 0;
        let mut journal = None;
        if let Some(path) = &options.journal {
            journal = Some(resume(path, |record| {
                last = last.max(record.number);
                note_violations(&mut deliveries, &record);
                deliveries.deliver(record, options.records_max);
            })?);
        }
        Ok(Self {
            keep: options.keep.clone(),
            pdf_dir: options.pdf_dir.clone(),
            keep_raw: options.keep_raw_in_memory,
            records_max: options.records_max,
            numbers: AtomicU64::new(last),
            connections: AtomicU64::new(0),
            turned_away: AtomicU64::new(0),
            not_kept: AtomicU64::new(0),
            raw_bytes: AtomicU64::new(0),
            ledger: Mutex::new(Ledger { deliveries, journal }),
            delivered: Notify::new(),
        })
    }

    /// Counts a connection and numbers it from 1.
    pub(super) fn connected(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Counts a connection that was one too many.
    pub(super) fn turned_away(&self) {
        self.turned_away.fetch_add(1, Ordering::Relaxed);
    }

    /// Stores a mail everywhere that the options ask for; returns the number of its last delivery.
    pub(super) async fn deliver(&self, received: Received) -> Result<u64, NotKept> {
        let kept = self.try_deliver(received).await;
        if kept.is_err() {
            self.not_kept.fetch_add(1, Ordering::Relaxed);
        }
        kept
    }

    async fn try_deliver(&self, received: Received) -> Result<u64, NotKept> {
        let Received { connection, recipients, raw, mut violations } = received;
        let mut examined = examine::examine(&raw, &recipients, self.pdf_dir.is_some());
        violations.append(&mut examined.violations);
        self.make_room(raw.len(), recipients.len())?;
        let raw = Bytes::from(raw);
        let mut last = 0;
        for recipient in recipients {
            let number = self.numbers.fetch_add(1, Ordering::Relaxed) + 1;
            self.write_files(number, &recipient, &raw, &examined).await.map_err(|_| NotKept::File)?;
            let record = Record {
                raw: self.keep_raw.then(|| raw.clone()),
                ..record(number, connection, recipient, raw.len(), &examined, &violations)
            };
            self.enter(record, &violations).map_err(|_| NotKept::File)?;
            last = number;
        }
        self.delivered.notify_waiters();
        Ok(last)
    }

    /// Counts a mail against the limits.
    fn make_room(&self, raw_bytes: usize, recipients: usize) -> Result<(), NotKept> {
        if self.lock().deliveries.total() + recipients as u64 > DELIVERIES_MAX {
            return Err(NotKept::Full);
        }
        let taken = if self.keep_raw { raw_bytes as u64 } else { 0 };
        if self.raw_bytes.fetch_add(taken, Ordering::Relaxed) + taken > RAW_BYTES_MAX {
            self.raw_bytes.fetch_sub(taken, Ordering::Relaxed);
            return Err(NotKept::Full);
        }
        Ok(())
    }

    async fn write_files(&self, number: u64, to: &str, raw: &[u8], examined: &Examined) -> io::Result<()> {
        if let Some(directory) = &self.keep {
            tokio::fs::write(directory.join(file_name(number, to, "eml")), raw).await?;
        }
        if let (Some(directory), Some(pdf)) = (&self.pdf_dir, &examined.pdf_bytes) {
            tokio::fs::write(directory.join(file_name(number, to, "pdf")), pdf).await?;
        }
        Ok(())
    }

    /// Writes the journal's line; only then is the delivery counted.
    fn enter(&self, record: Record, violations: &[(ViolationKind, String)]) -> io::Result<()> {
        let mut ledger = self.lock();
        let Ledger { deliveries, journal } = &mut *ledger;
        if let Some(journal) = journal {
            let mut line = serde_json::to_vec(&record)?;
            line.push(b'\n');
            journal.write_all(&line)?;
        }
        for (kind, detail) in violations {
            let (connection, number) = (record.connection, Some(record.number));
            deliveries.violation(Violation { connection, number, kind: *kind, detail: detail.clone() });
        }
        deliveries.deliver(record, self.records_max);
        Ok(())
    }

    /// Records a violation outside an accepted mail.
    pub(super) fn violation(&self, connection: u64, kind: ViolationKind, detail: &str) {
        let detail = one_line(detail);
        self.lock().deliveries.violation(Violation { connection, number: None, kind, detail });
    }

    /// What has been seen so far.
    pub(super) fn summary(&self) -> Summary {
        let summary = self.lock().deliveries.summary();
        Summary {
            connections: self.connections.load(Ordering::Relaxed),
            turned_away: self.turned_away.load(Ordering::Relaxed),
            not_kept: self.not_kept.load(Ordering::Relaxed),
            ..summary
        }
    }

    /// The deliveries so far.
    pub(super) fn records(&self) -> Vec<Record> {
        self.lock().deliveries.records()
    }

    /// Waits until `total` deliveries are recorded.
    pub(super) async fn received(&self, total: u64) {
        loop {
            let mut next = std::pin::pin!(self.delivered.notified());
            // Subscribe before checking, so that no delivery is missed in between.
            next.as_mut().enable();
            if self.lock().deliveries.total() >= total {
                return;
            }
            next.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A delivery's record without the raw mail.
fn record(
    number: u64,
    connection: u64,
    recipient: String,
    mail_bytes: usize,
    examined: &Examined,
    violations: &[(ViolationKind, String)],
) -> Record {
    Record {
        number,
        connection,
        recipient,
        message_id: examined.message_id.clone(),
        from: examined.from.clone(),
        to: examined.to.clone(),
        to_name: examined.to_name.clone(),
        subject: examined.subject.clone(),
        mail_bytes: mail_bytes as u64,
        pdf: examined.pdf.clone(),
        violations: violations.iter().map(|(kind, _)| *kind).collect(),
        raw: None,
    }
}

/// What a record of an earlier life says was wrong.
fn note_violations(deliveries: &mut Deliveries, record: &Record) {
    for kind in &record.violations {
        let detail = "from the journal".into();
        deliveries.violation(Violation {
            connection: record.connection,
            number: Some(record.number),
            kind: *kind,
            detail,
        });
    }
}

/// Opens the journal to append, after reading it. A last line without its end was never acknowledged and is cut off.
fn resume(path: &Path, mut each: impl FnMut(Record)) -> Result<File, Error> {
    let failed = |source| Error::Journal { path: path.into(), source };
    let file = OpenOptions::new().read(true).append(true).create(true).open(path).map_err(failed)?;
    let mut reader = BufReader::new(&file);
    let (mut whole_bytes, mut number, mut line) = (0, 0, Vec::new());
    loop {
        line.clear();
        let bytes = reader.read_until(b'\n', &mut line).map_err(failed)?;
        if line.last() != Some(&b'\n') {
            break;
        }
        number += 1;
        whole_bytes += bytes as u64;
        let record = serde_json::from_slice(&line);
        each(record.map_err(|source| Error::JournalLine { path: path.into(), line: number, source })?);
    }
    if !line.is_empty() {
        file.set_len(whole_bytes).map_err(failed)?;
    }
    Ok(file)
}

/// What a client sent, as one bounded line: control characters are escaped, and a long text ends with `…`.
fn one_line(text: &str) -> String {
    let mut chars = text.chars();
    let mut line: String = chars.by_ref().take(DETAIL_CHARS_MAX).collect();
    if chars.next().is_some() {
        line.push('…');
    }
    line.chars().map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() }).collect()
}

/// `<n>-<recipient>.<extension>`, a plain name in its directory whatever the recipient is.
fn file_name(number: u64, recipient: &str, extension: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "@.+-_".contains(c) { c } else { '_' };
    let recipient: String = recipient.chars().take(NAME_CHARS_MAX).map(plain).collect();
    format!("{number}-{recipient}.{extension}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_name_never_leaves_its_directory() {
        assert_eq!(file_name(1, "u-000001@example.test", "eml"), "1-u-000001@example.test.eml");
        assert_eq!(file_name(2, "\"../../etc/passwd\0\"@x", "pdf"), "2-_.._.._etc_passwd__@x.pdf");
        assert!(file_name(3, &"ä".repeat(500), "eml").len() < 120);
    }

    #[test]
    fn what_a_client_sent_is_one_bounded_line() {
        assert_eq!(one_line("Zoë\r\nQUIT\u{1b}[2J"), "Zoë\\r\\nQUIT\\u{1b}[2J");
        assert_eq!(one_line(&"ä".repeat(DETAIL_CHARS_MAX)), "ä".repeat(DETAIL_CHARS_MAX));
        assert_eq!(one_line(&"ä".repeat(5000)), format!("{}…", "ä".repeat(DETAIL_CHARS_MAX)));
    }
}
