//! The root file system and what is mounted into it.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use crate::ours_only;
use crate::support::{Sandbox, against_docker};

#[test]
fn containers_write_to_layers_of_their_own() {
    let s = Sandbox::new();
    let (a, b) = (s.name("a"), s.name("b"));
    s.ok(["run", "--name", &a, "busybox", "sh", "-c", "echo a > /file; rm /etc/group"]);
    assert_eq!(s.ok(["run", "--name", &b, "busybox", "sh", "-c", "ls /file 2>/dev/null; ls /etc/group"]), "/etc/group");
    assert_eq!(s.ok(["start", "-a", &b]), "/etc/group");
}

#[test]
fn bind_mounts_read_write_and_read_only() {
    let s = Sandbox::new();
    let dir = s.host_dir("dir");
    fs::write(s.path("dir/in"), "from the host").unwrap();
    assert_eq!(s.script(&["-v", &format!("{dir}:/mnt")], "cat /mnt/in; echo out > /mnt/out"), "from the host");
    assert_eq!(fs::read_to_string(s.path("dir/out")).unwrap(), "out\n");
    let refused = s.run(["run", "--rm", "-v", &format!("{dir}:/mnt:ro"), "busybox", "touch", "/mnt/no"]);
    refused.code(1).says("read-only");
    assert_eq!(s.script(&["-v", &format!("{dir}:/mnt:rw")], "echo x > /mnt/rw"), "");
    assert!(s.path("dir/rw").exists() && !s.path("dir/no").exists());
}

#[test]
fn any_number_of_mounts_each_with_its_mode() {
    let s = Sandbox::new();
    let dirs: Vec<String> = (0..5).map(|n| s.host_dir(&format!("d{n}"))).collect();
    let mounts: Vec<String> = dirs
        .iter()
        .enumerate()
        .map(|(n, dir)| format!("{dir}:/m/{n}:{}", if n % 2 == 0 { "ro" } else { "rw" }))
        .collect();
    let flags: Vec<&str> = mounts.iter().flat_map(|mount| ["-v", mount.as_str()]).collect();
    let script = "for n in 0 1 2 3 4; do touch /m/$n/f 2>/dev/null && echo $n; done; true";
    assert_eq!(s.script(&flags, script), "1\n3");
}

#[test]
fn both_sides_are_made_when_missing() {
    let s = Sandbox::new();
    let host = s.host("new/on/host");
    s.script(&["-v", &format!("{host}:/new/in/side")], "echo x > /new/in/side/f");
    assert_eq!(fs::read_to_string(s.path("new/on/host/f")).unwrap(), "x\n");
}

#[test]
fn a_file_is_mounted_on_a_file() {
    let s = Sandbox::new();
    let file = s.host_file("file", "contents\n");
    assert_eq!(s.script(&["-v", &format!("{file}:/etc/new/file:ro")], "cat /etc/new/file"), "contents");
    assert_eq!(s.script(&["-v", &format!("{file}:/etc/passwd")], "cat /etc/passwd"), "contents");
    // A file cannot cover a directory.
    let output = s.run(["run", "--rm", "-v", &format!("{file}:/etc"), "busybox", "true"]);
    assert!(matches!(output.code, 125..=127), "{output}");
}

#[test]
fn mounts_of_the_users_stack_in_order_of_depth() {
    let s = Sandbox::new();
    let (outer, inner) = (s.host_dir("outer"), s.host_dir("inner"));
    fs::write(s.path("inner/f"), "inner").unwrap();
    let (a, b) = (format!("{inner}:/m/sub"), format!("{outer}:/m"));
    assert_eq!(s.script(&["-v", &a, "-v", &b], "cat /m/sub/f"), "inner");
}

#[test]
fn mount_syntax_errors_are_125() {
    let s = Sandbox::new();
    for mount in ["/a:/b:nonsense", ":/b", "/a:", "/a:b", "/a:/b:ro:rw:x"] {
        s.fails(125, ["run", "--rm", "-v", mount, "busybox", "true"]);
    }
}

#[test]
fn the_mount_flag_spells_the_same() {
    let s = Sandbox::new();
    let dir = s.host_dir("dir");
    let bind = format!("type=bind,source={dir},target=/mnt,readonly");
    assert_eq!(s.script(&["--mount", &bind], "touch /mnt/f 2>/dev/null || echo ro"), "ro");
    assert_eq!(
        s.script(&["--mount", "type=tmpfs,target=/t,tmpfs-size=1m"], "grep ' /t ' /proc/mounts | cut -d' ' -f1"),
        "tmpfs"
    );
    // Unlike -v, a source that is not there is an error.
    let missing = format!("type=bind,source={},target=/mnt", s.host("missing"));
    s.fails(125, ["run", "--rm", "--mount", &missing, "busybox", "true"]).says("missing");
}

