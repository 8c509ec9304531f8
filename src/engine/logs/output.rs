//! The reader's other end: which records are shown, and in which order two streams receive them.

use std::io::{self, Write};

use jiff::Timestamp;

use super::Stream;
use super::record::{Record, Stamp, stamp};
use crate::engine::request::LogsRequest;

/// Bytes handed over at once.
const BATCH: usize = 64 * 1024;

/// Two writers that receive records in the order they were recorded, in blocks as large as that
/// order allows.
pub(super) struct Output<'w> {
    writers: [&'w mut dyn Write; 2],
    selected: [bool; 2],
    timestamps: bool,
    since: Option<Stamp>,
    until: Option<(Timestamp, Stamp)>,
    /// What `current` shall receive next.
    buffer: Vec<u8>,
    current: Stream,
    /// The last record shown did not end its line.
    within_line: [bool; 2],
}

impl<'w> Output<'w> {
    pub(super) fn new(request: &LogsRequest, stdout: &'w mut dyn Write, stderr: &'w mut dyn Write) -> Self {
        Output {
            writers: [stdout, stderr],
            selected: [request.stdout, request.stderr],
            timestamps: request.timestamps,
            since: request.since.map(stamp),
            until: request.until.map(|until| (until, stamp(until))),
            buffer: Vec::new(),
            current: Stream::Stdout,
            within_line: [false; 2],
        }
    }

    /// After this time nothing will be wanted.
    pub(super) fn until(&self) -> Option<Timestamp> {
        self.until.map(|(until, _)| until)
    }

    /// Whether the request asks for this record.
    pub(super) fn wants(&self, record: &Record<'_>) -> bool {
        self.selected[record.stream as usize]
            && self.since.is_none_or(|since| record.time >= since)
            && self.until.is_none_or(|(_, until)| record.time <= until)
    }

    /// Shows a record.
    pub(super) fn show(&mut self, record: &Record<'_>) -> io::Result<()> {
        if record.stream != self.current {
            // The other side must have got what came before.
            self.flush()?;
            self.current = record.stream;
        } else if self.buffer.len() + record.text.len() > BATCH {
            self.hand_over()?;
        }
        if self.timestamps && !self.within_line[record.stream as usize] {
            self.buffer.extend_from_slice(&record.time);
            self.buffer.push(b' ');
        }
        self.within_line[record.stream as usize] = !record.ends_line();
        self.buffer.extend_from_slice(record.text);
        Ok(())
    }

    /// Lets go of everything held back.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        self.hand_over()?;
        self.writers[self.current as usize].flush()
    }

    fn hand_over(&mut self) -> io::Result<()> {
        let result = self.writers[self.current as usize].write_all(&self.buffer);
        self.buffer.clear();
        result
    }
}

/// The one who reads what we show has gone.
pub(super) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|link| link.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe))
}
