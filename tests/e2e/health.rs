//! Health checks: what is asked for, by image and flags, and what a container's health is then.

use serde_json::{Value, json};

use crate::ours_only;
use crate::support::archive::{self, Layer};
use crate::support::invocation::Running;
use crate::support::{Sandbox, eventually};

/// A sleeping container whose health the shell line tells.
#[track_caller]
pub fn checked(s: &Sandbox, name: &str, line: &str, flags: &[&str]) -> String {
    let mut all = vec!["--network", "none", "--health-cmd", line];
    if !flags.contains(&"--health-interval") {
        all.extend(["--health-interval", "100ms"]);
    }
    all.extend(flags);
    s.sleeper(name, &all)
}

/// Changes of health as they are told, from the beginning on.
#[track_caller]
pub fn changes(s: &Sandbox, name: &str) -> Running {
    let filter = format!("container={name}");
    s.command(["events", "--since", "10m", "--filter", "event=health_status", "--filter", &filter]).start()
}

/// `State.Health`.
#[track_caller]
pub fn health(s: &Sandbox, name: &str) -> Value {
    s.inspect(name)["State"]["Health"].take()
}

#[track_caller]
pub fn status(s: &Sandbox, name: &str) -> String {
    health(s, name)["Status"].as_str().unwrap_or_default().to_owned()
}

/// The last result, once there is one.
#[track_caller]
pub fn result(s: &Sandbox, name: &str) -> Value {
    let mut last = Value::Null;
    eventually(&format!("a result of {name}"), || {
        last = health(s, name)["Log"].as_array().and_then(|log| log.last()).cloned().unwrap_or_default();
        !last.is_null()
    });
    last
}

/// The `STATUS` column.
#[track_caller]
pub fn shown(s: &Sandbox, name: &str) -> String {
    s.ok(["ps", "-a", "--filter", &format!("name={name}"), "--format", "{{.Status}}"])
}

fn image(s: &Sandbox, config: Value) -> String {
    let path = s.host("image.tar");
    archive::save(path.as_ref(), "checked:1", &config, &[Layer::busybox()]);
    s.ok(["load", "-i", &path]);
    "checked:1".to_owned()
}

#[test]
fn the_status_follows_the_checks() {
    let s = Sandbox::new();
    let name = s.name("c");
    let line = "cat /verdict && exit 0; echo no verdict >&2; exit 3";
    checked(
        &s,
        &name,
        line,
        &["--health-retries", "2", "--health-start-period", "1h", "--health-start-interval", "100ms"],
    );
    let mut changes = changes(&s, &name);
    // In the start period failures do not count, however many.
    eventually("five results", || health(&s, &name)["Log"].as_array().is_some_and(|log| log.len() == 5));
    let early = health(&s, &name);
    assert_eq!((&early["Status"], &early["FailingStreak"]), (&json!("starting"), &json!(0)), "{early}");
    assert!(shown(&s, &name).ends_with("(health: starting)"), "{}", shown(&s, &name));
    assert_eq!(early["Log"][4]["ExitCode"], 3);
    assert!(early["Log"][4]["Output"].as_str().unwrap().ends_with("no verdict\n"), "{early}");

    s.ok(["exec", &name, "sh", "-c", "echo fine > /verdict"]);
    changes.expect("health_status: healthy");
    assert!(shown(&s, &name).ends_with("(healthy)"), "{}", shown(&s, &name));
    let well = result(&s, &name);
    assert_eq!((&well["ExitCode"], &well["Output"]), (&json!(0), &json!("fine\n")));
    for key in ["Start", "End"] {
        assert!(well[key].as_str().unwrap().parse::<jiff::Timestamp>().is_ok(), "{well}");
    }
    assert!(well["Start"].as_str() < well["End"].as_str(), "{well}");

    s.ok(["exec", &name, "rm", "/verdict"]);
    changes.expect("health_status: unhealthy");
    assert!(shown(&s, &name).ends_with("(unhealthy)"), "{}", shown(&s, &name));
    let ill = health(&s, &name);
    assert!(ill["FailingStreak"].as_u64().unwrap() >= 2 && ill["Log"].as_array().unwrap().len() == 5, "{ill}");
    s.ok(["exec", &name, "touch", "/verdict"]);
    changes.expect("health_status: healthy");
    assert_eq!(health(&s, &name)["FailingStreak"], 0);

    let template = "{{.State.Health.Status}} {{len .State.Health.Log}}";
    assert_eq!(s.field(&name, template), "healthy 5");
    s.ok(["stop", "-t", "0", &name]);
    assert_eq!(status(&s, &name), "unhealthy", "nothing that runs is not healthy");
    assert!(shown(&s, &name).starts_with("Exited (137)"), "{}", shown(&s, &name));
}

