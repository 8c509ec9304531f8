//! What a container may not do, see or hold: each flaw of `docs/security.md` that concerns these
//! commands, attacked from inside.

use crate::ours_only;
use crate::support::{Sandbox, against_docker};

/// Docker's fourteen capabilities.
const DEFAULT: &str = "00000000a80425fb";
const NONE: &str = "0000000000000000";

const SETS: &str = "grep Cap /proc/self/status | tr -d '\\t'";

/// Every capability that the machine lets root have, as the engine finds it: its own bounding set.
/// (Virtual machines and CI containers often withhold some, CAP_SYS_RESOURCE above all.)
fn all() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    status.lines().find_map(|line| line.strip_prefix("CapBnd:\t")).unwrap().to_owned()
}

/// runc fails on a machine that withholds capabilities; a correct engine gives what there is.
fn docker_cannot_have_all() -> bool {
    let last: u32 = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap").unwrap().trim().parse().unwrap();
    against_docker() && all() != format!("{:016x}", (1u64 << (last + 1)) - 1)
}

fn sets(inheritable: &str, permitted: &str, effective: &str, bounding: &str, ambient: &str) -> String {
    format!("CapInh:{inheritable}\nCapPrm:{permitted}\nCapEff:{effective}\nCapBnd:{bounding}\nCapAmb:{ambient}")
}

#[test]
fn root_has_dockers_capabilities_and_no_other() {
    let s = Sandbox::new();
    assert_eq!(s.script(&[], SETS), sets(NONE, DEFAULT, DEFAULT, DEFAULT, NONE));
}

#[test]
fn plain_users_have_none_in_any_set_but_the_bounding_one() {
    let s = Sandbox::new();
    assert_eq!(s.script(&["-u", "1234:1234"], SETS), sets(NONE, NONE, NONE, DEFAULT, NONE));
    assert_eq!(s.script(&["-u", "nobody", "--cap-drop", "ALL"], SETS), sets(NONE, NONE, NONE, NONE, NONE));
}

#[test]
fn exec_has_the_containers_capabilities() {
    let s = Sandbox::new();
    let name = s.name("caps");
    s.idle(&name, &["--cap-drop", "chown"]);
    let dropped = "00000000a80425fa";
    assert_eq!(s.ok(["exec", &name, "sh", "-c", SETS]), sets(NONE, dropped, dropped, dropped, NONE));
    assert_eq!(s.ok(["exec", "-u", "1234", &name, "sh", "-c", SETS]), sets(NONE, NONE, NONE, dropped, NONE));
}

#[test]
fn capabilities_added_and_dropped_in_any_spelling() {
    let s = Sandbox::new();
    let effective = |flags: &[&str]| s.script(flags, "grep CapEff /proc/self/status | cut -f2");
    assert_eq!(effective(&["--cap-drop", "ALL"]), NONE);
    assert_eq!(effective(&["--cap-drop", "all", "--cap-add", "CAP_CHOWN"]), "0000000000000001");
    assert_eq!(effective(&["--cap-drop=ALL", "--cap-add=chown", "--cap-add=net_admin"]), "0000000000001001");
    assert_eq!(effective(&["--cap-add", "SYS_ADMIN"]), "00000000a82425fb");
    if !docker_cannot_have_all() {
        assert_eq!(effective(&["--cap-add", "ALL"]), all());
    }
    s.fails(125, ["run", "--rm", "--cap-add", "NO_SUCH_CAP", "busybox", "true"]).says("no_such_cap");
}

#[test]
fn the_capabilities_are_of_use() {
    let s = Sandbox::new();
    assert_eq!(s.script(&[], "chown 5:6 /tmp && echo chown; hostname x 2>/dev/null || echo no-hostname; mount -t tmpfs t /mnt 2>/dev/null || echo no-mount"), "chown\nno-hostname\nno-mount");
    assert_eq!(s.script(&["--cap-add", "SYS_ADMIN"], "hostname x && hostname"), "x");
}

#[test]
fn no_new_privileges_when_asked_for() {
    let s = Sandbox::new();
    let get = "grep NoNewPrivs /proc/self/status | cut -f2";
    assert_eq!(s.script(&["--security-opt", "no-new-privileges"], get), "1");
    assert_eq!(s.script(&["--security-opt", "no-new-privileges:true"], get), "1");
    assert_eq!(s.script(&[], get), "0");
    let name = s.name("nnp");
    s.idle(&name, &["--security-opt", "no-new-privileges"]);
    assert_eq!(s.ok(["exec", &name, "sh", "-c", get]), "1");
    s.fails(125, ["run", "--rm", "--security-opt", "nonsense", "busybox", "true"]).says("nonsense");
}

