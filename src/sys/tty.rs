//! Terminals: raw mode that is always undone, window sizes.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};

use rustix::termios::{OptionalActions, Termios, Winsize};

/// Rows and columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Size {
    /// Lines.
    pub rows: u16,
    /// Characters a line.
    pub columns: u16,
}

/// The window size of a terminal; `None` when it is none, or has no size.
pub fn size(terminal: BorrowedFd<'_>) -> Option<Size> {
    let size = rustix::termios::tcgetwinsize(terminal).ok()?;
    (size.ws_row != 0 && size.ws_col != 0).then_some(Size { rows: size.ws_row, columns: size.ws_col })
}

/// Sets the window size; the kernel sends SIGWINCH to the terminal's foreground group.
pub fn set_size(terminal: BorrowedFd<'_>, size: Size) -> io::Result<()> {
    let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(rustix::termios::tcsetwinsize(terminal, size)?)
}

/// While it lives, a signal that ends the program (SIGINT, SIGTERM) ends the line first in which the cursor is: for who
/// draws on a terminal without a line break at the end.
#[derive(Debug)]
pub struct LineEnd {
    taken: Vec<libc::c_int>,
}

/// Where the line break goes.
static LINE_END: AtomicI32 = AtomicI32::new(-1);

extern "C" fn end_line(signal: libc::c_int) {
    let break_of_line = b"\n";
    // SAFETY: write(2) and raise(3) may be called by handlers (signal-safety(7)). The handler is gone already
    // (SA_RESETHAND), so the signal ends the program.
    unsafe {
        libc::write(LINE_END.load(Ordering::Relaxed), break_of_line.as_ptr().cast(), 1);
        libc::raise(signal);
    }
}

impl LineEnd {
    /// The terminal is the program's standard output or error. Signals that are ignored, or that somebody else
    /// handles, are left alone.
    pub fn at(terminal: BorrowedFd<'_>) -> LineEnd {
        LINE_END.store(terminal.as_raw_fd(), Ordering::Relaxed);
        let taken = [libc::SIGINT, libc::SIGTERM].into_iter().filter(|signal| {
            // SAFETY: both structures outlive the calls, and all-zero is a valid one; the handler calls nothing that
            // handlers must not call.
            unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                if libc::sigaction(*signal, std::ptr::null(), &raw mut action) != 0
                    || action.sa_sigaction != libc::SIG_DFL
                {
                    return false;
                }
                action.sa_sigaction = end_line as *const () as libc::sighandler_t;
                action.sa_flags = libc::SA_RESETHAND | libc::SA_NODEFER;
                libc::sigaction(*signal, &raw const action, std::ptr::null_mut()) == 0
            }
        });
        LineEnd { taken: taken.collect() }
    }
}

impl Drop for LineEnd {
    fn drop(&mut self) {
        for signal in &self.taken {
            // SAFETY: SIG_DFL needs no handler.
            unsafe { libc::signal(*signal, libc::SIG_DFL) };
        }
    }
}

/// What somebody typed unseen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Secret {
    /// A line, without its end.
    Line(Vec<u8>),
    /// They gave up: `^C`, or `^D` on an empty line.
    Interrupted,
    /// It is no terminal.
    NoTerminal,
}

/// Reads a line from a terminal without showing it. The terminal is in raw mode meanwhile, so that a `^C`
/// is a character like others and no signal can leave it without echo; `ask` is called as soon as it is. At most
/// `limit` bytes.
pub fn read_secret(terminal: BorrowedFd<'_>, limit: usize, ask: impl FnOnce()) -> io::Result<Secret> {
    let Some(raw) = RawMode::enter(terminal)? else { return Ok(Secret::NoTerminal) };
    ask();
    let mut line: Vec<u8> = Vec::new();
    let mut byte = [0];
    loop {
        let count = rustix::io::retry_on_intr(|| rustix::io::read(&raw, &mut byte))?;
        match byte[0] {
            _ if count == 0 => return Ok(Secret::Interrupted),
            b'\r' | b'\n' => return Ok(Secret::Line(line)),
            // ^C, and ^D as in a shell.
            3 => return Ok(Secret::Interrupted),
            4 if line.is_empty() => return Ok(Secret::Interrupted),
            // Backspace takes a character, which may have several bytes (UTF-8).
            8 | 127 => while line.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {},
            // ^U takes the line.
            21 => line.clear(),
            other if line.len() < limit => line.push(other),
            _ => {}
        }
    }
}

/// A terminal's mode, put back when dropped.
#[derive(Debug)]
pub struct RawMode {
    terminal: OwnedFd,
    saved: Option<Termios>,
}

impl RawMode {
    /// Switches `terminal` to raw mode (cfmakeraw, termios(3)); `None` when it is no terminal.
    pub fn enter(terminal: BorrowedFd<'_>) -> io::Result<Option<RawMode>> {
        let Some(guard) = RawMode::remember(terminal)? else { return Ok(None) };
        if let Some(saved) = &guard.saved {
            let mut raw = saved.clone();
            raw.make_raw();
            rustix::termios::tcsetattr(&guard.terminal, OptionalActions::Drain, &raw)?;
        }
        Ok(Some(guard))
    }

    /// Remembers the present mode without changing it, to put it back for a process that may be killed.
    pub fn remember(terminal: BorrowedFd<'_>) -> io::Result<Option<RawMode>> {
        if !rustix::termios::isatty(terminal) {
            return Ok(None);
        }
        let saved = rustix::termios::tcgetattr(terminal)?;
        Ok(Some(RawMode { terminal: terminal.try_clone_to_owned()?, saved: Some(saved) }))
    }

    /// Forgets the saved mode: somebody else puts it back.
    pub fn disarm(mut self) {
        self.saved = None;
    }
}

impl AsFd for RawMode {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.terminal.as_fd()
    }
}

impl Drop for RawMode {
    /// Puts the saved mode back if the terminal is still raw: a shell that has taken it over
    /// meanwhile has set a mode of its own, which must stay.
    fn drop(&mut self) {
        let Some(saved) = &self.saved else { return };
        let mut raw = saved.clone();
        raw.make_raw();
        let modes = |mode: &Termios| (mode.input_modes, mode.output_modes, mode.local_modes, mode.control_modes);
        match rustix::termios::tcgetattr(&self.terminal) {
            Ok(present) if modes(&present) != modes(&raw) => {}
            _ => drop(rustix::termios::tcsetattr(&self.terminal, OptionalActions::Now, saved)),
        }
    }
}
