//! The systemd cgroup driver. Where systemd runs the host (`tests/vm/run systemd` boots one) every test asks systemd
//! and the kernel what has become of the scope; elsewhere each proves that nobody is left in doubt about the reason.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};

use super::support::{Sandbox, eventually, processes};

const DRIVER: [&str; 2] = ["--cgroup-driver", "systemd"];

/// A sandbox on a host with systemd. Elsewhere the flag is refused with cause and cure, and nothing is made.
#[track_caller]
fn sandbox(flags: &[&str]) -> Option<Sandbox> {
    let s = Sandbox::new();
    if Path::new("/run/systemd/system").is_dir() {
        return Some(s);
    }
    let mut args = vec!["run", "--rm"];
    args.extend(DRIVER);
    args.extend(flags);
    args.extend(["busybox", "true"]);
    let error = s.fails(125, args).err();
    assert!(error.contains("this host is not run by systemd"), "{error}");
    assert!(error.contains("leave --cgroup-driver away"), "{error}");
    assert_eq!(s.ok(["ps", "-aq"]), "");
    None
}

fn with<'a>(flags: &[&'a str]) -> Vec<&'a str> {
    DRIVER.into_iter().chain(flags.iter().copied()).collect()
}

fn run<'a>(flags: &[&'a str], command: &[&'a str]) -> Vec<&'a str> {
    [["run"].as_slice(), &DRIVER, flags, &["busybox"], command].concat()
}

/// The group of a process: its path in the v2 tree, else in the hierarchy that is systemd's own.
fn path_of(pid: i32) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let mut lines = text.lines();
    let line =
        lines.find_map(|line| line.split_once(":name=systemd:").map(|(_, path)| path).or(line.strip_prefix("0::")));
    line.unwrap_or_else(|| panic!("{text}")).to_owned()
}

fn is_unified() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// What stands in a file of the group, by its names in v1 and v2.
fn value(path: &str, controller: &str, v1: &str, v2: &str) -> String {
    let base = Path::new("/sys/fs/cgroup");
    let base = if is_unified() { base.to_path_buf() } else { base.join(controller) };
    let file = base.join(path.trim_start_matches('/')).join(if is_unified() { v2 } else { v1 });
    fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display())).trim().to_owned()
}

#[track_caller]
fn systemctl(args: &[&str]) -> String {
    let output = Command::new("systemctl").args(args).output().unwrap();
    assert!(output.status.success(), "systemctl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn unit_of(id: &str) -> String {
    format!("mydocker-{id}.scope")
}

/// Every directory of this name in any hierarchy.
fn directories(name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut ahead = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(directory) = ahead.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                ahead.push(entry.path());
                found.extend(Some(entry.path()).filter(|path| path.ends_with(name)));
            }
        }
    }
    found
}

/// Neither the kernel nor systemd has anything left of the scope. A passing container's goes when nobody waits.
#[track_caller]
fn is_gone(unit: &str) {
    eventually(&format!("the group of {unit} is gone"), || directories(unit).is_empty());
    eventually(&format!("systemd has forgotten {unit}"), || {
        systemctl(&["list-units", "--all", "--plain", "--no-legend", unit]).is_empty()
    });
}

