//! Devices: what a container may make, open and be given. The same on cgroups v1, hybrid and v2, so nothing here looks
//! at cgroup files.

use std::os::unix::fs::MetadataExt;

use rustix::fs::{FileType, Mode};
use serde_json::json;

use crate::ours_only;
use crate::support::{Sandbox, against_docker};

/// A script that prints `NAME` for each `tried NAME COMMAND…` whose command succeeds, and the reasons of the others.
const TRIED: &str = "tried() { name=$1; shift; ( \"$@\" ) 2>&1 && echo $name; }; \
                     reads() { : < $1; }; writes() { : > $1; }; both() { : <> $1; }; ";

fn script(s: &Sandbox, flags: &[&str], script: &str) -> String {
    s.script(flags, &format!("{TRIED}{script}; true"))
}

/// Makes a device on the host that only this test knows; its path.
fn host_device(s: &Sandbox, name: &str, kind: FileType, number: (u32, u32)) -> String {
    let number = rustix::fs::makedev(number.0, number.1);
    let path = s.path(name);
    rustix::fs::mknodat(rustix::fs::CWD, &path, kind, Mode::from_raw_mode(0o640), number).unwrap();
    std::os::unix::fs::chown(&path, Some(7), Some(8)).unwrap();
    s.host(name)
}

/// The kernel's log, which a container has not by default. Opening it has no effect on anybody.
const LOG: (u32, u32) = (1, 11);
/// What reading it takes besides the device cgroup's leave.
const MAY_READ_LOG: [&str; 2] = ["--cap-add", "SYSLOG"];

/// `/dev/zero` under another name.
fn zero(s: &Sandbox) -> String {
    host_device(s, "other-zero", FileType::CharacterDevice, (1, 5))
}

const OPEN_ZERO: &str = "tried r reads /dev/z; tried w writes /dev/z; tried rw both /dev/z; tried m mknod /tmp/z c 1 5";

/// `/dev/mem` and a disk; making is allowed as with Docker, opening is not.
const ATTACK: &str = "tried mem-made mknod /tmp/mem c 1 1; tried mem reads /tmp/mem; \
                      tried disk-made mknod /tmp/disk b 8 0; tried disk reads /tmp/disk; tried disk writes /tmp/disk; \
                      tried loop-made mknod /tmp/loop b 7 0; tried loop reads /tmp/loop; \
                      tried kmsg-made mknod /tmp/kmsg c 1 11; tried kmsg both /tmp/kmsg; rm -f /tmp/*";

fn attacked(text: &str) {
    let made: Vec<&str> = text.lines().filter(|line| !line.contains("can't")).collect();
    assert_eq!(made, ["mem-made", "disk-made", "loop-made", "kmsg-made"], "{text}");
    let refused = text.lines().filter(|line| line.ends_with(": Operation not permitted")).count();
    assert_eq!(refused, 5, "{text}");
}

#[test]
fn nodes_can_be_made_and_not_opened() {
    let s = Sandbox::new();
    attacked(&script(&s, &[], ATTACK));
    // Not for want of a capability.
    attacked(&script(&s, &["--cap-add", "SYS_ADMIN", "--cap-add", "SYS_RAWIO", "--cap-add", "SYSLOG"], ATTACK));
    let without = script(&s, &["--cap-drop", "MKNOD"], "tried made mknod /tmp/null c 1 3");
    assert!(without.ends_with("Operation not permitted"), "{without}");
}

#[test]
fn exec_is_confined_alike() {
    let s = Sandbox::new();
    let name = s.name("exec");
    s.idle(&name, &[]);
    attacked(&s.ok(["exec", &name, "sh", "-c", &format!("{TRIED}{ATTACK}")]));
    // Its capabilities are all there; the devices are the container's.
    attacked(&s.ok(["exec", "--privileged", &name, "sh", "-c", &format!("{TRIED}{ATTACK}")]));
    // A start later, too.
    s.ok(["restart", "-t", "0", &name]);
    attacked(&s.ok(["exec", &name, "sh", "-c", &format!("{TRIED}{ATTACK}")]));
}

#[test]
fn what_every_container_has_works() {
    let s = Sandbox::new();
    let text = script(
        &s,
        &[],
        "for d in null zero full random urandom; do tried $d both /dev/$d; tried made-$d test -c /dev/$d; done; \
         tried mknod mknod /tmp/null c 1 3; tried own both /tmp/null; head -c 3 /dev/zero | wc -c",
    );
    let expected = "null made-null zero made-zero full made-full random made-random urandom made-urandom mknod own 3";
    assert_eq!(text.split_whitespace().collect::<Vec<_>>().join(" "), expected);
    // The terminal's: /dev/tty, /dev/console, /dev/pts/0, and what makes new ones, /dev/ptmx.
    let inside = format!(
        "{TRIED}for d in tty console ptmx; do tried $d both /dev/$d; done; tried pts both $(tty); echo the end"
    );
    let mut terminal = s.terminal(["run", "--rm", "-it", "busybox", "sh", "-c", &inside]);
    for word in ["tty", "console", "ptmx", "pts", "the end"] {
        terminal.expect(&format!("{word}\r\n"));
    }
    assert_eq!(terminal.finish().0, 0);
}