#[test]
fn privileged_has_everything() {
    if docker_cannot_have_all() {
        return;
    }
    let s = Sandbox::new();
    let script = "grep CapEff /proc/self/status | cut -f2; mkdir -p /m; mount -t tmpfs t /m && echo mounted; \
                  grep -c ' ro' /proc/mounts; [ -c /dev/kmsg ] && echo kmsg; grep ' /sys ' /proc/mounts | grep -c rw";
    let output = s.script(&["--privileged"], script);
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(lines[0], all());
    assert_eq!((lines[1], *lines.last().unwrap()), ("mounted", "1"));
    assert!(lines.contains(&"kmsg"), "{output}");
}

#[test]
fn exec_privileged_has_all_capabilities() {
    if docker_cannot_have_all() {
        return;
    }
    let s = Sandbox::new();
    let name = s.name("priv");
    s.idle(&name, &[]);
    let get = ["grep", "CapEff", "/proc/self/status"];
    let all = format!("CapEff:\t{}", all());
    assert_eq!(s.ok([&["exec", "--privileged", &name], &get[..]].concat()), all);
    assert_eq!(s.ok([&["exec", &name], &get[..]].concat()), format!("CapEff:\t{DEFAULT}"));
}

#[test]
fn namespaces_are_private_by_default() {
    let s = Sandbox::new();
    for kind in ["pid", "mnt", "uts", "ipc", "net"] {
        let host = std::fs::read_link(format!("/proc/thread-self/ns/{kind}")).unwrap();
        let inside = s.script(&[], &format!("readlink /proc/self/ns/{kind}"));
        assert_ne!(inside, host.to_str().unwrap(), "{kind}");
    }
}

#[test]
fn namespaces_shared_with_the_host() {
    let s = Sandbox::new();
    for (flag, kind) in [("--pid", "pid"), ("--uts", "uts"), ("--ipc", "ipc"), ("--network", "net")] {
        let host = std::fs::read_link(format!("/proc/thread-self/ns/{kind}")).unwrap();
        assert_eq!(
            s.script(&[flag, "host"], &format!("readlink /proc/self/ns/{kind}")),
            host.to_str().unwrap(),
            "{flag}"
        );
    }
}

#[test]
fn namespaces_shared_with_another_container() {
    let s = Sandbox::new();
    let name = s.name("owner");
    s.idle(&name, &["--ipc", "shareable"]);
    let target = format!("container:{name}");
    for (flag, kind) in [("--pid", "pid"), ("--ipc", "ipc"), ("--network", "net")] {
        let script = format!("readlink /proc/self/ns/{kind}");
        assert_eq!(s.script(&[flag, &target], &script), s.ok(["exec", &name, "sh", "-c", &script]), "{flag}");
    }
    assert!(s.script(&["--pid", &target], "ps").contains("while :"));
    // /dev/shm belongs to the IPC namespace.
    s.ok(["exec", &name, "touch", "/dev/shm/shared"]);
    assert_eq!(s.script(&["--ipc", &target], "ls /dev/shm"), "shared");
    // Files of the name service come with the network.
    s.ok(["exec", &name, "sh", "-c", "echo '10.9.8.7 there' >> /etc/hosts"]);
    assert!(s.script(&["--network", &target], "cat /etc/hosts").contains("10.9.8.7 there"));
}

#[test]
fn a_container_that_does_not_run_lends_no_namespace() {
    let s = Sandbox::new();
    let name = s.name("stopped");
    s.ok(["create", "--name", &name, "busybox", "true"]);
    for flag in ["--pid", "--ipc", "--network"] {
        let output = s.run(["run", "--rm", flag, &format!("container:{name}"), "busybox", "true"]);
        assert_eq!(output.code, 125, "{output}");
    }
}

