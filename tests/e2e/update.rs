//! `update`: other limits for containers that run and that do not.

use super::support::{Sandbox, eventually};

#[test]
fn limits_of_a_running_container_change_at_once_and_last() {
    let s = Sandbox::new();
    let name = s.name("live");
    s.idle(&name, &["-m", "64m"]);
    let inside = |file_v1: &str, file_v2: &str| {
        let script = format!("cat /sys/fs/cgroup/{file_v2} 2>/dev/null || cat /sys/fs/cgroup/{file_v1}");
        s.ok(["exec", &name, "sh", "-c", &script])
    };
    let memory = || inside("memory/memory.limit_in_bytes", "memory.max");
    assert_eq!(memory(), (64 << 20).to_string());
    // Up and down again: memory may never be more than memory and swap, whichever is written first.
    for size in ["256m", "32m"] {
        assert_eq!(s.ok(["update", "-m", size, "--memory-swap", size, &name]), name);
        let bytes = size.trim_end_matches('m').parse::<u64>().unwrap() << 20;
        assert_eq!(memory(), bytes.to_string());
        assert_eq!(s.field(&name, "{{.HostConfig.Memory}}"), bytes.to_string());
    }
    s.ok(["update", "--pids-limit", "33", "-cpushare", "2048", &name]);
    assert_eq!(inside("pids/pids.max", "pids.max"), "33");
    s.ok(["restart", "-t", "5", &name]);
    assert_eq!((memory(), inside("pids/pids.max", "pids.max")), ((32 << 20).to_string(), "33".into()));
}

#[test]
fn a_cpuset_is_given_to_a_container_that_had_none() {
    let s = Sandbox::new();
    let name = s.name("set");
    s.idle(&name, &[]);
    s.ok(["update", "--cpuset-cpus", "1", &name]);
    let status = std::fs::read_to_string(format!("/proc/{}/status", s.pid(&name))).unwrap();
    assert!(status.lines().any(|line| line == "Cpus_allowed_list:\t1"), "{status}");
    assert!(s.ok(["exec", &name, "grep", "Cpus_allowed_list", "/proc/self/status"]).ends_with("\t1"));
    s.ok(["rm", "-f", &name]);
}

#[test]
fn what_is_refused_changes_nothing() {
    let s = Sandbox::new();
    let name = s.name("refused");
    s.idle(&name, &["-m", "64m"]);
    for (flags, words) in [
        (&["-m", "1m"][..], "Minimum memory limit"),
        (&["-m", "1g"], "update the memoryswap at the same time"),
        (&["--cpus", "5000"], "Range of CPUs"),
    ] {
        let mut args = vec!["update"];
        args.extend(flags);
        args.push(&name);
        let output = s.fails(1, args);
        assert!(output.err().contains(words), "{}", output.err());
    }
    assert_eq!(s.field(&name, "{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}}"), format!("{} 0", 64 << 20));
    s.fails(1, ["update", "-m", "64m", "no-such-container"]);
}

#[test]
fn a_stopped_container_starts_with_its_new_limits() {
    let s = Sandbox::new();
    let name = s.name("stopped");
    let script = "cat /sys/fs/cgroup/pids.max 2>/dev/null || cat /sys/fs/cgroup/pids/pids.max";
    s.ok(["run", "--name", &name, "busybox", "sh", "-c", script]);
    s.ok(["update", "--pids-limit", "44", &name]);
    assert_eq!(s.ok(["start", "-a", &name]), "44");
}

#[test]
fn the_restart_policy_of_a_running_container_changes() {
    let s = Sandbox::new();
    let name = s.name("policy");
    s.idle(&name, &["--restart", "always"]);
    assert_eq!(s.ok(["update", "--restart", "on-failure:1", &name]), name);
    let policy = s.field(&name, "{{.HostConfig.RestartPolicy.Name}}:{{.HostConfig.RestartPolicy.MaximumRetryCount}}");
    assert_eq!(policy, "on-failure:1");
    // Not `stop`, which is the user's word: an end of its own accord, with success. Whether `kill` sees its own end
    // before everything in the container is killed is chance.
    s.run(["exec", &name, "kill", "-TERM", "1"]);
    assert_eq!(s.ok(["wait", &name]), "0");
    assert_eq!(s.field(&name, "{{.State.Status}} {{.RestartCount}}"), "exited 0");

    let passing = s.name("passing");
    s.idle(&passing, &["--rm"]);
    let output = s.fails(1, ["update", "--restart", "always", &passing]);
    assert!(output.err().contains("AutoRemove is enabled"), "{}", output.err());
    let output = s.run(["update", "--restart", "sometimes", &name]);
    assert!(output.err().contains("unknown policy 'sometimes'"), "{}", output.err());
}

#[test]
fn a_limit_that_was_set_before_a_later_one_failed_is_taken_back() {
    if std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        // On v2 a lower memory limit is never refused: the kernel reclaims, and then kills.
        return;
    }
    let s = Sandbox::new();
    let name = s.name("back");
    // Memory that cannot be reclaimed: read in one system call, and held because nobody takes it.
    s.ok(["run", "-d", "--name", &name, "busybox", "sh", "-c", "dd if=/dev/zero bs=30000000 count=1 | sleep 1000"]);
    let inside = |file: &str| s.ok(["exec", &name, "cat", &format!("/sys/fs/cgroup/{file}")]);
    let used = || inside("memory/memory.usage_in_bytes").parse::<u64>().unwrap();
    eventually("a full container", || used() > 25_000_000);
    let output = s.fails(1, ["update", "--cpus", "0.5", "-m", "8m", "--memory-swap", "8m", &name]);
    assert!(output.err().contains("memory limit"), "{}", output.err());
    assert_eq!(inside("cpu/cpu.cfs_quota_us"), "-1");
    assert_eq!(s.field(&name, "{{.HostConfig.NanoCpus}} {{.HostConfig.Memory}}"), "0 0");
}
