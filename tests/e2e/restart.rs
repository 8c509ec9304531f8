//! `--restart`: who is started again, how often, and who never.

use std::fs;
use std::time::Duration;

use rustix::process::{Signal, kill_process};
use serde_json::json;

use crate::ours_only;
use crate::support::{Sandbox, against_docker, eventually, processes};

/// Ends at once with this code, after a word for the log.
fn ending(code: u32) -> String {
    format!("echo run; exit {code}")
}

/// Ends by itself never, with 5 on SIGTERM and SIGINT, with 6 on SIGHUP.
const PATIENT: &str = "trap 'exit 5' TERM INT; trap 'exit 6' HUP; echo run; while :; do sleep 0.02; done";

impl Sandbox {
    fn policed(&self, name: &str, policy: &str, script: &str) {
        self.ok(["run", "-d", "--name", name, "--restart", policy, "busybox", "sh", "-c", script]);
    }

    fn restarts(&self, name: &str) -> u32 {
        self.field(name, "{{.RestartCount}}").parse().unwrap()
    }

    fn status(&self, name: &str) -> String {
        self.field(name, "{{.State.Status}}")
    }

    fn runs(&self, name: &str) -> usize {
        self.ok(["logs", name]).matches("run").count()
    }

    /// Waits for the wait after the `count`th restart has been decided: it is `0.1 s · 2^(count - 1)`.
    #[track_caller]
    fn await_rest(&self, name: &str, count: u32) {
        eventually(&format!("{name} rests before restart {count}"), || {
            self.field(name, "{{.State.Status}} {{.RestartCount}}") == format!("restarting {count}")
        });
    }

    /// It is down, and nobody is left who could start it again.
    #[track_caller]
    fn stays_down(&self, name: &str) {
        assert_eq!(self.status(name), "exited");
        let runs = self.runs(name);
        eventually("the shim leaves", || processes::shim_of(name).is_none());
        assert_eq!(self.status(name), "exited");
        assert_eq!(self.runs(name), runs, "it has run again");
    }
}

#[test]
fn failures_are_tried_again_so_many_times() {
    let s = Sandbox::new();
    let name = s.name("c");
    s.policed(&name, "on-failure:3", &ending(7));
    eventually("it gives up", || s.status(&name) == "exited");
    assert_eq!(s.field(&name, "{{.RestartCount}} {{.State.ExitCode}} {{.State.Restarting}}"), "3 7 false");
    let policy = &s.inspect(&name)["HostConfig"]["RestartPolicy"];
    assert_eq!(*policy, json!({"Name": "on-failure", "MaximumRetryCount": 3}));
    assert_eq!(s.runs(&name), 4);
    // The user's own start counts from the beginning.
    s.ok(["start", &name]);
    eventually("it gives up again", || s.status(&name) == "exited" && s.restarts(&name) == 3);
    assert_eq!(s.runs(&name), 8);
}

#[test]
fn success_is_no_failure() {
    let s = Sandbox::new();
    let name = s.name("c");
    assert_eq!(s.run(["run", "--name", &name, "--restart", "on-failure", "busybox", "true"]).code, 0);
    assert_eq!(s.field(&name, "{{.State.Status}} {{.RestartCount}}"), "exited 0");
}

#[test]
fn always_goes_on_until_it_is_stopped() {
    let s = Sandbox::new();
    for policy in ["always", "unless-stopped"] {
        let name = s.name(policy);
        s.policed(&name, policy, &ending(0));
        eventually("it runs again and again", || s.restarts(&name) >= 3);
        s.ok(["stop", &name]);
        assert_eq!(s.field(&name, "{{.State.ExitCode}}"), "0");
        if !against_docker() {
            s.stays_down(&name);
        }
    }
}

#[test]
fn waits_grow() {
    let s = Sandbox::new();
    let name = s.name("c");
    s.policed(&name, "on-failure:4", &ending(1));
    eventually("it gives up", || s.status(&name) == "exited");
    let log = s.ok(["logs", "-t", &name]);
    let time = |line: &str| line.split_once(' ').unwrap().0.parse::<jiff::Timestamp>().unwrap();
    let times: Vec<_> = log.lines().map(time).collect();
    // At least: how much longer it takes is up to the machine.
    for (pair, wait) in times.windows(2).zip([100, 200, 400, 800]) {
        let gap = pair[1].duration_since(pair[0]).as_millis();
        assert!(gap >= wait, "{gap} ms after a wait of {wait} ms:\n{log}");
    }
    assert_eq!(times.len(), 5);
}

