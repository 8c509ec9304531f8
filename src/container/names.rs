//! Names: who holds which, decided by the kernel.
//!
//! A claim is a symbolic link `names/<name>` whose text is the container's id, so a name is resolved
//! with one readlink. Claims are made and stale ones replaced under the lock `names/.lock`, held for
//! microseconds; of two processes that race exactly one wins. The claim is made *after* the
//! container's directory exists; a claim whose holder is gone (kill -9 between the two, or during
//! removal) is stale and may be taken over.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;

use anyhow::{Context, Result};

use super::ContainerId;
use crate::error::Failure;
use crate::layout::Layout;
use crate::store::Lock;

/// Docker's rule: `[a-zA-Z0-9][a-zA-Z0-9_.-]+`.
pub fn validate(name: &str) -> Result<()> {
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric());
    let rest = bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
    if first && rest && (2..=255).contains(&name.len()) {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "invalid container name {name:?}: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed, two characters at least"
    ))
    .into())
}

/// The holder of `name`, when it still exists.
pub fn holder(layout: &Layout, name: &str) -> Result<Option<ContainerId>> {
    let link = layout.names().join(name);
    match fs::read_link(&link) {
        Ok(text) => Ok(text.to_str().and_then(ContainerId::parse).filter(|id| layout.container(id).exists())),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read name {}", link.display())),
    }
}

/// Claims `name` for `id`; `Ok(Some(holder))` when another container has it.
pub fn try_claim(layout: &Layout, name: &str, id: &ContainerId) -> Result<Option<ContainerId>> {
    let lock = layout.names().join(".lock");
    let _held = Lock::acquire(&lock)?.ok_or_else(|| Failure::engine(format!("{} is gone", lock.display())))?;
    let link = layout.names().join(name);
    match symlink(id.as_str(), &link) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            if let Some(holder) = holder(layout, name)? {
                return Ok(Some(holder));
            }
            fs::remove_file(&link).with_context(|| format!("remove stale name {name:?}"))?;
            symlink(id.as_str(), &link).with_context(|| format!("claim name {name:?}"))?;
        }
        result => result.with_context(|| format!("claim name {name:?}"))?,
    }
    Ok(None)
}

/// Claims `name` for `id` or says who has it, in Docker's words.
pub fn claim(layout: &Layout, name: &str, id: &ContainerId) -> Result<()> {
    match try_claim(layout, name, id)? {
        None => Ok(()),
        Some(holder) => Err(Failure::conflict(format!(
            "Conflict. The container name \"/{name}\" is already in use by container \"{holder}\""
        ))
        .with_hint(format!("choose another name, or free it: mydocker rm {}", holder.short()))
        .into()),
    }
}

/// Gives `name` back if `id` holds it; harmless when repeated. Needs no lock: only the holder's own
/// transitions release, and a live claim is never replaced.
pub fn release(layout: &Layout, name: &str, id: &ContainerId) -> Result<()> {
    let link = layout.names().join(name);
    match fs::read_link(&link) {
        Ok(text) if text.to_str() == Some(id.as_str()) => match fs::remove_file(&link) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("release name {name:?}"))
            }
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

/// Gives back every name that `id` holds, for a container whose record cannot be read.
pub fn release_all(layout: &Layout, id: &ContainerId) -> Result<()> {
    let directory = layout.names();
    for entry in fs::read_dir(&directory).with_context(|| format!("list {}", directory.display()))? {
        let entry = entry.with_context(|| format!("list {}", directory.display()))?;
        if let Some(name) = entry.file_name().to_str() {
            release(layout, name, id)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh() -> (tempfile::TempDir, Layout) {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(Some(dir.path().into()));
        fs::create_dir_all(layout.names()).unwrap();
        (dir, layout)
    }

    fn container(layout: &Layout) -> ContainerId {
        let id = ContainerId::random().unwrap();
        fs::create_dir_all(layout.container(&id)).unwrap();
        id
    }

    #[test]
    fn one_holder_at_a_time_and_stale_claims_are_taken_over() {
        let (_dir, layout) = fresh();
        let (a, b) = (container(&layout), container(&layout));
        claim(&layout, "web", &a).unwrap();
        let text = claim(&layout, "web", &b).unwrap_err().to_string();
        assert!(text.contains(a.as_str()), "{text}");
        fs::remove_dir_all(layout.container(&a)).unwrap();
        claim(&layout, "web", &b).unwrap();
        assert_eq!(holder(&layout, "web").unwrap(), Some(b.clone()));
        release(&layout, "web", &a).unwrap();
        assert_eq!(holder(&layout, "web").unwrap(), Some(b));
    }

    #[test]
    fn of_many_racers_exactly_one_wins() {
        let (_dir, layout) = fresh();
        let racers: Vec<_> = (0..16)
            .map(|_| {
                let (layout, id) = (layout.clone(), container(&layout));
                std::thread::spawn(move || try_claim(&layout, "web", &id).unwrap().is_none())
            })
            .collect();
        assert_eq!(racers.into_iter().map(|r| r.join().unwrap()).filter(|&won| won).count(), 1);
    }

    #[test]
    fn names_follow_dockers_rule() {
        for good in ["a1", "web-1", "x_y.z"] {
            validate(good).unwrap();
        }
        for bad in ["", "a", "-a", "a/b", "a b", "ä1", ".."] {
            validate(bad).unwrap_err();
        }
    }
}
