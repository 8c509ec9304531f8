//! The reader: what has happened, then what happens, through rotations.

use anyhow::{Context, Result};
use jiff::Timestamp;

use super::filter::{self, Filter};
use super::follow::Watch;
use super::{Event, record};
use crate::engine::Engine;
use crate::engine::logs::cursor::Cursor;
use crate::engine::logs::files::{self, LinesBack, LogFile};
use crate::error::Failure;

/// Which events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventsRequest {
    /// From this time on. With neither time only what happens from now on.
    pub since: Option<Timestamp>,
    /// To this time, which may be to come; `None` goes on for ever.
    pub until: Option<Timestamp>,
    /// What they must be like.
    pub filters: Vec<Filter>,
}

impl EventsRequest {
    fn wants(&self, event: &Event) -> bool {
        self.since.is_none_or(|since| event.time >= since)
            && self.until.is_none_or(|until| event.time <= until)
            && filter::passes(&self.filters, event)
    }
}

impl Engine {
    /// Hands over events in the order they were written, as they come, until `request.until` has
    /// passed. Lines that are none of ours are left out. An error of `receive` ends it.
    ///
    /// # Errors
    /// `since` after `until`; a log that cannot be read; what `receive` returns.
    pub fn events(&self, request: &EventsRequest, receive: &mut dyn FnMut(&Event) -> Result<()>) -> Result<()> {
        if let (Some(since), Some(until)) = (request.since, request.until)
            && until < since
        {
            return Err(Failure::usage(format!("`since` time ({since}) cannot be after `until` time ({until})")).into());
        }
        let log = self.layout.events();
        let is_over = || request.until.is_some_and(|until| until < Timestamp::now());
        // Before the log is read, so that no change after reading goes unseen.
        let watch = (!is_over()).then(|| Watch::new(self.layout.root()));
        let mut cursor = Cursor::new(&log);
        let mut show = |_, line: &[u8]| match record::parse(line) {
            Some(event) if request.wants(&event) => receive(&event),
            _ => Ok(()),
        };
        let files = files::open_all(&log)?;
        if request.since.is_none() && request.until.is_none() {
            if let Some(newest) = files.into_iter().next_back() {
                let end = end_of_lines(&newest)?;
                cursor.enter(newest, end);
            }
        } else {
            for file in files {
                cursor.enter(file, 0);
                cursor.read(u64::MAX, &mut show)?;
            }
        }
        loop {
            // Asked before reading: what was written before the end is then certainly seen.
            let over = is_over();
            cursor.catch_up(&mut show)?;
            cursor.release_removed(&mut show)?;
            match &watch {
                Some(watch) if !over => watch.wait(request.until)?,
                _ => return Ok(()),
            }
        }
    }
}

/// Where the next whole line will begin: a line that is just being written belongs to what comes.
fn end_of_lines(file: &LogFile) -> Result<u64> {
    match LinesBack::new(&file.file, file.length).next().context("read events.log")? {
        Some((offset, line)) if line.last() != Some(&b'\n') => Ok(offset),
        _ => Ok(file.length),
    }
}
