//! Against this machine's real hierarchies, in groups named after the test. On a hybrid host the unified tree takes
//! part as if it were alone: it has no controllers, but joining, freezing and killing are the same.

use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};

use super::*;
use crate::cgroup::{Cgroups, Place};

/// A group that is killed and removed when the test ends, however it ends.
struct Scratch {
    group: Group,
}

impl Scratch {
    fn new(cgroups: &Cgroups, test: &str) -> Self {
        let place = Place::new("", &format!("test-{}-{test}", std::process::id())).unwrap();
        Scratch { group: cgroups.create(&place, &[]).unwrap() }
    }

    fn id(&self) -> String {
        self.group.members[0].path.file_name().unwrap().to_str().unwrap().to_owned()
    }

    /// A shell that has joined and runs `script` after having told its `/proc/self/cgroup`.
    fn member(&self, script: &str) -> (Child, String) {
        let join = "for f in \"$@\"; do echo 0 > \"$f\" || exit 9; done; cat /proc/self/cgroup; echo .; ";
        let mut files = self.group.join_files();
        if self.group.mode == Mode::V2 {
            files = vec![self.group.members[0].path.join("cgroup.procs")];
        }
        let mut child = Command::new("sh")
            .args(["-c", &format!("{join}{script}"), "sh"])
            .args(files)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // Byte by byte: what the script says afterwards is for the test to read.
        let mut told = Vec::new();
        let mut byte = [0];
        let output = child.stdout.as_mut().unwrap();
        while !told.ends_with(b".\n") && output.read(&mut byte).unwrap() > 0 {
            told.push(byte[0]);
        }
        (child, String::from_utf8(told).unwrap())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = self.group.kill_all();
        let _ = self.group.remove();
        layouts().iter().for_each(Cgroups::remove_parent);
    }
}

/// The host as it is, and as v2 alone when it has both.
fn layouts() -> Vec<Cgroups> {
    let host = Cgroups::detect().unwrap();
    let unified = Cgroups { mode: Mode::V2, v1: Vec::new(), v2: host.v2.clone() };
    if host.mode == Mode::Hybrid { vec![host, unified] } else { vec![host] }
}

fn gone(group: &Group) -> bool {
    group.members.iter().all(|member| !member.path.exists())
}

#[test]
fn a_process_joins_is_seen_killed_and_nothing_is_left() {
    for cgroups in layouts() {
        let scratch = Scratch::new(&cgroups, "join");
        let group = &scratch.group;
        assert!(!group.members.is_empty());
        // `exec` keeps the process id; reading ends with the pipe, so a failed test leaves nobody behind.
        let (mut child, told) = scratch.member("exec cat");
        let id = scratch.id();
        let joined = told.lines().filter(|line| line.ends_with(&format!("/mydocker/{id}"))).count();
        assert_eq!(joined, group.members.len(), "{told}");
        assert_eq!(group.processes(), [child.id() as i32]);

        group.kill_all().unwrap();
        // Before it is reaped: a zombie, as under a slow pid 1, is no member and does not hold the directory.
        assert_eq!(group.processes(), [] as [i32; 0]);
        group.remove().unwrap();
        assert!(gone(group));
        group.remove().unwrap();
        group.kill_all().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
    }
}

#[test]
fn whole_families_in_nested_groups_die_and_are_removed() {
    for cgroups in layouts() {
        let scratch = Scratch::new(&cgroups, "nested");
        let group = &scratch.group;
        let nested = group.members[0].path.join("a/b");
        fs::create_dir_all(&nested).unwrap();
        let script = "for i in 1 2 3 4 5; do cat /dev/zero > /dev/null & done; echo ready; wait";
        let (mut child, _) = scratch.member(script);
        let mut ready = [0; 6];
        child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
        let family = group.processes();
        assert_eq!(family.len(), 6);
        fs::write(nested.join("cgroup.procs"), family[5].to_string()).unwrap();
        assert_eq!(group.processes(), family);

        group.kill_all().unwrap();
        child.wait().unwrap();
        group.remove().unwrap();
        assert!(gone(group));
    }
}

#[test]
fn a_frozen_group_is_killed_too() {
    for cgroups in layouts() {
        let scratch = Scratch::new(&cgroups, "frozen");
        let group = &scratch.group;
        let freezer = group.directory("freezer").unwrap().to_path_buf();
        let (mut child, _) = scratch.member("exec cat");
        let (file, value) = if group.mode == Mode::V2 { ("cgroup.freeze", "1") } else { ("freezer.state", "FROZEN") };
        fs::write(freezer.join(file), value).unwrap();
        group.kill_all().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
    }
}

