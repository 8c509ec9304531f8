//! The child side: an interpreter of [`InitPlan`]. It knows no state files, no images, no names;
//! whatever it needs is in the plan. It becomes the container's command, or reports why not.

use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::mount::{MountPropagationFlags, MoveMountFlags, OpenTreeFlags};
use rustix::process::DumpableBehavior;
use rustix::pty::OpenptFlags;
use rustix::thread::LinkNameSpaceType;

use super::call::{Call, CallFailed};
use super::diagnose::Lookup;
use super::plan::{InitPlan, Step};
use super::rootfs::Root;
use super::user::Identity;
use super::{
    GATE_DESCRIPTOR, PLAN_DESCRIPTOR, REPORT_DESCRIPTOR, Report, StartFailure, StepTime, TARGET_DESCRIPTOR, copy_up,
    diagnose, identity, monotonic_micros,
};
use crate::error::{Class, Failure};
use crate::sys::channel::Channel;
use crate::sys::process::Child;
use crate::sys::{fd, network, process, tty};

const DEVPTS_SUPER_MAGIC: i64 = 0x1cd1;

/// Runs as init. Returns only when the container's command could not be executed; the reason has
/// been reported.
pub fn main() -> i32 {
    let Ok(report) = fd::inherited(REPORT_DESCRIPTOR).map(Channel::from_descriptor) else {
        let text = "mydocker: init is started by mydocker itself, not by hand\n";
        let _ = std::io::stderr().write_all(text.as_bytes());
        return 125;
    };
    // Not to be traced or read by the container that we are about to enter (CVE-2016-9962); exec
    // of the command sets this back.
    let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
    process::reset_signals();
    // Modes below are meant as they are written, whatever the caller's mask.
    rustix::process::umask(Mode::empty());
    let Some(plan) = read_plan() else { return 125 };
    fd::close_on_exec_from(PLAN_DESCRIPTOR as u32);
    let mut init = Init { report, root: None, identity: None };
    let mut began = monotonic_micros();
    for step in &plan.steps {
        if let Err(error) = init.perform(step) {
            let call = error.chain().find_map(|link| link.downcast_ref::<CallFailed>());
            let failure = StartFailure {
                step: step.title(),
                call: call.map(|failed| (failed.call.to_owned(), failed.errno)),
                failure: Failure::from_error(&error),
            };
            let _ = init.report.send(&Report::Failed(failure), &[]);
            return 125;
        }
        if plan.timed {
            let ended = monotonic_micros();
            let _ = init.report.send(&Report::Step(StepTime { step: step.title(), began, ended }), &[]);
            began = monotonic_micros();
        }
    }
    125
}

/// Device and inode number of this process's root directory.
fn root_identity() -> Result<(u64, u64)> {
    let found = rustix::fs::stat("/").call("stat").context("inspect the root directory")?;
    Ok((found.st_dev, found.st_ino))
}

/// Waits at the gate. A parent that died, or could not make the network and says so itself, closes it
/// without a word.
fn await_network() -> Result<()> {
    let mut byte = [0];
    match File::from(fd::inherited(GATE_DESCRIPTOR)?).read(&mut byte).context("await the network")? {
        1 => Ok(()),
        _ => process::exit_now(125),
    }
}