#[test]
fn named_volumes_outlive_their_containers() {
    let s = Sandbox::new();
    let volume = s.name("vol");
    s.script(&["-v", &format!("{volume}:/data")], "echo kept > /data/f");
    assert_eq!(s.script(&["-v", &format!("{volume}:/other:ro")], "cat /other/f"), "kept");
    let _ = s.run(["volume", "rm", &volume]);
}

#[test]
fn a_new_volume_is_filled_from_the_image() {
    let s = Sandbox::new();
    let volume = s.name("vol");
    assert!(s.script(&["-v", &format!("{volume}:/etc")], "cat /etc/passwd").contains("root:"));
    let _ = s.run(["volume", "rm", &volume]);
}

#[test]
fn anonymous_volumes_go_with_rm() {
    let s = Sandbox::new();
    let name = s.name("anon");
    s.ok(["run", "--name", &name, "-v", "/data", "busybox", "sh", "-c", "echo x > /data/f"]);
    let source = s.field(&name, "{{(index .Mounts 0).Source}}");
    assert!(std::path::Path::new(&source).join("f").exists(), "{source}");
    assert_eq!(s.field(&name, "{{(index .Mounts 0).Type}} {{(index .Mounts 0).Destination}}"), "volume /data");
    s.ok(["rm", "-v", &name]);
    assert!(!std::path::Path::new(&source).exists());
    // With --rm on its own (the sandbox looks for what is left).
    s.script(&["-v", "/data"], "echo x > /data/f");
}

#[test]
fn tmpfs_with_and_without_options() {
    let s = Sandbox::new();
    let line = s.script(&["--tmpfs", "/t"], "grep ' /t ' /proc/mounts");
    for word in ["tmpfs", "rw", "nosuid", "nodev", "noexec"] {
        assert!(line.contains(word), "{word} is not in {line}");
    }
    let line = s.script(&["--tmpfs", "/t:size=1m,mode=700,exec"], "grep ' /t ' /proc/mounts; ls -ld /t | cut -c1-10");
    assert!(line.contains("size=1024k") && !line.contains("noexec") && line.ends_with("drwx------"), "{line}");
    s.fails(1, ["run", "--rm", "--tmpfs", "/t:size=4k", "busybox", "sh", "-c", "head -c 100000 /dev/zero > /t/f"]);
    assert_ne!(s.run(["run", "--rm", "--tmpfs", "/t:nonsense=1", "busybox", "true"]).code, 0);
}

#[test]
fn a_read_only_root_spares_what_must_be_written() {
    let s = Sandbox::new();
    let dir = s.host_dir("dir");
    let mount = format!("{dir}:/mnt");
    let script = "touch /f 2>/dev/null && echo root; touch /mnt/f && echo mnt; touch /t/f && echo tmpfs; \
                  echo > /dev/null && echo null; touch /dev/shm/f && echo shm";
    assert_eq!(s.script(&["--read-only", "-v", &mount, "--tmpfs", "/t"], script), "mnt\ntmpfs\nnull\nshm");
}

#[test]
fn shm_has_the_size_asked_for() {
    let s = Sandbox::new();
    assert!(s.script(&[], "grep ' /dev/shm ' /proc/mounts").contains("size=65536k"));
    assert!(s.script(&["--shm-size", "1m"], "grep ' /dev/shm ' /proc/mounts").contains("size=1024k"));
    s.fails(125, ["run", "--rm", "--shm-size", "nonsense", "busybox", "true"]).says("nonsense");
}

#[test]
fn system_mounts_are_dockers() {
    let s = Sandbox::new();
    let table = s.script(&[], "cat /proc/mounts");
    let has = |target: &str, kind: &str, options: &[&str]| {
        let found = table.lines().map(|line| line.split(' ').collect::<Vec<_>>()).any(|line| {
            line[1] == target
                && line[2] == kind
                && options.iter().all(|option| line[3].split(',').any(|word| word == *option))
        });
        assert!(found, "{target} {kind} {options:?} is not in\n{table}");
    };
    has("/", "overlay", &["rw"]);
    has("/proc", "proc", &["rw", "nosuid", "nodev", "noexec"]);
    has("/dev", "tmpfs", &["rw", "nosuid", "mode=755"]);
    has("/dev/pts", "devpts", &["nosuid", "noexec", "ptmxmode=666"]);
    has("/dev/shm", "tmpfs", &["nosuid", "nodev", "noexec"]);
    has("/dev/mqueue", "mqueue", &["nosuid", "nodev", "noexec"]);
    has("/sys", "sysfs", &["ro", "nosuid", "nodev", "noexec"]);
    assert!(table.lines().any(|line| line.contains(" /sys/fs/cgroup")), "{table}");
    for line in table.lines().filter(|line| line.split(' ').nth(2).is_some_and(|kind| kind.starts_with("cgroup"))) {
        assert!(line.contains(" ro,"), "a writable cgroup tree: {line}");
    }
    // Nothing of the host's is in sight.
    assert!(!table.lines().any(|line| line.contains("oldroot") || line.contains("old_root")), "{table}");
}

