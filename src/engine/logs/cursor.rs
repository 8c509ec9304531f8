//! A place in a rotated log from which reading goes on, file by file. Asks of the writer what the
//! head of `logs` says: whole lines are appended, and a file is left for good before its successor
//! appears.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::files::{self, Lines, LogFile};

/// Receives a whole line, its newline included, and where in its file it begins.
type Receiver<'a> = &'a mut dyn FnMut(u64, &[u8]) -> Result<()>;

/// Where reading has come to.
pub(in crate::engine) struct Cursor {
    path: PathBuf,
    lines: Lines,
    /// The file being read; `None` before there is one.
    current: Option<LogFile>,
}

impl Cursor {
    /// Before the first file of the log at `path`.
    pub(in crate::engine) fn new(path: &Path) -> Cursor {
        Cursor { path: path.to_owned(), lines: Lines::new(), current: None }
    }

    /// Goes to `offset` of a file.
    pub(in crate::engine) fn enter(&mut self, file: LogFile, offset: u64) {
        self.current = Some(file);
        self.lines.seek(offset);
    }

    /// Hands over the whole lines of the current file as far as `limit`.
    pub(in crate::engine) fn read(&mut self, limit: u64, receive: Receiver<'_>) -> Result<()> {
        let Some(LogFile { file, .. }) = &self.current else { return Ok(()) };
        loop {
            let offset = self.lines.offset();
            let Some(line) = self.lines.next(file, limit).context("read log")? else { return Ok(()) };
            receive(offset, line)?;
        }
    }

    /// Hands over all there is now, following the writer into newer files.
    pub(in crate::engine) fn catch_up(&mut self, receive: Receiver<'_>) -> Result<()> {
        loop {
            self.rewind_if_emptied()?;
            self.read(u64::MAX, receive)?;
            let Some(named) = files::identity(&self.path)? else { return Ok(()) };
            let ours = self.current.as_ref().map(|current| current.identity);
            if ours == Some(named) {
                return Ok(());
            }
            let mut newer = files::open_all(&self.path)?;
            // When ours is not among them it was rotated away, and they all are newer.
            if let Some(at) = newer.iter().position(|file| Some(file.identity) == ours) {
                newer.drain(..=at);
            }
            // The writer had left ours before the next one appeared, but perhaps not before we had read it.
            self.read(u64::MAX, receive)?;
            for file in newer {
                self.enter(file, 0);
                self.read(u64::MAX, receive)?;
            }
        }
    }

    /// Lets go of a file that was removed. Held open it would keep its directory alive, and who watches
    /// that would never hear of its end. For writers that do not go on writing to a removed file.
    pub(in crate::engine) fn release_removed(&mut self, receive: Receiver<'_>) -> Result<()> {
        if let Some(LogFile { file, .. }) = &self.current
            && file.metadata().context("inspect log")?.nlink() == 0
        {
            // Two rotations may have come since it was last read.
            self.read(u64::MAX, receive)?;
            self.current = None;
        }
        Ok(())
    }

    /// Begins again in a file that was emptied by hand. Unnoticed if more was written since than
    /// had been read before; `tail -f` knows no better.
    fn rewind_if_emptied(&mut self) -> Result<()> {
        if let Some(LogFile { file, .. }) = &self.current
            && file.metadata().context("inspect log")?.len() < self.lines.offset()
        {
            self.lines.seek(0);
        }
        Ok(())
    }
}
