//! Small files that are never seen half-written, and locks that die with their holder.
//!
//! Every file is replaced by writing a unique temporary beside it and renaming: a reader sees the
//! old contents or the new. [`Durability`] says whether a power cut may take the write: images,
//! volumes and networks may not lose theirs; the start path calls no fsync (`docs/state.md`).
//! A [`Lock`] is `flock(2)` on a file that lives as long as the object it guards.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Failure;
use crate::sys::fd;

/// What a write must outlive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Survives a crash of any process; a power cut may take it.
    ProcessCrash,
    /// Survives a power cut: file and directory are flushed (fsync).
    PowerCut,
}

/// Replaces `path` by `bytes` with mode 0600.
pub fn write(path: &Path, bytes: &[u8], durability: Durability) -> Result<()> {
    write_mode(path, bytes, 0o600, durability)
}

/// Replaces `path` by `bytes` with permission bits `mode`.
pub fn write_mode(path: &Path, bytes: &[u8], mode: u32, durability: Durability) -> Result<()> {
    let temporary = temporary_beside(path);
    let result = (|| -> io::Result<()> {
        let mut file = create_new(&temporary, mode)?;
        file.write_all(bytes)?;
        match durability {
            Durability::ProcessCrash => replace(&temporary, path),
            Durability::PowerCut => {
                file.sync_all()?;
                fs::rename(&temporary, path)?;
                path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
            }
        }
    })();
    if result.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    result.with_context(|| format!("write {}", path.display()))
}

/// Puts `temporary` in the place of `path`. A rename over an existing file makes ext4 write the new
/// one out at once (auto_da_alloc, ext4(5)), which costs half a millisecond; exchanging the two and
/// removing the old one is as atomic for readers and does not.
fn replace(temporary: &Path, path: &Path) -> io::Result<()> {
    match renameat_with(CWD, temporary, CWD, path, RenameFlags::EXCHANGE) {
        Ok(()) => fs::remove_file(temporary),
        // Nothing there yet, or a file system that cannot exchange.
        Err(_) => fs::rename(temporary, path),
    }
}

/// Makes a file that only its owner may read, whatever the umask: what is in images may be secret.
pub fn create_private(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
}

/// Makes a file with exactly these permission bits.
fn create_new(path: &Path, mode: u32) -> io::Result<File> {
    let open = || OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let file = match open() {
        // Left by a process of our number that was killed while writing it.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(path)?;
            open()?
        }
        result => result?,
    };
    // The caller's umask may have taken away what others need.
    if mode & 0o077 != 0 {
        file.set_permissions(fs::Permissions::from_mode(mode))?;
    }
    Ok(file)
}

/// Replaces `path` by `value` as JSON.
pub fn write_json<T: Serialize>(path: &Path, value: &T, durability: Durability) -> Result<()> {
    let mut bytes = serde_json::to_vec(value).with_context(|| format!("encode {}", path.display()))?;
    bytes.push(b'\n');
    write(path, &bytes, durability)
}

/// Reads a JSON file; `None` when there is none. A damaged file is an error that names it.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let bytes = match fd::read_small(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    };
    let value = serde_json::from_slice(&bytes).map_err(|error| {
        Failure::engine(format!("{} is damaged: {error}", path.display()))
            .with_hint("the file was cut short or edited; remove the object it describes")
    })?;
    Ok(Some(value))
}

/// Unique within the machine: two processes, or two threads, never write the same temporary.
fn temporary_beside(path: &Path) -> PathBuf {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}-{count}.tmp", std::process::id()));
    path.with_file_name(name)
}

/// An exclusive lock, held until dropped or until the last process that shares it (by fork) ends.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

impl Lock {
    /// Waits for the lock on `path`, creating the file when missing. `None` when the file, or the
    /// directory it stands in, was removed while we waited: the object it guards is gone.
    pub fn acquire(path: &Path) -> Result<Option<Lock>> {
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
        let file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("open lock {}", path.display())),
        };
        file.lock().with_context(|| format!("lock {}", path.display()))?;
        // Whoever held it before us may have removed the object: then the path leads elsewhere.
        let held = file.metadata().with_context(|| format!("inspect lock {}", path.display()))?;
        match fs::metadata(path) {
            Ok(named) if (named.dev(), named.ino()) == (held.dev(), held.ino()) => Ok(Some(Lock { file })),
            _ => Ok(None),
        }
    }

    /// The descriptor that holds the lock, for a child that shares it across fork.
    pub fn file(&self) -> &File {
        &self.file
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_sees_old_or_new_and_no_temporary_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        write_json(&path, &vec![1, 2], Durability::ProcessCrash).unwrap();
        write_json(&path, &vec![3], Durability::PowerCut).unwrap();
        assert_eq!(read_json::<Vec<u8>>(&path).unwrap(), Some(vec![3]));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_a_killed_writer_of_our_number_left_is_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("left");
        fs::write(&path, "half").unwrap();
        create_new(&path, 0o644).unwrap().write_all(b"new").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
    }

    #[test]
    fn a_damaged_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        fs::write(&path, "{\"pid\":").unwrap();
        let text = format!("{:#}", read_json::<serde_json::Value>(&path).unwrap_err());
        assert!(text.contains("state.json is damaged"), "{text}");
    }

    #[test]
    fn a_lock_on_a_removed_object_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = Lock::acquire(&path).unwrap().unwrap();
        let waiter = std::thread::spawn({
            let path = path.clone();
            move || Lock::acquire(&path).unwrap().is_none()
        });
        // Whether the waiter opened the old file or comes later and creates a new one, the lock it
        // gets guards nothing that we removed; only the first case must say so.
        while fs::read_to_string("/proc/locks").unwrap().lines().filter(|l| l.contains("->")).count() == 0 {
            std::thread::yield_now();
        }
        fs::remove_file(&path).unwrap();
        drop(held);
        assert!(waiter.join().unwrap());
    }
}
