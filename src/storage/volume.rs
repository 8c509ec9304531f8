//! Volumes: directories that outlive containers.
//!
//! ```text
//! volumes/<name>/_data         what containers see
//! volumes/<name>/volume.json   when it was made, and whether it goes with its container
//! ```

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::error::Failure;
use crate::layout::Layout;
use crate::store::{self, Durability};
use crate::sys::tree;

/// Whether a volume has a name of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The user named it; it stays until removed.
    Named,
    /// It was made for one container and may go with it.
    Anonymous,
}

/// `volume.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Version of the form of this file.
    pub version: u32,
    /// When it was made.
    pub created: jiff::Timestamp,
    /// Whether it has a name of its own.
    pub kind: Kind,
}

/// The volumes below one data root.
#[derive(Debug, Clone)]
pub struct Volumes {
    root: PathBuf,
    trash: PathBuf,
}

impl Volumes {
    /// Opens the volumes of a data root.
    pub fn open(layout: &Layout) -> Volumes {
        Volumes { root: layout.volumes(), trash: layout.trash() }
    }

    /// A name for an anonymous volume: 64 hexadecimal digits.
    pub fn random_name() -> Result<String> {
        use std::fmt::Write as _;
        let mut bytes = [0; 32];
        crate::sys::random::fill(&mut bytes).context("get random bytes")?;
        let mut name = String::with_capacity(64);
        for byte in bytes {
            // Writing to a String cannot fail.
            let _ = write!(name, "{byte:02x}");
        }
        Ok(name)
    }

    /// The directory of a volume's data, made when there is none. Two at once both succeed.
    ///
    /// # Errors
    /// An invalid name; a directory that cannot be made.
    pub fn ensure(&self, name: &str, kind: Kind) -> Result<PathBuf> {
        validate(name)?;
        let directory = self.root.join(name);
        let data = directory.join("_data");
        if data.is_dir() {
            return Ok(data);
        }
        DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(&directory)
            .with_context(|| format!("create volume {name}"))?;
        // The record goes first: where the data is, the volume is complete.
        if self.record(name)?.is_none() {
            let record = Record { version: 1, created: jiff::Timestamp::now(), kind };
            store::write_json(&directory.join("volume.json"), &record, Durability::PowerCut)?;
        }
        match fs::create_dir(&data) {
            // The umask has no say in what a container sees.
            Ok(()) => fs::set_permissions(&data, Permissions::from_mode(0o755)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error),
        }
        .and_then(|()| File::open(&directory)?.sync_all())
        .and_then(|()| File::open(&self.root)?.sync_all())
        .with_context(|| format!("create volume {name}"))?;
        Ok(data)
    }

    /// Whether there is a volume of this name. Invalid names have none.
    pub fn exists(&self, name: &str) -> bool {
        validate(name).is_ok() && self.root.join(name).join("_data").is_dir()
    }

    /// What is known of a volume; `None` when there is none.
    pub fn record(&self, name: &str) -> Result<Option<Record>> {
        validate(name)?;
        store::read_json(&self.root.join(name).join("volume.json"))
    }

    /// Removes a volume and its data.
    ///
    /// # Errors
    /// No such volume; data that cannot be removed (a mount inside it).
    pub fn remove(&self, name: &str) -> Result<()> {
        validate(name)?;
        // Renamed away first: whoever dies while deleting leaves no half a volume under its name.
        let trash = self.trash.join(format!("volume-{name:.64}-{:.16}", Volumes::random_name()?));
        match fs::rename(self.root.join(name), &trash) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(Failure::not_found(format!("get {name}: no such volume")).into());
            }
            Err(error) => return Err(error).with_context(|| format!("remove volume {name}")),
        }
        // However deep a container made it.
        let directory = File::open(&self.trash).context("open the trash")?;
        tree::remove(directory.as_fd(), trash.file_name().unwrap_or_default().as_bytes())
            .with_context(|| format!("remove volume {name}: delete {}", trash.display()))
    }
}

/// `[a-zA-Z0-9][a-zA-Z0-9_.-]+`, at most 255 bytes: never a path.
fn validate(name: &str) -> Result<()> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    let valid =
        (2..=255).contains(&name.len()) && name.as_bytes()[0].is_ascii_alphanumeric() && name.bytes().all(allowed);
    if valid {
        return Ok(());
    }
    let message = format!(
        "{name:?} includes invalid characters for a local volume name, \
         only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed"
    );
    let hint = "a host directory must be an absolute path; a volume's name has at least two characters";
    Err(Failure::usage(message).with_hint(hint).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volumes() -> (tempfile::TempDir, Volumes) {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(Some(dir.path().into()));
        fs::create_dir(layout.trash()).unwrap();
        let volumes = Volumes::open(&layout);
        (dir, volumes)
    }

    #[test]
    fn a_volume_lives_until_removed() {
        let (_dir, volumes) = volumes();
        assert!(!volumes.exists("data"));
        let path = volumes.ensure("data", Kind::Named).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o755);
        fs::write(path.join("x"), "1").unwrap();
        let record = volumes.record("data").unwrap().unwrap();
        assert_eq!(volumes.ensure("data", Kind::Anonymous).unwrap(), path);
        assert_eq!(volumes.record("data").unwrap(), Some(record.clone()), "the first record stays");
        assert_eq!(record.kind, Kind::Named);
        assert_eq!(fs::read(path.join("x")).unwrap(), b"1");
        volumes.remove("data").unwrap();
        assert!(!volumes.exists("data"));
        assert_eq!(fs::read_dir(&volumes.trash).unwrap().count(), 0);
        assert_eq!(volumes.remove("data").unwrap_err().to_string(), "get data: no such volume");
    }

    #[test]
    fn names_are_never_paths() {
        let (_dir, volumes) = volumes();
        for name in ["", "a", "..", "../x", "a/b", "/abs", ".hidden", "-x", "a b", "a\0b", "é1", &"a".repeat(256)] {
            assert!(volumes.ensure(name, Kind::Named).is_err(), "{name:?}");
            assert!(volumes.remove(name).is_err(), "{name:?}");
            assert!(!volumes.exists(name), "{name:?}");
        }
        assert!(volumes.ensure("A0_.-", Kind::Named).is_ok());
    }

    #[test]
    fn random_names_are_valid_and_differ() {
        let name = Volumes::random_name().unwrap();
        assert_eq!(name.len(), 64);
        assert!(validate(&name).is_ok());
        assert_ne!(name, Volumes::random_name().unwrap());
    }
}