#[test]
fn a_scope_holds_the_container_and_whoever_joins_it() {
    let Some(s) = sandbox(&[]) else { return };
    let name = s.name("scope");
    let id = s.idle(&name, &with(&[]));
    let (unit, path) = (unit_of(&id), path_of(s.pid(&name)));
    assert_eq!(path, format!("/system.slice/{unit}"));
    let shown = systemctl(&["show", "-p", "Slice,Delegate,Description,Transient,ActiveState", &unit]);
    for line in ["Slice=system.slice", "Delegate=yes", "Transient=yes", "ActiveState=active"] {
        assert!(shown.lines().any(|shown| shown == line), "{line} is not in\n{shown}");
    }
    assert!(shown.contains(&format!("Description=mydocker container {name}")), "{shown}");
    // systemd's own limit of tasks would be one that nobody has asked for.
    assert_eq!(value(&path, "pids", "pids.max", "pids.max"), "max");

    // exec, top and stats look at the same group.
    s.ok(["exec", "-d", &name, "sleep", "1000"]);
    let sleeper = || processes::all().into_iter().find(|(pid, line)| line == "sleep 1000" && path_of(*pid) == path);
    eventually("exec has joined the scope", || sleeper().is_some());
    assert!(s.ok(["top", &name]).contains("sleep 1000"));
    assert!(!s.ok(["stats", "--no-stream", "--format", "{{.MemUsage}}", &name]).starts_with("0B"));
    s.ok(["pause", &name]);
    s.ok(["unpause", &name]);

    s.ok(["stop", &name]);
    is_gone(&unit);
    // The same unit again, and at once.
    s.ok(["start", &name]);
    s.ok(["restart", "-t", "5", &name]);
    assert_eq!(path_of(s.pid(&name)), path);
    s.ok(["rm", "-f", &name]);
    is_gone(&unit);
}

#[test]
fn the_group_is_its_own_inside_too() {
    let Some(s) = sandbox(&[]) else { return };
    let inside = s.script(&with(&["--cgroupns", "private"]), "cat /proc/self/cgroup");
    let own = if is_unified() { "0::/" } else { ":/" };
    assert!(inside.lines().any(|line| line.ends_with(own)), "{inside}");
    assert!(!inside.contains("mydocker-"), "{inside}");
    let limit = if is_unified() { "memory.max" } else { "memory/memory.limit_in_bytes" };
    let script = format!("cat /sys/fs/cgroup/{limit}");
    assert_eq!(s.script(&with(&["-m", "64m"]), &script), (64 << 20).to_string());
}

#[test]
fn limits_hold_though_systemd_reloads() {
    let Some(s) = sandbox(&["-m", "64m"]) else { return };
    let name = s.name("limits");
    let flags = "-m 64m --memory-swap 96m --pids-limit 20 --cpus 0.5 --cpu-shares 512 --cpuset-cpus 1";
    let flags: Vec<&str> = flags.split(' ').collect();
    s.idle(&name, &with(&flags));
    let path = path_of(s.pid(&name));
    let check = |memory: u64| {
        assert_eq!(value(&path, "memory", "memory.limit_in_bytes", "memory.max"), (memory << 20).to_string());
        assert_eq!(value(&path, "pids", "pids.max", "pids.max"), "20");
        assert_eq!(value(&path, "cpu", "cpu.shares", "cpu.weight"), if is_unified() { "59" } else { "512" });
        let quota = value(&path, "cpu", "cpu.cfs_quota_us", "cpu.max");
        assert_eq!(quota, if is_unified() { "50000 100000" } else { "50000" });
        assert_eq!(value(&path, "cpuset", "cpuset.cpus", "cpuset.cpus"), "1");
        if is_unified() {
            assert_eq!(value(&path, "", "", "memory.swap.max"), (32 << 20).to_string());
        }
    };
    // Devices that no rule allows stay closed, whatever systemd writes.
    let disk = "mknod /disk b 259 0 && head -c 1 /disk";
    let closed = || {
        let output = s.run(["exec", &name, "sh", "-c", &format!("rm -f /disk; {disk}")]);
        assert!(output.err().contains("not permitted"), "{}", output.err());
        assert_eq!(s.ok(["exec", &name, "sh", "-c", "head -c 3 /dev/zero | wc -c; echo > /dev/null"]), "3");
    };
    check(64);
    closed();
    systemctl(&["daemon-reload"]);
    check(64);
    closed();
    s.ok(["update", "-m", "80m", "--memory-swap", "112m", &name]);
    check(80);
    systemctl(&["daemon-reload"]);
    check(80);
    s.ok(["rm", "-f", &name]);
}

