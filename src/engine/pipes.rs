//! Standard streams of a process that is about to be made, for run and exec alike.
//!
//! Pipes, never the caller's files: those could be opened again from inside.

use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use rustix::fs::{Mode, OFlags};
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

/// Capacity of standard output, bytes (pipe(7)).
const OUTPUT_CAPACITY: usize = 256 * 1024;

/// The process's ends of its standard streams, and ours.
#[derive(Debug)]
pub struct Pipes {
    /// Become its standard input, output and error.
    pub child: [OwnedFd; 3],
    /// Writing end of its input, when it is to have one, reading ends of its output and error.
    pub ours: Option<(Option<OwnedFd>, OwnedFd, OwnedFd)>,
}

impl Pipes {
    /// The null device: for a process that nobody listens to, or until a terminal takes the place.
    pub fn none() -> Result<Pipes> {
        Ok(Pipes { child: [null()?, null()?, null()?], ours: None })
    }

    /// A pipe for each stream; input is the null device unless it is `open`.
    pub fn new(open: bool) -> Result<Pipes> {
        let pipe = || pipe_with(PipeFlags::CLOEXEC).context("make a pipe");
        let (stdin_child, stdin) =
            if open { pipe().map(|(read, write)| (read, Some(write)))? } else { (null()?, None) };
        let ((stdout, stdout_child), (stderr, stderr_child)) = (pipe()?, pipe()?);
        // Fewer turns between the writer and this process; a kernel that refuses keeps its 64 KiB.
        let _ = fcntl_setpipe_size(&stdout, OUTPUT_CAPACITY);
        Ok(Pipes { child: [stdin_child, stdout_child, stderr_child], ours: Some((stdin, stdout, stderr)) })
    }
}

fn null() -> Result<OwnedFd> {
    rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).context("open /dev/null")
}
