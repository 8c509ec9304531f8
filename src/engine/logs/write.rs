//! Writing: from whatever one read(2) returned to records on disk, bounded in memory and on disk.
//!
//! The shim calls this between two polls, so nothing here may hurt the container: a log that cannot
//! be written loses records, counts them, and says so once it can be written again.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};

use super::files::rotated;
use super::record::{self, Piece, Stamp};
use super::{JSON_FILE, NONE, PIECE, Stream};
use crate::container::LogOptions;
use crate::error::Failure;

/// Most bytes of records held before they are written. No record is longer: [`PIECE`] binary bytes
/// take at most 120 KiB.
const BUFFER: usize = 128 * 1024;
/// A buffer of this size is kept; a larger one is given back when output has become quiet.
const QUIET: usize = 16 * 1024;

/// The log of one container, open for appending. There is at most one per container: its shim's.
///
/// A million lines of 100 bytes take about a tenth of a second of processor time, most of it the
/// kernel's:
///
/// ```no_run
/// use mydocker::{container::LogOptions, engine::logs::{LogWriter, Stream}};
/// let mut log = LogWriter::open("/tmp/x-json.log".as_ref(), &LogOptions::default())?;
/// let chunk = [[b'x'; 99].as_slice(), b"\n"].concat().repeat(655);
/// let start = std::time::Instant::now();
/// (0..1527).for_each(|_| log.append(Stream::Stdout, &chunk));
/// log.finish();
/// println!("{:?}", start.elapsed());
/// # anyhow::Ok(())
/// ```
#[derive(Debug)]
pub struct LogWriter {
    /// `None` for a log that keeps nothing.
    file: Option<File>,
    path: PathBuf,
    /// Bytes; 0 is unbounded.
    max_size: u64,
    max_file: u32,
    /// Bytes in the current file.
    size: u64,
    /// Encoded records, not yet written; at most [`BUFFER`] bytes.
    buffer: Vec<u8>,
    /// The unfinished line of each stream; less than [`PIECE`] bytes.
    pending: [Vec<u8>; 2],
    clock: Clock,
    /// Records that could not be written, and why the last of them.
    lost: u64,
    reason: Option<io::Error>,
    /// The file ends within a record.
    torn: bool,
}

impl LogWriter {
    /// Opens the log at `path`, making it (mode 0600) when missing. A record that a crash has cut
    /// short is closed off by a newline, so that the next one is whole. The driver `none` opens
    /// nothing.
    pub fn open(path: &Path, options: &LogOptions) -> Result<LogWriter> {
        let (file, size, torn) = match options.driver.as_str() {
            NONE => (None, 0, false),
            JSON_FILE => {
                let inspect = || -> io::Result<(File, u64, bool)> {
                    let mut file = append_to(OpenOptions::new().create(true), path)?;
                    let size = file.metadata()?.len();
                    let mut last = [b'\n'];
                    if size > 0 {
                        file.seek(SeekFrom::End(-1))?;
                        file.read_exact(&mut last)?;
                    }
                    Ok((file, size, last != [b'\n']))
                };
                let (file, size, torn) = inspect().with_context(|| format!("open log {}", path.display()))?;
                (Some(file), size, torn)
            }
            other => return Err(Failure::engine(format!("unknown log driver {other:?}")).into()),
        };
        let mut writer = LogWriter {
            file,
            path: path.to_owned(),
            max_size: options.max_size,
            max_file: options.max_file,
            size,
            buffer: Vec::new(),
            pending: [Vec::new(), Vec::new()],
            clock: Clock::default(),
            lost: 0,
            reason: None,
            torn,
        };
        // A full disk is no reason not to start; the next write tries again.
        let _ = writer.mend();
        Ok(writer)
    }

    /// Records output as it came from the container, cut anywhere. Each line becomes a record when
    /// its newline comes, each [`PIECE`] of a longer line at once. All records of one call carry
    /// the same time and are on disk when it returns, or counted as lost.
    pub fn append(&mut self, stream: Stream, mut bytes: &[u8]) {
        if self.file.is_none() || bytes.is_empty() {
            return;
        }
        let time = self.clock.read();
        let mut pending = std::mem::take(&mut self.pending[stream as usize]);
        while !pending.is_empty() && !bytes.is_empty() {
            let window = &bytes[..bytes.len().min(PIECE - pending.len())];
            let taken = memchr::memchr(b'\n', window).map_or(window.len(), |at| at + 1);
            pending.extend_from_slice(&window[..taken]);
            bytes = &bytes[taken..];
            if let Some(length) = piece(&pending) {
                self.record(stream, &pending[..length], &time);
                pending.drain(..length);
            }
        }
        // With nothing pending lines are taken from where they lie, without copying.
        while let Some(length) = piece(bytes) {
            self.record(stream, &bytes[..length], &time);
            bytes = &bytes[length..];
        }
        pending.extend_from_slice(bytes);
        self.pending[stream as usize] = pending;
        let used = self.buffer.len();
        self.flush(used);
        if used <= QUIET && self.buffer.capacity() > QUIET {
            self.buffer = Vec::new();
        }
    }

