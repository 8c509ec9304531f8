//! `why`: in plain words, why a container ended or did not start.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::ours_only;
use crate::support::{Sandbox, eventually, processes};

#[track_caller]
fn says(s: &Sandbox, reference: &str, parts: &[&str]) -> String {
    let text = s.ok(["why", reference]);
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    text
}

/// Runs a script to its end and asks why it ended.
#[track_caller]
fn after(s: &Sandbox, code: i32, script: &str, parts: &[&str]) {
    let name = s.name("c");
    s.fails(code, ["run", "--name", &name, "busybox", "sh", "-c", script]);
    says(s, &name, parts);
    s.ok(["rm", &name]);
}

#[test]
fn a_command_that_ended_by_itself() {
    ours_only!("docker has no why");
    let s = Sandbox::new();
    after(&s, 0, "echo bye", &["with exit code 0", "by itself, with success", "ran for", "  bye", "image:    busybox"]);
    after(
        &s,
        42,
        "echo first; echo 'disk is full' >&2; exit 42",
        &["code 42", "only the program knows", "  disk is full"],
    );
    after(&s, 7, "exit 7", &["it wrote nothing", "--entrypoint sh busybox"]);
    after(&s, 127, "no-such-program", &["did not find", "install it in the image", "no-such-program: not found"]);
    after(&s, 126, "echo x > /f; /f", &["could not execute", "chmod +x"]);
}

#[test]
fn only_the_last_lines_of_the_last_run_are_shown() {
    ours_only!("docker has no why");
    let s = Sandbox::new();
    let name = s.name("c");
    let script =
        "if [ -e /second ]; then echo again; else touch /second; seq 100; head -c 100000 /dev/zero; fi; exit 1";
    s.fails(1, ["run", "--name", &name, "busybox", "sh", "-c", script]);
    let text = s.ok(["why", &name]);
    assert!(text.len() < 200_000 && !text.contains("  90\n") && !text.contains('\0'), "{} bytes", text.len());
    s.fails(1, ["start", "-a", &name]);
    let text = says(&s, &name, &["  again"]);
    assert!(!text.contains("  100\n"), "{text}");
}

#[test]
fn signals_and_who_sent_them() {
    ours_only!("docker has no why");
    let s = Sandbox::new();
    let name = s.name("c");
    let script = "trap '' TERM; echo ready; while :; do sleep 0.05; done";
    s.ok(["run", "-d", "--name", &name, "busybox", "sh", "-c", script]);
    s.await_log(&name, "ready");
    s.ok(["stop", "-t", "0", &name]);
    says(
        &s,
        &name,
        &["code 137", "SIGKILL (signal 9)", "did not end when it was told to", "hint:", "mydocker stop -t"],
    );
    s.ok(["start", &name]);
    s.ok(["kill", &name]);
    says(&s, &name, &["SIGKILL (signal 9), sent by mydocker (kill"]);
    s.ok(["start", &name]);
    kill_process(Pid::from_raw(s.pid(&name)).unwrap(), Signal::KILL).unwrap();
    s.ok(["wait", &name]);
    says(&s, &name, &["SIGKILL (signal 9), which mydocker did not send", "kill -9", "out of memory"]);
    s.ok(["rm", &name]);
    after(&s, 139, "sh -c 'kill -SEGV $$'; exit $?", &["SIGSEGV (signal 11)", "memory that it does not own"]);
    let stopped = s.name("stopped");
    s.idle(&stopped, &[]);
    s.ok(["stop", &stopped]);
    says(&s, &stopped, &["it was sent SIGTERM by mydocker stop and ended by itself, with success"]);
}

#[test]
fn a_start_that_failed() {
    ours_only!("docker has no why");
    let s = Sandbox::new();
    let name = s.name("c");
    s.fails(127, ["run", "--name", &name, "busybox", "no-such-program"]);
    says(&s, &name, &["did not start", "(exit code 127)", "executable file not found in $PATH", "hint:", "PATH"]);
    // Gone, and still remembered.
    let passing = s.name("passing");
    s.fails(127, ["run", "--rm", "--name", &passing, "busybox", "no-such-program"]);
    says(&s, &passing, &["did not start", "(exit code 127)", "it was removed", "executable file not found in $PATH"]);
    // A container that ran before.
    let script = s.host_file("script", "#!/bin/sh\necho ran\n");
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let broken = s.name("broken");
    s.ok(["run", "--name", &broken, "-v", &format!("{script}:/script"), "busybox", "/script"]);
    fs::write(&script, "#!/no/such/shell\n").unwrap();
    s.fails(127, ["start", "-a", &broken]);
    let text = says(&s, &broken, &["did not start", "/no/such/shell"]);
    assert!(!text.contains("  ran\n"), "words of another run: {text}");
}