#[test]
fn a_container_between_two_runs_is_restarting() {
    let s = Sandbox::new();
    let name = s.name("c");
    s.policed(&name, "always", &ending(3));
    // Six seconds of rest: an emulated machine needs half of one for each of these commands.
    s.await_rest(&name, 7);
    let state = s.inspect(&name)["State"].clone();
    for (field, value) in
        [("Running", json!(true)), ("Restarting", json!(true)), ("Pid", json!(0)), ("ExitCode", json!(3))]
    {
        assert_eq!(state[field], value, "{field} of {state}");
    }
    let status = |filter: &str| s.ok(["ps", "--filter", filter, "--format", "{{.Names}}: {{.Status}}"]);
    let line = format!("{name}: Restarting (3) ");
    assert!(status(&format!("name={name}")).starts_with(&line), "{}", status(&format!("name={name}")));
    assert!(status("status=restarting").contains(&line) && !status("status=running").contains(&line));
    if !against_docker() {
        let info = s.ok(["info", "--format", "{{.ContainersRunning}} {{.ContainersStopped}}"]);
        assert_eq!(info, "0 1");
    }
    s.fails(1, ["exec", &name, "true"]).says("is restarting, wait until the container is running");
    s.fails(1, ["attach", &name]).says("restarting container");
    s.fails(1, ["rm", &name]).says("restarting");
    // Neither starting nor a signal that means something else changes anything.
    assert_eq!(s.ok(["start", &name]), name);
    assert_eq!(s.ok(["kill", "-s", "USR1", &name]), name);
    let renamed = s.name("renamed");
    s.ok(["rename", &name, &renamed]);
    eventually("it goes on", || s.restarts(&renamed) >= 8);
    assert_eq!(s.ok(["rm", "-f", &renamed]), renamed);
    s.fails(1, ["inspect", &renamed]);
}

#[test]
fn stop_ends_the_wait_at_once() {
    let s = Sandbox::new();
    let name = s.name("c");
    for verb in [&["stop"][..], &["kill"], &["kill", "-s", "TERM"]] {
        s.policed(&name, "always", &ending(3));
        s.await_rest(&name, 5);
        let began = s.field(&name, "{{.State.StartedAt}}");
        let output = s.run(verb.iter().copied().chain([name.as_str()])).code(0);
        assert_eq!(s.field(&name, "{{.State.Status}} {{.State.ExitCode}} {{.RestartCount}}"), "exited 3 5");
        assert_eq!(s.field(&name, "{{.State.StartedAt}}"), began, "it has run again: {output}");
        s.stays_down(&name);
        s.ok(["rm", &name]);
    }
}

#[test]
fn what_the_user_ends_stays_down() {
    let s = Sandbox::new();
    let name = s.name("c");
    s.policed(&name, "always", PATIENT);
    s.await_log(&name, "run");
    s.ok(["stop", &name]);
    assert_eq!(s.field(&name, "{{.State.ExitCode}} {{.RestartCount}}"), "5 0");
    s.stays_down(&name);
    // To start it is to want it again, with its policy.
    s.ok(["start", &name]);
    eventually("it runs", || s.runs(&name) == 2);
    s.ok(["kill", &name]);
    s.ok(["wait", &name]);
    assert_eq!(s.field(&name, "{{.State.ExitCode}} {{.RestartCount}}"), "137 0");
    s.stays_down(&name);
    s.ok(["start", &name]);
    eventually("it runs", || s.runs(&name) == 3);
    s.ok(["kill", "-s", "TERM", &name]);
    assert_eq!(s.ok(["wait", &name]), "5");
    s.stays_down(&name);
}

#[test]
fn a_signal_that_means_something_else_is_no_stop() {
    ours_only!("docker takes any signal for a stop when the image names no stop signal");
    let s = Sandbox::new();
    let name = s.name("c");
    s.policed(&name, "always", PATIENT);
    s.await_log(&name, "run");
    s.ok(["kill", "-s", "HUP", &name]);
    eventually("it is started again", || s.runs(&name) == 2);
    assert_eq!(s.restarts(&name), 1);
    s.ok(["restart", "-t", "5", &name]);
    eventually("it is started by the user", || s.runs(&name) == 3);
    assert_eq!(s.restarts(&name), 0);
    s.ok(["rm", "-f", &name]);
}