#[test]
fn an_image_brings_its_check_and_flags_override_single_fields() {
    let s = Sandbox::new();
    let check = json!({"Test": ["CMD", "cat", "/no such file"], "Interval": 100_000_000, "Timeout": 5_000_000_000_i64,
                       "Retries": 2});
    let image = image(&s, json!({"Cmd": ["sleep", "1000"], "Healthcheck": check}));
    let run = |stem: &str, flags: &[&str]| {
        let name = s.name(stem);
        let mut args = vec!["run", "-d", "--network", "none", "--name", &name];
        args.extend(flags);
        args.push(&image);
        s.ok(args);
        name
    };
    let plain = run("plain", &[]);
    assert_eq!(s.inspect(&plain)["Config"]["Healthcheck"], check);
    changes(&s, &plain).expect("health_status: unhealthy");
    assert!(result(&s, &plain)["Output"].as_str().unwrap().contains("/no such file"));

    let other = run("other", &["--health-cmd", "true", "--health-retries", "7"]);
    let merged = json!({"Test": ["CMD-SHELL", "true"], "Interval": 100_000_000, "Timeout": 5_000_000_000_i64,
                        "Retries": 7});
    assert_eq!(s.inspect(&other)["Config"]["Healthcheck"], merged);
    changes(&s, &other).expect("health_status: healthy");

    let none = run("none", &["--no-healthcheck"]);
    assert_eq!(s.inspect(&none)["Config"]["Healthcheck"]["Test"], json!(["NONE"]));
    assert_eq!(health(&s, &none), Value::Null);
    assert!(!shown(&s, &none).contains('('), "{}", shown(&s, &none));

    let listed = |word: &str| {
        let mut names: Vec<String> = s
            .ok(["ps", "--filter", &format!("health={word}"), "--format", "{{.Names}}"])
            .lines()
            .map(str::to_owned)
            .collect();
        names.retain(|name| [&plain, &other, &none].contains(&name));
        names
    };
    assert_eq!((listed("unhealthy"), listed("healthy")), (vec![plain.clone()], vec![other.clone()]));
    assert_eq!((listed("none"), listed("starting")), (vec![none.clone()], vec![]));
    s.run(["ps", "--filter", "health=fine"]).code(1).says("unrecognised filter value for health: fine");
}

#[test]
fn an_image_may_ask_for_no_check_or_for_nonsense() {
    let s = Sandbox::new();
    let name = s.name("c");
    for (check, warning) in [
        (json!({"Test": ["NONE"]}), ""),
        (json!({"Test": []}), ""),
        (json!({"Interval": 1_000_000_000}), ""),
        (json!({"Test": ["HTTP", "x"]}), "unknown healthcheck type 'http'"),
    ] {
        let image = image(&s, json!({"Cmd": ["sleep", "1000"], "Healthcheck": check}));
        s.run(["run", "-d", "--network", "none", "--name", &name, &image]).code(0).says(warning);
        assert_eq!(health(&s, &name), Value::Null, "{check}");
        s.ok(["rm", "-f", &name]);
    }
    // Numbers that a user would not get away with are taken for what they can be.
    let check = json!({"Test": ["CMD", "true"], "Interval": 1, "Timeout": -5, "Retries": -1});
    let image = image(&s, json!({"Cmd": ["sleep", "1000"], "Healthcheck": check}));
    s.ok(["run", "-d", "--network", "none", "--name", &name, &image]);
    changes(&s, &name).expect("health_status: healthy");
}

