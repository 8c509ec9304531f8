//! The last steps before exec: limits, working directory, user, capabilities. Shared by a
//! container's first process and by exec, so that both are equally confined.

use std::os::fd::AsFd;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{Gid, Uid};
use rustix::process::{Resource, Rlimit};

use super::call::Call;
use super::capabilities::{self, Privilege};
use super::plan::ResourceLimit;
use super::rootfs::Root;
use super::user::{self, Identity};
use crate::error::{Class, Failure};
use crate::sys::fd;

/// Sets resource limits. Raising a hard limit needs CAP_SYS_RESOURCE, which hosts may lack: then
/// the limit goes as high as it may, as Docker's users expect of a default (tolerated, not fatal).
pub fn set_limits(limits: &[ResourceLimit]) -> Result<()> {
    for limit in limits {
        let resource = resource(&limit.name).with_context(|| format!("unknown resource limit {:?}", limit.name))?;
        let value = |number: u64| (number != u64::MAX).then_some(number);
        let wanted = Rlimit { current: value(limit.soft), maximum: value(limit.hard) };
        match rustix::process::setrlimit(resource, wanted) {
            Err(rustix::io::Errno::PERM) => {
                let present = rustix::process::getrlimit(resource);
                let highest = present.maximum.unwrap_or(u64::MAX);
                let capped =
                    Rlimit { current: value(limit.soft.min(highest)), maximum: value(limit.hard.min(highest)) };
                rustix::process::setrlimit(resource, capped)
            }
            result => result,
        }
        .call("setrlimit")
        .with_context(|| format!("set limit {} to {}:{}", limit.name, limit.soft, limit.hard))?;
    }
    Ok(())
}

/// Whether this name is a resource limit.
pub fn resource(name: &str) -> Option<Resource> {
    Some(match name {
        "as" => Resource::As,
        "core" => Resource::Core,
        "cpu" => Resource::Cpu,
        "data" => Resource::Data,
        "fsize" => Resource::Fsize,
        "locks" => Resource::Locks,
        "memlock" => Resource::Memlock,
        "msgqueue" => Resource::Msgqueue,
        "nice" => Resource::Nice,
        "nofile" => Resource::Nofile,
        "nproc" => Resource::Nproc,
        "rss" => Resource::Rss,
        "rtprio" => Resource::Rtprio,
        "rttime" => Resource::Rttime,
        "sigpending" => Resource::Sigpending,
        "stack" => Resource::Stack,
        _ => return None,
    })
}

/// Changes into the working directory and makes sure that it lies inside the root: a descriptor
/// that leaked from the host would show here (CVE-2024-21626).
pub fn change_directory(path: &str) -> Result<()> {
    rustix::process::chdir(path).call("chdir").map_err(|error| {
        let errno = error.errno;
        // Docker's exit code for it is 126.
        let failure = Failure::new(Class::NotExecutable, format!("change to working directory {path:?}"));
        anyhow::Error::new(error).context(failure.with_hint(match errno {
            libc::ENOTDIR => "it is not a directory in the container; choose another with -w",
            libc::ENOENT => "it does not exist in the container",
            _ => "the container's root user may not enter it",
        }))
    })?;
    // The system call itself: the library function hides "(unreachable)".
    let present = rustix::process::getcwd(Vec::new()).call("getcwd").context("check the working directory")?;
    if !present.as_bytes().starts_with(b"/") {
        return Err(Failure::engine("the working directory lies outside the container").into());
    }
    Ok(())
}

/// Looks the user up in the container's own files.
pub fn resolve_user(root: &Root, user: &str, groups: &[String]) -> Result<Identity> {
    user::resolve(root.descriptor(), user, groups)
}

/// Becomes the user with exactly these capabilities.
///
/// The order matters: the bounding set shrinks while CAP_SETPCAP is held; groups change while
/// CAP_SETGID is held, before the uid; permitted and effective are set after the change of user.
/// Inheritable and ambient end up empty, so that exec gives nothing (CVE-2022-24769).
pub fn become_user(identity: &Identity, capability_names: &[String]) -> Result<()> {
    // Nothing but these: everything dropped, these added.
    let set = capabilities::effective_set(Privilege::Ordinary, capability_names, &["ALL".to_owned()])?;
    let uid = Uid::from_raw(identity.uid);
    let gid = Gid::from_raw(identity.gid);
    for number in 0..=2 {
        give_stream(number, uid);
    }
    capabilities::drop_bounding(set)?;
    if identity.uid != 0 {
        rustix::thread::set_keep_capabilities(false).call("prctl")?;
    }
    let groups: Vec<Gid> = identity.groups.iter().map(|&group| Gid::from_raw(group)).collect();
    rustix::thread::set_thread_groups(&groups).call("setgroups").context("set supplementary groups")?;
    rustix::thread::set_thread_res_gid(gid, gid, gid).call("setresgid").context("set group")?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).call("setresuid").context("set user")?;
    capabilities::set_after_user_change(set, identity.uid)?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    Ok(())
}

/// Lets a plain user open `/dev/stdout` again: the pipes and the terminal are ours, so they are
/// given to it. `/dev/null` is shared with everybody and stays as it is.
fn give_stream(number: i32, uid: Uid) {
    let stream = fd::standard(number);
    let Ok(found) = rustix::fs::fstat(stream.as_fd()) else { return };
    let null = rustix::fs::makedev(1, 3);
    if found.st_rdev != null && found.st_uid != uid.as_raw() {
        let _ = rustix::fs::fchown(stream.as_fd(), Some(uid), None);
    }
}

/// The environment with HOME added when it has none.
pub fn with_home(environment: &[String], home: &str) -> Vec<String> {
    let mut environment = environment.to_vec();
    if !environment.iter().any(|entry| entry.starts_with("HOME=")) {
        let home = if Path::new(home).is_absolute() { home } else { "/" };
        environment.push(format!("HOME={home}"));
    }
    environment
}