/// The whole plan, or `None` when the parent died while writing it.
fn read_plan() -> Option<InitPlan> {
    let mut text = Vec::new();
    File::from(fd::inherited(PLAN_DESCRIPTOR).ok()?).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

struct Init {
    report: Channel,
    root: Option<Root>,
    identity: Option<Identity>,
}

impl Init {
    fn root(&self) -> Result<&Root> {
        self.root.as_ref().context("the plan uses the root before it has one")
    }

    fn perform(&mut self, step: &Step) -> Result<()> {
        match step {
            Step::JoinCgroup { tasks } => {
                for path in tasks {
                    join(path).with_context(|| format!("join cgroup {}", path.display()))?;
                }
            }
            Step::NewCgroupNamespace => process::new_cgroup_namespace().call("unshare")?,
            Step::JoinNamespace { path } => {
                let namespace = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).call("open")?;
                rustix::thread::move_into_link_name_space(namespace.as_fd(), None)
                    .call("setns")
                    .with_context(|| format!("join namespace {}", path.display()))?;
            }
            Step::EnterContainer { namespaces } => {
                let target = fd::inherited(TARGET_DESCRIPTOR)?;
                let outside = root_identity()?;
                process::enter_namespaces(target.as_fd(), *namespaces)
                    .call("setns")
                    .context("enter the container's namespaces")?;
                // setns(2) on a mount namespace moves root and working directory to its root. In a
                // container whose init has not come far yet that is still the host's.
                if root_identity()? == outside {
                    return Err(Failure::conflict(
                        "the container has no root file system of its own yet: it is being started",
                    )
                    .into());
                }
                if namespaces & libc::CLONE_NEWPID != 0 {
                    self.move_inside().context("move into the container's PID namespace")?;
                }
                self.root = Some(Root::open("/".as_ref())?);
            }
            Step::NewSession => {
                let _ = rustix::process::setsid();
                process::new_session_keyring().call("keyctl").context("make a session keyring")?;
            }
            Step::Hostname { name } => {
                rustix::system::sethostname(name.as_bytes()).call("sethostname").context("set host name")?;
            }
            Step::Domainname { name } => {
                rustix::system::setdomainname(name.as_bytes()).call("setdomainname").context("set domain name")?;
            }
            Step::LoopbackUp => network::loopback_up().call("ioctl").context("set loopback up")?,
            Step::IsolateMounts { shared_with_host } => {
                // A slave still sees what the host mounts later; the host never sees ours.
                let kind =
                    if *shared_with_host { MountPropagationFlags::DOWNSTREAM } else { MountPropagationFlags::PRIVATE };
                rustix::mount::mount_change("/", kind | MountPropagationFlags::REC)
                    .call("mount")
                    .context("isolate mounts")?;
            }
            Step::MountOverlay(overlay) => self.root = Some(Root::mount_overlay(overlay)?),
            Step::UseDirectory { path } => self.root = Some(Root::use_directory(path)?),
            Step::MountFilesystem(mount) => self
                .root()?
                .mount_filesystem(mount)
                .with_context(|| format!("mount {} on {}", mount.kind, mount.target))?,
            Step::MountBind(bind) => self
                .root()?
                .mount_bind(bind)
                .with_context(|| format!("mount {} on {}", bind.source.display(), bind.target))?,
            Step::ShareIpcMounts { mount_namespace } => {
                self.share_ipc_mounts(mount_namespace).context("share /dev/shm and /dev/mqueue")?
            }
            Step::FillVolume { path, volume } => {
                fill_volume(self.root()?, path, volume).with_context(|| format!("fill volume of {path}"))?;
            }
            Step::MakeDevices { nodes, links } => self.root()?.make_devices(nodes, links)?,
            Step::MakeDirectory { path } => drop(self.root()?.make_directory(path)?),
            Step::OpenTerminal { size, console } => {
                self.open_terminal(*size, *console).context("open a terminal in the container")?;
            }
            Step::AwaitNetwork => await_network()?,
            Step::Sysctls { values } => self.root()?.write_sysctls(values)?,
            Step::ReadOnlyPaths { paths } => self.root()?.make_read_only(paths)?,
            Step::MaskPaths { paths } => self.root()?.mask(paths)?,
            Step::ReadOnlyMount { path } => self.root()?.seal(path)?,
            Step::PivotRoot => self.root()?.pivot().context("pivot root")?,
            Step::ResourceLimits { limits } => identity::set_limits(limits)?,
            Step::NoNewPrivileges => rustix::thread::set_no_new_privs(true).call("prctl")?,
            Step::WorkingDirectory { path } => identity::change_directory(path)?,
            Step::BecomeUser { user, groups, capabilities } => {
                let identity = identity::resolve_user(self.root()?, user, groups)?;
                identity::become_user(&identity, capabilities)?;
                self.identity = Some(identity);
            }
            Step::Execute { arguments, environment } => return self.execute(arguments, environment),
        }
        Ok(())
    }

    /// Goes on in a sibling inside the PID namespace. Only now: a process inside that may trace others
    /// (CAP_SYS_PTRACE) reaches through `/proc/<pid>/root` whatever root this process has.
    fn move_inside(&self) -> Result<()> {
        if let Some(Child { pid, pidfd }) = process::fork_sibling().call("clone3")? {
            let _ = self.report.send(&Report::Moved { pid }, &[pidfd.as_fd()]);
            process::exit_now(0);
        }
        Ok(())
    }

    /// Opens a terminal in the container's devpts, sends the controlling side to the parent and
    /// takes the other as standard streams and controlling terminal.
    fn open_terminal(&self, size: Option<tty::Size>, console: bool) -> Result<()> {
        let root = self.root()?;
        let held = root.open_path("/dev/pts/ptmx").call("openat2").context("open /dev/pts/ptmx")?;
        // In exec the container's processes may have put anything there.
        let found = rustix::fs::fstat(&held).call("fstat")?;
        let number = (rustix::fs::major(found.st_rdev), rustix::fs::minor(found.st_rdev));
        if FileType::from_raw_mode(found.st_mode) != FileType::CharacterDevice
            || number != (5, 2)
            || rustix::fs::fstatfs(&held).call("fstatfs")?.f_type != DEVPTS_SUPER_MAGIC
        {
            anyhow::bail!("/dev/pts/ptmx in the container is not a pseudoterminal multiplexer");
        }
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let controller = rustix::fs::openat2(
            root.descriptor(),
            "dev/pts/ptmx",
            flags,
            Mode::empty(),
            ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS,
        )
        .call("openat2")?;
        rustix::pty::unlockpt(&controller).call("ioctl")?;
        let terminal =
            rustix::pty::ioctl_tiocgptpeer(&controller, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
                .call("ioctl")?;
        if let Some(size) = size {
            tty::set_size(controller.as_fd(), size)?;
        }
        if console {
            mount_console(root, &terminal).context("mount /dev/console")?;
        }
        self.report.send(&Report::Console, &[controller.as_fd()]).call("sendmsg")?;
        for number in 0..=2 {
            fd::place(terminal.as_fd(), number).call("dup2")?;
        }
        rustix::process::ioctl_tiocsctty(&terminal).call("ioctl").context("take the controlling terminal")?;
        Ok(())
    }

    /// Looks the command up, tells the parent that all is ready, and becomes the command.
    fn execute(&self, arguments: &[String], environment: &[String]) -> Result<()> {
        let home = self.identity.as_ref().map_or("/", |identity| identity.home.as_str());
        let environment = identity::with_home(environment, home);
        let path = environment.iter().rev().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or_default();
        let program = arguments.first().map(String::as_str).unwrap_or_default();
        let root = Root::open("/".as_ref())?;
        let cwd = rustix::process::getcwd(Vec::new()).call("getcwd")?;
        let lookup = Lookup { root: root.descriptor(), cwd: &cwd.to_string_lossy(), argv0: program, path };
        let file = diagnose::find_in_path(&lookup).map_err(|failure| {
            let errno = if failure.class == Class::CommandNotFound { libc::ENOENT } else { libc::EACCES };
            anyhow::Error::new(CallFailed { call: "execve", errno }).context(failure)
        })?;
        let text = |strings: &[String]| strings.iter().map(|s| CString::new(s.as_str())).collect::<Result<Vec<_>, _>>();
        let argv = text(arguments).context("an argument holds a zero byte")?;
        let envp = text(&environment).context("an environment variable holds a zero byte")?;
        self.report.send(&Report::Ready, &[]).call("sendmsg")?;
        let error = process::exec(&file, &argv, &envp);
        let errno = error.raw_os_error().unwrap_or(libc::EIO);
        let failure = diagnose::explain_exec(&lookup, rustix::io::Errno::from_raw_os_error(errno));
        Err(anyhow::Error::new(CallFailed { call: "execve", errno }).context(failure))
    }

    /// Takes copies of another container's `/dev/shm` and `/dev/mqueue`: a visit to its mount
    /// namespace, because a mount can only be copied by somebody who stands in its namespace.
    fn share_ipc_mounts(&self, mount_namespace: &std::path::Path) -> Result<()> {
        let open = |path| rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).call("open");
        let home = open("/proc/self/ns/mnt".as_ref())?;
        let other = open(mount_namespace)?;
        rustix::thread::move_into_link_name_space(other.as_fd(), Some(LinkNameSpaceType::Mount)).call("setns")?;
        let flags =
            OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
        let copies =
            ["/dev/shm", "/dev/mqueue"].map(|path| (path, rustix::mount::open_tree(rustix::fs::CWD, path, flags)));
        rustix::thread::move_into_link_name_space(home.as_fd(), Some(LinkNameSpaceType::Mount)).call("setns")?;
        for (path, copy) in copies {
            let copy = copy.call("open_tree").with_context(|| format!("copy {path} of the other container"))?;
            let target = self.root()?.make_directory(path)?;
            move_onto(&copy, &target)?;
        }
        Ok(())
    }
}

