//! Which devices a container has: the nodes in its `/dev`, and the rules of its device cgroup.
//!
//! A node alone opens nothing: `CAP_MKNOD`, which Docker's containers have, makes any. What may be opened is said by the
//! rules (`cgroup/devices/`). Both come from one look at the host, at each start: device numbers change.

use std::fs::{self, Metadata};
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::Result;
use oci_spec::runtime::{LinuxDevice, LinuxDeviceBuilder, LinuxDeviceCgroup, LinuxDeviceType};

use super::absolute::absolute;
use super::request::CreateRequest;
use crate::container::{Config, DeviceMapping};
use crate::error::Failure;
use crate::runtime::spec;

/// Below `/dev` and not devices of the host: file systems of their own, or made per container.
const SKIPPED: [&str; 8] = ["pts", "shm", "mqueue", "fd", "console", "core", "ptmx", ".udev"];
/// Made for every container.
const DEFAULT: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
/// How deep a directory of devices is searched. Device trees are shallow; a bound keeps a strange one from mattering.
const DEPTH: usize = 8;

/// What every container may do with devices, as with Docker: make any node, use those that it finds in its `/dev`.
const DEFAULT_RULES: [&str; 11] = [
    "c *:* m",
    "b *:* m",
    "c 1:3 rwm",   // null
    "c 1:5 rwm",   // zero
    "c 1:7 rwm",   // full
    "c 1:8 rwm",   // random
    "c 1:9 rwm",   // urandom
    "c 5:0 rwm",   // tty
    "c 5:1 rwm",   // console
    "c 5:2 rwm",   // ptmx
    "c 136:* rwm", // pts
];

/// A container's devices, for its OCI spec.
#[derive(Debug, Clone, PartialEq)]
pub struct Devices {
    /// `linux.devices`.
    pub nodes: Vec<LinuxDevice>,
    /// `linux.resources.devices`.
    pub rules: Vec<LinuxDeviceCgroup>,
}

/// Looks up what a config asks for.
///
/// # Errors
/// A `--device` is none on this host.
pub fn lower(config: &Config) -> Result<Devices> {
    let mut nodes = spec::default_devices();
    if config.security.privileged {
        nodes.extend(of_host());
        for mapping in &config.devices {
            nodes.extend(gather(mapping)?);
        }
        return Ok(Devices { nodes, rules: vec![everything(true)] });
    }
    let mut rules = vec![everything(false)];
    rules.extend(DEFAULT_RULES.iter().filter_map(|rule| parse_rule(rule)));
    for mapping in &config.devices {
        for node in gather(mapping)? {
            let mut rule = LinuxDeviceCgroup::from(&node);
            rule.set_access(Some(mapping.permissions.clone()));
            rules.push(rule);
            nodes.push(node);
        }
    }
    rules.extend(config.device_rules.iter().filter_map(|rule| parse_rule(rule)));
    Ok(Devices { nodes, rules })
}

/// The rule about everything.
fn everything(allow: bool) -> LinuxDeviceCgroup {
    let mut rule = LinuxDeviceCgroup::default();
    rule.set_allow(allow).set_access(Some("rwm".into()));
    rule
}

/// Reads `TYPE MAJOR:MINOR ACCESS`: `a`, `b` or `c`, numbers or `*`, of `r`, `w` and `m` (Docker's
/// `--device-cgroup-rule`). Such a rule allows.
pub fn parse_rule(text: &str) -> Option<LinuxDeviceCgroup> {
    let words: Vec<&str> = text.split(' ').collect();
    let &[kind, numbers, access] = words.as_slice() else { return None };
    let kind = match kind {
        "a" => LinuxDeviceType::A,
        "b" => LinuxDeviceType::B,
        "c" => LinuxDeviceType::C,
        _ => return None,
    };
    let number = |text: &str| match text {
        "*" => Some(None),
        digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse::<u32>().ok().map(Some),
        _ => None,
    };
    let (major, minor) = numbers.split_once(':')?;
    let (major, minor) = (number(major)?, number(minor)?);
    if !(1..=3).contains(&access.len()) || !access.bytes().all(|byte| matches!(byte, b'r' | b'w' | b'm')) {
        return None;
    }
    let mut rule = LinuxDeviceCgroup::default();
    rule.set_allow(true).set_typ(Some(kind)).set_access(Some(access.to_owned()));
    rule.set_major(major.map(i64::from)).set_minor(minor.map(i64::from));
    Some(rule)
}