#[test]
fn a_device_of_the_host_has_its_number_owner_and_mode() {
    let s = Sandbox::new();
    let device = zero(&s);
    let look = "stat -c '%F %t:%T %a %u:%g' /dev/z; head -c 2 /dev/z | od -An -tx1; ";
    let given = format!("{device}:/dev/z");
    assert_eq!(
        script(&s, &["--device", &given], &format!("{look}{OPEN_ZERO}")),
        "character special file 1:5 640 7:8\n 00 00\nr\nw\nrw\nm"
    );
    // Under the same path, a directory deep: made below the container's /dev or elsewhere.
    let text = script(&s, &["--device", &device], &format!("stat -c '%t:%T' {device}; tried r reads {device}"));
    assert_eq!(text, "1:5\nr");
    let deep = format!("{device}:/dev/one/two/z");
    assert_eq!(script(&s, &["--device", &deep], "stat -c '%t:%T' /dev/one/two/z"), "1:5");
}

#[test]
fn permissions_hold_where_the_default_rules_say_nothing() {
    let s = Sandbox::new();
    let device = host_device(&s, "log", FileType::CharacterDevice, LOG);
    let open = "tried r reads /dev/k; tried w writes /dev/k; tried rw both /dev/k";
    for (permissions, expected) in [(":r", "r"), (":w", "w"), (":rw", "r w rw"), ("", "r w rw"), (":m", "")] {
        let given = format!("{device}:/dev/k{permissions}");
        let text = script(&s, &[&MAY_READ_LOG[..], &["--device", &given]].concat(), open);
        let (refused, allowed): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| line.contains("can't"));
        assert_eq!(allowed.join(" "), expected, "{permissions}: {text}");
        assert!(refused.iter().all(|line| line.ends_with("Operation not permitted")), "{text}");
    }
    // Another device of the same major stays out of reach.
    let given = format!("{device}:/dev/k");
    attacked(&script(&s, &["--device", &given, "--cap-add", "ALL"], ATTACK.replace("c 1 11", "c 1 1").as_str()));
}

#[test]
fn a_block_device() {
    let s = Sandbox::new();
    // A loop device that no file is bound to: it opens, and has no bytes.
    let device = host_device(&s, "disk", FileType::BlockDevice, (7, 0));
    if std::fs::File::open(&device).is_err() {
        eprintln!("this kernel has no loop devices");
        return;
    }
    let given = format!("{device}:/dev/disk:r");
    let text = script(
        &s,
        &["--device", &given],
        "stat -c '%F %t:%T' /dev/disk; tried r reads /dev/disk; tried w both /dev/disk; \
         mknod /tmp/next b 7 1; tried next reads /tmp/next",
    );
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..2], ["block special file 7:0", "r"], "{text}");
    assert_eq!(lines.len(), 4, "{text}");
    assert!(lines[2..].iter().all(|line| line.ends_with("Operation not permitted")), "{text}");
}

#[test]
fn a_directory_is_all_the_devices_below_it() {
    let s = Sandbox::new();
    s.host_dir("devices/sub");
    s.host_file("devices/file", "no device");
    host_device(&s, "devices/zero", FileType::CharacterDevice, (1, 5));
    host_device(&s, "devices/sub/log", FileType::CharacterDevice, LOG);
    let given = format!("{}:/dev/all:r", s.host("devices"));
    let flags = [&MAY_READ_LOG[..], &["--device", &given]].concat();
    let text = script(&s, &flags, "cd /dev/all; find * | sort; tried log reads sub/log");
    assert_eq!(text, "sub\nsub/log\nzero\nlog");
}

#[test]
fn a_link_is_followed() {
    let s = Sandbox::new();
    zero(&s);
    std::os::unix::fs::symlink("other-zero", s.path("link")).unwrap();
    let given = format!("{}:/dev/z", s.host("link"));
    assert_eq!(script(&s, &["--device", &given], "stat -c '%F %t:%T' /dev/z"), "character special file 1:5");
}

