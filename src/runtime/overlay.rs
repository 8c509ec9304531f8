//! The overlay that is a container's root file system, as new kernels and as old ones want it described
//! (`Documentation/filesystems/overlayfs.rst`).
//!
//! All paths are relative to the overlay directory, which is the working directory.

use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use super::Overlay;
use super::call::{Call, CallFailed};
use crate::error::Failure;

/// Linux 6.7 was the first with `lowerdir+`.
const LAYERS_APART: (u32, u32) = (6, 7);

/// Whether [`by_parts`] works. Told by the kernel's release and not by trying: an older kernel would write an
/// error to its log at every start.
pub(super) fn takes_layers_apart() -> bool {
    release(&rustix::system::uname().release().to_string_lossy()) >= LAYERS_APART
}

/// The first two numbers of `uname -r`.
fn release(text: &str) -> (u32, u32) {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Some distributions turn these on for all overlays. Then an upper directory would hold references to layers below
/// instead of contents, and could not become a layer of its own (Documentation/filesystems/overlayfs.rst).
const SELF_CONTAINED: [(&str, &str); 2] = [("redirect_dir", "off"), ("metacopy", "off")];

/// A detached overlay, layers named one by one: their number and the length of their paths do not matter.
pub(super) fn by_parts(overlay: &Overlay) -> Result<OwnedFd, CallFailed> {
    let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).call("fsopen")?;
    rustix::mount::fsconfig_set_string(&context, "source", "overlay").call("fsconfig")?;
    for layer in &overlay.lower {
        rustix::mount::fsconfig_set_string(&context, "lowerdir+", layer).call("fsconfig")?;
    }
    rustix::mount::fsconfig_set_string(&context, "upperdir", &overlay.upper).call("fsconfig")?;
    rustix::mount::fsconfig_set_string(&context, "workdir", &overlay.work).call("fsconfig")?;
    for (option, value) in SELF_CONTAINED {
        rustix::mount::fsconfig_set_string(&context, option, value).call("fsconfig")?;
    }
    if overlay.volatile {
        rustix::mount::fsconfig_set_flag(&context, "volatile").call("fsconfig")?;
    }
    rustix::mount::fsconfig_create(&context).call("fsconfig")?;
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).call("fsmount")
}

/// The directories `layers`, topmost first, as one tree that nobody can write to. It is mounted nowhere and goes
/// with the descriptor.
///
/// # Errors
/// No layer, a layer that is missing; before Linux 6.7 more layers than fit into a page of options.
pub fn read_only(layers: &[PathBuf]) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = |path: &PathBuf| {
        rustix::fs::open(path, flags, Mode::empty())
            .call("open")
            .with_context(|| format!("open layer {}", path.display()))
    };
    let held: Vec<OwnedFd> = layers.iter().map(open).collect::<Result<_>>()?;
    // By number: options are short, and data roots can be long.
    let paths: Vec<String> = held.iter().map(|layer| format!("/proc/self/fd/{}", layer.as_raw_fd())).collect();
    match &held[..] {
        [] => anyhow::bail!("there is no layer"),
        // overlayfs wants two of them when there is nothing to write to; one alone is already what it shows.
        [_] => crate::sys::mount::detached_read_only(CString::new(paths[0].clone())?.as_c_str())
            .call("open_tree")
            .context("open layer"),
        _ if takes_layers_apart() => shown_by_parts(&paths).context("mount overlay"),
        _ => shown_by_options(layers).context("mount overlay"),
    }
}

fn shown_by_parts(layers: &[String]) -> Result<OwnedFd> {
    let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).call("fsopen")?;
    rustix::mount::fsconfig_set_string(&context, "source", "overlay").call("fsconfig")?;
    for layer in layers {
        rustix::mount::fsconfig_set_string(&context, "lowerdir+", layer.as_str()).call("fsconfig")?;
    }
    rustix::mount::fsconfig_create(&context).call("fsconfig")?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY;
    Ok(rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).call("fsmount")?)
}

