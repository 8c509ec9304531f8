//! The texts of both versions, and the real hierarchies (on a hybrid host the unified tree as well, though it has no
//! controllers).

use std::process::{Command, Stdio};

use super::*;
use crate::cgroup::{Cgroups, Place};

#[test]
fn v1_texts() {
    assert_eq!((V1.cpu)("74123456789\n"), 74_123_456_789);
    let parts = "cache 8192\ninactive_file 11\nhierarchical_memory_limit 9223372036854771712\n\
                 total_cache 12288\ntotal_inactive_file 4096\ntotal_active_file 5\n";
    assert_eq!((V1.inactive_file)(parts), 4096);
    assert_eq!((V1.memory_limit)("67108864\n"), Some(64 << 20));
    assert_eq!((V1.memory_limit)("9223372036854771712\n"), None);
    let io = "8:16 Read 1000\n8:16 Write 20\n8:16 Sync 20\n8:16 Async 1000\n8:16 Discard 7\n8:16 Total 1020\n\
              253:0 Read 1\n253:0 Write 2\n253:0 Total 3\nTotal 1023\n";
    assert_eq!((V1.io)(io), (1001, 22));
    assert_eq!((V1.io)("Total 0\n"), (0, 0));
}

#[test]
fn v2_texts() {
    assert_eq!((V2.cpu)("usage_usec 1500\nuser_usec 1000\nsystem_usec 500\n"), 1_500_000);
    let parts = "anon 1\nfile 2\ninactive_anon 3\nactive_anon 4\ninactive_file 8192\nactive_file 6\n";
    assert_eq!((V2.inactive_file)(parts), 8192);
    assert_eq!((V2.memory_limit)("max\n"), None);
    assert_eq!((V2.memory_limit)("67108864\n"), Some(64 << 20));
    let io =
        "8:0 rbytes=1000 wbytes=20 rios=1 wios=2 dbytes=50000 dios=3\n253:0\n7:0 rbytes=1 wbytes=2 rios=0 wios=0\n";
    assert_eq!((V2.io)(io), (1001, 22));
}

#[test]
fn what_is_not_there_counts_as_nothing() {
    for format in [&V1, &V2] {
        assert_eq!(((format.cpu)(""), (format.inactive_file)("")), (0, 0));
        assert_eq!(((format.memory_limit)(""), (format.io)("")), (None, (0, 0)));
        assert_eq!(((format.cpu)("x"), (format.io)("8:0 Read\n8:0 rbytes=x\n")), (0, (0, 0)));
    }
}

#[test]
fn inactive_cache_is_left_out_but_never_more_than_all() {
    let usage = |memory, inactive_file| Usage { memory, inactive_file, ..Usage::default() }.memory_without_cache();
    assert_eq!(usage(1000, 300), 700);
    assert_eq!(usage(1000, 1000), 1000);
    assert_eq!(usage(1000, 1001), 1000);
}

/// A group with a process in it that has used some CPU time; both are gone when the test ends.
struct Busy {
    group: Group,
    parent: Cgroups,
}

impl Busy {
    fn new(cgroups: &Cgroups, test: &str) -> Busy {
        let group =
            cgroups.create(&Place::new("", &format!("test-{}-{test}", std::process::id())).unwrap(), &[]).unwrap();
        Busy { group, parent: cgroups.clone() }
    }

    fn run(&self, script: &str) {
        let mut files = self.group.join_files();
        if self.group.mode == Mode::V2 {
            files = vec![self.group.directory("cpu").unwrap().join("cgroup.procs")];
        }
        let join = "for f in \"$@\"; do echo 0 > \"$f\" || exit 9; done; ";
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("{join}{script}"), "sh"]).args(files).stdin(Stdio::null());
        assert!(shell.status().unwrap().success());
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let _ = self.group.kill_all();
        let _ = self.group.remove();
        self.parent.remove_parent();
    }
}

fn layouts() -> Vec<Cgroups> {
    let host = Cgroups::detect().unwrap();
    let unified = Cgroups { mode: Mode::V2, v1: Vec::new(), v2: host.v2.clone() };
    if host.mode == Mode::Hybrid { vec![host, unified] } else { vec![host] }
}

#[test]
fn cpu_time_is_counted_after_its_process_has_ended_too() {
    for cgroups in layouts() {
        let busy = Busy::new(&cgroups, "cpu");
        let before = busy.group.usage().unwrap();
        busy.run("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done");
        let after = busy.group.usage().unwrap();
        assert!(after.cpu > before.cpu + 1_000_000, "{before:?} {after:?}");
        assert_eq!(after.tasks, 0);
        assert_eq!(busy.group.meter(Descriptors::Release).cpu().unwrap(), Some(after.cpu));
    }
}

#[test]
fn a_meter_sees_what_happens_between_its_readings_and_the_end() {
    for cgroups in layouts() {
        for descriptors in [Descriptors::Hold, Descriptors::Release] {
            let busy = Busy::new(&cgroups, "meter");
            let mut meter = busy.group.meter(descriptors);
            let before = meter.usage().unwrap().unwrap();
            busy.run("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done");
            let after = meter.usage().unwrap().unwrap();
            assert!(after.cpu > before.cpu, "{before:?} {after:?}");
            busy.group.remove().unwrap();
            assert_eq!(meter.usage().unwrap(), None);
            assert_eq!(meter.cpu().unwrap(), None);
            let text = format!("{:#}", busy.group.usage().unwrap_err());
            assert!(text.contains("does not exist"), "{text}");
        }
    }
}

#[test]
fn long_texts_are_read_whole() {
    let path = tempfile::NamedTempFile::new().unwrap();
    let long = "253:0 rbytes=1 wbytes=2\n".repeat(1000);
    std::fs::write(path.path(), &long).unwrap();
    let mut text = buffer();
    assert!(text.len() < long.len());
    let length = read_whole(&File::open(path.path()).unwrap(), &mut text).unwrap();
    assert_eq!(&text[..length], long.as_bytes());
    assert_eq!((V2.io)(str::from_utf8(&text[..length]).unwrap()), (1000, 2000));
}