#[test]
fn a_parent_is_a_slice() {
    let Some(s) = sandbox(&["--cgroup-parent", "ci-jobs.slice"]) else { return };
    let name = s.name("nested");
    let id = s.idle(&name, &with(&["--cgroup-parent", "ci-jobs.slice", "--pids-limit", "9"]));
    let (unit, path) = (unit_of(&id), path_of(s.pid(&name)));
    assert_eq!(path, format!("/ci.slice/ci-jobs.slice/{unit}"));
    assert_eq!(value(&path, "pids", "pids.max", "pids.max"), "9");
    assert_eq!(s.field(&name, "{{.HostConfig.CgroupParent}}"), "ci-jobs.slice");
    s.ok(["rm", "-f", &name]);
    is_gone(&unit);
    // The slices are systemd's, which keeps them until it is told otherwise: nobody has made directories behind it.
    assert_eq!(systemctl(&["is-active", "ci.slice", "ci-jobs.slice"]), "active\nactive");
    systemctl(&["stop", "ci.slice"]);
    // In v1 a hierarchy that systemd leaves alone keeps its empty directory, as it keeps that of other parents.
    let managed = |path: &Path| is_unified() || path.starts_with("/sys/fs/cgroup/systemd");
    eventually("ci.slice is gone", || !directories("ci.slice").iter().any(|path| managed(path)));
}

#[test]
fn a_killed_shim_is_healed() {
    let Some(s) = sandbox(&["--restart", "no"]) else { return };
    let name = s.name("shim");
    let unit = unit_of(&s.idle(&name, &with(&[])));
    let kill = |pid: Pid| {
        kill_process(pid, Signal::KILL).unwrap();
        eventually("it is dead", || !processes::is_alive(pid.as_raw_nonzero().get()));
    };
    kill(processes::shim_of(&name).unwrap());
    assert!(s.is_running(&name));
    assert_eq!(s.ok(["exec", &name, "echo", "inside"]), "inside");
    s.ok(["stop", &name]);
    assert_eq!(s.field(&name, "{{.State.Status}} {{.State.ExitCode}}"), "exited 255");
    is_gone(&unit);
    // Both, and nobody there to notice.
    s.ok(["start", &name]);
    let init = Pid::from_raw(s.pid(&name)).unwrap();
    kill(processes::shim_of(&name).unwrap());
    kill(init);
    s.ok(["start", &name]);
    assert!(path_of(s.pid(&name)).ends_with(&unit));
    s.ok(["rm", "-f", &name]);
    is_gone(&unit);
}

#[test]
fn whoever_outlives_the_first_process_is_ended() {
    let Some(s) = sandbox(&["--pid", "host"]) else { return };
    let name = s.name("host");
    let script = "sleep 1000 & exit 3";
    s.fails(3, run(&["--name", &name, "--pid", "host"], &["sh", "-c", script]));
    is_gone(&unit_of(&s.field(&name, "{{.Id}}")));
}

#[test]
fn a_hog_is_told_from_other_ends() {
    let Some(s) = sandbox(&["-m", "16m"]) else { return };
    let name = s.name("hog");
    s.fails(137, run(&["--name", &name, "-m", "16m"], &["tail", "/dev/zero"]));
    assert_eq!(s.field(&name, "{{.State.OOMKilled}}"), "true");
    is_gone(&unit_of(&s.field(&name, "{{.Id}}")));
}

#[test]
fn restarts_take_the_same_name_again_and_again() {
    let Some(s) = sandbox(&[]) else { return };
    let name = s.name("again");
    s.ok(run(&["-d", "--name", &name, "--restart", "on-failure:3"], &["false"]));
    // The exit code is known when the end is recorded; a reader in between is told 255.
    let now = || s.field(&name, "{{.State.Status}} {{.RestartCount}} {{.State.ExitCode}}{{.State.Error}}");
    eventually("it has given up", || now() == "exited 3 1");
    is_gone(&unit_of(&s.field(&name, "{{.Id}}")));
}

#[test]
fn a_start_that_fails_leaves_no_scope() {
    let Some(s) = sandbox(&[]) else { return };
    let name = s.name("fails");
    s.fails(127, run(&["--name", &name], &["/no/such/program"]));
    is_gone(&unit_of(&s.field(&name, "{{.Id}}")));
}
