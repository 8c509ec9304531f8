//! Against this machine's kernel: a shell in a group tries what its rules allow and forbid. On a hybrid host the unified
//! tree takes part as if it were alone: device programs work there as well.

use std::os::unix::fs::FileTypeExt;
use std::process::Command;

use super::policy_tests::{ODD, rules};
use super::*;
use crate::cgroup::{Cgroups, Place};

/// Docker's rules, as far as these tests go.
const DEFAULT: [&str; 6] = ["-a *:* rwm", "+c *:* m", "+b *:* m", "+c 1:3 rwm", "+c 1:5 rwm", "+c 136:* rwm"];

/// The host as it is, and as v2 alone when it has both.
fn layouts() -> Vec<Cgroups> {
    let host = Cgroups::detect().unwrap();
    let unified = Cgroups { mode: Mode::V2, v1: Vec::new(), v2: host.v2.clone() };
    if host.mode == Mode::Hybrid { vec![host, unified] } else { vec![host] }
}

/// A group that is removed when the test ends, however it ends, and a directory to make devices in.
struct Scratch {
    group: Group,
    files: tempfile::TempDir,
}

impl Scratch {
    fn new(cgroups: &Cgroups, test: &str) -> Self {
        let group = cgroups
            .create(&Place::new("", &format!("test-{}-devices-{test}", std::process::id())).unwrap(), &[])
            .unwrap();
        // Not /tmp, which some machines mount with nodev.
        Scratch { group, files: tempfile::tempdir_in("/var/tmp").unwrap() }
    }

    fn v2_directory(&self) -> Option<OwnedFd> {
        self.group.v2_dir_fd().unwrap()
    }