#[test]
fn what_is_no_device_is_told_at_the_start_and_nothing_is_left() {
    let s = Sandbox::new();
    let missing = s.host("missing");
    let words = format!(
        "error gathering device information while adding custom device \"{missing}\": no such file or directory"
    );
    s.fails(125, ["run", "--rm", "--device", &missing, "busybox", "true"]).says(&words);
    assert_eq!(s.ok(["ps", "-aq"]), "");
    let file = s.host_file("file", "");
    s.fails(125, ["run", "--rm", "--device", &file, "busybox", "true"]).says("not a device node");
    s.fails(125, ["run", "--rm", "--device", &s.host_dir("empty"), "busybox", "true"]).says("not a device node");
    // It may come later: a container is created without it, and starts when it is there.
    let name = s.name("later");
    let device = s.host("other-zero");
    s.ok(["create", "--name", &name, "--device", &format!("{device}:/dev/z"), "busybox", "test", "-c", "/dev/z"]);
    s.fails(1, ["start", &name]).says("error gathering device information");
    zero(&s);
    s.ok(["start", "-a", &name]);
    // And go: the record is right all the same.
    std::fs::remove_file(&device).unwrap();
    s.fails(1, ["start", &name]).says("error gathering device information");
    assert_eq!(s.field(&name, "{{.State.Running}} {{.State.Pid}}"), "false 0");
}

#[test]
fn a_path_outside_dev_and_what_may_be_in_its_way() {
    let s = Sandbox::new();
    let device = zero(&s);
    let name = s.name("outside");
    // Again at the second start, when the node of the first is there already.
    s.ok([
        "create",
        "--name",
        &name,
        "--device",
        &format!("{device}:/opt/deep/z:rw"),
        "busybox",
        "head",
        "-c",
        "1",
        "/opt/deep/z",
    ]);
    for _ in 0..2 {
        assert_eq!(s.run(["start", "-a", &name]).code(0).stdout, [0]);
    }
    // Not hidden by a mount, as with Docker.
    let volume = format!("{}:/opt", s.host_dir("volume"));
    let given = format!("{device}:/opt/z");
    assert_eq!(script(&s, &["-v", &volume, "--device", &given], "stat -c '%t:%T' /opt/z"), "1:5");
    assert_eq!(std::fs::symlink_metadata(s.path("volume/z")).unwrap().rdev(), rustix::fs::makedev(1, 5));

    if !against_docker() {
        // Docker starts the container without the device.
        let given = format!("{device}:/etc/passwd");
        s.fails(125, ["run", "--rm", "--device", &given, "busybox", "true"]).says("another file is there");
        let given = format!("{device}:/dev/null");
        s.fails(125, ["run", "--rm", "--device", &given, "busybox", "true"]).says("another file is there");
    }
    // The default device itself is no obstacle.
    assert_eq!(script(&s, &["--device", "/dev/zero:r"], "tried w writes /dev/zero"), "w");
}

#[test]
fn rules_for_devices_that_come_and_go() {
    let s = Sandbox::new();
    let open =
        "mknod /tmp/k c 1 11; tried r reads /tmp/k; tried w writes /tmp/k; mknod /tmp/m c 1 1; tried mem reads /tmp/m";
    let allowed = |flags: &[&str]| {
        let text = script(&s, &[&MAY_READ_LOG[..], flags].concat(), open);
        text.lines().filter(|line| !line.contains("can't")).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(allowed(&[]), "");
    assert_eq!(allowed(&["--device-cgroup-rule", "c 1:11 r"]), "r");
    assert_eq!(allowed(&["--device-cgroup-rule", "c 1:11 r", "--device-cgroup-rule=c 1:11 mw"]), "r w");
    assert_eq!(allowed(&["--device-cgroup-rule", "c 1:* w"]), "w");
    assert_eq!(allowed(&["--device-cgroup-rule", "b *:* rwm"]), "");
    if !against_docker() {
        // runc takes this for everything: the kernel's files for cgroups v1 do.
        assert_eq!(allowed(&["--device-cgroup-rule", "a 1:11 r"]), "r");
    }
    assert_eq!(allowed(&["--device-cgroup-rule", "c *:11 r"]), "r");
    // What was given survives on disk.
    let name = s.name("rule");
    s.idle(&name, &[&MAY_READ_LOG[..], &["--device-cgroup-rule", "c 1:11 r"]].concat());
    for _ in 0..2 {
        let text = s.ok(["exec", &name, "sh", "-c", &format!("rm -f /tmp/*; {TRIED}{open}; true")]);
        assert_eq!(text.lines().find(|line| !line.contains("can't")), Some("r"), "{text}");
        s.ok(["restart", "-t", "0", &name]);
    }
}

#[test]
fn nonsense_is_refused_in_dockers_words() {
    let s = Sandbox::new();
    for rule in ["x", "c 1:3", "d 1:3 r", "c 1:3 rx", "c 1:3  r", "c 1.3 r", "c -1:3 r", ""] {
        let words = format!("invalid device cgroup format '{rule}'");
        s.fails(125, ["run", "--rm", "--device-cgroup-rule", rule, "busybox", "true"]).says(&words);
    }
    for (device, words) in [
        ("/dev/zero:/dev/z:rwx", "bad mode specified: rwx"),
        ("/dev/zero:z", "z is not an absolute path"),
        ("zero", "zero is not an absolute path"),
        ("/a:/b:r:c", "bad format for path: /a:/b:r:c"),
        (":/dev/z", "bad format for path: :/dev/z"),
    ] {
        s.fails(125, ["run", "--rm", "--device", device, "busybox", "true"]).says(words);
    }
    assert_eq!(s.ok(["ps", "-aq"]), "");
}

#[test]
fn privileged_opens_everything() {
    let s = Sandbox::new();
    let text = script(
        &s,
        &["--privileged"],
        "mknod /tmp/k c 1 11; tried kmsg both /tmp/k; tried host test -c /dev/kmsg; tried host-kmsg both /dev/kmsg; \
         mknod /tmp/nothing b 7 250; tried nothing reads /tmp/nothing",
    );
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..3], ["kmsg", "host", "host-kmsg"], "{text}");
    // Not there, which is another thing than forbidden.
    assert!(lines[3..].iter().all(|line| !line.contains("not permitted")), "{text}");
    // More of the host's under names of their own.
    let given = format!("{}:/dev/mine:r", zero(&s));
    assert_eq!(
        script(&s, &["--privileged", "--device", &given, "--device", "/dev/kmsg"], "tried w writes /dev/mine"),
        "w"
    );
}

