//! Device nodes and links of the container, made in directories held by descriptor.

use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use rustix::fs::{AtFlags, FileType, Gid, Mode, Uid};
use rustix::io::Errno;

use super::call::Call;
use super::plan::DeviceNode;
use super::rootfs::{Root, split};
use crate::error::Failure;

impl Root {
    /// Makes device nodes and links. Most lie below `/dev`, which is a tmpfs of ours by now; elsewhere the container's
    /// own files may be in the way.
    pub fn make_devices(&self, nodes: &[DeviceNode], links: &[(String, String)]) -> Result<()> {
        for node in nodes {
            self.make_device(node)?;
        }
        for (path, target) in links {
            let (parent, name) = split(path)?;
            let parent = self.make_directory(parent)?;
            match rustix::fs::symlinkat(target, &parent, name) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error).call("symlinkat").with_context(|| format!("make link {path}")),
            }
        }
        Ok(())
    }

    fn make_device(&self, node: &DeviceNode) -> Result<()> {
        let (parent, name) = split(&node.path)?;
        let parent = self.make_directory(parent)?;
        let kind = match node.kind.as_str() {
            "b" => FileType::BlockDevice,
            "p" => FileType::Fifo,
            _ => FileType::CharacterDevice,
        };
        let number = rustix::fs::makedev(node.major, node.minor);
        match rustix::fs::mknodat(&parent, name, kind, Mode::from_raw_mode(node.mode), number) {
            // Of an earlier start, or asked for twice.
            Err(Errno::EXIST) if is_device(&parent, name, kind, number) => return Ok(()),
            // "the runtime MUST generate an error" (config-linux.md, "Devices").
            Err(Errno::EXIST) => {
                let text = format!("make device {}: another file is there in the container", node.path);
                return Err(Failure::engine(text)
                    .with_hint("choose another path inside: --device HOST:CONTAINER")
                    .into());
            }
            result => result.call("mknodat").with_context(|| format!("make device {}", node.path))?,
        }
        if (node.uid, node.gid) != (0, 0) {
            let (uid, gid) = (Uid::from_raw(node.uid), Gid::from_raw(node.gid));
            rustix::fs::chownat(&parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).call("fchownat")?;
        }
        Ok(())
    }
}

fn is_device(parent: &OwnedFd, name: &str, kind: FileType, number: u64) -> bool {
    rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|found| FileType::from_raw_mode(found.st_mode) == kind && found.st_rdev == number)
}
