//! Finding the hierarchies in `/proc/self/mountinfo` (proc_pid_mountinfo(5)).

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::{Hierarchy, v1};

/// Where distributions mount cgroups; a mount here is preferred to a second one elsewhere.
const USUAL: &str = "/sys/fs/cgroup";

/// The v1 hierarchies with controllers, and the mount point of the unified tree.
pub(super) fn hierarchies(text: &[u8]) -> (Vec<Hierarchy>, Option<PathBuf>) {
    let mut v1: Vec<Hierarchy> = Vec::new();
    let mut v2: Option<PathBuf> = None;
    for line in text.split(|byte| *byte == b'\n') {
        let Some(entry) = Entry::parse(line) else { continue };
        if entry.kind == b"cgroup2" {
            if v2.as_deref().is_none_or(|known| is_better(&entry.mount, known)) {
                v2 = Some(entry.mount);
            }
            continue;
        }
        let controllers = v1::controllers(entry.options);
        if controllers.is_empty() {
            continue;
        }
        match v1.iter_mut().find(|known| known.controllers == controllers) {
            Some(known) if is_better(&entry.mount, &known.mount) => known.mount = entry.mount,
            Some(_) => {}
            None => v1.push(Hierarchy { controllers, mount: entry.mount }),
        }
    }
    (v1, v2)
}

/// The same hierarchy may be mounted more than once, other containers' views among them.
fn is_better(new: &Path, known: &Path) -> bool {
    new.starts_with(USUAL) && !known.starts_with(USUAL)
}

struct Entry<'a> {
    kind: &'a [u8],
    mount: PathBuf,
    options: &'a [u8],
}

impl<'a> Entry<'a> {
    /// `id parent major:minor root mount-point options optional… - type source super-options`; `None` for mounts of
    /// other types.
    fn parse(line: &'a [u8]) -> Option<Self> {
        let mut fields = line.split(|byte| *byte == b' ');
        let mount = fields.nth(4)?;
        fields.find(|field| *field == b"-")?;
        let kind = fields.next().filter(|kind| matches!(*kind, b"cgroup" | b"cgroup2"))?;
        Some(Entry { kind, mount: unescape(mount), options: fields.nth(1)? })
    }
}

/// Undoes `\040` and the like.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((byte, tail)) = rest.split_first() {
        rest = tail;
        match (byte, tail) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = after;
            }
            _ => bytes.push(*byte),
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_mounts_and_foreign_lines_are_passed_over() {
        let text = b"garbage\n1 2 3\n\
            5 1 0:9 / /mnt/my\\040cg rw - cgroup none rw,pids\n\
            6 1 0:9 /x /var/lib/c/pids rw - cgroup none rw,pids\n\
            7 1 0:9 / /var/lib/c/memory rw - cgroup none rw,memory\n\
            8 1 0:9 / /sys/fs/cgroup/memory rw a:1 b:2 - cgroup none rw,memory\n\
            9 1 0:9 / /cgroup rw - ext4 /dev/sda rw,cpu\n";
        let (v1, v2) = hierarchies(text);
        let found: Vec<_> = v1.iter().map(|h| (h.controllers[0].as_str(), h.mount.to_str().unwrap())).collect();
        assert_eq!(found, [("pids", "/mnt/my cg"), ("memory", "/sys/fs/cgroup/memory")]);
        assert_eq!(v2, None);
    }
}
