//! One container's group: a directory in each hierarchy, recorded by absolute path so that any later process can
//! look into it, kill what is in it and remove it.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, io};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode as FileMode, OFlags, open};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use super::{Mode, systemd, v2};

/// How long [`Group::kill_all`] goes on: enough for thousands of processes, not for ever with one that hangs in
/// the kernel.
const KILL_TIME: Duration = Duration::from_secs(5);
/// How long [`Group::remove`] waits for processes that are about to end.
const REMOVE_TIME: Duration = Duration::from_secs(1);
/// Processes signalled per round, so that a few hundred descriptors are enough whatever runs inside.
const BATCH: usize = 256;
/// A container that manages cgroups itself may nest them; deeper than this is not followed.
const DEPTH: usize = 64;

/// A container's directory in one hierarchy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The hierarchy's v1 controllers; empty for v2.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub controllers: Vec<String>,
    /// The hierarchy's mount point.
    pub mount: PathBuf,
    /// Absolute path on the host: `<mount>/mydocker/<id>`.
    pub path: PathBuf,
}

/// A container's group in all hierarchies; what state records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// How it was made.
    pub mode: Mode,
    /// Its directories.
    pub members: Vec<Member>,
    /// The scope of systemd's that they belong to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
}

/// What the container sees at `/sys/fs/cgroup`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum View {
    /// v1: a tmpfs with a directory per hierarchy and links for the other names of co-mounted controllers.
    Directories {
        /// What is bind-mounted onto which directory.
        mounts: Vec<ViewMount>,
        /// Symbolic links beside them.
        links: Vec<ViewLink>,
    },
    /// v2: this host directory is all of it.
    Unified(PathBuf),
}

/// A host cgroup seen inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewMount {
    /// Name below `/sys/fs/cgroup`, as on the host (`cpu,cpuacct`).
    pub name: String,
    /// Host path of the container's group.
    pub source: PathBuf,
}

/// A symbolic link below `/sys/fs/cgroup`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewLink {
    /// Its name (`cpuacct`).
    pub name: String,
    /// Where it leads, relative (`cpu,cpuacct`).
    pub target: String,
}

impl Group {
    /// The group without the directories that were not made: as those of optional controllers, and what a container
    /// that does not run has none of.
    #[must_use]
    pub fn existing(mut self) -> Group {
        self.members.retain(|member| member.path.is_dir());
        self
    }

    /// Whether systemd has removed the group because nobody was left in it. Never so for groups that are ours alone.
    pub fn has_vanished(&self) -> bool {
        self.scope.is_some() && self.directory("memory").is_some_and(|directory| !directory.exists())
    }

    /// The v1 files that a process of a single thread writes `0` to in order to join; none in v2.
    ///
    /// `tasks`, not `cgroup.procs`: a lone thread moving itself spares the kernel its global lock.
    pub fn join_files(&self) -> Vec<PathBuf> {
        let separate = self.members.iter().filter(|_| self.mode != Mode::V2);
        // A v2 tree beside them, where it matters at all, has no such file.
        let file = |member: &Member| if member.controllers.is_empty() { "cgroup.procs" } else { "tasks" };
        separate.map(|member| member.path.join(file(member))).collect()
    }

    /// Moves every process of the group into all of its directories: for one that was made later than the others.
    ///
    /// # Errors
    /// A process cannot be moved: the directory's limits do not let it in.
    pub fn gather(&self) -> Result<()> {
        for member in &self.members {
            // In rounds, because processes fork meanwhile.
            loop {
                let mut inside = BTreeSet::new();
                collect(&member.path, DEPTH, &mut inside);
                let outside: Vec<i32> = self.processes().into_iter().filter(|pid| !inside.contains(pid)).collect();
                if outside.is_empty() {
                    break;
                }
                for pid in outside {
                    match fs::write(member.path.join("cgroup.procs"), pid.to_string()) {
                        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                        result => result.with_context(|| format!("move {pid} into {}", member.path.display()))?,
                    }
                }
            }
        }
        Ok(())
    }

    /// The directory to clone into (`CLONE_INTO_CGROUP`, clone3(2)); `None` in v1.
    ///
    /// # Errors
    /// The directory cannot be opened.
    pub fn v2_dir_fd(&self) -> Result<Option<OwnedFd>> {
        let Some(member) = self.members.first().filter(|_| self.mode == Mode::V2) else { return Ok(None) };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = open(&member.path, flags, FileMode::empty());
        fd.map(Some).with_context(|| format!("open cgroup {}", member.path.display()))
    }

