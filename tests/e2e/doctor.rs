//! `doctor`: what somebody else has broken is found, named, and put right.

use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};

use crate::ours_only;
use crate::support::host::ip;
use crate::support::{Sandbox, eventually};

fn iptables(args: &[&str]) {
    let output = Command::new("iptables").args(args).output().expect("run iptables");
    assert!(output.status.success(), "iptables {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// What the doctor says before, while and after putting things right.
fn cure(s: &Sandbox) -> String {
    let found = s.fails(1, ["doctor"]).out();
    let fixed = s.ok(["doctor", "--fix"]);
    assert_eq!(fixed.lines().count(), found.lines().count(), "{found}\n{fixed}");
    assert!(fixed.lines().all(|line| line.ends_with("(fixed)")), "{fixed}");
    assert_eq!(s.ok(["doctor"]), "everything is in order");
    found
}

#[test]
fn a_host_where_nothing_is_wrong() {
    ours_only!("docker has no doctor");
    let s = Sandbox::new();
    assert_eq!(s.ok(["doctor"]), "everything is in order");
    s.idle("web", &["-p", "8080:80"]);
    assert_eq!(s.ok(["doctor"]), "everything is in order");
    assert_eq!(s.ok(["system", "doctor", "--fix"]), "everything is in order");
}

#[test]
fn a_flushed_firewall() {
    ours_only!("docker has no doctor");
    let s = Sandbox::new();
    s.ok(["network", "create", "n1"]);
    s.ok(["run", "-d", "--name", "web", "--network", "n1", "-p", "8080:80", "busybox", "httpd", "-f", "-h", "/etc"]);
    let fetch = || {
        let output = Command::new("busybox").args(["wget", "-q", "-O", "-", "http://127.0.0.1:8080/hostname"]).output();
        output.unwrap().status.success()
    };
    eventually("the published port answers", fetch);
    iptables(&["-F"]);
    iptables(&["-t", "nat", "-F"]);
    assert!(!fetch(), "the port leads somewhere without rules");
    let found = cure(&s);
    for who in ["firewall: ", "network n1: ", "container web: "] {
        assert!(found.contains(who) && found.contains("missing"), "{found}");
    }
    assert!(found.contains("(cure: mydocker doctor --fix)"), "{found}");
    assert!(fetch(), "the port does not answer after the cure");
}

#[test]
fn a_bridge_that_is_gone() {
    ours_only!("docker has no doctor");
    let s = Sandbox::new();
    s.ok(["network", "create", "n1"]);
    s.idle("c1", &["--network", "n1"]);
    s.idle("c2", &["--network", "n1"]);
    ip(&["link", "delete", "n1"]);
    s.fails(1, ["exec", "c1", "ping", "-c1", "-W1", "c2"]);
    let found = cure(&s);
    assert!(found.contains("network n1: its bridge n1 is gone or down"), "{found}");
    s.ok(["exec", "c1", "ping", "-c1", "-W5", "c2"]);
}

#[test]
fn a_device_that_no_network_knows() {
    ours_only!("docker has no doctor");
    let s = Sandbox::new();
    s.ok(["network", "create", "n1"]);
    std::fs::remove_file(s.root().join("network/networks/n1.json")).unwrap();
    let found = cure(&s);
    assert!(found.contains("device n1: its network was removed"), "{found}");
    assert!(!ip(&["-br", "link"]).contains("n1"));
}

#[test]
fn a_container_whose_supervisor_was_killed_with_it() {
    ours_only!("docker has no doctor");
    let s = Sandbox::new();
    s.idle("web", &["-p", "8080:80"]);
    let init = s.pid("web");
    let stat = std::fs::read_to_string(format!("/proc/{init}/stat")).unwrap();
    let shim: i32 = stat.rsplit(')').next().unwrap().split_whitespace().nth(1).unwrap().parse().unwrap();
    for pid in [shim, init] {
        kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    }
    eventually("the doctor finds it", || s.run(["doctor"]).out().contains("container web: its supervisor was killed"));
    s.ok(["doctor", "--fix"]);
    assert_eq!(s.ok(["doctor"]), "everything is in order");
    assert_eq!(s.field("web", "{{.State.Status}}"), "exited");
    // Port, address and rules are free again.
    s.idle("other", &["-p", "8080:80"]);
}

#[test]
fn a_damaged_record_is_named_with_its_cure() {
    ours_only!("docker has no doctor");
    let s = Sandbox::new();
    let id = s.ok(["create", "--name", "c1", "busybox", "true"]);
    std::fs::write(s.root().join("containers").join(&id).join("state.json"), "{").unwrap();
    let found = s.fails(1, ["doctor", "--fix"]).out();
    assert!(found.contains("state.json is damaged") && found.contains(&format!("rm -f {}", &id[..12])), "{found}");
}
