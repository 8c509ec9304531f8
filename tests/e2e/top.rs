//! `top`.

use crate::ours_only;
use crate::support::{Output, Sandbox, against_docker, eventually};

/// The lines of a table as words.
fn words(text: &str) -> Vec<Vec<String>> {
    text.lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
}

#[track_caller]
fn family(s: &Sandbox, name: &str, flags: &[&str]) -> String {
    let mut args = vec!["run", "-d", "--name", name];
    args.extend(flags);
    args.extend(["busybox", "sh", "-c", "sleep 4321 & wait"]);
    let id = s.ok(args);
    eventually("both processes are there", || {
        words(&s.ok(["top", name])).iter().any(|row| row[7..] == ["sleep", "4321"])
    });
    id
}

#[test]
fn the_form_of_ps_ef() {
    let s = Sandbox::new();
    let name = s.name("c");
    family(&s, &name, &[]);
    let text = s.ok(["top", &name]);
    let table = words(&text);
    assert_eq!(table[0], ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]);
    let pid = s.pid(&name).to_string();
    let first = table.iter().find(|row| row[1] == pid).unwrap_or_else(|| panic!("{pid} is not in\n{text}"));
    assert_eq!((first[0].as_str(), first[5].as_str(), first[6].as_str()), ("root", "?", "00:00:00"));
    assert_eq!(first[7..], ["sh", "-c", "sleep", "4321", "&", "wait"]);
    let second = table.iter().find(|row| row[7] == "sleep").unwrap();
    assert_eq!((second[2].as_str(), &second[7..]), (pid.as_str(), &["sleep".to_owned(), "4321".to_owned()][..]));
    assert_eq!(table.len(), 3, "{text}");
    // Columns of twenty places.
    let heading = text.lines().next().unwrap();
    assert_eq!((heading.find("PID"), heading.find("CMD")), (Some(20), Some(140)));
    assert_eq!(words(&s.ok(["container", "top", &name]))[0], table[0]);
}

#[test]
fn users_and_terminals_are_the_hosts() {
    let s = Sandbox::new();
    let (user, terminal) = (s.name("user"), s.name("terminal"));
    family(&s, &user, &["-u", "61234"]);
    assert!(words(&s.ok(["top", &user]))[1..].iter().all(|row| row[0] == "61234"));
    family(&s, &terminal, &["-t"]);
    assert!(words(&s.ok(["top", &terminal]))[1..].iter().all(|row| row[5].starts_with("pts/")));
}

#[test]
fn commands_that_were_executed_inside_are_listed() {
    let s = Sandbox::new();
    let name = s.name("c");
    family(&s, &name, &[]);
    s.ok(["exec", "-d", &name, "sleep", "8765"]);
    eventually("it is there", || s.ok(["top", &name]).contains("sleep 8765"));
    assert_eq!(s.ok(["top", &name]).lines().count(), 4);
}

#[test]
fn options_are_those_of_ps() {
    let s = Sandbox::new();
    let name = s.name("c");
    family(&s, &name, &[]);
    let column = |text: &str, column: usize| {
        let mut cells: Vec<String> = words(text)[1..].iter().map(|row| row[column].clone()).collect();
        cells.sort();
        cells
    };
    let pids = column(&s.ok(["top", &name]), 1);
    // The one of busybox is on every machine that tests, and does not know how to list some processes only.
    let busybox = s.host_dir("bin");
    std::os::unix::fs::symlink("/bin/busybox", s.path("bin/ps")).unwrap();
    let mut paths = vec![busybox];
    if std::process::Command::new("ps").output().is_ok() && !against_docker() {
        paths.push(std::env::var("PATH").unwrap());
    }
    for path in &paths {
        let top = |args: &[&str]| -> Output {
            let line = ["top", name.as_str()].into_iter().chain(args.iter().copied());
            s.command(line).env("PATH", path).run()
        };
        for options in [&["-o", "pid,args"][..], &["-o pid,args"]] {
            let text = top(options).code(0).out();
            assert_eq!(words(&text)[0], ["PID", "COMMAND"], "{path}");
            assert_eq!(column(&text, 0), pids, "{path}");
            assert!(text.contains("sleep 4321"), "{path}: {text}");
        }
        assert_eq!(column(&top(&["-o", "comm,pid"]).code(0).out(), 1), pids, "{path}");
        top(&["-o", "args"]).code(1).says("Couldn't find PID field in ps output");
        top(&["-o", "pid,ppid=PID"]).code(1).says("is not allowed");
        top(&["--no-such-option"]).code(1).says("ps: ");
    }
}

#[test]
fn the_usual_form_needs_no_ps() {
    ours_only!("docker's daemon has its own PATH");
    let s = Sandbox::new();
    let name = s.name("c");
    family(&s, &name, &[]);
    let without = |args: &[&str]| -> Output {
        let line = ["top", name.as_str()].into_iter().chain(args.iter().copied());
        s.command(line).env("PATH", "/nonexistent").run()
    };
    assert_eq!(without(&[]).code(0).out().lines().count(), 3);
    without(&["-o", "pid"]).code(1).says("run ps: this host has none").says("hint: install procps");
}

#[test]
fn who_does_not_run_has_no_processes() {
    let s = Sandbox::new();
    let name = s.name("c");
    let id = s.ok(["create", "--name", &name, "busybox"]);
    s.fails(1, ["top", &name]).says(&format!("container {id} is not running"));
    s.fails(1, ["top", &name, "aux"]).says("is not running");
    s.fails(1, ["top", &s.name("none")]).says("No such container");
}

#[test]
fn escapes_in_command_lines_do_not_reach_the_terminal() {
    ours_only!("docker lets them through");
    let s = Sandbox::new();
    let name = s.name("c");
    s.ok(["run", "-d", "--name", &name, "busybox", "sh", "-c", "sleep 1000; :", "a\x1b[2J\nb"]);
    let text = s.ok(["top", &name]);
    assert!(text.contains("a\\u{1b}[2J\\nb") && !text.contains('\x1b'), "{text}");
    let mut terminal = s.terminal(["top", &name]);
    let (code, screen) = terminal.finish();
    assert!(code == 0 && !screen.contains('\x1b'), "{screen:?}");
}
