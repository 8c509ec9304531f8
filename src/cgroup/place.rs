//! Where a container's groups lie: the same relative path below every hierarchy's mount point, in a directory of
//! ours or in a slice of systemd's.

use std::path::{Component, Path, PathBuf};

use anyhow::Result;

use crate::error::Failure;

/// Parent of all containers' groups that were given none.
pub(super) const PARENT: &str = "mydocker";

/// Slice of the scopes that were given none, as for Docker's.
const SLICE: &str = "system.slice";

/// A relative path without `..`: `mydocker/<id>`, or that of a scope, `system.slice/mydocker-<id>.scope`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    path: PathBuf,
    unit: Option<Unit>,
}

/// A scope of systemd's, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// `mydocker-<id>.scope`
    pub name: String,
    /// The slice it is in: `ci-jobs.slice`.
    pub slice: String,
}

impl Place {
    /// The place of the group `id` below `parent`; empty is the usual parent. A leading slash means the mount point,
    /// as it does for Docker's `--cgroup-parent`.
    ///
    /// # Errors
    /// `id` is no plain file name, or `parent` leads upwards.
    pub fn new(parent: &str, id: &str) -> Result<Place> {
        check_id(id)?;
        // A name such as `ci.slice` is meant for systemd, who would not know of a directory that we make.
        if parent.ends_with(".slice") && !parent.contains('/') {
            return Err(Failure::usage(format!(
                "cgroup-parent for cgroupfs driver is a path, and {parent} is a slice"
            ))
            .with_hint(format!("add --cgroup-driver systemd, or write /{parent} if a directory is meant"))
            .into());
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
        Ok(Place { path, unit: None })
    }

    /// The place of a scope of systemd's for `id` in `slice`; empty is `system.slice`.
    ///
    /// # Errors
    /// `id` is no plain file name, or `slice` is not the name of a slice.
    pub fn scope(slice: &str, id: &str) -> Result<Place> {
        check_id(id)?;
        let slice = if slice.is_empty() { SLICE } else { slice };
        let mut path = slice_path(slice).ok_or_else(|| {
            Failure::usage("cgroup-parent for systemd cgroup should be a valid slice named as \"xxx.slice\"").with_hint(
                format!("{slice} is none; levels are written with dashes: ci-jobs.slice is the slice jobs in ci.slice"),
            )
        })?;
        let name = format!("{PARENT}-{id}.scope");
        path.push(&name);
        Ok(Place { path, unit: Some(Unit { name, slice: slice.to_owned() }) })
    }

    /// The scope, where systemd makes the groups.
    pub fn unit(&self) -> Option<&Unit> {
        self.unit.as_ref()
    }

    /// The path, relative to a mount point.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of its parent.
    pub fn parent(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(PARENT))
    }
}

fn check_id(id: &str) -> Result<()> {
    let plain = id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
    if !plain || id.is_empty() || id.starts_with('.') || id.len() > 128 {
        return Err(Failure::engine(format!("name cgroup {id:?}: not an id")).into());
    }
    Ok(())
}

/// Where systemd puts a slice: `a-b.slice` is `a.slice/a-b.slice`, `-.slice` the root (systemd.slice(5)). `None` for
/// what is no slice's name.
fn slice_path(slice: &str) -> Option<PathBuf> {
    let name = slice.strip_suffix(".slice")?;
    let mut path = PathBuf::new();
    if name == "-" {
        return Some(path);
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b':' | b'@' | b'\\');
    // 255: the longest name of a unit.
    if slice.len() > 255 || name.split('-').any(str::is_empty) || !name.bytes().all(plain) {
        return None;
    }
    for (dash, _) in name.match_indices('-') {
        path.push(format!("{}.slice", &name[..dash]));
    }
    path.push(slice);
    Some(path)
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

    #[test]
    fn slices_are_nested_by_their_dashes() {
        let path = |slice: &str| Place::scope(slice, "c1").unwrap().path().to_str().unwrap().to_owned();
        assert_eq!(path(""), "system.slice/mydocker-c1.scope");
        assert_eq!(path("ci.slice"), "ci.slice/mydocker-c1.scope");
        assert_eq!(path("a-b-c.slice"), "a.slice/a-b.slice/a-b-c.slice/mydocker-c1.scope");
        assert_eq!(path("-.slice"), "mydocker-c1.scope");
        let place = Place::scope("a-b.slice", "c1").unwrap();
        assert_eq!(place.parent(), Path::new("a.slice/a-b.slice"));
        assert_eq!(place.unit(), Some(&Unit { name: "mydocker-c1.scope".into(), slice: "a-b.slice".into() }));
        for slice in [".slice", "ci", "/ci.slice", "a/b.slice", "-a.slice", "a-.slice", "a--b.slice", "..", "a b.slice"]
        {
            let text = Place::scope(slice, "c1").unwrap_err().to_string();
            assert!(text.contains("should be a valid slice named as \"xxx.slice\""), "{slice}: {text}");
        }
        Place::scope("", "a/b").unwrap_err();
    }

    #[test]
    fn a_slice_is_no_path() {
        assert!(Place::new("ci-jobs.slice", "c1").unwrap_err().to_string().contains("cgroupfs driver"));
        assert_eq!(Place::new("/ci.slice", "c1").unwrap().path(), Path::new("ci.slice/c1"));
        assert_eq!(Place::new("", "c1").unwrap().unit(), None);
    }
}
