//! The container's log: Docker's json-file format, written by the shim, read by `logs`.
//!
//! ```text
//! <id>-json.log      being written       {"log":"text\n","stream":"stdout","time":"2026-11-21T06:50:12.123456789Z"}
//! <id>-json.log.1    the one before
//! <id>-json.log.N-1  the oldest; the next rotation takes it away
//! ```
//!
//! One JSON object a line, one line of output a record. A line longer than [`PIECE`] becomes several
//! records, of which only the last one's `log` ends in a newline. Output that is not UTF-8 stands in
//! `log` with U+FFFD in place of the bad bytes, for other readers, and exactly as it was, in base64,
//! in an extra key `raw` that our own reader prefers.
//!
//! The writer only ever appends whole records, and leaves a file for good before its successor
//! appears. Readers rely on that: what ends in a newline is whole, and a file that is no longer the
//! current one is complete.

mod base64;
pub(super) mod cursor;
pub(super) mod files;
mod follow;
mod output;
mod read;
mod record;
mod write;

#[cfg(test)]
mod tests;

use anyhow::Result;

use super::Engine;
use super::request::LogsRequest;
use crate::container::{Config, handle};
use crate::error::Failure;
use crate::layout::Layout;

pub use write::LogWriter;

/// Most bytes of output in one record, as in Docker (`defaultBufSize` of its copier).
pub const PIECE: usize = 16 * 1024;

/// The driver that writes the files described above.
const JSON_FILE: &str = "json-file";
/// The driver that keeps nothing.
const NONE: &str = "none";

/// Which of the container's two output streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output; all output of a terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Opens the log of `config`'s container for its shim, with the options it was created with.
pub fn open_for(layout: &Layout, config: &Config) -> Result<LogWriter> {
    LogWriter::open(&layout.log(&config.id), &config.log)
}

impl Engine {
    /// Writes a container's log to `stdout` and `stderr`, each record to the side it came from and
    /// in the order it was recorded; with `request.follow` until the container has ended and all it
    /// wrote was shown. A container that does not run is not waited for.
    ///
    /// Damaged lines of the log are left out. When a side closes its end (a broken pipe) reading ends
    /// quietly. Give unbuffered writers: what is handed over comes in blocks, flushed before waiting.
    pub fn logs(
        &self,
        reference: &str,
        request: &LogsRequest,
        stdout: &mut dyn std::io::Write,
        stderr: &mut dyn std::io::Write,
    ) -> Result<()> {
        let id = handle::find(&self.layout, reference)?;
        let mut output = output::Output::new(request, stdout, stderr);
        // Before the record and the log are read, so that no change after reading goes unseen.
        let watch = request.follow.then(|| follow::Watch::new(&self.layout, &id));
        let record = handle::load(&self.layout, &id)?;
        if record.config.log.driver != JSON_FILE {
            return Err(Failure::engine("configured logging driver does not support reading").into());
        }
        let result = read::read(&self.layout.log(&id), request.tail, watch, &mut output);
        match result {
            Err(error) if output::is_broken_pipe(&error) => Ok(()),
            result => result,
        }
    }
}