#[test]
fn networks_of_this_stage() {
    let s = Sandbox::new();
    let links = "ls /sys/class/net | grep -v -e sit0 -e tunl0 -e ip6tnl0";
    assert_eq!(s.script(&["--network", "none"], links), "lo");
    assert_eq!(
        s.script(
            &["--net", "none"],
            "cat /sys/class/net/lo/operstate; ping -c 1 -W 1 127.0.0.1 > /dev/null && echo up"
        ),
        "unknown\nup"
    );
    s.fails(125, ["run", "--rm", "--network", "no-such-network", "busybox", "true"]).says("no-such-network");
    s.fails(125, ["run", "--rm", "--network", "host", "--network", "none", "--uts", "nonsense", "busybox", "true"]);
}

#[test]
fn processes_of_others_are_out_of_sight() {
    let s = Sandbox::new();
    let pids = s.script(&[], "ls /proc | grep '^[0-9]*$' | wc -l");
    assert!(pids.parse::<u32>().unwrap() <= 5, "{pids}");
}

#[test]
fn masked_paths_show_nothing() {
    let s = Sandbox::new();
    // Directories are empty, files are as /dev/null.
    let script = "for p in /proc/acpi /proc/scsi /sys/firmware; do [ -e $p ] && ls -A $p; done; \
                  for p in /proc/kcore /proc/keys /proc/timer_list /proc/latency_stats /proc/sched_debug; do \
                  [ -e $p ] && head -c 1 $p; done; echo end";
    assert_eq!(s.script(&[], script), "end");
}

#[test]
fn read_only_paths_cannot_be_written_by_root() {
    let s = Sandbox::new();
    let script = "for p in /proc/sys/kernel/core_pattern /proc/sysrq-trigger /proc/irq/default_smp_affinity /proc/bus/x /proc/fs/x; do \
                  ( echo h > $p ) 2>/dev/null && echo wrote $p; done; \
                  touch /sys/x 2>/dev/null && echo wrote /sys; \
                  for p in /proc/bus /proc/fs /proc/irq /proc/sys /proc/sysrq-trigger; do \
                  [ ! -e $p ] || grep -q \" $p proc ro,\" /proc/mounts || echo writable $p; done; echo end";
    assert_eq!(s.script(&[], script), "end");
}

#[test]
fn masks_stand_in_the_way_of_exec_too() {
    let s = Sandbox::new();
    let name = s.name("masked");
    s.idle(&name, &[]);
    let script = "( echo x > /proc/sys/kernel/core_pattern ) 2>/dev/null && echo wrote; cat /proc/timer_list; echo end";
    assert_eq!(s.ok(["exec", &name, "sh", "-c", script]), "end");
}

#[test]
fn systempaths_unconfined_lifts_the_masks() {
    let s = Sandbox::new();
    assert_eq!(
        s.script(
            &["--security-opt", "systempaths=unconfined"],
            "grep -c -e ' /proc/sys ' -e ' /proc/keys ' /proc/mounts; true"
        ),
        "0"
    );
}

#[test]
fn no_descriptor_above_two_is_left_open() {
    let s = Sandbox::new();
    let name = s.name("fds");
    // `ls` itself opens one more, which is the directory it reads.
    let list = "for f in /proc/self/fd/*; do readlink $f; done; true";
    let only_streams = |text: &str| {
        text.lines().all(|line| line.starts_with("pipe:") || line.starts_with("/dev/") || line.contains("/fd"))
    };
    s.ok(["run", "-d", "--name", &name, "busybox", "sleep", "60"]);
    let pid_1 = s.ok(["exec", &name, "ls", "/proc/1/fd"]);
    assert_eq!(pid_1, "0\n1\n2");
    let inside = s.script(&[], list);
    assert!(only_streams(&inside), "{inside}");
    // Descriptors that the caller leaks to us end with us.
    let args = ["run", "--rm", "busybox", "sh", "-c", "ls /proc/1/fd"];
    let output = s.with_shell("exec 7</etc/passwd 9>/dev/null; exec \"$@\"", args).run().code(0);
    assert_eq!(output.out().lines().filter(|fd| matches!(*fd, "7" | "9")).count(), 0, "{}", output.out());
    let exec =
        s.with_shell("exec 7</etc/passwd; exec \"$@\"", ["exec", &name, "sh", "-c", "ls /proc/$$/fd"]).run().code(0);
    assert!(!exec.out().lines().any(|fd| fd == "7"), "{}", exec.out());
}

#[test]
fn exec_takes_no_descriptor_along() {
    let s = Sandbox::new();
    let name = s.name("exec-fds");
    s.idle(&name, &[]);
    let text = s.ok(["exec", &name, "sh", "-c", "ls /proc/$$/fd; true"]);
    assert_eq!(text, "0\n1\n2");
}

