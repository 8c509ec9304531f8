//! Health checks as processes: their time, their end, what they leave, and who dies meanwhile.

use std::fs;

use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};

use super::health::{changes, checked, health, result, shown, status};
use crate::ours_only;
use crate::support::{Sandbox, eventually, processes};

/// Processes of the machine whose command line is `line`.
fn alive(line: &str) -> Vec<i32> {
    let found = processes::all().into_iter().filter(|(_, own)| own == line);
    found.map(|(pid, _)| pid).filter(|pid| processes::is_alive(*pid)).collect()
}

const NONE: [i32; 0] = [];

/// A time to sleep that no other test has, so that its sleeper can be found.
fn own_time(s: &Sandbox) -> (String, String) {
    let digits: String = s.name("").bytes().filter(u8::is_ascii_digit).map(char::from).collect();
    let time = format!("3{digits}");
    (time.clone(), format!("sleep {time}"))
}

#[test]
fn a_check_that_takes_too_long_is_killed_with_its_children() {
    let s = Sandbox::new();
    let name = s.name("c");
    let (time, sleeper) = own_time(&s);
    let line = format!("echo waiting; sleep {time} & sleep {time}");
    checked(&s, &name, &line, &["--health-timeout", "400ms", "--health-retries", "2", "--health-interval", "10m"]);
    assert_eq!(alive(&sleeper), NONE, "the first check has not begun");
    s.ok(["rm", "-f", &name]);
    checked(&s, &name, &line, &["--health-timeout", "400ms", "--health-retries", "2"]);
    let last = result(&s, &name);
    assert_eq!(
        (&last["ExitCode"], &last["Output"]),
        (&json!(-1), &json!("Health check exceeded timeout (400ms): waiting\n"))
    );
    changes(&s, &name).expect("health_status: unhealthy");
    // Each check has two of them; an earlier one's are gone when the next begins.
    assert!(alive(&sleeper).len() <= 2, "{:?}", alive(&sleeper));
    s.ok(["stop", "-t", "0", &name]);
    assert_eq!(alive(&sleeper), NONE);
}

#[test]
fn what_a_check_leaves_behind_holds_up_nobody() {
    let s = Sandbox::new();
    let name = s.name("c");
    let (time, sleeper) = own_time(&s);
    // It has the check's output for as long as it lives.
    checked(
        &s,
        &name,
        &format!("[ -e /once ] || {{ sleep {time} & }}; touch /once; echo done"),
        &["--health-timeout", "20s"],
    );
    changes(&s, &name).expect("health_status: healthy");
    assert_eq!(result(&s, &name)["Output"], "done\n");
    assert_eq!(alive(&sleeper).len(), 1, "it is the container's own affair");
    s.ok(["stop", "-t", "0", &name]);
    assert_eq!(alive(&sleeper), NONE);
}

#[test]
fn the_end_of_the_container_is_the_end_of_the_check_and_no_failure() {
    let s = Sandbox::new();
    for pid in ["private", "host"] {
        let name = s.name(pid);
        let (time, sleeper) = own_time(&s);
        let mut flags = vec!["--health-retries", "1"];
        if pid == "host" {
            flags.extend(["--pid", "host"]);
        }
        checked(&s, &name, &format!("sleep {time}"), &flags);
        eventually("a check that goes on", || !alive(&sleeper).is_empty());
        let began = std::time::Instant::now();
        s.ok(["stop", "-t", "0", &name]);
        assert!(began.elapsed().as_secs() < 10, "stopped after {:?}", began.elapsed());
        assert_eq!(alive(&sleeper), NONE, "--pid {pid}");
        assert_eq!(alive(&format!("mydocker: health {name}")), NONE);
        assert_eq!(health(&s, &name)["Log"], json!([]), "--pid {pid}");
        assert!(!s.ok(["events", "--since", "10m", "--until", "0s"]).contains("health_status"));
    }
}

#[test]
fn a_foreground_run_does_not_wait_for_a_check() {
    let s = Sandbox::new();
    let line = "sleep 1000";
    let flags = ["--network", "none", "--health-cmd", line, "--health-interval", "20ms"];
    let mut args = vec!["run", "--rm", "-i"];
    args.extend(flags);
    args.extend(["busybox", "sh", "-c", "read line; echo got $line; exit 5"]);
    let mut run = s.command(args).start();
    eventually("a check that goes on", || {
        let id = s.ok(["ps", "-q"]);
        !id.is_empty() && s.run(["top", &id]).out().contains(line)
    });
    run.send(b"word\n");
    run.close_stdin();
    // The command's output ends, too: the check holds none of the caller's streams.
    let output = run.finish();
    assert_eq!((output.code, output.out().as_str()), (5, "got word"), "{output}");
}