/// Whether `text` is a choice of `r`, `w` and `m`, each once at most.
pub fn are_permissions(text: &str) -> bool {
    let once = |letter: char| text.matches(letter).count() <= 1;
    !text.is_empty() && text.chars().all(|letter| matches!(letter, 'r' | 'w' | 'm') && once(letter))
}

/// The devices of a request, their paths cleaned.
pub(super) fn mappings(request: &CreateRequest) -> Result<Vec<DeviceMapping>> {
    let clean = |mapping: &DeviceMapping| {
        if !are_permissions(&mapping.permissions) {
            return Err(Failure::usage(format!("bad mode specified: {}", mapping.permissions)).into());
        }
        let host = absolute(&mapping.host, "device path")?;
        let container = absolute(&mapping.container, "device path in the container")?;
        Ok(DeviceMapping { host, container, permissions: mapping.permissions.clone() })
    };
    request.devices.iter().map(clean).collect()
}

/// The device rules of a request, as they were given.
pub(super) fn checked_rules(request: &CreateRequest) -> Result<Vec<String>> {
    match request.device_rules.iter().find(|rule| parse_rule(rule).is_none()) {
        Some(bad) => Err(Failure::usage(format!("invalid device cgroup format '{bad}'")).into()),
        None => Ok(request.device_rules.clone()),
    }
}

/// The device that a mapping leads to, or all those below the directory.
fn gather(mapping: &DeviceMapping) -> Result<Vec<LinuxDevice>> {
    // Docker's words.
    let refuse = |why: &str| {
        let text = format!("error gathering device information while adding custom device \"{}\": {why}", mapping.host);
        Failure::engine(text).with_hint("name a device of this host, or a directory of devices")
    };
    // Followed: /dev/disk/by-label/x is meant for what it leads to.
    let metadata = fs::metadata(&mapping.host).map_err(|error| match error.kind() {
        ErrorKind::NotFound => refuse("no such file or directory"),
        _ => refuse(&error.to_string()),
    })?;
    if let Some(node) = node(mapping.container.as_ref(), &metadata) {
        return Ok(vec![node]);
    }
    let mut found = Vec::new();
    if metadata.is_dir() {
        let directory = Path::new(&mapping.host);
        walk(directory, &[], 0, &mut |path, metadata| {
            let below = path.strip_prefix(directory).unwrap_or(&path);
            found.extend(node(&Path::new(&mapping.container).join(below), metadata));
        });
    }
    if found.is_empty() { Err(refuse("not a device node").into()) } else { Ok(found) }
}

/// Every device node below the host's `/dev`, for `--privileged`.
fn of_host() -> Vec<LinuxDevice> {
    let mut found = Vec::new();
    let skipped = [&SKIPPED[..], &DEFAULT[..]].concat();
    walk("/dev".as_ref(), &skipped, 0, &mut |path, metadata| found.extend(node(&path, metadata)));
    found
}

/// Goes through the files below a directory, except what bears one of the names right below it. Links are not followed:
/// below `/dev` they are aliases.
fn walk(directory: &Path, skipped: &[&str], depth: usize, visit: &mut impl FnMut(PathBuf, &Metadata)) {
    if depth > DEPTH {
        return;
    }
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(|name| skipped.contains(&name)) {
            continue;
        }
        let Ok(metadata) = fs::symlink_metadata(entry.path()) else { continue };
        if metadata.is_dir() {
            walk(&entry.path(), &[], depth + 1, visit);
        } else {
            visit(entry.path(), &metadata);
        }
    }
}

/// A node for `path` inside that is what `metadata` is of; `None` when that is no device.
fn node(path: &Path, metadata: &Metadata) -> Option<LinuxDevice> {
    let kind = metadata.file_type();
    if !kind.is_block_device() && !kind.is_char_device() {
        return None;
    }
    let number = metadata.rdev();
    LinuxDeviceBuilder::default()
        .path(path)
        .typ(if kind.is_block_device() { LinuxDeviceType::B } else { LinuxDeviceType::C })
        .major(i64::from(rustix::fs::major(number)))
        .minor(i64::from(rustix::fs::minor(number)))
        .file_mode(metadata.mode() & 0o7777)
        .uid(metadata.uid())
        .gid(metadata.gid())
        .build()
        .ok()
}

#[cfg(test)]
#[path = "devices_tests.rs"]
mod tests;