#[test]
fn shell_forms_are_for_the_images_shell() {
    let s = Sandbox::new();
    let shell = "#!/bin/sh\necho \"own shell: $*\"\n";
    let layer = Layer::busybox().file("bin/own", 0o755, shell);
    let config = json!({"Cmd": ["sleep", "1000"], "Shell": ["/bin/own", "-x"],
                        "Healthcheck": {"Test": ["CMD-SHELL", "a; b"], "Interval": 50_000_000}});
    let path = s.host("shell.tar");
    archive::save(path.as_ref(), "shell:1", &config, &[layer]);
    s.ok(["load", "-i", &path]);
    let name = s.name("c");
    s.ok(["run", "-d", "--network", "none", "--name", &name, "shell:1"]);
    assert_eq!(result(&s, &name)["Output"], "own shell: -x a; b\n");
    assert_eq!(s.inspect(&name)["Config"]["Shell"], json!(["/bin/own", "-x"]));
    // A line of the user's goes to the same shell.
    let user = s.name("user");
    s.ok(["run", "-d", "--network", "none", "--name", &user, "--health-cmd", "c", "shell:1"]);
    assert_eq!(result(&s, &user)["Output"], "own shell: -x c\n");
}

#[test]
fn wrong_flags_are_refused_before_anything_exists() {
    let s = Sandbox::new();
    for (flags, words) in [
        (&["--no-healthcheck", "--health-cmd", "x"][..], "--no-healthcheck conflicts with --health-* options"),
        (&["--health-cmd", "x", "--health-retries=-1"], "--health-retries cannot be negative"),
        (&["--health-cmd", "x", "--health-interval=-1s"], "--health-interval cannot be negative"),
        (&["--health-cmd", "x", "--health-timeout", "999us"], "Timeout in Healthcheck cannot be less than 1ms"),
        (&["--health-start-period", "1ns"], "StartPeriod in Healthcheck cannot be less than 1ms"),
        (&["--health-interval", "5"], "health-interval"),
        (&["--health-retries", "x"], "health-retries"),
    ] {
        for command in ["run", "create"] {
            let mut args = vec![command];
            args.extend(flags);
            args.extend(["busybox", "true"]);
            let code = if command == "run" { 125 } else { 1 };
            let output = s.run(args);
            assert!(output.code == code || output.code == 125, "{output}");
            output.says(words);
        }
    }
    assert_eq!(s.ok(["ps", "-aq", "--filter", &format!("name={}", s.name(""))]), "");
}

#[test]
fn checks_run_as_the_containers_own_command_does() {
    let s = Sandbox::new();
    let name = s.name("c");
    let line = "id -u; id -g; pwd; echo $WHO; echo $HOME; cat /proc/self/cgroup; grep Cap /proc/self/status; hostname";
    let flags =
        ["-u", "1000:1001", "-w", "/tmp", "-e", "WHO=me", "-h", "box", "--cap-drop", "ALL", "--cap-add", "CHOWN"];
    checked(&s, &name, line, &flags);
    let output = result(&s, &name)["Output"].as_str().unwrap().to_owned();
    assert!(output.starts_with("1000\n1001\n/tmp\nme\n/\n"), "{output}");
    assert!(output.ends_with("\nbox\n"), "{output}");
    assert_eq!(output, s.ok(["exec", &name, "/bin/sh", "-c", line]) + "\n", "as exec does");
}

