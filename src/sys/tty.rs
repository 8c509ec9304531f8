//! Terminals: raw mode that is always undone, window sizes.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

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