    /// Records what is left of `stream`'s last line: the stream has ended.
    pub fn end(&mut self, stream: Stream) {
        let rest = std::mem::take(&mut self.pending[stream as usize]);
        if !rest.is_empty() {
            let time = self.clock.read();
            self.record(stream, &rest, &time);
            self.flush(self.buffer.len());
        }
    }

    /// Records what is left of both streams' last lines and, if it can, what was lost.
    pub fn finish(&mut self) {
        self.end(Stream::Stdout);
        self.end(Stream::Stderr);
        let _ = self.confess();
        self.release();
    }

    /// Gives memory back; for a shim about to wait long. Unfinished lines stay.
    pub fn release(&mut self) {
        self.buffer = Vec::new();
        self.pending.iter_mut().for_each(Vec::shrink_to_fit);
    }

    /// Encodes a record, writing out and rotating first where it would not fit.
    fn record(&mut self, stream: Stream, bytes: &[u8], time: &Stamp) {
        let piece = Piece::new(bytes);
        let bound = piece.bound();
        if self.buffer.len() + bound > BUFFER {
            self.flush(self.buffer.len());
        }
        let needed = self.buffer.len() + bound;
        if needed > self.buffer.capacity() {
            let capacity = needed.next_power_of_two().clamp(4096, BUFFER);
            self.buffer.reserve_exact(capacity.max(needed) - self.buffer.len());
        }
        let start = self.buffer.len();
        piece.encode(&mut self.buffer, stream, time);
        if self.max_size > 0 && self.size + self.buffer.len() as u64 > self.max_size {
            self.flush(start);
            self.make_room();
        }
    }

    /// Writes out the first `length` bytes of the buffer, which are whole records; what cannot be
    /// written is lost.
    fn flush(&mut self, length: usize) {
        if length == 0 {
            return;
        }
        let buffer = std::mem::take(&mut self.buffer);
        let records = &buffer[..length];
        match self.confess() {
            Ok(()) => self.put(records),
            Err(()) => self.lost += lines(records),
        }
        self.buffer = buffer;
        self.buffer.drain(..length);
    }

    /// Rotates if the buffered record would take the file past its size. If that fails the record
    /// is lost: a log that cannot be rotated must still not grow past its bound.
    fn make_room(&mut self) {
        // The file may have been emptied behind our back (`truncate -s 0` is a known habit).
        if let Some(file) = &self.file
            && let Ok(metadata) = file.metadata()
        {
            self.size = metadata.len();
        }
        if self.size == 0 || self.size + self.buffer.len() as u64 <= self.max_size {
            return;
        }
        match self.rotate() {
            Ok(file) => {
                self.file = Some(file);
                self.size = 0;
                self.torn = false;
            }
            Err(error) => {
                self.lost += lines(&self.buffer);
                self.reason = Some(error);
                self.buffer.clear();
            }
        }
    }

