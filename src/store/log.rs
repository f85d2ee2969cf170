//! The log as the store sees it: frames one after another, durable once they are synced, and needed until a checkpoint
//! has made their writes durable elsewhere.
//!
//! A frame is complete physical redo (tables, keys, new bytes or removals), so that whoever applies all of them in order
//! has the same store. Nothing here knows files or redb: a replicated log can implement the same traits. The
//! implementation of today is [`super::file_log`].

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::Error;

/// A place in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    /// Raised by each claim and whenever the log's space is used again; no two writers share one.
    pub(super) generation: u64,
    /// Frames are numbered without a gap, through all generations.
    pub(super) sequence: u64,
}

/// A log that nobody writes to yet.
pub(super) trait UnclaimedLog {
    /// Passes on the writes of every frame that the store lacks, in order, and returns where they end: the last frame's
    /// sequence, and a generation that no frame exceeds. Changes nothing.
    fn replay(&self, apply: &mut dyn FnMut(&[u8]) -> Result<(), Error>) -> Result<Position, ReadError>;

    /// Takes the log over: from now on only frames of later generations than that of [`Log::end`] are accepted, and they
    /// go after the frame at `end`, as [`UnclaimedLog::replay`] returned it. The caller makes the claim durable together
    /// with what it has replayed, before the first frame.
    fn claim(self, end: Position) -> Result<Box<dyn Log>, ReadError>;
}

/// A log that this process writes to.
pub(super) trait Log: Send + fmt::Debug {
    /// The last frame that was written, or covered by a checkpoint instead.
    fn end(&self) -> Position;

    /// The last sequence that is known to be durable.
    fn durable_through(&self) -> u64;

    /// The free space of a new generation. The writer plans with a copy of its own.
    fn space(&self) -> Space;

    /// Writes a frame, which has room for its head, behind [`Log::end`]. When it begins a generation, all frames before
    /// it are made durable first. It is durable itself after [`Log::sync`].
    fn append(&mut self, at: Position, frame: Vec<u8>) -> Result<(), WriteError>;

    /// Returns once all frames are durable.
    fn sync(&mut self) -> Result<(), WriteError>;

    /// Called after a sync when no frame follows soon: whatever the log needs to notice the loss of its last frame.
    fn rest(&mut self) -> Result<(), WriteError>;

    /// Gives up the frames of this generation and those before it: a checkpoint has made their writes durable. When it
    /// covers more than was ever written, the next frame goes behind what it covers.
    fn trim(&mut self, through: Position) -> Result<(), WriteError>;
}

/// Why a log cannot be read or claimed. The caller knows the path of the store.
#[derive(Debug)]
pub(super) enum ReadError {
    /// It cannot be reached.
    Unavailable {
        /// What cannot: a file's path, an address.
        place: String,
        error: io::Error,
    },
    /// The frames right after the store's last checkpoint are gone, and later ones are there: the store is older than its
    /// log.
    Trimmed {
        /// The last sequence that the store holds.
        covered: u64,
        /// The last that the log holds.
        last: u64,
    },
    /// What it holds is damaged, or not its own.
    Corrupt { place: String, reason: String },
}

impl ReadError {
    /// The refusal of the store at `path`.
    pub(super) fn of_store(self, path: &Path) -> Error {
        match self {
            Self::Unavailable { place, error } => Error::of_open(Path::new(&place), &error),
            Self::Corrupt { place, reason } => Error::Damaged { path: PathBuf::from(place), reason },
            Self::Trimmed { covered, last } => Error::Damaged {
                path: path.to_owned(),
                reason: format!(
                    "it is older than its log, or the first frames of the log cannot be read: it ends with frame \
                     {covered}, the log with frame {last} or later"
                ),
            },
        }
    }
}

/// Why a frame is not durable. Any of them stops the store.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    /// Somebody else has claimed the log since.
    #[error("generation {generation} may not write to it, another claim came after")]
    Fenced { generation: u64 },
    /// A write failed. It may be there or not, and a sync cannot be repeated.
    #[error("{0}")]
    Unknown(#[from] io::Error),
    /// There is no room before a checkpoint has been made.
    #[error("it is full up to frame {sequence}, which no checkpoint covers")]
    Full { sequence: u64 },
    /// No generation has room for the frame.
    #[error("a frame of {bytes} bytes is larger than its space")]
    TooLarge { bytes: usize },
}

impl From<WriteError> for Error {
    fn from(error: WriteError) -> Self {
        Self::Storage(format!("the log: {error}"))
    }
}

/// The space of one generation. The writer and the log each keep one and advance it by the same rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Space {
    used: u64,
    bytes: u64,
    /// A frame takes a multiple of this.
    unit: u64,
}

impl Space {
    /// So many bytes for frames, each of which takes a multiple of `unit`.
    pub(super) const fn empty(bytes: u64, unit: u64) -> Self {
        Self { used: 0, bytes, unit }
    }

    /// Reserves room for a frame, its head included, and returns where it goes; `None` when it does not fit.
    pub(super) fn take(&mut self, frame_bytes: usize) -> Option<u64> {
        let (at, end) = (self.used, self.used + (frame_bytes as u64).next_multiple_of(self.unit));
        (end <= self.bytes).then(|| {
            self.used = end;
            at
        })
    }

    /// How many bytes are used: where the next frame goes.
    pub(super) const fn used(self) -> u64 {
        self.used
    }

    /// How much of it is used, in thousandths.
    pub(super) const fn used_thousandths(self) -> u64 {
        self.used * 1000 / self.bytes
    }

    /// The same space with all of it free.
    pub(super) const fn emptied(self) -> Self {
        Self { used: 0, ..self }
    }
}
