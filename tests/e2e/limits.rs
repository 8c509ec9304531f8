//! Every limit by its effect, on whichever kind of cgroups the host has.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::support::{Sandbox, processes};

/// The container's directory of a v1 controller, or its only one on v2.
fn group(s: &Sandbox, name: &str, controller: &str) -> PathBuf {
    let text = fs::read_to_string(format!("/proc/{}/cgroup", s.pid(name))).unwrap();
    let base = Path::new("/sys/fs/cgroup");
    for line in text.lines() {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next(), fields.next().unwrap(), fields.next().unwrap());
        if controllers.split(',').any(|known| known == controller) {
            return base.join(controllers).join(path.trim_start_matches('/'));
        }
        if controllers.is_empty() && base.join("cgroup.controllers").exists() {
            return base.join(path.trim_start_matches('/'));
        }
    }
    panic!("{controller} is in none of\n{text}");
}

fn unified() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// What stands in the container's file, by its names in v1 and v2.
fn value(s: &Sandbox, name: &str, controller: &str, v1: &str, v2: &str) -> String {
    let path = group(s, name, controller).join(if unified() { v2 } else { v1 });
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).trim().to_owned()
}

#[test]
fn a_hog_is_killed_at_the_memory_limit() {
    let s = Sandbox::new();
    // `tail` keeps what it reads until the end, which /dev/zero does not have.
    let output = s.fails(137, ["run", "--name", &s.name("hog"), "-m", "16m", "busybox", "tail", "/dev/zero"]);
    assert!(output.out().is_empty());
    assert_eq!(s.field(&s.name("hog"), "{{.State.ExitCode}}"), "137");
    // The same in half of the memory that it needs, and in twice as much.
    let script = "dd if=/dev/zero bs=20M count=1 2>/dev/null | wc -c";
    assert_eq!(s.script(&["-m", "64m"], script), "20971520");
}

#[test]
fn the_older_spelling_limits_memory_too() {
    let s = Sandbox::new();
    let name = s.name("mem");
    s.idle(&name, &["-mem", "100m", "--memory-swap", "150m", "--memory-reservation", "50m"]);
    assert_eq!(value(&s, &name, "memory", "memory.limit_in_bytes", "memory.max"), (100 << 20).to_string());
    assert_eq!(value(&s, &name, "memory", "memory.soft_limit_in_bytes", "memory.low"), (50 << 20).to_string());
    let swap = if unified() { 50 << 20 } else { 150 << 20 };
    assert_eq!(value(&s, &name, "memory", "memory.memsw.limit_in_bytes", "memory.swap.max"), swap.to_string());
    assert_eq!(s.field(&name, "{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}}"), "104857600 157286400");
}

#[test]
fn memory_alone_allows_as_much_swap() {
    let s = Sandbox::new();
    let name = s.name("twice");
    s.idle(&name, &["-m", "64m"]);
    assert_eq!(s.field(&name, "{{.HostConfig.MemorySwap}}"), (128 << 20).to_string());
}

#[test]
fn a_spinner_gets_its_quota() {
    let s = Sandbox::new();
    let name = s.name("spin");
    s.ok(["run", "-d", "--name", &name, "--cpus", "0.3", "busybox", "sh", "-c", "while :; do :; done"]);
    let used = || -> f64 {
        if unified() {
            let text = value(&s, &name, "cpu", "", "cpu.stat");
            let usage = text.lines().find_map(|line| line.strip_prefix("usage_usec ")).unwrap();
            usage.parse::<f64>().unwrap() / 1e6
        } else {
            value(&s, &name, "cpuacct", "cpuacct.usage", "").parse::<f64>().unwrap() / 1e9
        }
    };
    // Whole periods of the kernel's: counted from one renewal of the quota to a later one.
    let periods = || -> (u64, u64) {
        let text = value(&s, &name, "cpu", "cpu.stat", "cpu.stat");
        let number = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).unwrap().trim().parse().unwrap();
        (number("nr_periods "), number("nr_throttled "))
    };
    let (before, start) = (periods().0, used());
    let mut now = periods();
    while now.0 < before + 20 {
        std::thread::yield_now();
        now = periods();
    }
    let share = (used() - start) / ((now.0 - before) as f64 * 0.1);
    // The machine may be too busy to give it all that it may have; more than that it must never get.
    assert!(share < 0.33, "{share} of a processor");
    assert!(share > 0.27 || now.1 < now.0 - 2, "{share} of a processor though it was throttled in each period");
}

