//! Reading: the log from its beginning or from its last lines on, then, with `follow`, what comes.
//!
//! Times are compared record by record. They rise within one run of the container, but a clock that
//! was set back between two runs would lead a binary search astray, and reading a gigabyte from the
//! page cache takes less than a second.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::files::{self, Lines, LinesBack, LogFile};
use super::follow::Watch;
use super::output::Output;
use super::record;

/// How far `tail` looks back for the beginning of a line that began before the lines it counts. Only
/// a line of several pieces does, when the other stream came in between.
const LOOK_BACK: usize = 1024 * 1024;

/// A record's place: which file, counted from the oldest, and the offset in it.
type Place = (usize, u64);

/// Shows the log at `path`; with `watch` until that says the container has ended.
pub(super) fn read(path: &Path, tail: Option<u64>, watch: Option<Watch>, output: &mut Output<'_>) -> Result<()> {
    let files = files::open_all(path)?;
    let from = match tail {
        Some(count) => last_lines(&files, count, output)?,
        None => [(0, 0); 2],
    };
    let mut cursor = Cursor { path: path.to_owned(), lines: Lines::new(), scratch: Vec::new(), current: None };
    let first = from[0].min(from[1]);
    for (index, file) in files.into_iter().enumerate() {
        let length = file.length;
        cursor.enter(file, if index == first.0 { first.1 } else { 0 });
        if index >= first.0 {
            cursor.show(length, output, |place, stream| (index, place) >= from[stream])?;
        } else {
            // Not wanted; for a follower the last file is still where new records come.
            cursor.lines.seek(length);
        }
    }
    output.flush().context("write output")?;
    let Some(mut watch) = watch else { return Ok(()) };
    loop {
        // Asked before reading: what was recorded before the end is then certainly seen.
        let over = watch.ended() || output.until().is_some_and(|until| until < jiff::Timestamp::now());
        cursor.catch_up(output)?;
        output.flush().context("write output")?;
        if over {
            return Ok(());
        }
        watch.wait(output.until())?;
    }
}

/// Where the last `count` wanted lines begin, for each stream. Reads no more than these lines.
fn last_lines(files: &[LogFile], count: u64, output: &Output<'_>) -> Result<[Place; 2]> {
    /// What is known of a stream, going backwards.
    #[derive(Clone, Copy, PartialEq)]
    enum Line {
        /// No record of it was met.
        Unseen,
        /// The line last counted may have pieces further back.
        Open,
        /// All its counted lines are whole.
        Whole,
    }
    let mut from = [(files.len(), 0); 2];
    let mut state = [Line::Unseen; 2];
    let (mut counted, mut beyond) = (0, 0);
    let mut scratch = Vec::new();
    for (index, file) in files.iter().enumerate().rev() {
        let mut lines = LinesBack::new(&file.file, file.length);
        loop {
            if counted >= count && (beyond > LOOK_BACK || state.iter().all(|&line| line != Line::Open)) {
                return Ok(from);
            }
            let Some((offset, line)) = lines.next().context("read log")? else { break };
            beyond += if counted >= count { line.len() } else { 0 };
            let Some(record) = record::parse(line, &mut scratch).filter(|record| output.wants(record)) else {
                continue;
            };
            let stream = record.stream as usize;
            // Ends a line, or would be the beginning of one whose end was not written yet.
            if record.ends_line() || state[stream] == Line::Unseen {
                if counted >= count {
                    state[stream] = Line::Whole;
                    continue;
                }
                counted += 1;
                state[stream] = Line::Open;
            }
            if state[stream] == Line::Open {
                from[stream] = (index, offset);
            }
        }
    }
    Ok(from)
}

/// A place in the log from which reading goes on.
struct Cursor {
    path: PathBuf,
    lines: Lines,
    scratch: Vec<u8>,
    /// The file being read; `None` before there is one.
    current: Option<LogFile>,
}

impl Cursor {
    fn enter(&mut self, file: LogFile, offset: u64) {
        self.current = Some(file);
        self.lines.seek(offset);
    }

    /// Shows the whole records of the current file as far as `limit` that are wanted and that
    /// `admits` (by their offset and stream).
    fn show(&mut self, limit: u64, output: &mut Output<'_>, admits: impl Fn(u64, usize) -> bool) -> Result<()> {
        let Some(LogFile { file, .. }) = &self.current else { return Ok(()) };
        loop {
            let offset = self.lines.offset();
            let Some(line) = self.lines.next(file, limit).context("read log")? else { return Ok(()) };
            if let Some(record) = record::parse(line, &mut self.scratch)
                && output.wants(&record)
                && admits(offset, record.stream as usize)
            {
                output.show(&record).context("write output")?;
            }
        }
    }

    fn show_rest(&mut self, output: &mut Output<'_>) -> Result<()> {
        self.show(u64::MAX, output, |_, _| true)
    }

    /// Shows all there is to show now, following the writer into newer files.
    fn catch_up(&mut self, output: &mut Output<'_>) -> Result<()> {
        loop {
            self.rewind_if_emptied()?;
            self.show_rest(output)?;
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
            self.show_rest(output)?;
            for file in newer {
                self.enter(file, 0);
                self.show_rest(output)?;
            }
        }
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