#[test]
fn a_stop_is_final_whenever_it_comes() {
    ours_only!("looks for our own process");
    let s = Sandbox::new();
    let name = s.name("c");
    s.ok(["create", "--name", &name, "--restart", "always", "busybox", "sh", "-c", "echo run"]);
    for round in 0..45 {
        s.ok(["start", &name]);
        // The restarts come 0.1 and 0.3 seconds after the first end: each round meets another moment
        // around them, of which nothing but the clock tells.
        std::thread::sleep(Duration::from_millis(round * 8));
        match round % 3 {
            0 => s.ok(["stop", &name]),
            1 => s.ok(["kill", &name]),
            _ => s.ok(["stop", "-t", "0", &name]),
        };
        assert_eq!(s.status(&name), "exited", "round {round}");
        s.stays_down(&name);
    }
    s.ok(["rm", &name]);
}

#[test]
fn removal_is_final_whenever_it_comes() {
    ours_only!("looks for our own process");
    let s = Sandbox::new();
    for round in 0..15 {
        let name = s.name("c");
        s.policed(&name, "always", &ending(1));
        // As above.
        std::thread::sleep(Duration::from_millis(round * 10));
        s.ok(["rm", "-f", &name]);
        s.fails(1, ["inspect", &name]);
        eventually("the shim leaves", || processes::shim_of(&name).is_none());
    }
}

#[test]
fn wait_tells_the_end_of_the_run_it_met() {
    let s = Sandbox::new();
    let name = s.name("c");
    let script = "echo run >> /runs; exit $(wc -l < /runs)";
    s.policed(&name, "always", &format!("while ! [ -e /go ]; do sleep 0.02; done; {script}"));
    let waiting = s.command(["wait", &name]).start();
    // There is no telling from outside when `wait` has begun to wait.
    // The container may end before this has, and take it along.
    s.run(["exec", &name, "sh", "-c", "sleep 0.3; touch /go"]);
    assert_eq!(waiting.finish().code(0).out(), "1");
    // Between two runs: the next one's.
    s.await_rest(&name, 4);
    assert_eq!(s.ok(["wait", &name]), "5");
    // Or the last one's, when there is no next.
    s.await_rest(&name, 6);
    let waiting = s.command(["wait", &name]).start();
    s.ok(["stop", &name]);
    assert_eq!(waiting.finish().code(0).out(), "6");
}

#[test]
fn a_follower_of_the_log_goes_on_from_run_to_run() {
    ours_only!("docker's follower leaves at the end of a run");
    let s = Sandbox::new();
    let name = s.name("c");
    s.policed(&name, "on-failure:2", "echo run $(wc -l < /runs); echo run >> /runs; exit 4");
    let followed = s.ok(["logs", "-f", &name]);
    assert_eq!(followed, "run\nrun 1\nrun 2");
    assert_eq!(s.status(&name), "exited");
}

#[test]
fn a_start_that_fails_counts_as_a_run_that_failed() {
    ours_only!("docker gives up when a start fails");
    let s = Sandbox::new();
    let name = s.name("c");
    s.policed(&name, "on-failure:3", "rm /bin/sh; exit 9");
    eventually("it gives up", || s.status(&name) == "exited");
    assert_eq!(s.field(&name, "{{.RestartCount}} {{.State.ExitCode}}"), "3 127");
    assert!(s.field(&name, "{{.State.Error}}").contains("sh"), "{}", s.field(&name, "{{.State.Error}}"));
    // The first start is the user's, who is told.
    let other = s.name("other");
    s.fails(127, ["run", "-d", "--name", &other, "--restart", "always", "busybox", "no-such-program"]);
    assert_eq!(s.field(&other, "{{.State.Status}} {{.RestartCount}}"), "created 0");
    eventually("the shim leaves", || processes::shim_of(&other).is_none());
}