#[test]
fn weights_and_periods_arrive() {
    let s = Sandbox::new();
    let name = s.name("weights");
    s.idle(&name, &["-cpushare", "512", "--cpu-period", "50000", "--cpu-quota", "25000"]);
    assert_eq!(value(&s, &name, "cpu", "cpu.shares", "cpu.weight"), if unified() { "59" } else { "512" });
    if unified() {
        assert_eq!(value(&s, &name, "cpu", "", "cpu.max"), "25000 50000");
    } else {
        assert_eq!(value(&s, &name, "cpu", "cpu.cfs_period_us", ""), "50000");
        assert_eq!(value(&s, &name, "cpu", "cpu.cfs_quota_us", ""), "25000");
    }
}

#[test]
fn a_fork_bomb_stops_at_the_pids_limit() {
    let s = Sandbox::new();
    let script = "i=0; while [ $i -lt 50 ]; do sleep 1000 & i=$((i+1)); done";
    let name = s.name("bomb");
    let output = s.command(["run", "--name", &name, "--pids-limit", "10", "busybox", "sh", "-c", script]).run();
    assert!(output.err().contains("fork"), "{}", output.err());
    let alive = s.name("alive");
    s.idle(&alive, &["--pids-limit", "10"]);
    assert_eq!(value(&s, &alive, "pids", "pids.max", "pids.max"), "10");
}

#[test]
fn a_cpuset_shows_in_the_affinity() {
    let s = Sandbox::new();
    let list = |flags: &[&str]| s.script(flags, "grep Cpus_allowed_list /proc/self/status | cut -f2");
    assert_eq!(list(&["--cpuset-cpus", "1"]), "1");
    assert_eq!(list(&["-cpuset", "0,1", "--cpuset-mems", "0"]), "0-1");
    // exec is confined like the container.
    let name = s.name("set");
    s.idle(&name, &["--cpuset-cpus", "1"]);
    assert!(s.ok(["exec", &name, "grep", "Cpus_allowed_list", "/proc/self/status"]).ends_with("\t1"));
}

/// The disk that the data root lies on, when it is one whose rate can be limited.
fn disk(s: &Sandbox) -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    let device = fs::metadata(s.path(".")).unwrap().dev();
    let number = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    let name = fs::read_link(format!("/sys/dev/block/{number}")).ok()?;
    Some(format!("/dev/{}", name.file_name()?.to_str()?))
}

#[test]
fn a_throttled_writer_takes_its_time() {
    let s = Sandbox::new();
    let disk = disk(&s).expect("the test directory is not on a disk: set MYDOCKER_TEST_DIR");
    let volume = format!("{}:/data", s.host_dir("volume"));
    let write = "dd if=/dev/zero of=/data/file bs=1M count=4 oflag=direct 2>&1";
    let rate = format!("{disk}:2mb");
    let begun = Instant::now();
    s.script(&["-v", &volume, "--device-write-bps", &rate], write);
    let slow = begun.elapsed().as_secs_f64();
    // 4 MB at 2 MB a second, the first of which may pass at once.
    assert!(slow > 1.0, "written in {slow} s");
    let begun = Instant::now();
    let read = "dd if=/data/file of=/dev/null bs=64k count=40 iflag=direct 2>&1";
    s.script(&["-v", &volume, "--device-read-iops", &format!("{disk}:20")], read);
    let slow = begun.elapsed().as_secs_f64();
    assert!(slow > 1.0, "40 reads of 20 a second in {slow} s");
}

