//! What a tree is, to the last attribute, for comparing two.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::image::oci::digest::Digest;

/// One line for each file below `root`: all that a layer keeps of it.
pub(super) fn tree(root: &Path) -> BTreeMap<Vec<u8>, String> {
    let mut found = BTreeMap::new();
    let mut links = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        let mut paths: Vec<_> = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        for path in paths {
            let metadata = fs::symlink_metadata(&path).unwrap();
            let kind = metadata.file_type();
            if kind.is_socket() {
                continue;
            }
            let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
            let whiteout = kind.is_char_device() && metadata.rdev() == 0;
            let says = if kind.is_file() {
                Digest::of(&fs::read(&path).unwrap()).to_string()
            } else if kind.is_symlink() {
                fs::read_link(&path).unwrap().display().to_string()
            } else {
                String::new()
            };
            let line = if whiteout {
                "whiteout".to_owned()
            } else {
                format!(
                    "{:o} {}:{} {}.{:09} {} {says} {:?}",
                    metadata.mode(),
                    metadata.uid(),
                    metadata.gid(),
                    metadata.mtime(),
                    metadata.mtime_nsec(),
                    metadata.rdev(),
                    xattrs(&path)
                )
            };
            if !kind.is_dir() && !whiteout && metadata.nlink() > 1 {
                links.entry((metadata.dev(), metadata.ino())).or_insert_with(Vec::new).push(name.clone());
            }
            found.insert(name, line);
            if kind.is_dir() {
                open.push(path);
            }
        }
    }
    for mut names in links.into_values() {
        names.sort();
        for name in &names {
            found.get_mut(name).unwrap().push_str(&format!(" one of {names:?}"));
        }
    }
    found
}

fn xattrs(path: &Path) -> Vec<(String, Vec<u8>)> {
    let mut names = vec![0; 4096];
    let length = rustix::fs::llistxattr(path, &mut names[..]).unwrap();
    let mut found = Vec::new();
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let name = String::from_utf8(name.to_vec()).unwrap();
        // Overlayfs's own, which it puts on what it copies up.
        if name.starts_with("trusted.overlay.") && name != "trusted.overlay.opaque" {
            continue;
        }
        let mut value = vec![0; 4096];
        match rustix::fs::lgetxattr(path, &name[..], &mut value[..]) {
            Ok(length) => value.truncate(length),
            // A malformed capability is none.
            Err(rustix::io::Errno::INVAL) => continue,
            Err(error) => panic!("{name} of {}: {error}", path.display()),
        }
        found.push((name, value));
    }
    found.sort();
    found
}

/// Runs a shell script in `directory`.
pub(super) fn shell(directory: &Path, script: &str) {
    let output = std::process::Command::new("bash").args(["-euc", script]).current_dir(directory).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
}

/// An overlay over a lower directory, mounted until it is dropped.
pub(super) struct Overlay {
    pub(super) dir: tempfile::TempDir,
}

impl Overlay {
    /// `script` makes the lower directory, `lower`.
    pub(super) fn new(script: &str) -> Overlay {
        let dir = tempfile::tempdir().unwrap();
        let lower = dir.path().join("lower");
        fs::create_dir(&lower).unwrap();
        shell(&lower, script);
        Overlay::mounted(dir, &[lower])
    }

    /// Over the directories `lowers`, the topmost first.
    pub(super) fn over(lowers: &[PathBuf]) -> Overlay {
        Overlay::mounted(tempfile::tempdir().unwrap(), lowers)
    }

    fn mounted(dir: tempfile::TempDir, lowers: &[PathBuf]) -> Overlay {
        for name in ["upper", "work", "merged"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let lowers: Vec<String> = lowers.iter().map(|lower| lower.display().to_string()).collect();
        let path = |name: &str| dir.path().join(name).display().to_string();
        // Volatile: to end it writes nothing out, which would be all that the file system has (overlayfs.rst).
        let options =
            format!("volatile,lowerdir={},upperdir={},workdir={}", lowers.join(":"), path("upper"), path("work"));
        let options = std::ffi::CString::new(options).unwrap();
        let none = rustix::mount::MountFlags::empty();
        rustix::mount::mount("overlay", dir.path().join("merged"), "overlay", none, options.as_c_str()).unwrap();
        Overlay { dir }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Changes what the overlay shows.
    pub(super) fn change(&self, script: &str) {
        shell(&self.path("merged"), script);
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.path("merged"), rustix::mount::UnmountFlags::DETACH);
    }
}