    /// Runs a script in the group: `tried NAME COMMAND…` prints the name if the command succeeds. Its working directory
    /// is empty, and nothing it prints goes to a device.
    fn script(&self, script: &str) -> String {
        let mut files = self.group.join_files();
        if self.group.mode == Mode::V2 {
            files = vec![self.group.members[0].path.join("cgroup.procs")];
        }
        let join = "for f in \"$@\"; do echo 0 > \"$f\" || exit 9; done; \
                    tried() { name=$1; shift; ( \"$@\" ) >&2 && echo $name; }; \
                    reads() { : < $1; }; writes() { : >> $1; }; both() { : <> $1; }; ";
        let directory = tempfile::tempdir_in(self.files.path()).unwrap();
        let output = Command::new("sh")
            .args(["-c", &format!("{join}{script}; exit 0"), "sh"])
            .args(files)
            .current_dir(directory.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = self.group.remove();
        layouts().iter().for_each(Cgroups::remove_parent);
    }
}

fn programs(directory: &OwnedFd) -> Vec<u32> {
    bpf::attached(directory.as_fd()).unwrap()
}

#[test]
fn nodes_are_made_but_not_opened() {
    for cgroups in layouts() {
        let scratch = Scratch::new(&cgroups, "default");
        scratch.group.restrict_devices(&rules(&DEFAULT)).unwrap();
        let script = "tried mem-made mknod mem c 1 1; tried mem-read reads mem; \
                      tried disk-made mknod disk b 7 0; tried disk-read reads disk; tried disk-written writes disk; \
                      tried null-made mknod null c 1 3; tried null both null; \
                      tried zero reads /dev/zero; tried full writes /dev/full";
        assert_eq!(scratch.script(script), "mem-made disk-made null-made null zero", "{:?}", cgroups.mode);
    }
}

#[test]
fn each_access_is_decided_by_the_last_rule_that_covers_it() {
    let all = "tried r reads /dev/zero; tried w writes /dev/zero; tried rw both /dev/zero; tried m mknod z c 1 5";
    for cgroups in layouts() {
        for (lines, expected) in [
            (&["+c 1:5 r"] as &[&str], "r"),
            (&["+c 1:5 w"], "w"),
            (&["+c 1:5 m"], "m"),
            (&["+c 1:5 rw"], "r w rw"),
            (&["+c 1:5 r", "+c 1:5 wm"], "r w rw m"),
            (&["+c 1:5 rwm", "-c 1:5 w"], "r m"),
            (&["+c 1:5 rwm", "-c 1:5 w", "+c 1:5 w"], "r w rw m"),
            (&["+c 1:5 rwm", "-a *:* rwm"], ""),
            (&["+c 1:5 rwm", "-a *:* rwm", "+c 1:* r"], "r"),
            (&["+b 1:5 rwm", "+c 2:5 rwm", "+c 1:6 rwm"], ""),
            (&["+a 1:5 rw"], "r w rw"),
            (&["+c *:5 rwm"], "r w rw m"),
            (&["+a *:* rwm", "-c 1:5 w"], "r m"),
            (&["+a *:* rwm"], "r w rw m"),
            (&[], "r w rw m"),
        ] {
            let scratch = Scratch::new(&cgroups, "accesses");
            // The shell wants to open this whatever it does.
            let lines: Vec<&str> = lines.iter().copied().chain(["+c 1:3 rw"]).collect();
            let lines = if lines.len() == 1 { Vec::new() } else { rules(&lines) };
            scratch.group.restrict_devices(&lines).unwrap();
            assert_eq!(scratch.script(all), expected, "{:?} {lines:?}", cgroups.mode);
        }
    }
}

#[test]
fn rules_may_be_exchanged_and_only_the_last_are_in_force() {
    let all = "tried zero reads /dev/zero; tried full reads /dev/full";
    for cgroups in layouts() {
        let scratch = Scratch::new(&cgroups, "again");
        for (lines, expected) in [
            (["+c 1:3 rw", "+c 1:5 r"], "zero"),
            (["+c 1:3 rw", "+c 1:7 r"], "full"),
            (["+c 1:3 rw", "+c 1:* r"], "zero full"),
        ] {
            scratch.group.restrict_devices(&rules(&lines)).unwrap();
            assert_eq!(scratch.script(all), expected, "{:?}", cgroups.mode);
            if let Some(directory) = scratch.v2_directory() {
                assert_eq!(programs(&directory).len(), 1);
            }
        }
    }
}

#[test]
fn programs_of_others_stay_and_have_a_veto() {
    for cgroups in layouts() {
        let scratch = Scratch::new(&cgroups, "others");
        let Some(directory) = scratch.v2_directory() else { continue };
        let policy = Policy::of_spec(&rules(&["+c 1:3 rw", "+c 1:5 r"])).unwrap();
        let code = program::assemble(&policy).unwrap().encode();
        let other = bpf::load_device_program(&code, "somebody_else").unwrap();
        bpf::attach(directory.as_fd(), other.as_fd(), None).unwrap();
        let theirs = programs(&directory);
        for _ in 0..2 {
            scratch.group.restrict_devices(&rules(&["+c 1:3 rw", "+c 1:* r"])).unwrap();
            let now = programs(&directory);
            assert_eq!((now.len(), now[0]), (2, theirs[0]));
        }
        assert_eq!(scratch.script("tried zero reads /dev/zero; tried full reads /dev/full"), "zero");
        // What takes the place of replacement on old kernels.
        bpf::detach(directory.as_fd(), other.as_fd()).unwrap();
        assert_eq!(programs(&directory).len(), 1);
    }
}

#[test]
fn what_allows_everything_costs_nothing() {
    for cgroups in layouts() {
        let scratch = Scratch::new(&cgroups, "free");
        scratch.group.restrict_devices(&rules(&["-a *:* rwm", "+c 1:3 r", "+a *:* rwm"])).unwrap();
        match scratch.v2_directory() {
            Some(directory) => assert_eq!(programs(&directory), [] as [u32; 0]),
            None => {
                let list = scratch.group.directory("devices").unwrap().join("devices.list");
                let parent = scratch.group.directory("devices").unwrap().parent().unwrap().join("devices.list");
                assert_eq!(std::fs::read(list).unwrap(), std::fs::read(parent).unwrap());
            }
        }
        assert_eq!(scratch.group.device_plan(&[]).unwrap(), [] as [String; 0]);
    }
}

#[test]
fn what_the_parent_forbids_cannot_be_allowed() {
    for cgroups in layouts() {
        let parent = Scratch::new(&cgroups, "parent");
        parent.group.restrict_devices(&rules(&["+c 1:3 rwm", "+c 1:5 r"])).unwrap();
        let mut child = parent.group.clone();
        for member in &mut child.members {
            member.path.push("child");
            std::fs::create_dir(&member.path).unwrap();
        }
        let child = Scratch { group: child, files: tempfile::tempdir_in("/var/tmp").unwrap() };
        let result = child.group.restrict_devices(&rules(&["+c 1:3 rwm", "+c 1:* r"]));
        if cgroups.mode == Mode::V2 {
            // Every program on the way up has a veto.
            result.unwrap();
            assert_eq!(child.script("tried zero reads /dev/zero; tried full reads /dev/full"), "zero");
        } else {
            let failure = Failure::from_error(&result.unwrap_err());
            assert!(failure.message.starts_with("allow device c 1:* r in cgroup /"), "{failure}");
            assert!(failure.message.ends_with("child: Operation not permitted (os error 1)"), "{failure}");
            assert!(failure.hint.unwrap().contains("a cgroup above forbids it"));
            child.group.restrict_devices(&rules(&["+c 1:3 rwm"])).unwrap();
            assert_eq!(child.script("tried zero reads /dev/zero"), "");
        }
    }
}

#[test]
fn without_a_controller_there_is_an_error_and_no_silence() {
    let group = Group { mode: Mode::V1, members: Vec::new(), scope: None };
    let failure = Failure::from_error(&group.restrict_devices(&rules(&DEFAULT)).unwrap_err());
    assert!(failure.message.contains("not mounted") && failure.hint.is_some(), "{failure:?}");
    group.restrict_devices(&rules(&["+a *:* rwm"])).unwrap();
}

#[test]
fn a_program_of_a_thousand_devices_is_taken() {
    // `--device` of a directory gives a rule for each.
    let lines: Vec<String> = (0..1000).map(|minor| format!("+b 7:{minor} rw")).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).chain(DEFAULT[1..].iter().copied()).collect();
    for cgroups in layouts() {
        let scratch = Scratch::new(&cgroups, "thousand");
        scratch.group.restrict_devices(&rules(&lines)).unwrap();
        assert_eq!(scratch.script("tried zero reads /dev/zero; tried full reads /dev/full"), "zero");
    }
}

