//! `events`: what is told, in which order, to whom.

use std::fs;

use rustix::process::{Signal, kill_process};
use serde_json::Value;

use crate::ours_only;
use crate::support::{Sandbox, against_docker, eventually, leftovers, processes};

/// A filter that only this sandbox's objects pass.
fn mine(s: &Sandbox) -> Vec<String> {
    // On Docker the machine's other events would come in between.
    if against_docker() { vec!["--filter".into(), format!("label=sandbox={}", s.name("x"))] } else { Vec::new() }
}

fn label(s: &Sandbox) -> String {
    format!("sandbox={}", s.name("x"))
}

/// Everything told so far, as JSON.
#[track_caller]
fn told(s: &Sandbox, filters: &[&str]) -> Vec<Value> {
    let mut args = vec!["events".to_owned(), "--since".into(), "10m".into(), "--until".into(), "0s".into()];
    args.extend(["--format".to_owned(), "json".into()]);
    args.extend(mine(s));
    for filter in filters {
        args.extend(["--filter".to_owned(), (*filter).to_owned()]);
    }
    let text = s.ok(args);
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect()
}

/// The actions told of containers, with what they say.
#[track_caller]
fn actions(s: &Sandbox) -> String {
    let words = told(s, &["type=container"]).into_iter().map(|event| {
        let attribute = |key: &str| event["Actor"]["Attributes"][key].as_str().map(str::to_owned);
        let action = event["Action"].as_str().unwrap().split(':').next().unwrap().to_owned();
        let detail = attribute("signal").or_else(|| attribute("exitCode")).or_else(|| attribute("oldName"));
        detail.map_or_else(|| action.clone(), |detail| format!("{action}={detail}"))
    });
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn a_passing_container_is_told_in_order() {
    let s = Sandbox::new();
    let name = s.name("c");
    s.fails(3, ["run", "--rm", "--name", &name, "-l", &label(&s), "busybox", "sh", "-c", "exit 3"]);
    eventually("its end is told", || actions(&s).contains("destroy"));
    assert_eq!(actions(&s), "create attach start die=3 destroy");
    let events = told(&s, &[]);
    let create = events.iter().find(|event| event["Action"] == "create").unwrap();
    assert_eq!(create["status"], "create");
    assert_eq!(create["from"], "busybox");
    assert_eq!(create["scope"], "local");
    assert_eq!(create["id"], create["Actor"]["ID"]);
    assert_eq!(create["id"].as_str().unwrap().len(), 64);
    assert_eq!(create["Actor"]["Attributes"]["name"], name.as_str());
    assert_eq!(create["Actor"]["Attributes"]["image"], "busybox");
    assert_eq!(create["Actor"]["Attributes"]["sandbox"], s.name("x").as_str());
    assert_eq!(create["timeNano"].as_i64().unwrap() / 1_000_000_000, create["time"].as_i64().unwrap());
    let die = events.iter().find(|event| event["Action"] == "die").unwrap();
    assert!(die["Actor"]["Attributes"]["execDuration"].as_str().unwrap().parse::<u32>().is_ok());
    let times: Vec<i64> = events.iter().map(|event| event["timeNano"].as_i64().unwrap()).collect();
    assert!(times.is_sorted(), "{times:?}");
}

#[test]
fn a_life_with_signals_is_told_in_order() {
    let s = Sandbox::new();
    let name = s.name("c");
    let script = "trap 'exit 0' TERM; trap 'exit 4' USR1; echo ready; while :; do sleep 0.05; done";
    s.ok(["run", "-d", "--name", &name, "-l", &label(&s), "busybox", "sh", "-c", script]);
    s.await_log(&name, "ready");
    s.ok(["stop", &name]);
    assert_eq!(actions(&s), "create start kill=15 die=0 stop");
    s.ok(["start", &name]);
    eventually("its traps are set again", || s.ok(["logs", &name]).matches("ready").count() == 2);
    s.ok(["kill", "-s", "USR1", &name]);
    s.ok(["wait", &name]);
    let killed = "create start kill=15 die=0 stop start kill=10 die=4";
    assert_eq!(actions(&s), killed);
    s.ok(["start", &name]);
    eventually("its traps are set again", || s.ok(["logs", &name]).matches("ready").count() == 3);
    s.ok(["restart", &name]);
    let restarted = format!("{killed} start kill=15 die=0 stop start restart");
    assert_eq!(actions(&s), restarted);
    let other = s.name("d");
    s.ok(["rename", &name, &other]);
    s.ok(["rm", "-f", &other]);
    assert_eq!(actions(&s), format!("{restarted} rename=/{name} kill=9 die=137 destroy"));
    let last = told(&s, &["event=destroy"]).pop().unwrap();
    assert_eq!(last["Actor"]["Attributes"]["name"], other.as_str());
}

#[test]
fn a_container_that_does_not_heed_the_stop_signal() {
    let s = Sandbox::new();
    let name = s.name("c");
    let script = "trap '' TERM; echo ready; while :; do sleep 0.05; done";
    s.ok(["run", "-d", "--name", &name, "-l", &label(&s), "busybox", "sh", "-c", script]);
    s.await_log(&name, "ready");
    s.ok(["stop", "-t", "0", &name]);
    assert_eq!(actions(&s), "create start kill=15 kill=9 die=137 stop");
}

#[test]
fn what_runs_inside_is_told_with_its_command() {
    let s = Sandbox::new();
    let name = s.name("c");
    s.idle(&name, &["-l", &label(&s)]);
    s.fails(5, ["exec", &name, "sh", "-c", "exit 5"]);
    assert_eq!(actions(&s), "create start exec_create exec_start exec_die=5");
    let events: Vec<Value> = told(&s, &[]).into_iter().filter(|event| event["Type"] == "container").collect();
    assert_eq!(events[2]["Action"], "exec_create: sh -c exit 5");
    assert_eq!(events[3]["Action"], "exec_start: sh -c exit 5");
    let ids: Vec<&Value> = events[2..].iter().map(|event| &event["Actor"]["Attributes"]["execID"]).collect();
    assert!(ids[0].as_str().unwrap().len() == 64 && ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    // A filter on the word finds it.
    assert_eq!(told(&s, &["event=exec_start"]).len(), 1);
    if !against_docker() {
        s.fails(127, ["exec", &name, "no-such-program"]);
        assert_eq!(actions(&s), "create start exec_create exec_start exec_die=5 exec_create");
    }
}

#[test]
fn attach_and_detach_are_told() {
    let s = Sandbox::new();
    let name = s.name("c");
    s.ok(["run", "-dit", "--name", &name, "-l", &label(&s), "busybox", "sh"]);
    let mut terminal = s.terminal(["attach", &name]);
    terminal.send(b"echo at''tached\n");
    terminal.expect("attached");
    terminal.send(b"\x10\x11");
    assert_eq!(terminal.finish().0, 0);
    let told = actions(&s).replace(" resize", "");
    assert_eq!(told, "create start attach detach");
}

#[test]
fn a_signal_that_an_attached_client_passes_on_is_told() {
    let s = Sandbox::new();
    let name = s.name("c");
    let script = "trap 'exit 7' USR1; echo ready; while :; do sleep 0.05; done";
    let mut client = s.command(["run", "--name", &name, "-l", &label(&s), "busybox", "sh", "-c", script]).start();
    client.expect("ready");
    client.signal(Signal::USR1);
    client.finish().code(7);
    assert_eq!(actions(&s), "create attach start kill=10 die=7");
}

#[test]
fn a_start_that_fails_is_told() {
    ours_only!("docker tells the error nowhere");
    let s = Sandbox::new();
    let name = s.name("c");
    s.fails(127, ["run", "--rm", "--name", &name, "busybox", "no-such-program"]);
    assert_eq!(actions(&s), "create attach die=127 destroy");
    let die = told(&s, &["event=die"]).pop().unwrap();
    assert!(die["Actor"]["Attributes"]["error"].as_str().unwrap().contains("executable file not found"), "{die}");
    // What never was is told by nobody.
    s.fails(125, ["run", "--rm", "-v", "x:/y", "--name", "?", "busybox", "true"]);
    assert_eq!(actions(&s), "create attach die=127 destroy");
}

#[test]
fn an_end_that_nobody_saw_is_told_by_who_records_it() {
    ours_only!("kills our own processes");
    let s = Sandbox::new();
    let (kept, passing) = (s.name("kept"), s.name("passing"));
    s.idle(&kept, &[]);
    s.idle(&passing, &["--rm"]);
    for name in [&kept, &passing] {
        let init = rustix::process::Pid::from_raw(s.pid(name)).unwrap();
        kill_process(processes::shim_of(name).unwrap(), Signal::KILL).unwrap();
        kill_process(init, Signal::KILL).unwrap();
        eventually("it is down", || !s.is_running(name));
    }
    assert_eq!(told(&s, &["event=die"]).len(), 0, "a reader has written");
    s.fails(1, ["kill", &kept]);
    s.fails(1, ["kill", &passing]);
    let of = |name: &str| {
        let events = told(&s, &[&format!("container={name}")]);
        let word = |event: &Value| {
            format!("{} {}", event["Action"].as_str().unwrap(), event["Actor"]["Attributes"]["exitCode"])
        };
        events.iter().skip(2).map(word).collect::<Vec<_>>().join(", ")
    };
    assert_eq!(of(&kept), "die \"255\"");
    assert_eq!(of(&passing), "die \"255\", destroy null");
}

#[test]
fn images_and_volumes_are_told() {
    ours_only!("docker's machine has its images already");
    let s = Sandbox::new();
    let (name, volume) = (s.name("c"), s.name("v"));
    let mount = format!("{volume}:/data");
    s.ok(["run", "--name", &name, "-v", &mount, "-v", "/anonymous", "busybox", "true"]);
    s.ok(["rm", "-v", &name]);
    let brief = |events: Vec<Value>| {
        let brief = |event: &Value| {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            format!("{} {}", text(&event["Action"]), text(&event["Actor"]["ID"]).split(':').next().unwrap())
        };
        events.iter().map(brief).collect::<Vec<_>>().join(", ")
    };
    let volumes = told(&s, &["type=volume"]);
    assert_eq!(volumes.len(), 3);
    assert_eq!(volumes[0]["Actor"]["Attributes"]["driver"], "local");
    assert!(volumes[0].get("status").is_none());
    assert_eq!(brief(told(&s, &[&format!("volume={volume}")])), format!("create {volume}"));
    let anonymous = volumes[2]["Actor"]["ID"].as_str().unwrap();
    assert_eq!(brief(told(&s, &[&format!("volume={anonymous}")])), format!("create {anonymous}, destroy {anonymous}"));
    assert_eq!(brief(told(&s, &["type=image"])), "load sha256, tag sha256");
    let tag = told(&s, &["event=tag"]).pop().unwrap();
    assert_eq!(tag["Actor"]["Attributes"]["name"], "busybox:latest");
    assert_eq!(told(&s, &["image=busybox"]).len(), 6, "the image's tag and the container's life");
}

#[test]
fn text_json_and_templates() {
    let s = Sandbox::new();
    let name = s.name("c");
    let id = s.ok(["create", "--name", &name, "-l", &label(&s), "busybox", "true"]);
    let shown = |format: &[&str]| {
        let mut args: Vec<String> =
            ["events", "--since", "10m", "--until", "0s", "-f", "event=create"].map(str::to_owned).into();
        args.extend(mine(&s));
        args.extend(["-f".to_owned(), "type=container".into()]);
        args.extend(format.iter().map(|word| (*word).to_owned()));
        s.ok(args)
    };
    let line = shown(&[]);
    let (time, rest) = line.split_once(' ').unwrap();
    assert_eq!(rest, format!("container create {id} (image=busybox, name={name}, {})", label(&s)));
    time.parse::<jiff::Timestamp>().unwrap();
    assert_eq!(time.split(['+', 'Z']).next().unwrap().len(), 29, "{time}");
    assert_eq!(
        shown(&["--format", "{{.Type}} {{.Action}} {{.Actor.Attributes.name}}"]),
        format!("container create {name}")
    );
    assert_eq!(shown(&["--format", "{{.ID}}|{{.From}}|{{.Status}}|{{.Scope}}"]), format!("{id}|busybox|create|local"));
    assert_eq!(shown(&["--format", "json"]), shown(&["--format", "{{json .}}"]));
    for bad in [["--format", "{{.Nonsense}}"], ["--format", "{{"], ["--filter", "nonsense"], ["--since", "nonsense"]] {
        let output = s.run(["events", "--until", "0s"].iter().chain(&bad));
        assert_ne!(output.code, 0, "{bad:?}");
    }
    assert_ne!(s.run(["events", "--since", "1m", "--until", "10m"]).code, 0);
    assert_eq!(s.run(["system", "events", "--until", "0s"]).code, 0);
}

#[test]
fn control_characters_do_not_reach_the_terminal() {
    ours_only!("docker prints them");
    let s = Sandbox::new();
    let name = s.name("c");
    s.ok(["create", "--name", &name, "-l", "k=\u{1b}[31mred\nforged", "busybox", "true"]);
    let text = s.ok(["events", "--since", "10m", "--until", "0s", "-f", "type=container"]);
    assert!(text.lines().count() == 1 && !text.contains('\u{1b}') && text.contains("\\u{1b}[31m"), "{text:?}");
}

#[test]
fn a_follower_sees_what_comes_and_ends_at_its_time() {
    let s = Sandbox::new();
    let name = s.name("c");
    s.ok(["create", "--name", &name, "-l", &label(&s), "busybox", "true"]);
    let mut args = vec!["events".to_owned(), "--since".into(), "10m".into(), "--format".into()];
    args.extend(["{{.Action}}".to_owned(), "-f".into(), format!("container={name}")]);
    let mut follower = s.command(&args).start();
    follower.expect("create\n");
    s.ok(["start", "-a", &name]);
    follower.expect("attach\nstart\ndie\n");
    s.ok(["rm", &name]);
    follower.expect("destroy\n");
    // ctrl-c ends it.
    follower.signal(Signal::INT);
    follower.finish().code(130);
    args.extend(["--until".to_owned(), "-1s".into()]);
    let output = s.run(&args).code(0);
    assert!(output.took >= std::time::Duration::from_millis(900), "{output}");
    assert_eq!(output.out().lines().last(), Some("destroy"));
}

#[test]
fn a_follower_that_is_killed_or_not_read_leaves_nothing() {
    ours_only!("kills our own processes");
    let s = Sandbox::new();
    s.ok(["run", "--rm", "busybox", "true"]);
    let mut follower = s.command(["events", "--since", "10m"]).start();
    follower.expect("container create");
    let before = names(&s);
    kill_process(follower.pid(), Signal::KILL).unwrap();
    follower.finish().code(137);
    assert_eq!(names(&s), before);
    // `events | head -1`
    let mut follower = s.command(["events", "--since", "10m"]).start();
    follower.expect("container create");
    follower.close_stdout();
    s.ok(["run", "--rm", "busybox", "true"]);
    assert_eq!(follower.finish().code(0).err(), "");
}

/// Names in the data root.
fn names(s: &Sandbox) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(s.root())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn garbage_in_the_log_hides_nothing() {
    ours_only!("damages our own files");
    let s = Sandbox::new();
    let log = s.root().join("events.log");
    s.ok(["run", "--rm", "busybox", "true"]);
    let mut text = fs::read(&log).unwrap();
    text.extend_from_slice(b"nonsense\n\xff\xfe\0\n{\"status\":\"start\",\"id\":\"torn");
    fs::write(&log, text).unwrap();
    s.ok(["run", "--rm", "busybox", "true"]);
    let told = actions(&s);
    assert_eq!(told.matches("create").count(), 2, "{told}");
    assert_eq!(told.matches("destroy").count(), 2, "{told}");
    // Without the log, too: it is made anew.
    fs::remove_file(&log).unwrap();
    s.ok(["run", "--rm", "busybox", "true"]);
    assert_eq!(actions(&s), "create attach start die=0 destroy");
}

#[test]
fn nothing_that_ails_the_log_fails_a_command() {
    ours_only!("damages our own files");
    let s = Sandbox::new();
    let log = s.root().join("events.log");
    s.ok(["run", "--rm", "busybox", "true"]);
    // Larger than the caller may write: the command must not die of it (SIGXFSZ).
    fs::write(&log, vec![b'\n'; 3 << 20]).unwrap();
    let limited = s.with_shell("ulimit -f 2048; exec \"$@\"", ["run", "--rm", "busybox", "echo", "small"]);
    assert_eq!(limited.run().code(0).out(), "small");
    fs::remove_file(&log).unwrap();
    std::os::unix::fs::symlink("/dev/full", &log).unwrap();
    assert_eq!(s.ok(["run", "--rm", "busybox", "echo", "full"]), "full");
    fs::remove_file(&log).unwrap();
    fs::create_dir(&log).unwrap();
    assert_eq!(s.ok(["run", "--rm", "busybox", "echo", "directory"]), "directory");
    fs::remove_dir(&log).unwrap();
    assert!(leftovers::containers(&s.root()).is_empty());
}

#[test]
fn commands_at_once_lose_no_event_over_a_rotation() {
    ours_only!("fills our own files");
    let s = Sandbox::new();
    let log = s.root().join("events.log");
    s.ok(["run", "--rm", "busybox", "true"]);
    let filler = format!("{}\n", "x".repeat(999));
    fs::write(&log, filler.repeat((4 << 20) / 1000 - 8)).unwrap();
    let mut follower = s.command(["events", "--format", "{{.Action}} {{.ID}}", "--since", "0s"]).start();
    let runs: Vec<_> = (0..16).map(|_| s.command(["run", "--rm", "busybox", "true"]).start()).collect();
    for run in runs {
        run.finish().code(0);
    }
    let count =
        |told: &str, word: &str| told.split(' ').filter(|action| action.split('=').next() == Some(word)).count();
    eventually("all are gone", || count(&actions(&s), "destroy") == 16);
    let told = actions(&s);
    for action in ["create", "attach", "start", "die", "destroy"] {
        assert_eq!(count(&told, action), 16, "{action}");
    }
    assert!(s.root().join("events.log.1").exists() && fs::metadata(&log).unwrap().len() < 1 << 20);
    for _ in 0..16 {
        follower.expect("destroy ");
    }
}
