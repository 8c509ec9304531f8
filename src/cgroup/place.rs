//! Where a container's groups lie: the same relative path below every hierarchy's mount point.

use std::path::{Component, Path, PathBuf};

use anyhow::Result;

use crate::error::Failure;

/// Parent of all containers' groups that were given none.
pub(super) const PARENT: &str = "mydocker";

/// A relative path without `..`: `mydocker/<id>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place(PathBuf);

impl Place {
    /// The place of the group `id` below `parent`; empty is the usual parent. A leading slash means the mount point,
    /// as it does for Docker's `--cgroup-parent`.
    ///
    /// # Errors
    /// `id` is no plain file name, or `parent` leads upwards.
    pub fn new(parent: &str, id: &str) -> Result<Place> {
        let plain = id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
        if !plain || id.is_empty() || id.starts_with('.') || id.len() > 128 {
            return Err(Failure::engine(format!("name cgroup {id:?}: not an id")).into());
        }
        let mut path = PathBuf::new();
        for part in Path::new(if parent.is_empty() { PARENT } else { parent }).components() {
            match part {
                Component::RootDir | Component::CurDir => {}
                Component::Normal(name) if !parent.contains(['\n', '\0']) => path.push(name),
                _ => return Err(invalid(parent, "it must lead downwards")),
            }
        }
        if path.as_os_str().is_empty() {
            return Err(invalid(parent, "it is the root itself"));
        }
        path.push(id);
        Ok(Place(path))
    }

    /// The path, relative to a mount point.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The path of its parent.
    pub fn parent(&self) -> &Path {
        self.0.parent().unwrap_or(Path::new(PARENT))
    }
}

fn invalid(parent: &str, why: &str) -> anyhow::Error {
    Failure::usage(format!("invalid cgroup parent {parent:?}: {why}"))
        .with_hint("write a path below the cgroup mount, such as /ci/jobs")
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_never_leads_upwards() {
        assert_eq!(Place::new("", "c1").unwrap().path(), Path::new("mydocker/c1"));
        assert_eq!(Place::new("/ci//jobs/./", "c1").unwrap().path(), Path::new("ci/jobs/c1"));
        assert_eq!(Place::new("ci", "c1").unwrap().parent(), Path::new("ci"));
        for id in ["", "..", ".", "a/b", "/etc", "a\0b"] {
            Place::new("", id).unwrap_err();
        }
        for parent in ["/", "..", "/a/../..", "a/..", ".", "a\nb"] {
            Place::new(parent, "c1").unwrap_err();
        }
    }
}