#[test]
fn nothing_is_checked_while_the_container_stands_still() {
    let s = Sandbox::new();
    let (name, clock) = (s.name("paused"), s.name("clock"));
    let interval = ["--health-interval", "50ms", "--health-timeout", "200ms", "--health-retries", "1"];
    checked(&s, &name, "true", &interval);
    checked(&s, &clock, "true", &interval);
    changes(&s, &name).expect("health_status: healthy");
    s.ok(["pause", &name]);
    // One check may have been on its way.
    let ticks = |count: usize| {
        let mut last = Value::Null;
        for _ in 0..count {
            eventually("another check of the other container", || {
                let now = result(&s, &clock);
                let other = now != last;
                last = now;
                other
            });
        }
    };
    ticks(10);
    let before = health(&s, &name);
    ticks(10);
    assert_eq!(health(&s, &name), before);
    assert_eq!(before["Status"], "healthy", "{before}");
    assert!(shown(&s, &name).ends_with("(Paused)"), "{}", shown(&s, &name));
    s.ok(["unpause", &name]);
    eventually("another check", || health(&s, &name)["Log"] != before["Log"]);
    assert_eq!(status(&s, &name), "healthy");
}

#[test]
fn a_check_that_is_caught_by_a_pause_is_no_failure() {
    let s = Sandbox::new();
    let name = s.name("c");
    let (time, sleeper) = own_time(&s);
    let line = format!("[ -e /calm ] || sleep {time}");
    checked(&s, &name, &line, &["--health-timeout", "3s", "--health-retries", "1"]);
    eventually("a check that goes on", || !alive(&sleeper).is_empty());
    s.ok(["exec", &name, "touch", "/calm"]);
    s.ok(["pause", &name]);
    // Its time runs out, and what is killed while it is frozen ends when it is thawed.
    let first = alive(&sleeper);
    eventually("the check is given up", || pending_kill(first[0]) || !processes::is_alive(first[0]));
    s.ok(["unpause", &name]);
    changes(&s, &name).expect("health_status: healthy");
    let log = health(&s, &name)["Log"].clone();
    assert!(log.as_array().unwrap().iter().all(|result| result["ExitCode"] == 0), "{log}");
}

/// Whether SIGKILL waits for the process to be thawed.
fn pending_kill(pid: i32) -> bool {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let masks = text.lines().filter_map(|line| line.strip_prefix("SigPnd:").or_else(|| line.strip_prefix("ShdPnd:")));
    masks.filter_map(|mask| u64::from_str_radix(mask.trim(), 16).ok()).any(|mask| mask & (1 << 8) != 0)
}

#[test]
fn each_run_begins_anew() {
    let s = Sandbox::new();
    let name = s.name("c");
    let line = "[ -e /ready ]";
    checked(&s, &name, line, &["--health-retries", "1"]);
    changes(&s, &name).expect("health_status: unhealthy");
    // With another interval nothing could be seen of the beginning.
    let slow = s.name("slow");
    let flags = ["--health-cmd", line, "--health-interval", "600ms", "--health-retries", "1", "--restart", "always"];
    let script = "touch /ready; while [ -e /ready ]; do sleep 0.02; done; exit 1";
    let mut args = vec!["run", "-d", "--network", "none", "--name", &slow];
    args.extend(flags);
    args.extend(["busybox", "sh", "-c", script]);
    s.ok(args);
    let mut told = changes(&s, &slow);
    told.expect("health_status: healthy");
    s.ok(["restart", "-t", "0", &slow]);
    assert_eq!(health(&s, &slow), json!({"Status": "starting", "FailingStreak": 0, "Log": []}));
    told.expect("health_status: healthy");
    // Started again by its policy.
    s.ok(["exec", &slow, "rm", "/ready"]);
    eventually("another run", || s.field(&slow, "{{.RestartCount}} {{.State.Status}}") == "1 running");
    assert_eq!(status(&s, &slow), "starting");
    told.expect("health_status: healthy");
}