#[test]
fn a_container_that_has_not_run_or_runs() {
    ours_only!("docker has no why");
    let s = Sandbox::new();
    let name = s.name("c");
    let script = "[ -e /second ] || { touch /second; echo 'first words'; exit 9; }; while :; do sleep 0.05; done";
    s.ok(["create", "--name", &name, "busybox", "sh", "-c", script]);
    says(&s, &name, &["has not been started", &format!("mydocker start {name}")]);
    s.fails(9, ["start", "-a", &name]);
    s.ok(["start", &name]);
    says(&s, &name, &["runs since", "the run before ended", "exit code 9", "reported a failure", "  first words"]);
    let other = s.name("d");
    s.idle(&other, &[]);
    let text = says(&s, &other, &["runs since", &format!("pid {}", s.pid(&other))]);
    assert!(!text.contains("run before"), "{text}");
    s.fails(1, ["why", "no-such-container"]).says("No such container: no-such-container");
}

#[test]
fn an_end_that_nobody_saw() {
    ours_only!("kills our own processes");
    let s = Sandbox::new();
    let name = s.name("c");
    s.idle(&name, &[]);
    let init = Pid::from_raw(s.pid(&name)).unwrap();
    kill_process(processes::shim_of(&name).unwrap(), Signal::KILL).unwrap();
    kill_process(init, Signal::KILL).unwrap();
    eventually("it is down", || !s.is_running(&name));
    // Before and after somebody has recorded it.
    says(&s, &name, &["exit code 255", "supervisor", "was killed"]);
    s.ok(["wait", &name]);
    says(&s, &name, &["exit code 255", "supervisor", "was killed"]);
}

#[test]
fn a_machine_that_went_down() {
    ours_only!("pretends that the machine was rebooted");
    let s = Sandbox::new();
    let name = s.name("c");
    let id = s.ok(["create", "--name", &name, "busybox", "true"]);
    let record = s.root().join("containers").join(&id).join("state.json");
    let mut state: Value = serde_json::from_str(&fs::read_to_string(&record).unwrap()).unwrap();
    state["status"] = "running".into();
    state["boot_id"] = "00000000-0000-0000-0000-000000000000".into();
    state["started"] = "2026-01-01T00:00:00Z".into();
    state["init"] = serde_json::json!({ "pid": 1, "start_time": 1 });
    fs::write(&record, state.to_string()).unwrap();
    says(&s, &name, &["the machine was restarted"]);
    s.ok(["wait", &name]);
    says(&s, &name, &["exit code 255", "the machine was restarted"]);
    assert!(s.field(&name, "{{.State.Error}}").contains("machine was restarted"));
}

#[test]
fn want_of_memory_is_told_with_its_cure() {
    ours_only!("writes our own record");
    let s = Sandbox::new();
    let name = s.name("c");
    s.fails(137, ["run", "--name", &name, "busybox", "sh", "-c", "sh -c 'kill -9 $$'; exit $?"]);
    let id = s.field(&name, "{{.Id}}");
    let record = s.root().join("containers").join(&id).join("state.json");
    let mut state: Value = serde_json::from_str(&fs::read_to_string(&record).unwrap()).unwrap();
    state["oom_killed"] = true.into();
    fs::write(&record, state.to_string()).unwrap();
    says(&s, &name, &["killed for want of memory\n", "mydocker update -m SIZE"]);
    state["oom"] = serde_json::json!({ "limit": 32 << 20, "peak": 32 << 20, "kills": 1,
        "victims": [{ "pid": 1234, "name": "s\u{1b}h" }] });
    fs::write(&record, state.to_string()).unwrap();
    let cure = format!("hint:     raise it: mydocker update -m 64m {name}, or run with a larger -m");
    says(&s, &name, &["killed for want of memory: limit 32 MiB, peak 32 MiB, killed: s\\u{1b}h (pid 1234)", &cure]);
}

#[test]
fn the_answer_as_data() {
    ours_only!("docker has no why");
    let s = Sandbox::new();
    let name = s.name("c");
    s.fails(143, ["run", "--name", &name, "busybox", "sh", "-c", "echo words; exit 143"]);
    let why: Value = serde_json::from_str(&s.ok(["why", "--format", "json", &name])).unwrap();
    assert_eq!(why["Name"], name.as_str());
    assert_eq!(why["Status"], "exited");
    assert_eq!(why["End"]["ExitCode"], 143);
    assert_eq!(why["End"]["Cause"], serde_json::json!({ "Kind": "signal", "Number": 15, "Name": "SIGTERM" }));
    assert_eq!(why["Log"], serde_json::json!(["words"]));
    assert!(why["Message"].as_str().unwrap().contains("SIGTERM"));
    assert_eq!(s.ok(["why", "-f", "{{.End.ExitCode}} {{.Status}}", &name]), "143 exited");
    assert_ne!(s.run(["why", "-f", "{{.Nonsense}}", &name]).code, 0);
}
