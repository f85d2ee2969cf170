//! How much the store's log holds, read from its two segments while a store writes them; `docs/format.md` describes the
//! bytes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::Context;

/// Where frames begin, and the unit of their places.
const START: u64 = 4096;
const SECTOR_BYTES: u64 = 512;
const HEAD_BYTES: usize = 40;

/// The frames of one segment, from its beginning on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Used {
    generation: u64,
    bytes: u64,
}

/// What both segments of the store in that directory hold, in bytes. The older of them counts as long as it was not used
/// again, whether its checkpoint is made or not.
pub(crate) fn bytes(dir: &Path) -> anyhow::Result<u64> {
    let used = |name: &str| {
        let used = File::open(dir.join(name)).and_then(|file| used(&file));
        used.with_context(|| format!("{name} cannot be read"))
    };
    let [one, other] = [used("nightmail.log0")?, used("nightmail.log1")?];
    let (newer, older) = if one.generation > other.generation { (one, other) } else { (other, one) };
    let follows = older.generation + 1 == newer.generation;
    Ok(newer.bytes + if follows { older.bytes } else { 0 })
}

/// Follows the frames by their lengths. Checksums are not needed here: a head that was torn ends the walk or adds one
/// frame.
fn used(file: &File) -> io::Result<Used> {
    let (mut used, mut last) = (Used::default(), None);
    let mut head = [0; HEAD_BYTES];
    loop {
        let at = START + used.bytes;
        match file.read_exact_at(&mut head, at) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(used),
            read => read?,
        }
        let [generation, sequence] = [16, 24].map(|at| number(&head[at..at + 8]));
        let follows = |last: u64| generation == used.generation && last.checked_add(1) == Some(sequence);
        if sequence == 0 || !last.is_none_or(follows) {
            return Ok(used);
        }
        let length = number(&head[..4]) + HEAD_BYTES as u64;
        used = Used { generation, bytes: used.bytes + length.next_multiple_of(SECTOR_BYTES) };
        last = Some(sequence);
    }
}

/// A little-endian number.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use nightmail::base::{Clock, SystemClock};

    use super::*;
    use crate::engine::Engine;
    use crate::load::{self, BODY_BYTES};

    #[tokio::test]
    async fn the_log_of_an_open_store_holds_what_was_sent() -> anyhow::Result<()> {
        let dir = tempfile::tempdir()?;
        let clock: Arc<dyn Clock> = SystemClock::shared();
        let engine = Engine::open(dir.path(), &clock).await?;
        let before = bytes(dir.path())?;
        for number in 0..100 {
            engine.send(load::numbered(number, BODY_BYTES)).await?;
        }
        let (held, sent) = (bytes(dir.path())? - before, 100 * BODY_BYTES as u64);
        assert!((sent..4 * sent).contains(&held), "{held} bytes for {sent}");
        Ok(())
    }
}