/// The old way: mounted over a directory that everybody has, in a namespace that ends with the call.
fn shown_by_options(layers: &[PathBuf]) -> Result<OwnedFd> {
    // `/proc/self/fd/`, a number, and what separates it from the next.
    const LONGEST: usize = 20;
    if layers.len() * LONGEST > OPTIONS_LIMIT {
        return Err(Failure::engine("the container has more layers than this kernel can show at once")
            .with_hint("Linux 6.7 can")
            .into());
    }
    Ok(crate::sys::mount::in_private_namespace(|| {
        // Opened in here: overlayfs takes no directory of another namespace's mounts (`check_mnt`, fs/namespace.c).
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = |path: &PathBuf| rustix::fs::open(path, flags, Mode::empty());
        let held: Vec<OwnedFd> = layers.iter().map(open).collect::<rustix::io::Result<_>>()?;
        let numbers: Vec<String> = held.iter().map(|layer| format!("/proc/self/fd/{}", layer.as_raw_fd())).collect();
        let options = CString::new(format!("lowerdir={}", numbers.join(":")))?;
        let flags = rustix::mount::MountFlags::RDONLY;
        rustix::mount::mount("overlay", "/proc", "overlay", flags, options.as_c_str())?;
        Ok(rustix::fs::open("/proc", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
    })
    .call("mount")?)
}

/// Bytes of options that mount(2) takes; it cuts off what is longer.
const OPTIONS_LIMIT: usize = 4095;

/// The old way, mounted where it belongs: all options in one string. Fifty layers fill it; beyond that they are
/// named by the numbers of descriptors, relative to `/proc/self/fd`.
pub(super) fn mount_by_options(overlay: &Overlay) -> Result<()> {
    let text = |path: &Path| path.display().to_string();
    let options = |lower: Vec<String>, upper: String, work: String| {
        let volatile = if overlay.volatile { ",volatile" } else { "" };
        format!("lowerdir={},upperdir={upper},workdir={work},redirect_dir=off,metacopy=off{volatile}", lower.join(":"))
    };
    let mut joined =
        options(overlay.lower.iter().map(|layer| text(layer)).collect(), text(&overlay.upper), text(&overlay.work));
    let mut held = Vec::new();
    if joined.len() > OPTIONS_LIMIT {
        let mut number = |path: &Path| -> Result<String> {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let file = rustix::fs::open(path, flags, Mode::empty())
                .call("open")
                .with_context(|| format!("open layer {}", path.display()))?;
            let number = file.as_raw_fd().to_string();
            held.push(file);
            Ok(number)
        };
        let lower = overlay.lower.iter().map(|layer| number(layer)).collect::<Result<_>>()?;
        joined = options(lower, number(&overlay.upper)?, number(&overlay.work)?);
        rustix::process::chdir("/proc/self/fd").call("chdir")?;
    }
    let options = CString::new(joined).context("a layer path holds a zero byte")?;
    let target = overlay.base.join(&overlay.merged);
    rustix::mount::mount("overlay", &target, "overlay", rustix::mount::MountFlags::empty(), options.as_c_str())
        .call("mount")
        .context("mount overlay")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_shown_and_nothing_is_mounted() {
        let directory = tempfile::Builder::new().tempdir_in("/var/tmp").unwrap();
        let layers: Vec<PathBuf> = ["upper", "lower"].map(|name| directory.path().join(name)).to_vec();
        for layer in &layers {
            std::fs::create_dir(layer).unwrap();
            std::fs::write(layer.join("f"), layer.file_name().unwrap().as_encoded_bytes()).unwrap();
            std::fs::write(layer.join(layer.file_name().unwrap()), "").unwrap();
        }
        for shown in [read_only(&layers).unwrap(), shown_by_options(&layers).unwrap()] {
            let file = rustix::fs::openat(&shown, "f", OFlags::RDONLY, Mode::empty()).unwrap();
            assert_eq!(std::io::read_to_string(std::fs::File::from(file)).unwrap(), "upper");
            rustix::fs::openat(&shown, "lower", OFlags::RDONLY, Mode::empty()).unwrap();
            let error = rustix::fs::openat(&shown, "f", OFlags::WRONLY, Mode::empty()).unwrap_err();
            assert_eq!(error, rustix::io::Errno::ROFS);
        }
        let one = read_only(&layers[1..]).unwrap();
        rustix::fs::openat(&one, "lower", OFlags::RDONLY, Mode::empty()).unwrap();
        assert!(read_only(&[]).is_err());
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(directory.path().to_str().unwrap()), "{mounts}");
    }

    #[test]
    fn releases_are_compared_as_numbers() {
        for (text, expected) in [
            ("6.1.0-56-cloud-amd64", (6, 1)),
            ("6.18.44-fc-v669", (6, 18)),
            ("7.0-rc1", (7, 0)),
            ("5.14.0-427.el9.x86_64", (5, 14)),
            ("strange", (0, 0)),
        ] {
            assert_eq!(release(text), expected, "{text}");
        }
        assert!(release("6.18.0") > LAYERS_APART && release("6.6.9") < LAYERS_APART);
    }
}