fn move_onto(tree: &OwnedFd, target: &OwnedFd) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(tree, "", target, "", flags).call("move_mount")?)
}

/// Moves this single thread into a cgroup v1 directory. A group with no memory or CPU set assigned
/// refuses with ENOSPC.
fn join(tasks: &std::path::Path) -> Result<()> {
    let file = rustix::fs::open(tasks, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).call("open")?;
    rustix::io::write(&file, b"0").call("write")?;
    Ok(())
}

fn fill_volume(root: &Root, path: &str, volume: &std::path::Path) -> Result<()> {
    let Ok(held) = root.open_path(path) else { return Ok(()) };
    if FileType::from_raw_mode(rustix::fs::fstat(&held).call("fstat")?.st_mode) != FileType::Directory {
        return Ok(());
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let from = rustix::fs::openat(&held, ".", flags, Mode::empty()).call("openat")?;
    let to = rustix::fs::open(volume, flags, Mode::empty()).call("open")?;
    if copy_up::is_empty(to.as_fd())? {
        copy_up::copy_tree(from.as_fd(), to.as_fd())?
    }
    Ok(())
}

/// `/dev/console` is the container's terminal, as with Docker.
fn mount_console(root: &Root, terminal: &OwnedFd) -> Result<()> {
    let directory = root.make_directory("/dev")?;
    let flags = OFlags::CREATE | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CLOEXEC;
    rustix::fs::openat(&directory, "console", flags, Mode::from_raw_mode(0o600)).call("openat")?;
    let target =
        rustix::fs::openat(&directory, "console", OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
            .call("openat")?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let copy = rustix::mount::open_tree(terminal, "", flags).call("open_tree")?;
    move_onto(&copy, &target)
}

/// What went wrong when init ended without a word: it was killed, or could not be executed.
pub fn silent_end(code: i32) -> StartFailure {
    let reason = match code {
        process::SPAWN_FAILED => "mydocker could not execute itself".to_owned(),
        code if code > 128 => format!("init was killed by signal {}", code - 128),
        code => format!("init ended with code {code}"),
    };
    StartFailure { step: "init".into(), call: None, failure: Failure::new(Class::Engine, reason) }
}
