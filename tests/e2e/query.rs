//! `ps`, `inspect`, `version`, `info`.

use serde_json::{Value, json};

use crate::ours_only;
use crate::support::{Sandbox, against_docker};

/// `ps` with only this sandbox's containers, also where Docker is shared by all tests.
#[track_caller]
fn ps(s: &Sandbox, args: &[&str]) -> String {
    let filter = format!("name={}", s.name("").trim_start_matches('-'));
    let mut line = vec!["ps", "--filter", &filter];
    line.extend(args);
    s.ok(line)
}

#[test]
fn the_table_has_dockers_columns() {
    let s = Sandbox::new();
    let name = s.name("web");
    let id = s.idle(&name, &[]);
    let table = ps(&s, &[]);
    let mut lines = table.lines();
    let columns: Vec<&str> =
        lines.next().unwrap().split("  ").map(str::trim).filter(|column| !column.is_empty()).collect();
    assert_eq!(columns, ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"]);
    let row = lines.next().unwrap();
    assert!(row.starts_with(&id[..12]) && row.trim_end().ends_with(&name), "{row}");
    assert!(
        row.contains("busybox") && row.contains("\"sh -c 'trap ") && row.contains(" ago ") && row.contains("Up "),
        "{row}"
    );
    assert_eq!(lines.next(), None);
}

#[test]
fn running_ones_only_unless_asked() {
    let s = Sandbox::new();
    let (up, down, made) = (s.name("up"), s.name("down"), s.name("made"));
    s.idle(&up, &[]);
    s.run(["run", "--name", &down, "busybox", "sh", "-c", "exit 3"]).code(3);
    s.ok(["create", "--name", &made, "busybox"]);
    let names = |args: &[&str]| {
        let mut line = args.to_vec();
        line.extend(["--format", "{{.Names}}"]);
        let mut names: Vec<String> = ps(&s, &line).lines().map(str::to_owned).collect();
        names.sort();
        names
    };
    assert_eq!(names(&[]), [up.as_str()]);
    let mut all = vec![up.clone(), down.clone(), made.clone()];
    all.sort();
    assert_eq!(names(&["-a"]), all);
    assert_eq!(names(&["--all", "--filter", "status=exited"]), [down.as_str()]);
    assert_eq!(names(&["--filter", "status=created"]), [made.as_str()]);
    assert_eq!(names(&["-a", "--filter", "exited=3"]), [down.as_str()]);
    assert_eq!(names(&["-a", "--filter", "exited=4"]), [""; 0]);
    let statuses = ps(&s, &["-a", "--format", "{{.Names}}={{.Status}}={{.State}}"]);
    let status = |name: &str| statuses.lines().find(|line| line.starts_with(name)).unwrap()[name.len()..].to_owned();
    assert!(status(&up).starts_with("=Up ") && status(&up).ends_with("=running"), "{statuses}");
    assert!(status(&down).starts_with("=Exited (3) ") && status(&down).ends_with("=exited"), "{statuses}");
    assert_eq!(status(&made), "=Created=created");
}

#[test]
fn quiet_and_no_trunc() {
    let s = Sandbox::new();
    let name = s.name("c");
    let id = s.idle(&name, &[]);
    assert_eq!(ps(&s, &["-q"]), id[..12]);
    assert_eq!(ps(&s, &["-q", "--no-trunc"]), id);
    assert_eq!(ps(&s, &["-aq", "--no-trunc"]), id);
    assert!(ps(&s, &["--no-trunc"]).contains("while :; do sleep 0.05; done"));
    let short = ps(&s, &["--format", "{{.Command}}"]);
    assert!(short.contains('…') && short.chars().count() <= 23, "{short}");
}

#[test]
fn newest_first_and_the_last_few() {
    let s = Sandbox::new();
    let names: Vec<String> = (0..3).map(|n| s.name(&format!("n{n}"))).collect();
    for name in &names {
        s.ok(["create", "--name", name, "busybox"]);
    }
    let reversed: Vec<&str> = names.iter().rev().map(String::as_str).collect();
    assert_eq!(ps(&s, &["-a", "--format", "{{.Names}}"]), reversed.join("\n"));
    if !against_docker() {
        assert_eq!(s.ok(["ps", "-n", "2", "--format", "{{.Names}}"]), reversed[..2].join("\n"));
        assert_eq!(s.ok(["ps", "-l", "--format", "{{.Names}}"]), reversed[0]);
        assert_eq!(s.ok(["ps", "-lq", "--no-trunc"]).len(), 64);
    }
}

#[test]
fn filters_by_what_containers_are() {
    let s = Sandbox::new();
    let (a, b) = (s.name("a"), s.name("b"));
    let id = s.ok(["create", "--name", &a, "-l", "color=red", "-l", "both", "busybox"]);
    s.ok(["create", "--name", &b, "-l", "color=blue", "-l", "both", "busybox"]);
    let count = |filter: &str| ps(&s, &["-aq", "--filter", filter]).lines().count();
    assert_eq!(count("label=color=red"), 1);
    assert_eq!(count("label=color"), 2);
    assert_eq!(count("label=no-such-label"), 0);
    assert_eq!(count(&format!("id={}", &id[..12])), 1);
    assert_eq!(count("ancestor=busybox"), 2);
    assert_eq!(count(&format!("before={b}")), 1);
    assert_eq!(count(&format!("since={a}")), 1);
    assert_eq!(ps(&s, &["-aq", "--filter", "label=both", "--filter", "label=color=blue"]).lines().count(), 1);
    s.fails(1, ["ps", "--filter", "no-such-filter=1"]).says("no-such-filter");
    assert_ne!(s.run(["ps", "--filter", "status=nonsense"]).code, 0);
}

#[test]
fn formats() {
    let s = Sandbox::new();
    let name = s.name("c");
    let id = s.ok(["create", "--name", &name, "-l", "k=v", "-v", "/data", "busybox", "echo", "x"]);
    let format = |template: &str| ps(&s, &["-a", "--format", template]);
    assert_eq!(
        format("{{.ID}} {{.Image}} {{.Names}} {{.Labels}} {{.Label \"k\"}}"),
        format!("{} busybox {name} k=v v", &id[..12])
    );
    assert_eq!(format("{{.Command}}"), "\"echo x\"");
    assert_eq!(format("{{upper .Image}} {{json .Names}}"), format!("BUSYBOX \"{name}\""));
    assert_eq!(format("table {{.Names}}\\t{{.Image}}").lines().count(), 2);
    assert!(format("table {{.Names}}\\t{{.Image}}").starts_with("NAMES"));
    for template in ["json", "{{json .}}"] {
        let value: Value = serde_json::from_str(&format(template)).unwrap();
        assert_eq!(
            (&value["ID"], &value["Names"], &value["State"]),
            (&json!(id[..12]), &json!(name), &json!("created"))
        );
    }
    assert!(!format("{{.CreatedAt}} {{.RunningFor}} {{.Size}} {{.Mounts}} {{.Networks}} {{.Ports}}").is_empty());
    assert_ne!(s.run(["ps", "--format", "{{.NoSuchField}}"]).code, 0);
    assert_ne!(s.run(["ps", "--format", "{{"]).code, 0);
}

#[test]
fn ps_of_nothing_is_a_heading() {
    ours_only!("docker is shared by all tests");
    let s = Sandbox::new();
    assert_eq!(s.ok(["ps"]).lines().count(), 1);
    assert_eq!(s.ok(["ps", "-aq"]), "");
    assert_eq!(s.ok(["ps", "--format", "json"]), "");
}

#[test]
fn grouped_forms_and_their_aliases() {
    let s = Sandbox::new();
    let name = s.name("c");
    let id = s.ok(["container", "create", "--name", &name, "busybox"]);
    for words in [&["ps"][..], &["container", "ps"], &["container", "ls"], &["container", "list"]] {
        let mut line = words.to_vec();
        line.extend(["-aq", "--no-trunc"]);
        assert!(s.ok(line).lines().any(|line| line == id), "{words:?}");
    }
    s.ok(["container", "start", &name]);
    s.ok(["container", "wait", &name]);
    s.ok(["container", "inspect", &name]);
    s.ok(["container", "logs", &name]);
    s.ok(["container", "rename", &name, &s.name("d")]);
    s.ok(["container", "rm", &id]);
    let id = s.ok(["container", "run", "-d", "--name", &name, "busybox", "sleep", "60"]);
    s.ok(["container", "exec", &id, "true"]);
    s.ok(["container", "kill", &id]);
    s.ok(["container", "restart", "-t", "0", &id]);
    s.ok(["container", "stop", "-t", "0", &id]);
    s.ok(["container", if against_docker() { "rm" } else { "remove" }, &id]);
}

#[test]
fn inspect_has_dockers_fields() {
    let s = Sandbox::new();
    let name = s.name("c");
    let dir = s.host_dir("dir");
    let mount = format!("{dir}:/mnt:ro");
    let flags = [
        "-e",
        "A=1",
        "-w",
        "/work",
        "-u",
        "nobody",
        "-h",
        "box",
        "-l",
        "k=v",
        "-v",
        &mount,
        "--tmpfs",
        "/t",
        "--read-only",
        "--cap-add",
        "NET_ADMIN",
        "--stop-signal",
        "USR1",
        "--shm-size",
        "1m",
        "--network",
        "none",
        "--add-host",
        "db:10.0.0.1",
        "--ulimit",
        "nofile=10:20",
        "--sysctl",
        "net.ipv4.ip_forward=1",
        "-i",
    ];
    let mut args = vec!["create", "--name", &name];
    args.extend(flags);
    args.extend(["busybox", "echo", "a b"]);
    let id = s.ok(args);
    let value = s.inspect(&name);
    let expected = [
        ("/Id", json!(id)),
        ("/Name", json!(format!("/{name}"))),
        ("/Path", json!("echo")),
        ("/Args", json!(["a b"])),
        ("/RestartCount", json!(0)),
        ("/State/Status", json!("created")),
        ("/State/Running", json!(false)),
        ("/State/Paused", json!(false)),
        ("/State/Pid", json!(0)),
        ("/State/ExitCode", json!(0)),
        ("/State/OOMKilled", json!(false)),
        ("/State/StartedAt", json!("0001-01-01T00:00:00Z")),
        ("/Config/Hostname", json!("box")),
        ("/Config/User", json!("nobody")),
        ("/Config/WorkingDir", json!("/work")),
        ("/Config/Image", json!("busybox")),
        ("/Config/Cmd", json!(["echo", "a b"])),
        ("/Config/Tty", json!(false)),
        ("/Config/OpenStdin", json!(true)),
        ("/Config/Labels/k", json!("v")),
        ("/Config/StopSignal", json!("USR1")),
        ("/HostConfig/NetworkMode", json!("none")),
        ("/HostConfig/Binds", json!([mount])),
        ("/HostConfig/ReadonlyRootfs", json!(true)),
        ("/HostConfig/Privileged", json!(false)),
        ("/HostConfig/AutoRemove", json!(false)),
        ("/HostConfig/ShmSize", json!(1_048_576)),
        ("/HostConfig/ExtraHosts", json!(["db:10.0.0.1"])),
        ("/HostConfig/Tmpfs", json!({"/t": ""})),
        ("/HostConfig/Sysctls", json!({"net.ipv4.ip_forward": "1"})),
        ("/HostConfig/Ulimits", json!([{"Name": "nofile", "Hard": 20, "Soft": 10}])),
        ("/HostConfig/LogConfig/Type", json!("json-file")),
    ];
    for (pointer, wanted) in expected {
        assert_eq!(value.pointer(pointer), Some(&wanted), "{pointer}");
    }
    assert!(value["Config"]["Env"].as_array().unwrap().contains(&json!("A=1")));
    let added = value["HostConfig"]["CapAdd"].as_array().unwrap();
    assert!(added.len() == 1 && added[0].as_str().unwrap().ends_with("NET_ADMIN"));
    let mount = &value["Mounts"][0];
    assert_eq!((&mount["Type"], &mount["Destination"], &mount["RW"]), (&json!("bind"), &json!("/mnt"), &json!(false)));
    assert!(value["Image"].as_str().unwrap().starts_with("sha256:"));
    assert!(value["Created"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok());
}

#[test]
fn inspect_tells_the_state_that_is_true() {
    let s = Sandbox::new();
    let name = s.name("c");
    s.idle(&name, &[]);
    let running = s.inspect(&name);
    assert_eq!(running["State"]["Status"], "running");
    let pid = running["State"]["Pid"].as_i64().unwrap();
    assert!(std::path::Path::new(&format!("/proc/{pid}")).exists());
    s.ok(["stop", &name]);
    let stopped = s.inspect(&name);
    assert_eq!(stopped["State"]["Status"], "exited");
    let time = |value: &Value, field: &str| value["State"][field].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert!(time(&stopped, "FinishedAt") > time(&stopped, "StartedAt"));
}

#[test]
fn inspect_templates() {
    let s = Sandbox::new();
    let name = s.name("c");
    let id = s.ok(["create", "--name", &name, "-l", "x.y=z", "-e", "A=1", "busybox", "echo", "x"]);
    let cases = [
        ("{{.Id}}", id.as_str()),
        ("{{.State.Running}}", "false"),
        ("{{.State.Status}}/{{.State.ExitCode}}", "created/0"),
        ("{{json .Config.Cmd}}", r#"["echo","x"]"#),
        (r#"{{index .Config.Labels "x.y"}}"#, "z"),
        ("{{range .Config.Cmd}}<{{.}}>{{end}}", "<echo><x>"),
        ("{{if .State.Running}}up{{else}}down{{end}}", "down"),
        ("{{len .Config.Cmd}}", "2"),
        ("{{.HostConfig.NetworkMode | json | lower}}", ""),
        ("{{join .Config.Cmd \",\"}}", "echo,x"),
        ("{{.Config.Cmd}}", "[echo x]"),
    ];
    for (template, wanted) in cases {
        let got = s.field(&name, template);
        assert!(got == wanted || wanted.is_empty() && got.starts_with('"'), "{template}: {got}");
    }
    assert_eq!(s.ok(["inspect", "-f", "{{.Name}}", &name, &name]), format!("/{name}\n/{name}"));
    assert_eq!(s.ok(["inspect", "--type", "container", "-f", "{{.Id}}", &name]), id);
    assert_ne!(s.run(["inspect", "-f", "{{.NoSuchField}}", &name]).code, 0);
    assert_ne!(s.run(["inspect", "-f", "{{.Id", &name]).code, 0);
}

#[test]
fn inspect_of_several_with_one_missing() {
    let s = Sandbox::new();
    let name = s.name("c");
    s.ok(["create", "--name", &name, "busybox"]);
    let output = s.fails(1, ["inspect", &name, "no-such-thing"]);
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(value.as_array().unwrap().len(), 1);
    output.says("No such object: no-such-thing");
}

#[test]
fn control_characters_do_not_reach_the_terminal() {
    ours_only!("docker quotes some of them only");
    let s = Sandbox::new();
    let name = s.name("c");
    s.ok(["create", "--name", &name, "-l", "k=\u{1b}[31mred\u{7}", "busybox", "echo", "\u{1b}]0;title\u{7}\nforged"]);
    let table = s.ok(["ps", "-a", "--no-trunc"]);
    assert!(!table.contains('\u{1b}') && !table.contains('\u{7}'), "{table:?}");
    assert_eq!(table.lines().count(), 2, "{table:?}");
}

#[test]
fn version_and_info() {
    let s = Sandbox::new();
    let version = s.ok(["version"]);
    assert!(version.contains("Version:") && version.to_lowercase().contains("os/arch"), "{version}");
    assert!(s.ok(["--version"]).contains(char::is_numeric));
    let info = s.ok(["info"]);
    for word in ["Containers", "Storage Driver", "Cgroup Version", "Kernel Version"] {
        assert!(info.contains(word), "{word} is not in\n{info}");
    }
    assert!(s.ok(["info", "--format", "{{.Driver}}"]).starts_with("overlay"));
    assert_eq!(s.ok(["system", "info"]).lines().next(), info.lines().next());
    if !against_docker() {
        assert_eq!(s.ok(["system", "version"]), version);
        assert_eq!(s.ok(["info", "--format", "{{.Containers}}"]), "0");
    }
}