#[test]
fn a_living_member_keeps_its_group_and_is_named() {
    for cgroups in layouts() {
        let scratch = Scratch::new(&cgroups, "busy");
        let group = &scratch.group;
        let (mut child, _) = scratch.member("exec cat");
        let text = format!("{:#}", group.remove().unwrap_err());
        assert!(text.contains(&child.id().to_string()), "{text}");
        assert!(group.processes().contains(&(child.id() as i32)));
        drop(child.stdin.take().map(|mut stdin| stdin.flush()));
        assert!(child.wait().unwrap().success());
        group.remove().unwrap();
        assert!(gone(group));
    }
}

#[test]
fn a_group_survives_being_written_down() {
    let cgroups = Cgroups::detect().unwrap();
    let group = cgroups.group(&Place::new("", "c1").unwrap());
    let text = serde_json::to_string(&group).unwrap();
    assert_eq!(serde_json::from_str::<Group>(&text).unwrap(), group);
    assert!(gone(&group));
}

#[test]
fn making_one_twice_is_harmless_and_it_is_listed() {
    for cgroups in layouts() {
        let scratch = Scratch::new(&cgroups, "twice");
        let id = scratch.id();
        assert_eq!(cgroups.create(&Place::new("", &id).unwrap(), &[]).unwrap(), scratch.group);
        assert!(cgroups.ids().contains(&id));
        scratch.group.remove().unwrap();
        assert!(!cgroups.ids().contains(&id));
    }
}

#[test]
fn the_view_inside_has_the_hosts_names() {
    let member = |controllers: &[&str], mount: &str| Member {
        controllers: controllers.iter().map(|c| (*c).to_owned()).collect(),
        mount: mount.into(),
        path: format!("{mount}/mydocker/c1").into(),
    };
    let members =
        vec![member(&["cpu", "cpuacct"], "/sys/fs/cgroup/cpu,cpuacct"), member(&["memory"], "/sys/fs/cgroup/memory")];
    let View::Directories { mounts, links } = (Group { mode: Mode::Hybrid, members, scope: None }).own_view() else {
        panic!("not v1")
    };
    let names: Vec<_> = mounts.iter().map(|mount| mount.name.as_str()).collect();
    assert_eq!(names, ["cpu,cpuacct", "memory"]);
    let links: Vec<_> = links.iter().map(|link| (link.name.as_str(), link.target.as_str())).collect();
    assert_eq!(links, [("cpu", "cpu,cpuacct"), ("cpuacct", "cpu,cpuacct")]);

    let members = vec![member(&[], "/sys/fs/cgroup")];
    let group = Group { mode: Mode::V2, members, scope: None };
    assert_eq!(group.own_view(), View::Unified("/sys/fs/cgroup/mydocker/c1".into()));
    assert_eq!(group.join_files(), [] as [PathBuf; 0]);
}

#[test]
fn more_processes_than_one_batch_and_ones_that_keep_forking_all_die() {
    for cgroups in layouts() {
        let scratch = Scratch::new(&cgroups, "many");
        let group = &scratch.group;
        let many = "i=0; while [ $i -lt 300 ]; do sleep 1000 & i=$((i+1)); done";
        let forking = "for i in 1 2; do while :; do true & wait; done & done";
        let (mut child, _) = scratch.member(&format!("{many}; {forking}; echo ready; wait"));
        let mut ready = [0; 6];
        child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
        assert!(group.processes().len() > BATCH);
        group.kill_all().unwrap();
        child.wait().unwrap();
        group.remove().unwrap();
        assert!(gone(group));
    }
}

#[test]
fn the_descriptor_to_clone_into_is_the_groups_own() {
    use std::os::unix::fs::MetadataExt;
    for cgroups in layouts() {
        let scratch = Scratch::new(&cgroups, "fd");
        let fd = scratch.group.v2_dir_fd().unwrap();
        assert_eq!(fd.is_some(), cgroups.mode == Mode::V2);
        if let Some(fd) = fd {
            let path = fs::metadata(&scratch.group.members[0].path).unwrap();
            assert_eq!(rustix::fs::fstat(fd).unwrap().st_ino, path.ino());
        }
    }
}
