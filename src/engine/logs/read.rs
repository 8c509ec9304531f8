//! Reading: the log from its beginning or from its last lines on, then, with `follow`, what comes.
//!
//! Times are compared record by record. They rise within one run of the container, but a clock that
//! was set back between two runs would lead a binary search astray, and reading a gigabyte from the
//! page cache takes less than a second.

use std::path::Path;

use anyhow::{Context, Result};

use super::cursor::Cursor;
use super::files::{self, LinesBack, LogFile};
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
    let mut cursor = Cursor::new(path);
    let mut scratch = Vec::new();
    let first = from[0].min(from[1]);
    for (index, file) in files.into_iter().enumerate() {
        let length = file.length;
        if index < first.0 {
            // Not wanted; for a follower the last file is still where new records come.
            cursor.enter(file, length);
            continue;
        }
        cursor.enter(file, if index == first.0 { first.1 } else { 0 });
        cursor.read(length, &mut |offset, line| {
            show(line, &mut scratch, output, |stream| (index, offset) >= from[stream])
        })?;
    }
    output.flush().context("write output")?;
    let Some(mut watch) = watch else { return Ok(()) };
    loop {
        // Asked before reading: what was recorded before the end is then certainly seen.
        let over = watch.ended() || output.until().is_some_and(|until| until < jiff::Timestamp::now());
        cursor.catch_up(&mut |_, line| show(line, &mut scratch, output, |_| true))?;
        output.flush().context("write output")?;
        if over {
            return Ok(());
        }
        watch.wait(output.until())?;
    }
}

/// Shows a record that is wanted and that `admits` (by its stream).
fn show(line: &[u8], scratch: &mut Vec<u8>, output: &mut Output<'_>, admits: impl Fn(usize) -> bool) -> Result<()> {
    match record::parse(line, scratch) {
        Some(record) if output.wants(&record) && admits(record.stream as usize) => {
            output.show(&record).context("write output")
        }
        _ => Ok(()),
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
