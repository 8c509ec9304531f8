//! The writer: any number of processes at once, none of which waits for another.
//!
//! A line is one write(2) to a file opened with `O_APPEND`. The kernel finds the end of the file and
//! copies the bytes under the inode's lock (`inode_lock` in ext4's, xfs's and tmpfs's write; POSIX
//! write(): "no intervening file modification operation shall occur"), so lines of different
//! processes never mix.
//!
//! Rotation is the one thing they must agree on: a line must not go into a file that a reader has
//! taken leave of, nor into one that a second rotation has thrown away. So a writer holds a shared
//! flock(2) on the file while it writes, and looks under the lock whether the file still has its
//! name; who rotates holds it exclusively. Both locks are only tried for: nobody hangs because
//! somebody was stopped at the wrong moment, and they die with their holder.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use crate::engine::logs::files;

/// Bytes at which the log is rotated; with the file before it takes about twice as much. Some nine
/// thousand events each.
pub(super) const LIMIT: u64 = 4 * 1024 * 1024;

/// Times a writer looks again because somebody rotates meanwhile.
const TRIES: u32 = 100;

/// Appends `line`, a newline at its end, to the log at `path`, making the log when missing, and
/// rotates one that has reached `limit` bytes.
///
/// # Errors
/// The line was not written, or not all of it; or the log could not be rotated.
pub(super) fn append(path: &Path, line: &[u8], limit: u64) -> io::Result<()> {
    for _ in 0..TRIES {
        let mut file = open(path)?;
        match file.try_lock_shared() {
            // On a file system that knows no locks a line may be late, but still is not mixed.
            Ok(()) | Err(TryLockError::Error(_)) => {}
            Err(TryLockError::WouldBlock) => {
                std::thread::yield_now();
                continue;
            }
        }
        let metadata = file.metadata()?;
        if is_named(path, &metadata)? {
            write(&mut file, line)?;
            return if metadata.size() + line.len() as u64 >= limit { rotate(path, &file, limit) } else { Ok(()) };
        }
    }
    // Whoever rotates was stopped in the middle of it. The line may come late for a reader.
    write(&mut open(path)?, line)
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// In one call. What does not go in at once is not sent after it: another line may stand there by then.
fn write(file: &mut File, line: &[u8]) -> io::Result<()> {
    loop {
        match file.write(line) {
            Ok(count) if count == line.len() => return Ok(()),
            Ok(_) => return Err(ErrorKind::WriteZero.into()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn is_named(path: &Path, metadata: &fs::Metadata) -> io::Result<bool> {
    match fs::metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (metadata.dev(), metadata.ino())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Gives the file its old name and begins a new one. The lock is made exclusive in two steps
/// (flock(2): the shared one goes first), so all is looked at again under it. Who does not get it
/// leaves the rotation to the next writer.
fn rotate(path: &Path, file: &File, limit: u64) -> io::Result<()> {
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => return Ok(()),
        Ok(()) | Err(TryLockError::Error(_)) => {}
    }
    let metadata = file.metadata()?;
    if metadata.size() >= limit && is_named(path, &metadata)? {
        fs::rename(path, files::rotated(path, 1))?;
        // At once, because readers take a missing file for a rotation that is under way.
        open(path)?;
    }
    Ok(())
}
