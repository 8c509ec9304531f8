//! Where an archive goes: standard output, or a file that is seen whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{AtFlags, CWD, OFlags, linkat};

use super::output::Refusal;
use crate::error::{Class, Failure};

/// Bytes that are written at a time.
const BUFFER: usize = 256 << 10;

/// Has `write` write to the file `path`, or to standard output without one.
///
/// # Errors
/// A terminal for standard output; a path that leads nowhere; whatever `write` fails with, and then a file that was
/// there before is as it was.
pub(super) fn deliver(path: Option<&str>, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let Some(path) = path.filter(|path| !path.is_empty()) else {
        if io::stdout().is_terminal() {
            let words = "cowardly refusing to save to a terminal. Use the -o flag or redirect";
            return Err(Refusal::plain(words).into());
        }
        // Not the buffered one of the library, which looks for the ends of lines.
        let out = io::stdout().as_fd().try_clone_to_owned().context("open standard output")?;
        return write_through(File::from(out), write);
    };
    let path = destination(Path::new(path))?;
    let told = || format!("write {}", path.display());
    if fs::metadata(&path).is_ok_and(|metadata| !metadata.is_file()) {
        // A pipe, a device: nothing to be replaced.
        let out = OpenOptions::new().write(true).open(&path).with_context(told)?;
        return write_through(out, write);
    }
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let temporary = Temporary::beside(&path, directory).with_context(told)?;
    write_through(temporary.file.try_clone().with_context(told)?, write).map_err(|error| {
        // What is not there is no matter of the file's.
        let absent = Failure::from_error(&error).class == Class::NotFound;
        if absent { error } else { error.context(told()) }
    })?;
    temporary.publish(&path).with_context(told)
}

fn write_through(out: File, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let mut out = BufWriter::with_capacity(BUFFER, out);
    write(&mut out)?;
    out.flush().context("write archive")
}

/// The file that is meant, a symbolic link followed, in Docker's words where it cannot be.
fn destination(path: &Path) -> Result<PathBuf> {
    match fs::canonicalize(path) {
        Ok(found) if found.is_dir() => {
            Err(Failure::engine(format!("invalid output path: {} is a directory", path.display())).into())
        }
        Ok(found) => Ok(found),
        Err(_) => {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            match parent.filter(|parent| !parent.is_dir()) {
                Some(parent) => Err(Failure::engine(format!(
                    "invalid output path: directory {:?} does not exist",
                    parent.display().to_string()
                ))
                .into()),
                None => Ok(path.to_path_buf()),
            }
        }
    }
}

/// A file that has no name until it is complete, so that a kill leaves nothing; on file systems that cannot do
/// without one, a name of its own.
struct Temporary {
    file: File,
    name: PathBuf,
    named: bool,
}

impl Temporary {
    fn beside(path: &Path, directory: &Path) -> io::Result<Temporary> {
        let mut name = std::ffi::OsString::from(".");
        name.push(path.file_name().unwrap_or_default());
        name.push(format!(".{}.tmp", std::process::id()));
        let name = directory.join(name);
        let flags = OFlags::TMPFILE.bits().cast_signed();
        let nameless = OpenOptions::new().write(true).mode(0o600).custom_flags(flags).open(directory);
        match nameless {
            Ok(file) => Ok(Temporary { file, name, named: false }),
            Err(_) => {
                let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&name)?;
                Ok(Temporary { file, name, named: true })
            }
        }
    }

    fn publish(mut self, path: &Path) -> io::Result<()> {
        if !self.named {
            // Left by a process of our number that was killed just here.
            let _ = fs::remove_file(&self.name);
            let held = format!("/proc/self/fd/{}", self.file.as_raw_fd());
            linkat(CWD, held, CWD, &self.name, AtFlags::SYMLINK_FOLLOW)?;
            self.named = true;
        }
        fs::rename(&self.name, path)?;
        self.named = false;
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if self.named {
            let _ = fs::remove_file(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_whole_or_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        let text = path.to_str().unwrap();
        let names = || fs::read_dir(directory.path()).unwrap().count();
        let fails = |out: &mut dyn Write| {
            out.write_all(b"half").and_then(|()| out.flush())?;
            anyhow::bail!("no more")
        };
        assert!(deliver(Some(text), fails).unwrap_err().to_string().contains("write "));
        assert_eq!(names(), 0);
        deliver(Some(text), |out| Ok(out.write_all(b"whole")?)).unwrap();
        assert!(deliver(Some(text), fails).is_err());
        assert_eq!((fs::read(&path).unwrap(), names()), (b"whole".to_vec(), 1));
        // Through a link, which stays one.
        let link = directory.path().join("l");
        std::os::unix::fs::symlink("f", &link).unwrap();
        deliver(link.to_str(), |out| Ok(out.write_all(b"new")?)).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        deliver(Some("/dev/null"), |out| Ok(out.write_all(b"x")?)).unwrap();
        let error = deliver(directory.path().to_str(), |_| Ok(())).unwrap_err();
        assert!(error.to_string().contains("is a directory"), "{error}");
        let error = deliver(Some("/absent/x"), |_| Ok(())).unwrap_err();
        assert_eq!(error.to_string(), "invalid output path: directory \"/absent\" does not exist");
    }
}