    /// The same for the group that process `pid` is in, somewhere below this one.
    ///
    /// # Errors
    /// The process is not below this group, or has ended.
    pub fn v2_dir_fd_of(&self, pid: i32) -> Result<Option<OwnedFd>> {
        let Some(member) = self.members.first().filter(|_| self.mode == Mode::V2) else { return Ok(None) };
        let file = format!("/proc/{pid}/cgroup");
        let text = fs::read_to_string(&file).with_context(|| format!("read {file}"))?;
        let path = text.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
        let path = member.mount.join(path);
        if !path.starts_with(&member.path) {
            bail!("find the cgroup of {pid}: {} is not below {}", path.display(), member.path.display());
        }
        let members = vec![Member { path, ..member.clone() }];
        Group { mode: self.mode, members, scope: None }.v2_dir_fd()
    }

    /// The directory that `controller` (`memory`, `freezer`, …) is controlled in; in v2 the only one.
    pub fn directory(&self, controller: &str) -> Option<&Path> {
        let has = |member: &&Member| self.mode == Mode::V2 || member.controllers.iter().any(|c| c == controller);
        self.members.iter().find(has).map(|member| member.path.as_path())
    }

    /// Process ids of all members, nested groups included, sorted. Looked up in every hierarchy, because a
    /// privileged container can leave some of them. Processes outside our pid namespace have no number and are
    /// left out.
    pub fn processes(&self) -> Vec<i32> {
        let mut pids = BTreeSet::new();
        for member in &self.members {
            collect(&member.path, DEPTH, &mut pids);
        }
        pids.into_iter().collect()
    }

    /// Kills every member and waits until none is left, five seconds at most; frozen groups are thawed. This
    /// process itself is spared.
    ///
    /// # Errors
    /// Some would not die in time.
    pub fn kill_all(&self) -> Result<()> {
        let deadline = Instant::now() + KILL_TIME;
        loop {
            if self.mode == Mode::V2 {
                for member in &self.members {
                    // Before Linux 5.14 there is no such file; the signals below do it then.
                    let _ = v2::kill(&member.path);
                }
            }
            let Some(signalled) = self.signal_batch()? else { return Ok(()) };
            self.thaw();
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("kill processes of {}: still alive: {:?}", self.label(), self.processes());
            }
            // In rounds, because a fork may have escaped this one.
            wait_for_exit(&signalled, left.min(Duration::from_millis(200)));
        }
    }

    /// Removes the group and groups nested in it; harmless when repeated. Processes still on their way out are
    /// waited for, a second at most.
    ///
    /// # Errors
    /// A directory is still in use, or cannot be removed for another reason; the others are removed nevertheless.
    pub fn remove(&self) -> Result<()> {
        let deadline = Instant::now() + REMOVE_TIME;
        let mut first = None;
        // systemd removes its scopes' groups itself when they are empty. One that is still there must go through it:
        // taken away under it, the unit would stay.
        if let Some(scope) = &self.scope
            && self.members.iter().any(|member| member.path.exists())
        {
            first = self.wait_until_empty(deadline).and_then(|()| systemd::stop_scope(scope)).err();
        }
        for member in &self.members {
            if let Err(error) = remove_directory(&member.path, deadline) {
                let inside = self.processes();
                let text = format!("remove cgroup {} (processes inside: {inside:?})", member.path.display());
                first.get_or_insert_with(|| anyhow::Error::new(error).context(text));
            }
        }
        first.map_or(Ok(()), Err)
    }

    /// For whom the end of a scope is asked: whoever is still in it would be sent SIGTERM, and ninety seconds.
    fn wait_until_empty(&self, deadline: Instant) -> Result<()> {
        let mut pause = Duration::from_micros(200);
        loop {
            let inside = self.processes();
            if inside.is_empty() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                bail!("remove {} (processes inside: {inside:?})", self.label());
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }

    /// What to show the container of it at `/sys/fs/cgroup`. Hierarchies it has no group in are left out.
    pub fn own_view(&self) -> View {
        if let Some(member) = self.members.first().filter(|_| self.mode == Mode::V2) {
            return View::Unified(member.path.clone());
        }
        let (mut mounts, mut links) = (Vec::new(), Vec::new());
        for member in &self.members {
            let Some(name) = member.mount.file_name().and_then(|name| name.to_str()) else { continue };
            mounts.push(ViewMount { name: name.to_owned(), source: member.path.clone() });
            let others = member.controllers.iter().filter(|controller| *controller != name);
            links.extend(others.map(|other| ViewLink { name: other.clone(), target: name.to_owned() }));
        }
        View::Directories { mounts, links }
    }

    pub(super) fn label(&self) -> String {
        let path = self.members.first().map(|member| member.path.display().to_string());
        format!("cgroup {}", path.unwrap_or_default())
    }

    /// Sends SIGKILL to up to [`BATCH`] members and returns handles to them; `None` when there are no members.
    fn signal_batch(&self) -> Result<Option<Vec<OwnedFd>>> {
        let own = rustix::process::getpid();
        let is_victim = |pid: &Pid| *pid != own && *pid != Pid::INIT;
        let victims: Vec<Pid> = self.processes().into_iter().filter_map(Pid::from_raw).filter(is_victim).collect();
        if victims.is_empty() {
            return Ok(None);
        }
        let mut opened = Vec::new();
        for pid in victims {
            match pidfd_open(pid, PidfdFlags::empty()) {
                Ok(fd) => opened.push((pid.as_raw_nonzero().get(), fd)),
                Err(Errno::SRCH) => {}
                // Out of descriptors: those that are open now will do for this round, but for one, with which
                // the members are listed again below.
                Err(Errno::MFILE | Errno::NFILE) if opened.len() > 1 => {
                    opened.pop();
                    break;
                }
                Err(errno) => return Err(errno).with_context(|| format!("open process {}", pid.as_raw_nonzero())),
            }
            if opened.len() == BATCH {
                break;
            }
        }
        // The number may have passed to a stranger between listing and opening. Whoever is listed *after* being
        // opened is a member, or already gone and beyond the signal.
        let still: BTreeSet<i32> = self.processes().into_iter().collect();
        opened.retain(|(pid, _)| still.contains(pid));
        for (_, fd) in &opened {
            let _ = pidfd_send_signal(fd, Signal::KILL);
        }
        Ok(Some(opened.into_iter().map(|(_, fd)| fd).collect()))
    }
}