#[test]
fn dev_holds_dockers_nodes_and_links() {
    let s = Sandbox::new();
    let listing = s.script(&[], "cd /dev; for f in *; do if [ -L $f ]; then echo $f $(readlink $f); elif [ -c $f ]; then stat -c '%n %a %t:%T' $f; fi; done");
    let mut lines: Vec<&str> = listing.lines().filter(|line| !line.starts_with("core ")).collect();
    lines.sort_unstable();
    let expected = [
        "fd /proc/self/fd",
        "full 666 1:7",
        "null 666 1:3",
        "ptmx pts/ptmx",
        "random 666 1:8",
        "stderr /proc/self/fd/2",
        "stdin /proc/self/fd/0",
        "stdout /proc/self/fd/1",
        "tty 666 5:0",
        "urandom 666 1:9",
        "zero 666 1:5",
    ];
    assert_eq!(lines, expected);
    assert_eq!(
        s.script(&[], "echo x > /dev/null; head -c 3 /dev/zero | wc -c; echo > /dev/full 2>/dev/null || echo full"),
        "3\nfull"
    );
}

#[test]
fn the_state_of_the_engine_is_not_for_others() {
    ours_only!("paths are ours");
    let s = Sandbox::new();
    let name = s.name("private");
    let id = s.idle(&name, &[]);
    let root = s.root();
    assert!(fs::metadata(&root).unwrap().permissions().mode() & 0o066 == 0, "the data root is readable by others");
    let mode = |path: std::path::PathBuf| {
        fs::metadata(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).mode() & 0o077
    };
    let container = root.join("containers").join(&id);
    assert_eq!(mode(root.join("containers")), 0);
    for file in ["config.json", "state.json"] {
        assert_eq!(mode(container.join(file)), 0, "{file}");
    }
    assert_eq!(mode(container.join(format!("{id}-json.log"))), 0);
}

#[test]
fn links_in_a_volume_cannot_lead_a_mount_out() {
    // CVE-2017-1002101, CVE-2021-30465: the target of the second mount lies behind a link in the first.
    let s = Sandbox::new();
    let (volume, victim) = (s.host_dir("volume"), s.host_dir("victim"));
    fs::write(s.path("victim/f"), "untouched").unwrap();
    symlink(&victim, s.path("volume/link")).unwrap();
    symlink("/../../../../../../../../etc", s.path("volume/up")).unwrap();
    let source = s.host_dir("source");
    let (first, second) = (format!("{volume}:/vol"), format!("{source}:/vol/link/sub"));
    let output = s.run(["run", "--rm", "-v", &first, "-v", &second, "busybox", "true"]);
    // Refused, or made inside the container's own tree; never on the host.
    assert!(!s.path("victim/sub").exists(), "{output}");
    let third = format!("{source}:/vol/up/mydocker-escape");
    let output = s.run(["run", "--rm", "-v", &first, "-v", &third, "busybox", "true"]);
    assert!(!std::path::Path::new("/etc/mydocker-escape").exists(), "{output}");
    assert_eq!(fs::read_to_string(s.path("victim/f")).unwrap(), "untouched");
}

#[test]
fn a_workdir_behind_a_link_stays_inside() {
    let s = Sandbox::new();
    let dir = s.host_dir("dir");
    symlink("/../../../../../../../var/tmp/mydocker-escape", s.path("dir/out")).unwrap();
    let mount = format!("{dir}:/vol");
    let output = s.run(["run", "--rm", "-v", &mount, "-w", "/vol/out/made", "busybox", "pwd"]);
    assert!(!std::path::Path::new("/var/tmp/mydocker-escape").exists(), "{output}");
}

#[test]
fn the_workdir_cannot_be_a_descriptor_of_ours() {
    // CVE-2024-21626: a working directory through /proc/self/fd leads to the host.
    let s = Sandbox::new();
    let host = fs::metadata("/").unwrap();
    for number in 3..12 {
        let dir = format!("/proc/self/fd/{number}");
        let output = s.run(["run", "--rm", "-w", &dir, "busybox", "stat", "-c", "%d:%i", "../../../../../.."]);
        if output.code == 0 {
            assert_ne!(output.out(), format!("{}:{}", host.dev(), host.ino()), "{dir} leads out: {output}");
        }
    }
}

#[test]
fn mounts_inside_proc_are_refused() {
    let s = Sandbox::new();
    let dir = s.host_dir("dir");
    for target in ["/proc", "/proc/self", "/proc/sys/kernel"] {
        assert_ne!(s.run(["run", "--rm", "-v", &format!("{dir}:{target}"), "busybox", "true"]).code, 0, "{target}");
    }
    // runc 1.1 let this one through.
    if !against_docker() {
        assert_ne!(s.run(["run", "--rm", "--tmpfs", "/proc/self/attr", "busybox", "true"]).code, 0);
    }
}