#[test]
fn outputs_are_bounded_and_made_text() {
    let s = Sandbox::new();
    let long = s.name("long");
    checked(&s, &long, "head -c 100000 /dev/zero | tr '\\0' x; echo no more", &[]);
    let output = result(&s, &long)["Output"].as_str().unwrap().to_owned();
    assert_eq!(output, "x".repeat(4096) + "...");
    // The worst that JSON can make of a byte.
    let control = s.name("control");
    checked(&s, &control, "head -c 100000 /dev/zero | tr '\\0' '\\001'", &[]);
    let output = result(&s, &control)["Output"].as_str().unwrap().to_owned();
    assert_eq!(output, "\u{1}".repeat(4096) + "...");
    let binary = s.name("binary");
    checked(&s, &binary, "printf 'a\\377b'; echo err >&2; printf c", &[]);
    let last = result(&s, &binary);
    assert_eq!((&last["Output"], &last["ExitCode"]), (&json!("a\u{fffd}berr\nc"), &json!(0)));
    // One that does not end has its time, and no more.
    let flood = s.name("flood");
    checked(&s, &flood, "yes", &["--health-timeout", "300ms", "--health-retries", "1"]);
    let last = result(&s, &flood);
    let output = last["Output"].as_str().unwrap();
    assert!(output.starts_with("Health check exceeded timeout (300ms): y\ny\n"), "{output}");
    assert!(output.len() < 4200 && last["ExitCode"] == -1, "{last}");
}

#[test]
fn a_check_that_cannot_start_has_failed() {
    let s = Sandbox::new();
    let check = json!({"Test": ["CMD", "no-such-program"], "Interval": 50_000_000, "Retries": 1});
    let image = image(&s, json!({"Cmd": ["sleep", "1000"], "Healthcheck": check}));
    let name = s.name("c");
    s.ok(["run", "-d", "--network", "none", "--name", &name, &image]);
    let last = result(&s, &name);
    assert_eq!(last["ExitCode"], -1);
    let output = last["Output"].as_str().unwrap();
    assert!(output.contains("no-such-program") && output.contains("not found"), "{output}");
    assert_eq!(status(&s, &name), "unhealthy");
}

#[test]
fn what_is_wrong_with_it_is_told_by_why() {
    ours_only!("docker has no why");
    let s = Sandbox::new();
    let name = s.name("c");
    checked(&s, &name, "echo connection refused; exit 4", &["--health-retries", "1"]);
    changes(&s, &name).expect("health_status: unhealthy");
    let text = s.ok(["why", &name]);
    assert!(
        text.contains("health:   unhealthy: ") && text.contains("the last with exit code 4: connection refused"),
        "{text}"
    );
}

#[test]
fn a_container_without_checks_has_no_health() {
    let s = Sandbox::new();
    let name = s.name("c");
    s.sleeper(&name, &["--network", "none"]);
    let view = s.inspect(&name);
    assert!(view["State"].get("Health").is_none() && view["Config"].get("Healthcheck").is_none(), "{view}");
    // Made, and never run: nothing is known yet.
    let made = s.name("made");
    s.ok(["create", "--name", &made, "--health-cmd", "true", "busybox"]);
    assert!(s.inspect(&made)["State"].get("Health").is_none());
    assert_eq!(s.ok(["ps", "-a", "--filter", "health=none", "--filter", &format!("name={made}"), "-q"]).len(), 12);
}

#[test]
fn a_commit_takes_the_check_along() {
    let s = Sandbox::new();
    let name = s.name("c");
    checked(&s, &name, "true", &["--health-retries", "2"]);
    s.ok(["commit", &name, "committed:1"]);
    let check = s.ok(["image", "inspect", "--format", "{{json .Config.Healthcheck}}", "committed:1"]);
    let expected = json!({"Test": ["CMD-SHELL", "true"], "Interval": 100_000_000, "Retries": 2});
    assert_eq!(serde_json::from_str::<Value>(&check).unwrap(), expected);
    let other = s.name("other");
    s.ok(["run", "-d", "--network", "none", "--name", &other, "committed:1"]);
    changes(&s, &other).expect("health_status: healthy");
}