#[test]
fn nobody_knows_the_health_of_a_container_without_its_shim() {
    ours_only!("docker's checks have no process of their own");
    let s = Sandbox::new();
    let name = s.name("c");
    let (time, sleeper) = own_time(&s);
    checked(&s, &name, &format!("[ -e /slow ] || exit 0; sleep {time}"), &[]);
    changes(&s, &name).expect("health_status: healthy");
    s.ok(["exec", &name, "touch", "/slow"]);
    eventually("a check that goes on", || !alive(&sleeper).is_empty());
    kill_process(processes::shim_of(&name).unwrap(), Signal::KILL).unwrap();
    eventually("the check ends with it", || {
        alive(&sleeper).is_empty() && alive(&format!("mydocker: health {name}")).is_empty()
    });
    assert!(s.is_running(&name));
    let left = health(&s, &name);
    assert_eq!(left["Status"], "none");
    assert!(!left["Log"].as_array().unwrap().is_empty(), "{left}");
    assert!(shown(&s, &name).ends_with("(health: unknown)"), "{}", shown(&s, &name));
    assert_eq!(s.ok(["ps", "--filter", "health=none", "--filter", &format!("name={name}"), "-q"]).len(), 12);
    assert!(s.ok(["why", &name]).contains("not checked any more"));
    s.ok(["exec", &name, "rm", "/slow"]);
    s.ok(["restart", "-t", "0", &name]);
    changes(&s, &name).expect("health_status: healthy");
    eventually("it is checked again", || status(&s, &name) == "healthy");
}

#[test]
fn a_check_whose_process_is_killed_or_stands_still_has_failed() {
    ours_only!("docker's checks have no process of their own");
    let s = Sandbox::new();
    let name = s.name("c");
    let (time, sleeper) = own_time(&s);
    checked(&s, &name, &format!("sleep {time}"), &["--health-retries", "1"]);
    eventually("a check that goes on", || !alive(&sleeper).is_empty());
    let probe = alive(&format!("mydocker: health {name}"));
    assert_eq!(probe.len(), 1);
    kill_process(rustix::process::Pid::from_raw(probe[0]).unwrap(), Signal::KILL).unwrap();
    let last = result(&s, &name);
    assert_eq!(
        (&last["ExitCode"], &last["Output"]),
        (&json!(-1), &json!("the process that ran the health check was killed"))
    );
    // The shim serves everybody else while a check's process does nothing.
    eventually("the next check", || alive(&format!("mydocker: health {name}")).iter().any(|pid| *pid != probe[0]));
    let next = alive(&format!("mydocker: health {name}"));
    kill_process(rustix::process::Pid::from_raw(next[0]).unwrap(), Signal::STOP).unwrap();
    assert_eq!(s.run(["exec", &name, "echo", "x"]).code(0).out(), "x");
    // As after the grace that it has: in the meantime nobody would see its command end.
    kill_process(rustix::process::Pid::from_raw(next[0]).unwrap(), Signal::KILL).unwrap();
    s.ok(["stop", "-t", "0", &name]);
    assert_eq!(alive(&sleeper), NONE);
}

#[test]
fn a_damaged_report_is_written_anew() {
    ours_only!("docker has no such file");
    let s = Sandbox::new();
    let name = s.name("c");
    let id = checked(&s, &name, "true", &["--health-interval", "300ms"]);
    changes(&s, &name).expect("health_status: healthy");
    let file = s.root().join("containers").join(&id).join("health.json");
    for damage in [
        "",
        "{\"run\":",
        "[]",
        "{\"run\":{\"pid\":1,\"start_time\":1},\"status\":\"healthy\",\"failing_streak\":0,\"log\":[]}",
    ] {
        fs::write(&file, damage).unwrap();
        let view = status(&s, &name);
        assert!(["starting", "healthy"].contains(&view.as_str()), "{view}");
        eventually("it is written anew", || status(&s, &name) == "healthy");
    }
    fs::remove_file(&file).unwrap();
    eventually("it is written anew", || file.exists());
}

#[test]
fn twenty_containers_do_not_delay_each_other() {
    let s = Sandbox::new();
    let names: Vec<String> = (0..20).map(|number| s.name(&format!("c{number}"))).collect();
    let second = ["--health-interval", "1s"];
    for (number, name) in names.iter().enumerate() {
        // Every other one hangs until its time is up.
        let line = if number % 2 == 0 { "true" } else { "sleep 1000" };
        checked(&s, name, line, &second);
    }
    let quick: Vec<&String> = names.iter().step_by(2).collect();
    eventually("four checks each", || {
        quick.iter().all(|name| health(&s, name)["Log"].as_array().is_some_and(|log| log.len() >= 4))
    });
    for name in quick {
        let log = health(&s, name)["Log"].as_array().unwrap().clone();
        let time = |result: &Value| result["Start"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
        for pair in log.windows(2) {
            let apart = time(&pair[1]).duration_since(time(&pair[0])).as_millis();
            // A second, the check itself, and what a busy machine adds.
            assert!((1000..3000).contains(&apart), "{name}: {apart} ms between two checks");
        }
    }
}