#[test]
fn nonsense_is_refused_before_anything_exists() {
    let s = Sandbox::new();
    for (flags, words) in [
        (&["-m", "5m"][..], "Minimum memory limit allowed is 6MB"),
        (&["-m", "-5m"], "invalid size"),
        (&["--memory-swap", "1g"], "You should always set the Memory limit when using Memoryswap limit"),
        (&["-m", "64m", "--memory-swap", "32m"], "should be larger than memory limit"),
        (&["--cpus", "1000"], "Range of CPUs is from 0.01 to"),
        (&["--cpus", "1", "--cpu-quota", "5000"], "Conflicting options"),
        (&["--cpuset-cpus", "99"], "Requested CPUs are not available - requested 99"),
        (&["--cpuset-mems", "99"], "Requested memory nodes are not available"),
        (&["--cpu-shares", "-1"], "must be positive"),
        (&["--memory-swappiness", "200"], "range is 0-100"),
        (&["--blkio-weight", "5"], "from 10 to 1000"),
        (&["--device-write-bps", "/dev/no-such-disk:1mb"], "no such file or directory"),
        (&["--device-write-bps", "/dev/null:1mb"], "not a block device"),
        (&["--cgroupns", "nonsense"], "invalid cgroup namespace mode"),
        (&["--cgroup-parent", "../.."], "invalid cgroup parent"),
        (&["--cgroup-parent", "ci-jobs.slice"], "cgroup-parent for cgroupfs driver is a path"),
        (&["--cgroup-driver", "nonsense"], "use cgroupfs or systemd"),
        (&["--cgroup-driver", "systemd", "--cgroup-parent", "/ci"], "should be a valid slice named as \"xxx.slice\""),
    ] {
        let mut args = vec!["run", "--rm"];
        args.extend(flags);
        args.extend(["busybox", "true"]);
        let output = s.fails(125, args);
        assert!(output.err().to_lowercase().contains(&words.to_lowercase()), "{flags:?}: {}", output.err());
    }
    assert_eq!(s.ok(["ps", "-aq"]), "");
}

#[test]
fn what_the_host_cannot_do_is_said() {
    let s = Sandbox::new();
    if unified() {
        let output = s.run(["run", "--rm", "-m", "64m", "--memory-swappiness", "10", "busybox", "true"]).code(0);
        assert!(output.err().contains("does not support memory swappiness capabilities"), "{}", output.err());
    } else {
        let output = s.run(["run", "--rm", "--cgroup-conf", "memory.oom.group=1", "busybox", "true"]).code(125);
        assert!(output.err().contains("needs cgroups v2"), "{}", output.err());
    }
    let output = s.run(["run", "--rm", "--hugetlb", "3MB=6m", "busybox", "true"]).code(125);
    assert!(output.err().contains("cannot limit huge pages of 3MB"), "{}", output.err());
}

#[test]
fn limits_survive_a_restart_and_a_parent_is_kept() {
    let s = Sandbox::new();
    let name = s.name("again");
    s.idle(&name, &["-m", "64m", "--cgroup-parent", &format!("/{}", s.name("parent"))]);
    let path = group(&s, &name, "memory");
    assert!(path.parent().unwrap().ends_with(s.name("parent")), "{}", path.display());
    s.ok(["restart", "-t", "5", &name]);
    assert_eq!(value(&s, &name, "memory", "memory.limit_in_bytes", "memory.max"), (64 << 20).to_string());
    s.ok(["rm", "-f", &name]);
    assert!(!path.exists(), "{} is left", path.display());
    // The parent is the user's, who may want to keep it.
    for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        let _ = fs::remove_dir(hierarchy.path().join(s.name("parent")));
    }
    let _ = fs::remove_dir(Path::new("/sys/fs/cgroup").join(s.name("parent")));
}

