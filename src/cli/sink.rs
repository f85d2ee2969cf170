//! Where a report or a list goes: standard output, or a file that bears its name only once it is complete.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// Written at once; a report has many short lines.
const BUFFER_BYTES: usize = 256 << 10;

/// Where a report goes. Dropped without [`Sink::finish`] it leaves no file.
pub(super) struct Sink {
    out: BufWriter<Box<dyn Write>>,
    /// `None` for standard output.
    file: Option<Unfinished>,
}

/// A file under another name; removed when dropped.
struct Unfinished {
    file: File,
    temporary: PathBuf,
    path: PathBuf,
}

impl Sink {
    pub(super) fn open(path: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = path else {
            return Ok(Self { out: BufWriter::with_capacity(BUFFER_BYTES, Box::new(io::stdout())), file: None });
        };
        let named = || path.display().to_string();
        // A device or a pipe of that name must not be replaced by a file.
        let is_other = std::fs::metadata(path).is_ok_and(|found| !found.is_file());
        anyhow::ensure!(!is_other, "{} is no file (leave --out away to write to standard output)", path.display());
        let name = path.file_name().with_context(named)?.to_string_lossy();
        let temporary = path.with_file_name(format!(".{name}.{}", std::process::id()));
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary).with_context(named)?;
        let unfinished = Unfinished { file, temporary, path: path.to_owned() };
        let file = unfinished.file.try_clone().with_context(named)?;
        Ok(Self { out: BufWriter::with_capacity(BUFFER_BYTES, Box::new(file)), file: Some(unfinished) })
    }

    /// Writes what is buffered; a file is on disk and has its name afterwards.
    pub(super) fn finish(mut self) -> anyhow::Result<()> {
        match self.out.flush() {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            flushed => flushed?,
        }
        let Some(Unfinished { file, temporary, path }) = &self.file else { return Ok(()) };
        file.sync_all().and_then(|()| std::fs::rename(temporary, path)).with_context(|| path.display().to_string())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Not there any more once it has its name.
        let _ = std::fs::remove_file(&self.temporary);
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