#[test]
fn the_verifier_takes_every_form_of_program() {
    for lines in ODD {
        let program = program::assemble(&Policy::of_spec(&rules(lines)).unwrap()).unwrap();
        bpf::load_device_program(&program.encode(), PROGRAM_NAME)
            .unwrap_or_else(|error| panic!("{lines:?}: {error}\n{}\n{program}", error.log));
    }
}

#[test]
fn the_verifiers_reason_is_told() {
    // r0 is not set at the exit.
    let error = bpf::load_device_program(&[u64::from_ne_bytes([0x95, 0, 0, 0, 0, 0, 0, 0])], PROGRAM_NAME).unwrap_err();
    assert!(error.log.contains("R0"), "{error:?}");
    let failure = not_loaded(error);
    assert!(failure.to_string().contains("the verifier says"), "{failure}");
}

#[test]
fn a_fuse_of_the_test_itself() {
    // The devices that the tests above rely on are what they are taken for.
    for (path, number) in [("/dev/null", (1, 3)), ("/dev/zero", (1, 5)), ("/dev/full", (1, 7))] {
        use std::os::unix::fs::MetadataExt;
        let metadata = std::fs::metadata(path).unwrap();
        assert!(metadata.file_type().is_char_device());
        assert_eq!((rustix::fs::major(metadata.rdev()), rustix::fs::minor(metadata.rdev())), number, "{path}");
    }
}