#[test]
fn a_volume_with_devices_in_it_opens_none_of_them() {
    let s = Sandbox::new();
    s.host_dir("volume");
    host_device(&s, "volume/log", FileType::CharacterDevice, LOG);
    let volume = format!("{}:/v", s.host("volume"));
    let text =
        script(&s, &[&MAY_READ_LOG[..], &["-v", &volume]].concat(), "stat -c '%t:%T' /v/log; tried r reads /v/log");
    assert!(text.starts_with("1:b\n") && text.ends_with(": Operation not permitted"), "{text}");
    // The host's own directory shows more nodes, and opens no more of them; nothing is made or changed in it.
    let before = std::fs::read_dir("/dev").unwrap().count();
    let text = script(
        &s,
        &[&MAY_READ_LOG[..], &["-v", "/dev:/dev"]].concat(),
        "tried r reads /dev/kmsg; tried null both /dev/null",
    );
    assert!(text.contains("Operation not permitted") && text.ends_with("\nnull"), "{text}");
    assert_eq!(std::fs::read_dir("/dev").unwrap().count(), before);
}

#[test]
fn inspect_tells_what_was_given() {
    let s = Sandbox::new();
    let (plain, given) = (s.name("plain"), s.name("given"));
    s.ok(["create", "--name", &plain, "busybox", "true"]);
    let host = s.inspect(&plain)["HostConfig"].clone();
    assert_eq!((&host["Devices"], &host["DeviceCgroupRules"]), (&json!([]), &json!(null)));
    let device = zero(&s);
    let flags =
        ["--device", &format!("{device}:/dev/z:rw"), "--device", "/dev/zero", "--device-cgroup-rule", "c 1:11 mr"];
    let args = [&["create", "--name", &given], &flags[..], &["busybox", "true"]].concat();
    s.ok(args);
    let host = s.inspect(&given)["HostConfig"].clone();
    assert_eq!(
        host["Devices"],
        json!([
            { "PathOnHost": device, "PathInContainer": "/dev/z", "CgroupPermissions": "rw" },
            { "PathOnHost": "/dev/zero", "PathInContainer": "/dev/zero", "CgroupPermissions": "rwm" },
        ])
    );
    assert_eq!(host["DeviceCgroupRules"], json!(["c 1:11 mr"]));
}

#[test]
fn the_plan_shows_the_rules_and_the_start_their_time() {
    ours_only!("docker has no --explain");
    let s = Sandbox::new();
    let device = zero(&s);
    let given = format!("{device}:/dev/z:r");
    let plan = s.ok(["run", "--rm", "--explain=plan", "--device", &given, "busybox", "true"]);
    let plan: serde_json::Value = serde_json::from_str(&plan).unwrap();
    let lines: Vec<&str> = plan["devices"].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect();
    // Lines for v1, a program for v2.
    assert!(
        lines.contains(&"devices.allow < c 1:5 r") || lines.iter().any(|line| line.contains("if r5 != 5")),
        "{lines:?}"
    );
    let plan = s.ok(["run", "--rm", "--explain=plan", "--privileged", "busybox", "true"]);
    let plan: serde_json::Value = serde_json::from_str(&plan).unwrap();
    assert_eq!(plan["devices"], json!([]));
    s.run(["run", "--rm", "--explain", "busybox", "true"]).code(0).says("restrict devices");
}
