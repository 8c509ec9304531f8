//! Which devices a group's processes may open and make: the device controller of cgroups v1, or an eBPF program on the
//! group's directory in v2. Device nodes may be made by whoever has `CAP_MKNOD`, which Docker's containers have; what
//! keeps them from being the host's disk is this.

mod policy;
mod program;
mod v1;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result};
use oci_spec::runtime::LinuxDeviceCgroup;
use rustix::fs::{Mode as FileMode, OFlags, open};
use rustix::io::Errno;

use self::policy::{Policy, Verdict};
use super::{Group, Mode};
use crate::error::Failure;
use crate::sys::bpf;

/// What our programs are called, for `bpftool` and for telling them from others'.
const PROGRAM_NAME: &str = "mydocker_device";

impl Group {
    /// Confines the group to the devices that `rules` allow (OCI runtime spec, config-linux.md, "Allowed Device list"):
    /// later rules win, and what none speaks of is denied. Repeating it replaces what held before. Rules that allow
    /// everything, or none at all, cost nothing: a new group may do what its parent may.
    ///
    /// Before the first process joins, or it might open something meanwhile.
    ///
    /// # Errors
    /// There is no way to confine devices on this host, a group above forbids what is to be allowed, or v1 has no words
    /// for the rules.
    pub fn restrict_devices(&self, rules: &[LinuxDeviceCgroup]) -> Result<()> {
        let policy = Policy::of_spec(rules)?;
        if policy.allows_everything() {
            return Ok(());
        }
        match self.mode {
            Mode::V2 => self.attach_program(&policy),
            Mode::V1 | Mode::Hybrid => self.write_rules(&policy),
        }
    }

    /// What [`restrict_devices`](Self::restrict_devices) would do, in words: the lines it writes, or the listing of the
    /// program.
    ///
    /// # Errors
    /// v1 has no words for the rules.
    pub fn device_plan(&self, rules: &[LinuxDeviceCgroup]) -> Result<Vec<String>> {
        let policy = Policy::of_spec(rules)?;
        if policy.allows_everything() {
            return Ok(Vec::new());
        }
        Ok(match self.mode {
            Mode::V2 => program::assemble(&policy)?.to_string().lines().map(str::to_owned).collect(),
            Mode::V1 | Mode::Hybrid => {
                v1::writes(&policy)?.iter().map(|write| format!("{} < {}", write.file(), write.line)).collect()
            }
        })
    }

    fn write_rules(&self, policy: &Policy) -> Result<()> {
        let directory = self.directory("devices").ok_or_else(|| {
            // Going on without would leave the host's disks open to every container.
            Failure::engine("cannot confine devices: the cgroup controller for devices is not mounted")
                .with_hint("mount it: mount -t cgroup -o devices devices /sys/fs/cgroup/devices")
        })?;
        let (mut allow, mut deny) = (None, None);
        for write in v1::writes(policy)? {
            // Each file is opened once; the kernel takes one rule a write.
            let slot = if write.verdict == Verdict::Allow { &mut allow } else { &mut deny };
            let file = match slot {
                Some(file) => file,
                None => slot.insert(open_for_writing(&directory.join(write.file()))?),
            };
            rustix::io::write(&*file, write.line.as_bytes()).map_err(|errno| refused(&write, errno, directory))?;
        }
        Ok(())
    }

    fn attach_program(&self, policy: &Policy) -> Result<()> {
        let directory = self.v2_dir_fd()?.context("confine devices: the group has no directory")?;
        let directory = directory.as_fd();
        let program = program::assemble(policy)?;
        let loaded = bpf::load_device_program(&program.encode(), PROGRAM_NAME).map_err(not_loaded)?;
        // None in a new group; one that a crash has left may have its program still.
        let ours = ours(directory).context("look for device programs on the cgroup")?;
        replace(directory, loaded.as_fd(), &ours).map_err(|error| {
            let failure =
                Failure::engine(format!("attach the device program to {}: {error}", self.members[0].path.display()));
            match error.raw_os_error() {
                Some(libc::EPERM) => failure.with_hint("a cgroup above has a device program that allows none below it"),
                _ => failure,
            }
        })?;
        Ok(())
    }
}

fn open_for_writing(path: &Path) -> Result<OwnedFd> {
    open(path, OFlags::WRONLY | OFlags::CLOEXEC, FileMode::empty()).with_context(|| format!("open {}", path.display()))
}

/// Why a v1 group did not take a rule.
fn refused(write: &v1::Write, errno: Errno, directory: &Path) -> Failure {
    let (verb, line) = (if write.verdict == Verdict::Allow { "allow" } else { "deny" }, &write.line);
    let what = if line == "a" { "all devices".to_owned() } else { format!("device {line}") };
    let failure = Failure::engine(format!("{verb} {what} in cgroup {}: {errno}", directory.display()));
    match errno {
        Errno::PERM => failure.with_hint(
            "a cgroup above forbids it, and v1 lets nobody below have more; see devices.list in the directories above",
        ),
        Errno::INVAL if line == "a" => failure.with_hint("the group has groups below it; remove them first"),
        _ => failure,
    }
}

fn not_loaded(error: bpf::LoadError) -> Failure {
    let mut failure = Failure::engine(format!("load the device program: {}", error.source));
    if !error.log.is_empty() {
        failure.causes.push(format!("the verifier says: {}", error.log));
    }
    match error.source.raw_os_error() {
        Some(libc::EPERM) => failure.with_hint("this takes CAP_SYS_ADMIN, or CAP_BPF with CAP_NET_ADMIN"),
        Some(libc::ENOSYS | libc::EINVAL) => {
            failure.with_hint("devices in cgroups v2 take Linux 4.15 with CONFIG_CGROUP_BPF; --privileged does without")
        }
        _ => failure,
    }
}

/// Programs of ours that are attached to this very group.
fn ours(directory: BorrowedFd<'_>) -> std::io::Result<Vec<OwnedFd>> {
    let mut found = Vec::new();
    for id in bpf::attached(directory)? {
        // Whoever attached it may have taken it off meanwhile.
        let Ok(program) = bpf::open(id) else { continue };
        if bpf::name(program.as_fd())? == PROGRAM_NAME {
            found.push(program);
        }
    }
    Ok(found)
}

/// Attaches `program` in the place of `old` ones, with no moment in which none is in force.
fn replace(directory: BorrowedFd<'_>, program: BorrowedFd<'_>, old: &[OwnedFd]) -> std::io::Result<()> {
    let mut old = old.iter().map(AsFd::as_fd);
    if let Some(first) = old.next() {
        match bpf::attach(directory, program, Some(first)) {
            // Before Linux 5.6: the new one beside the old one, and while both are there both must agree.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                bpf::attach(directory, program, None)?;
                bpf::detach(directory, first)?;
            }
            result => result?,
        }
    } else {
        bpf::attach(directory, program, None)?;
    }
    old.try_for_each(|program| bpf::detach(directory, program))
}

#[cfg(test)]
mod kernel_tests;
#[cfg(test)]
mod policy_tests;