#[test]
fn the_engines_binary_cannot_be_written_from_inside() {
    // CVE-2019-5736: the runtime is reached through /proc/<pid>/exe while it enters the container.
    ours_only!("the attack names our own stages");
    let s = Sandbox::new();
    let before = std::fs::metadata(env!("CARGO_BIN_EXE_mydocker")).unwrap().modified().unwrap();
    // `#!/proc/self/exe` makes the kernel start the very program that execs it.
    let layer = s.host_file("entry", "#!/proc/self/exe\n");
    std::fs::set_permissions(&layer, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let name = s.name("exe");
    let mount = format!("{layer}:/entry");
    s.idle(&name, &["-v", &mount]);
    let mut tries = Vec::new();
    for _ in 0..20 {
        tries.push(s.command(["exec", &name, "/entry", "init"]).start());
    }
    let attack = "n=0; while [ $n -lt 2000 ]; do n=$((n+1)); for p in /proc/[0-9]*/exe; do \
                  case $(readlink $p) in *mydocker*|*memfd*) ( : >> $p ) 2>/dev/null && echo WRITTEN $p;; esac; done; \
                  [ $n -gt 50 ] && break; done; echo end";
    assert_eq!(s.ok(["exec", &name, "sh", "-c", attack]), "end");
    drop(tries);
    let after = std::fs::metadata(env!("CARGO_BIN_EXE_mydocker")).unwrap().modified().unwrap();
    assert_eq!(before, after);
}

#[test]
fn each_container_is_in_a_cgroup_of_its_own() {
    ours_only!("the cgroup's path is ours");
    let s = Sandbox::new();
    let name = s.name("cgroup");
    let id = s.idle(&name, &[]);
    let own = std::fs::read_to_string(format!("/proc/{}/cgroup", s.pid(&name))).unwrap();
    let containing: Vec<&str> = own.lines().filter(|line| line.ends_with(&format!("/mydocker/{id}"))).collect();
    assert!(!containing.is_empty(), "{own}");
    // exec joins it.
    s.ok(["exec", "-d", &name, "sh", "-c", "exec sleep 61"]);
    let sleeper =
        || crate::support::processes::all().into_iter().find(|(_, line)| line == "sleep 61").map(|(pid, _)| pid);
    crate::support::eventually("the exec runs", || sleeper().is_some());
    assert_eq!(std::fs::read_to_string(format!("/proc/{}/cgroup", sleeper().unwrap())).unwrap(), own);
}

#[test]
fn proc_as_a_link_in_the_image_is_refused() {
    // CVE-2019-19921: procfs mounted where a link of the image points.
    use crate::support::archive::{Layer, save};
    ours_only!("docker needs a fresh tag for each attack");
    let s = Sandbox::new();
    let file = s.host("evil.tar");
    let layer = Layer::busybox().dir("real/", 0o755).symlink("proc", "real");
    save(std::path::Path::new(&file), "evil-proc:latest", &serde_json::json!({ "Cmd": ["true"] }), &[layer]);
    s.ok(["load", "-i", &file]);
    let output = s.run(["run", "--rm", "evil-proc", "sh", "-c", "ls -d /real/self 2>/dev/null"]);
    assert!(output.code == 125 && output.stdout.is_empty(), "{output}");
}

#[test]
fn name_service_files_as_links_do_not_lead_to_the_host() {
    // The class of CVE-2015-3629: /etc/hosts and its like are links, fifos or directories of the image.
    use crate::support::archive::{Layer, save};
    ours_only!("tags of this test would stay with docker");
    let s = Sandbox::new();
    let victim = s.host_file("victim", "untouched");
    let file = s.host("evil.tar");
    let layer = Layer::busybox()
        .symlink("etc/hosts", &victim)
        .symlink("etc/resolv.conf", "/../../../../../../etc/mydocker-escape")
        .symlink("etc/passwd", "/../../../../../../../etc/passwd");
    save(std::path::Path::new(&file), "evil-etc:latest", &serde_json::json!({ "Cmd": ["true"] }), &[layer]);
    s.ok(["load", "-i", &file]);
    let output = s.run(["run", "--rm", "-u", "root", "evil-etc", "sh", "-c", "echo x >> /etc/hosts; id -u"]);
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "untouched", "{output}");
    assert!(!std::path::Path::new("/etc/mydocker-escape").exists(), "{output}");
}