    /// Moves every file up by one and makes a new one. May be repeated after a failure halfway: a
    /// number that is free already is as far as moving goes.
    fn rotate(&self) -> io::Result<File> {
        let older = self.max_file.saturating_sub(1);
        if older == 0 {
            // Not emptied but replaced: who reads the old one can finish it.
            remove(&self.path)?;
        } else {
            let free = (1..older).find(|&n| !rotated(&self.path, n).exists()).unwrap_or(older);
            for number in (1..free).rev() {
                fs::rename(rotated(&self.path, number), rotated(&self.path, number + 1))?;
            }
            match fs::rename(&self.path, rotated(&self.path, 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        append_to(OpenOptions::new().create_new(true), &self.path)
    }

    /// Writes whole records. Those that do not reach the file are counted and leave no trace in it.
    fn put(&mut self, records: &[u8]) {
        let Some(file) = &mut self.file else { return };
        let mut written = 0;
        let error = loop {
            match file.write(&records[written..]) {
                Ok(0) => break io::ErrorKind::WriteZero.into(),
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break error,
            }
            if written == records.len() {
                self.size += written as u64;
                return;
            }
        };
        let whole = records[..written].iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        self.size += whole as u64;
        self.lost += lines(&records[whole..]);
        self.reason = Some(error);
        if written > whole {
            // Cut off the torn record, counting from the real end: the file may have been emptied.
            let cut = file.metadata().and_then(|m| file.set_len(m.len().saturating_sub((written - whole) as u64)));
            self.torn = cut.is_err();
        }
    }

    /// Before anything else is written: closes a torn record, and tells what was lost. `Err` while
    /// the log still cannot be written.
    fn confess(&mut self) -> Result<(), ()> {
        self.mend()?;
        let lost = std::mem::take(&mut self.lost);
        let reason = self.reason.take();
        if lost == 0 {
            return Ok(());
        }
        let reason = reason.map_or_else(String::new, |error| format!(": {error}"));
        let text = format!("[mydocker: {lost} log records lost{reason}]\n");
        let mut notice = Vec::new();
        Piece::new(text.as_bytes()).encode(&mut notice, Stream::Stderr, &self.clock.read());
        self.put(&notice);
        if self.lost > 0 {
            self.lost = lost;
            return Err(());
        }
        Ok(())
    }

    fn mend(&mut self) -> Result<(), ()> {
        if self.torn
            && let Some(file) = &mut self.file
        {
            if let Err(error) = file.write_all(b"\n") {
                self.reason = Some(error);
                return Err(());
            }
            self.size += 1;
            self.torn = false;
        }
        Ok(())
    }
}

/// Opens for appending, and for a look at what is there.
fn append_to(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    options.read(true).append(true).mode(0o600).open(path)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// How many of `bytes` the next record takes: a line, or a piece when there is more than one of it;
/// `None` when more output must come first.
fn piece(bytes: &[u8]) -> Option<usize> {
    let window = &bytes[..bytes.len().min(PIECE)];
    if let Some(at) = memchr::memchr(b'\n', window) {
        return Some(at + 1);
    }
    (window.len() == PIECE).then(|| PIECE - cut_character(window))
}

/// Bytes at the end that begin a UTF-8 character and do not finish it: they go with the next piece,
/// so that text stays text for readers that know nothing of `raw`.
fn cut_character(bytes: &[u8]) -> usize {
    for back in 1..=3 {
        let Some(&byte) = bytes.len().checked_sub(back).and_then(|at| bytes.get(at)) else { return 0 };
        let length = match byte {
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            0x80..=0xbf => continue,
            _ => return 0,
        };
        return if length > back { back } else { 0 };
    }
    0
}

/// Records in `bytes`; the text of a record holds no bare newline.
fn lines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|&&byte| byte == b'\n').count() as u64
}

/// The time of records: wall clock, yet never running backwards within one writer.
#[derive(Debug, Default)]
struct Clock {
    seconds: i64,
    nanoseconds: i64,
    /// `seconds` as text, with room for the nanoseconds.
    text: Option<Stamp>,
}

impl Clock {
    /// Now. Formats a date only when the second has changed.
    fn read(&mut self) -> Stamp {
        let now = clock_gettime(ClockId::Realtime);
        let (seconds, nanoseconds) = (now.tv_sec, now.tv_nsec);
        let mut text = match self.text {
            Some(text) if seconds < self.seconds => return text,
            Some(text) if seconds == self.seconds => {
                self.nanoseconds = self.nanoseconds.max(nanoseconds);
                text
            }
            _ => {
                (self.seconds, self.nanoseconds) = (seconds, nanoseconds);
                record::stamp(Timestamp::from_second(seconds).unwrap_or_default())
            }
        };
        let mut digits = self.nanoseconds;
        for place in text[20..29].iter_mut().rev() {
            *place = b'0' + (digits % 10) as u8;
            digits /= 10;
        }
        self.text = Some(text);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_never_runs_backwards() {
        let mut clock = Clock::default();
        let first = clock.read();
        assert!(clock.read() >= first);
        // As if the clock had been set back by a day since.
        clock.seconds += 86_400;
        let frozen = clock.read();
        assert_eq!(clock.read(), frozen);
    }

    #[test]
    fn pieces_are_cut_between_characters() {
        for (text, cut) in [("a", 0), ("ä", 0), ("€", 0), ("😀", 0)] {
            assert_eq!(cut_character(text.as_bytes()), cut);
            for length in 1..text.len() {
                assert_eq!(cut_character(&text.as_bytes()[..length]), length, "{text} {length}");
            }
        }
        for binary in [&b"\x80\x80\x80\x80"[..], b"\xff", b"a\x80", b"\xc3\x80\x80", b""] {
            assert_eq!(cut_character(binary), 0, "{binary:?}");
        }
    }
}