#[test]
fn the_cgroup_namespace_is_the_hosts_or_its_own() {
    let s = Sandbox::new();
    let own = |flags: &[&str]| s.script(flags, "cat /proc/self/cgroup");
    let private = own(&["--cgroupns", "private"]);
    assert!(private.lines().any(|line| line.ends_with(":/")), "{private}");
    assert!(!private.contains("mydocker/"), "{private}");
    assert!(own(&["--cgroupns", "host"]).contains("/mydocker/"));
    assert_eq!(own(&[]).contains("/mydocker/"), !unified());
    // Its own view, read-only, whichever it is.
    let limit = if unified() { "memory.max" } else { "memory/memory.limit_in_bytes" };
    let script = format!("cat /sys/fs/cgroup/{limit}; echo 1 > /sys/fs/cgroup/{limit} && echo written");
    for mode in ["private"].into_iter().chain((!unified()).then_some("host")) {
        let output = s.run(["run", "--rm", "-m", "64m", "--cgroupns", mode, "busybox", "sh", "-c", &script]);
        assert_eq!(output.out(), (64 << 20).to_string(), "{mode}: {}", output.err());
        assert!(output.err().contains("Read-only file system"), "{mode}: {}", output.err());
    }
}

#[test]
fn huge_pages_stop_at_their_limit() {
    let s = Sandbox::new();
    let script = "mkdir /huge && mount -t hugetlbfs none /huge && fallocate -l 4m /huge/file && echo enough";
    let free = fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages").unwrap_or_default();
    let limited =
        |limit: &str| s.run(["run", "--rm", "--privileged", "--hugetlb", limit, "busybox", "sh", "-c", script]);
    let offered = fs::read_to_string("/proc/self/mountinfo").unwrap().contains("hugetlb") || unified();
    if !offered || free.trim().parse().unwrap_or(0) < 4 {
        // A host without huge pages, or without their controller: then it is said, or nothing can be had.
        let output = limited("2MB=2m");
        assert!(output.code != 0, "{}", output.out());
        return;
    }
    let output = limited("2MB=2m");
    assert!(output.err().contains("No space left on device"), "{}", output.err());
    assert_eq!(limited("2MB=8m").code(0).out(), "enough");
}

#[test]
fn processes_that_outlive_the_first_one_are_killed() {
    let s = Sandbox::new();
    let name = s.name("outlived");
    // Without a PID namespace of its own, nothing but the cgroup tells who belongs to the container.
    let mark = format!("10{}", std::process::id());
    let script = format!("(trap '' TERM HUP; exec sleep {mark}) & exit 3");
    s.fails(3, ["run", "--name", &name, "--pid", "host", "busybox", "sh", "-c", &script]);
    let left = processes::all().into_iter().filter(|(_, line)| line.contains(&format!("sleep {mark}"))).count();
    assert_eq!(left, 0);
    s.ok(["rm", &name]);
}

#[test]
fn the_first_commands_of_all_at_once_get_their_limits() {
    let s = Sandbox::new();
    // A parent that nobody has made yet, as on a host that has just booted.
    let parent = format!("/{}", s.name("fresh"));
    let flags = ["run", "--rm", "--cgroup-parent", &parent, "-m", "64m", "--pids-limit", "9", "--cpus", "0.5"];
    let started: Vec<_> = (0..6).map(|_| s.command(flags.into_iter().chain(["busybox", "true"])).start()).collect();
    for running in started {
        let output = running.finish().code(0);
        assert_eq!(output.err(), "");
    }
    for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        let _ = fs::remove_dir(hierarchy.path().join(parent.trim_start_matches('/')));
    }
    let _ = fs::remove_dir(Path::new("/sys/fs/cgroup").join(parent.trim_start_matches('/')));
}
