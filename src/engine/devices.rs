//! The host's device nodes, for `--privileged`.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use oci_spec::runtime::{LinuxDevice, LinuxDeviceBuilder, LinuxDeviceType};

/// Below `/dev` and not devices of the host: file systems of their own, or made per container.
const SKIPPED: [&str; 8] = ["pts", "shm", "mqueue", "fd", "console", "core", "ptmx", ".udev"];
/// Made for every container.
const DEFAULT: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Every device node below the host's `/dev`.
pub fn of_host() -> Vec<LinuxDevice> {
    let mut found = Vec::new();
    walk(Path::new("/dev"), 0, &mut found);
    found
}

fn walk(directory: &Path, depth: usize, found: &mut Vec<LinuxDevice>) {
    // A device tree is shallow; a bound keeps a strange one from mattering.
    if depth > 4 {
        return;
    }
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let top = depth == 0;
        if top && (SKIPPED.iter().chain(&DEFAULT)).any(|known| name.to_str() == Some(known)) {
            continue;
        }
        // Not followed: links below /dev are aliases.
        let Ok(metadata) = fs::symlink_metadata(entry.path()) else { continue };
        let kind = metadata.file_type();
        if kind.is_dir() {
            walk(&entry.path(), depth + 1, found);
        } else if kind.is_char_device() || kind.is_block_device() {
            let number = metadata.rdev();
            let device = LinuxDeviceBuilder::default()
                .path(entry.path())
                .typ(if kind.is_block_device() { LinuxDeviceType::B } else { LinuxDeviceType::C })
                .major(i64::from(rustix::fs::major(number)))
                .minor(i64::from(rustix::fs::minor(number)))
                .file_mode(metadata.mode() & 0o7777)
                .uid(metadata.uid())
                .gid(metadata.gid())
                .build();
            found.extend(device);
        }
    }
}