/// Adds the process ids in `directory` and below.
fn collect(directory: &Path, depth: usize, pids: &mut BTreeSet<i32>) {
    if let Ok(text) = fs::read_to_string(directory.join("cgroup.procs")) {
        // 0 stands for a process outside our pid namespace; as a target it would mean ourselves.
        pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0));
    }
    if depth > 0 {
        for child in children(directory) {
            collect(&child, depth - 1, pids);
        }
    }
}

/// Nested groups: in cgroupfs every directory is one.
fn children(directory: &Path) -> Vec<PathBuf> {
    // The link count tells without reading: two and one per child, both in v1 and v2.
    use std::os::unix::fs::MetadataExt;
    if fs::symlink_metadata(directory).is_ok_and(|meta| meta.nlink() == 2) {
        return Vec::new();
    }
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let directories = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    directories.map(|entry| entry.path()).collect()
}

/// Waits until all of `processes` have ended, at most `time`; the next round looks at what is left.
fn wait_for_exit(processes: &[OwnedFd], time: Duration) {
    if processes.is_empty() {
        // All that were listed ended while we looked; whatever they started meanwhile is next.
        std::thread::yield_now();
    }
    let deadline = Instant::now() + time;
    for process in processes {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        let mut fds = [PollFd::new(process, PollFlags::IN)];
        // Interrupted or timed out: the caller looks again anyway.
        let _ = poll(&mut fds, Some(&timeout));
    }
}

fn remove_directory(path: &Path, deadline: Instant) -> io::Result<()> {
    let mut pause = Duration::from_micros(200);
    loop {
        match remove_tree(path, DEPTH) {
            Err(error) if error.kind() == ErrorKind::ResourceBusy && Instant::now() < deadline => {
                // v1 announces nothing when a group becomes empty, so look again, ever more rarely.
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(20));
            }
            result => return result,
        }
    }
}

/// rmdir, nested groups first when there are any.
fn remove_tree(path: &Path, depth: usize) -> io::Result<()> {
    match fs::remove_dir(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == ErrorKind::ResourceBusy && depth > 0 => {
            let nested = children(path);
            if nested.is_empty() {
                return Err(error);
            }
            for child in nested {
                remove_tree(&child, depth - 1)?;
            }
            match fs::remove_dir(path) {
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
                result => result,
            }
        }
        result => result,
    }
}

#[cfg(test)]
#[path = "group_tests.rs"]
mod tests;