#[test]
fn the_policy_is_the_one_on_record_when_the_run_ends() {
    ours_only!("edits our own record");
    let s = Sandbox::new();
    let name = s.name("c");
    let id = s.idle(&name, &[]);
    let path = s.root().join("containers").join(&id).join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config["restart"] = json!({"name": "always"});
    fs::write(&path, config.to_string()).unwrap();
    let before = s.pid(&name);
    s.run(["exec", &name, "kill", "-TERM", "1"]);
    eventually("it is started again", || s.restarts(&name) == 1 && s.is_running(&name) && s.pid(&name) != 0);
    assert_ne!(s.pid(&name), before);
    s.ok(["stop", &name]);
    s.stays_down(&name);
}

#[test]
fn policies_that_cannot_be() {
    let s = Sandbox::new();
    s.fails(125, ["run", "--rm", "--restart", "always", "busybox", "true"])
        .says("conflicting options: cannot specify both --restart and --rm");
    s.fails(125, ["run", "--restart", "always:3", "busybox", "true"])
        .says("invalid restart policy: maximum retry count can only be used with 'on-failure'");
    let name = s.name("c");
    s.ok(["create", "--name", &name, "busybox"]);
    let policy = &s.inspect(&name)["HostConfig"]["RestartPolicy"];
    assert_eq!(*policy, json!({"Name": "no", "MaximumRetryCount": 0}));
}

#[test]
fn a_shim_that_is_killed_between_two_runs() {
    ours_only!("kills our own process");
    let s = Sandbox::new();
    let name = s.name("c");
    s.policed(&name, "always", &ending(3));
    s.await_rest(&name, 4);
    let waiting = s.command(["wait", &name]).start();
    let shim = processes::shim_of(&name).unwrap();
    kill_process(shim, Signal::KILL).unwrap();
    assert_eq!(waiting.finish().code(0).out(), "3");
    eventually("it is gone", || !processes::is_alive(shim.as_raw_nonzero().get()));
    assert_eq!(s.field(&name, "{{.State.Status}} {{.State.ExitCode}} {{.RestartCount}}"), "exited 3 4");
    assert!(s.ok(["ps", "-a"]).contains("Exited (3)"));
    // Whoever writes next heals it.
    assert_eq!(s.ok(["stop", &name]), name);
    assert!(s.field(&name, "{{.State.Error}}").contains("supervisor was killed"));
    s.ok(["start", &name]);
    s.await_rest(&name, 2);
    kill_process(processes::shim_of(&name).unwrap(), Signal::KILL).unwrap();
    s.ok(["rm", "-f", &name]);
}

#[test]
fn a_shim_that_is_killed_during_a_run_starts_nothing_any_more() {
    ours_only!("kills our own process");
    let s = Sandbox::new();
    let name = s.name("c");
    s.policed(&name, "always", PATIENT);
    s.await_log(&name, "run");
    kill_process(processes::shim_of(&name).unwrap(), Signal::KILL).unwrap();
    eventually("it is gone", || processes::shim_of(&name).is_none());
    assert!(s.is_running(&name));
    s.ok(["kill", "-s", "HUP", &name]);
    assert_eq!(s.ok(["wait", &name]), "255");
    assert_eq!(s.field(&name, "{{.State.Status}} {{.RestartCount}}"), "exited 0");
    s.ok(["start", &name]);
    s.ok(["stop", &name]);
    s.stays_down(&name);
}

#[test]
fn a_shim_keeps_nothing_of_earlier_runs() {
    ours_only!("looks into our own process");
    let s = Sandbox::new();
    for flags in [&["-i"][..], &["-t"]] {
        let name = s.name("c");
        let args = ["run", "-d", "--name", &name, "--restart", "always"].into_iter().chain(flags.iter().copied());
        s.ok(args.chain(["busybox", "sh", "-c", "echo run; exit 1"]));
        s.await_rest(&name, 5);
        let shim = processes::shim_of(&name).unwrap().as_raw_nonzero();
        eventually("it holds its socket and three times the null device", || {
            let files = fs::read_dir(format!("/proc/{shim}/fd")).unwrap().flatten();
            let mut files: Vec<_> =
                files.flat_map(|file| fs::read_link(file.path())).map(|path| path.display().to_string()).collect();
            files.sort();
            files.len() == 4 && files[..3] == ["/dev/null"; 3] && files[3].starts_with("socket:")
        });
        assert_eq!(fs::read_dir(format!("/proc/{shim}/task")).unwrap().count(), 1, "threads");
        s.ok(["rm", "-f", &name]);
    }
}
