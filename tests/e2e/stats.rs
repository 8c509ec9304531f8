//! `stats`.

use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::time::Instant;

use rustix::process::Signal;
use serde_json::Value;

use crate::ours_only;
use crate::support::{Sandbox, Terminal, against_docker, eventually};

const MIB: f64 = 1024.0 * 1024.0;
const TMPFS: i64 = 0x0102_1994;

/// A field of one container, as shown.
#[track_caller]
fn shown(s: &Sandbox, name: &str, field: &str) -> String {
    s.ok(["stats", "--no-stream", "--format", &format!("{{{{.{field}}}}}"), name])
}

/// `1.5MiB` or `12kB` in bytes.
#[track_caller]
fn bytes(text: &str) -> f64 {
    let units = [
        ("KiB", 1024.0),
        ("MiB", MIB),
        ("GiB", 1024.0 * MIB),
        ("TiB", 1024.0 * 1024.0 * MIB),
        ("kB", 1e3),
        ("MB", 1e6),
        ("GB", 1e9),
        ("TB", 1e12),
        ("B", 1.0),
    ];
    let found = units.iter().find_map(|(unit, factor)| Some(text.strip_suffix(unit)?.parse::<f64>().ok()? * factor));
    found.unwrap_or_else(|| panic!("{text:?} is no size"))
}

/// Both halves of `12kB / 0B`.
#[track_caller]
fn pair(text: &str) -> (f64, f64) {
    let (a, b) = text.split_once(" / ").unwrap_or_else(|| panic!("{text:?} is no pair"));
    (bytes(a), bytes(b))
}

#[track_caller]
fn percent(text: &str) -> f64 {
    text.strip_suffix('%').and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{text:?} is no percentage"))
}

/// A detached container that runs `script`.
#[track_caller]
fn run(s: &Sandbox, name: &str, flags: &[&str], script: &str) -> String {
    let mut args = vec!["run", "-d", "--name", name];
    args.extend(flags);
    args.extend(["busybox", "sh", "-c", script]);
    s.ok(args)
}

#[test]
fn the_table_has_dockers_columns() {
    let s = Sandbox::new();
    let name = s.name("web");
    let id = run(&s, &name, &[], "sleep 1000");
    let table = s.ok(["stats", "--no-stream", &name]);
    let lines: Vec<&str> = table.lines().collect();
    let cells = |line: &str| {
        let cells = line.split("  ").map(str::trim).filter(|cell| !cell.is_empty());
        cells.map(str::to_owned).collect::<Vec<_>>()
    };
    let columns = ["CONTAINER ID", "NAME", "CPU %", "MEM USAGE / LIMIT", "MEM %", "NET I/O", "BLOCK I/O", "PIDS"];
    assert_eq!(cells(lines[0]), columns);
    let row = cells(lines[1]);
    assert_eq!((row[0].as_str(), row[1].as_str()), (&id[..12], name.as_str()));
    assert!(percent(&row[2]) < 50.0 && percent(&row[4]) < 50.0, "{table}");
    let (used, limit) = pair(&row[3]);
    assert!(used > 0.0 && used < 20.0 * MIB && limit > 100.0 * MIB, "{table}");
    pair(&row[5]);
    pair(&row[6]);
    assert_eq!((row[7].as_str(), lines.len()), ("1", 2));
}

/// CPU time of a process in seconds, as its own account has it.
#[track_caller]
fn cpu_seconds(pid: i32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    // utime and stime, fields 14 and 15 of proc_pid_stat(5), in hundredths.
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

#[test]
fn cpu_is_what_the_process_used_of_one_processor() {
    let s = Sandbox::new();
    let (spinner, sleeper) = (s.name("spinner"), s.name("sleeper"));
    run(&s, &spinner, &[], "while :; do :; done");
    run(&s, &sleeper, &[], "sleep 1000");
    let pid = s.pid(&spinner);
    // On a machine that gives it nothing for half a second, nothing is the truth.
    eventually("a share of a processor", || percent(&self::shown(&s, &spinner, "CPUPerc")) > 1.0);
    let (before, since) = (cpu_seconds(pid), Instant::now());
    let shown = percent(&shown(&s, &spinner, "CPUPerc")) / 100.0;
    let (used, elapsed) = (cpu_seconds(pid) - before, since.elapsed().as_secs_f64());
    // The command looked for half a second or longer, somewhere in this time; docker for one or two. On a busy machine
    // the spinner does not get a whole processor, and whoever looks is late: nothing is known but these bounds.
    if !against_docker() {
        let least = (used - (elapsed - 0.5)) / 0.5;
        let most = used / 0.5;
        assert!(shown > least - 0.1 && shown < most + 0.1, "{shown}, not {least} to {most} in {elapsed} s");
    }
    assert!(shown < 1.2, "{shown}");
    assert!(percent(&self::shown(&s, &sleeper, "CPUPerc")) < 5.0);
}

#[test]
fn memory_in_use_is_shown_and_idle_cache_is_not() {
    let s = Sandbox::new();
    let (holder, writer) = (s.name("holder"), s.name("writer"));
    // Filled in one system call, and held because nobody takes it.
    run(&s, &holder, &[], "dd if=/dev/zero bs=30000000 count=1 | sleep 1000");
    let directory = s.host_dir("data");
    let mount = format!("{directory}:/data");
    run(&s, &writer, &["-v", &mount], "head -c 60000000 /dev/zero > /data/file; sync; echo ready; sleep 1000");
    s.await_log(&writer, "ready");
    eventually("the memory", || pair(&shown(&s, &holder, "MemUsage")).0 > 25.0 * MIB);
    let (used, limit) = pair(&shown(&s, &holder, "MemUsage"));
    assert!((25.0 * MIB..100.0 * MIB).contains(&used), "{used}");
    let share = percent(&shown(&s, &holder, "MemPerc"));
    assert!((share - used / limit * 100.0).abs() < 0.1, "{share}% of {limit}");
    let (used, _) = pair(&shown(&s, &writer, "MemUsage"));
    // What is in a tmpfs is no cache of anything.
    let in_memory = rustix::fs::statfs(directory.as_str()).unwrap().f_type == TMPFS;
    assert_eq!(used > 50.0 * MIB, in_memory, "{used}");
}

#[test]
fn without_a_limit_all_memory_is_the_limit() {
    let s = Sandbox::new();
    let name = s.name("c");
    run(&s, &name, &[], "sleep 1000");
    let (_, limit) = pair(&shown(&s, &name, "MemUsage"));
    let all: f64 = s.ok(["info", "--format", "{{.MemTotal}}"]).parse().unwrap();
    assert!((limit / all - 1.0).abs() < 0.001, "{limit} of {all}");
}

#[test]
fn a_limit_is_shown_and_may_change() {
    let s = Sandbox::new();
    let name = s.name("c");
    run(&s, &name, &["-m", "64m", "--memory-swap", "-1"], "sleep 1000");
    let (used, limit) = pair(&shown(&s, &name, "MemUsage"));
    assert!(used < limit && limit == 64.0 * MIB, "{used} of {limit}");
    let mut running = s.command(["stats", "--format", "{{.MemUsage}}", &name]).start();
    running.expect(" / 64MiB\n");
    s.ok(["update", "-m", "96m", &name]);
    running.expect(" / 96MiB\n");
}

#[test]
fn block_output_is_counted() {
    let s = Sandbox::new();
    let name = s.name("disk");
    let mount = format!("{}:/data", s.host_dir("data"));
    let script = "dd if=/dev/zero of=/data/file bs=1M count=16 oflag=direct 2> /dev/null && echo ready; sleep 1000";
    run(&s, &name, &["-v", &mount], script);
    // A file system without a device of its own (major number 0) has no block output.
    if rustix::fs::major(fs::metadata(s.path("data")).unwrap().dev()) == 0 {
        assert_eq!(pair(&shown(&s, &name, "BlockIO")).1, 0.0);
        return;
    }
    s.await_log(&name, "ready");
    let (_, written) = pair(&shown(&s, &name, "BlockIO"));
    let unified = !against_docker() && s.ok(["info", "--format", "{{.CgroupVersion}}"]) == "2";
    // cgroups v1 count only on disks for which somebody has set a limit (since Linux 6.10).
    assert!(written > 16e6 && written < 40e6 || (written == 0.0 && !unified), "{written}");
}

#[test]
fn network_traffic_of_the_host_is_not_the_containers() {
    let s = Sandbox::new();
    let (own, hosts) = (s.name("own"), s.name("hosts"));
    run(&s, &own, &["--network", "none"], "sleep 1000");
    run(&s, &hosts, &["--network", "host"], "sleep 1000");
    assert_eq!(shown(&s, &own, "NetIO"), "0B / 0B");
    assert_eq!(shown(&s, &hosts, "NetIO"), "0B / 0B");
}

#[test]
fn pids_are_processes_and_threads() {
    let s = Sandbox::new();
    let name = s.name("family");
    run(&s, &name, &[], "sleep 1000 & sleep 1000 & wait");
    eventually("three processes", || shown(&s, &name, "PIDs") == "3");
    s.ok(["exec", "-d", &name, "sleep", "1000"]);
    eventually("and one that joined", || shown(&s, &name, "PIDs") == "4");

    let threads = s.name("threads");
    let program = std::env::current_exe().unwrap();
    let mount = format!("{}:/program:ro", program.display());
    let mut line = vec!["run", "-di", "--name", &threads, "-v", &mount, "-e", "HOLD_THREADS=1", "busybox"];
    line.extend(["/program", "--nocapture", "--exact", "stats::threads_are_tasks"]);
    s.ok(line);
    s.await_log(&threads, "all threads run");
    let tasks = fs::read_dir(format!("/proc/{}/task", s.pid(&threads))).unwrap().count();
    assert!(tasks > 5, "{tasks}");
    assert_eq!(shown(&s, &threads, "PIDs"), tasks.to_string());
}

/// What the test above stands on, and the program that it runs in a container: there the threads stay.
#[test]
fn threads_are_tasks() {
    let (told, heard) = std::sync::mpsc::channel();
    for _ in 0..5 {
        let told = told.clone();
        std::thread::spawn(move || {
            told.send(()).unwrap();
            std::thread::park();
        });
    }
    assert_eq!(heard.iter().take(5).count(), 5);
    assert!(fs::read_dir("/proc/self/task").unwrap().count() > 5);
    if std::env::var_os("HOLD_THREADS").is_some() {
        eprintln!("all threads run");
        // Until the container is removed.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
    }
}

#[test]
fn only_running_ones_unless_asked() {
    ours_only!("docker shows the containers of all tests, and zeros for those that do not run");
    let s = Sandbox::new();
    let (up, down) = (s.name("up"), s.name("down"));
    let id = run(&s, &up, &[], "sleep 1000");
    s.ok(["run", "--name", &down, "busybox", "true"]);
    let names = |args: &[&str]| {
        let mut line = vec!["stats", "--no-stream", "--format", "{{.Container}} {{.Name}}"];
        line.extend(args);
        s.ok(line)
    };
    assert_eq!(names(&[]), format!("{} {up}", &id[..12]));
    let all = names(&["-a"]);
    let shown: Vec<&str> = all.lines().filter_map(|line| line.split(' ').nth(1)).collect();
    assert_eq!(shown, [down.as_str(), up.as_str()], "newest first");
    // By name a stopped one is shown without -a, too.
    assert_eq!(names(&[&down]), format!("{down} {down}"));
    let dashes = "{{.CPUPerc}}|{{.MemUsage}}|{{.MemPerc}}|{{.NetIO}}|{{.BlockIO}}|{{.PIDs}}";
    assert_eq!(s.ok(["stats", "--no-stream", "--format", dashes, &down]), "--|-- / --|--|--|--|--");
}

#[test]
fn formats() {
    let s = Sandbox::new();
    let name = s.name("c");
    let id = run(&s, &name, &[], "sleep 1000");
    let format = |args: &[&str]| {
        let mut line = vec!["stats", "--no-stream"];
        line.extend(args);
        s.ok(line)
    };
    let value: Value = serde_json::from_str(&format(&["--format", "json", &name])).unwrap();
    for field in ["BlockIO", "CPUPerc", "MemPerc", "MemUsage", "NetIO", "PIDs"] {
        assert!(value[field].is_string(), "{field} in {value}");
    }
    assert_eq!((value["Container"].as_str(), value["Name"].as_str()), (Some(name.as_str()), Some(name.as_str())));
    assert_eq!(value["ID"], id[..12]);
    if !against_docker() {
        let online: usize = value["OnlineCPUs"].as_str().unwrap().parse().unwrap();
        assert!(online >= 1);
    }
    assert_eq!(format(&["--no-trunc", "--format", "{{.ID}}", &name]), id);
    assert_eq!(format(&["--format", "{{.Container}} {{.ID}}", &id[..9]]), format!("{} {}", &id[..9], &id[..12]));
    let table = format(&["--format", "table {{.Name}}\\t{{.PIDs}}", &name]);
    let words: Vec<&str> = table.split_whitespace().collect();
    assert_eq!(words, ["NAME", "PIDS", &name, "1"]);
    let twice = format(&["--format", "{{.Container}}", &name, &id[..12], &name]);
    let mut twice: Vec<&str> = twice.lines().collect();
    twice.sort_unstable();
    let mut expected = [name.as_str(), &id[..12]];
    expected.sort_unstable();
    assert_eq!(twice, expected, "who is asked for twice in the same words is shown once");
    assert_ne!(s.run(["stats", "--no-stream", "--format", "{{.NoSuchField}}", &name]).code, 0);
}

#[test]
fn unknown_containers_are_named() {
    let s = Sandbox::new();
    let (known, a, b) = (s.name("known"), s.name("no-such-a"), s.name("no-such-b"));
    run(&s, &known, &[], "sleep 1000");
    for stream in [&["stats", "--no-stream"][..], &["stats"]] {
        let line = stream.iter().copied().chain([known.as_str(), &a, &b]);
        let output = s.fails(1, line).says(&format!("No such container: {a}")).says(&format!("No such container: {b}"));
        assert_eq!(output.out(), "");
    }
}

/// The next whole picture on the terminal.
#[track_caller]
fn picture(terminal: &mut Terminal) -> String {
    let text = terminal.expect("\x1b[J");
    let (_, picture) = text.split_once("\x1b[H").unwrap_or_else(|| panic!("no picture: {text:?}"));
    picture.replace("\x1b[K", "").replace("\x1b[J", "").replace('\r', "")
}

/// Looks at pictures until one is as it should be. Their number is bounded by the time that pictures may take to come.
#[track_caller]
fn until(terminal: &mut Terminal, what: &str, condition: impl Fn(&str) -> bool) {
    let mut last = String::new();
    for _ in 0..30 {
        last = picture(terminal);
        if condition(&last) {
            return;
        }
    }
    panic!("in vain: {what}; at last\n{last}");
}

fn row<'a>(picture: &'a str, name: &str) -> Option<&'a str> {
    picture.lines().find(|line| line.split_whitespace().nth(1) == Some(name))
}

fn runs(picture: &str, name: &str) -> bool {
    row(picture, name).is_some_and(|row| row.contains("MiB") || row.contains("KiB"))
}

#[test]
fn live_containers_come_and_go() {
    ours_only!("docker shows the containers of all tests");
    let s = Sandbox::new();
    let (first, second, renamed) = (s.name("first"), s.name("second"), s.name("renamed"));
    run(&s, &first, &[], "sleep 1000");
    let mut terminal = Terminal::start(s.command(["stats"]), 24, 200);
    until(&mut terminal, "the first is there", |picture| {
        picture.starts_with("CONTAINER ID ") && runs(picture, &first) && picture.lines().count() == 2
    });
    run(&s, &second, &["--rm"], "while :; do :; done");
    until(&mut terminal, "a new one appears", |picture| runs(picture, &first) && runs(picture, &second));
    s.ok(["rename", &first, &renamed]);
    until(&mut terminal, "the name changes", |picture| runs(picture, &renamed) && row(picture, &first).is_none());
    s.ok(["kill", &renamed]);
    until(&mut terminal, "one vanishes", |picture| row(picture, &renamed).is_none() && runs(picture, &second));
    s.ok(["rm", "-f", &second]);
    until(&mut terminal, "the heading is left", |picture| picture.lines().count() == 1);
    s.ok(["start", &renamed]);
    until(&mut terminal, "one comes back", |picture| runs(picture, &renamed));
    assert!(!terminal.is_raw());
    terminal.send([3]);
    assert_eq!(terminal.finish().0, 130);
    terminal.assert_restored();
    assert!(s.is_running(&renamed));
}

#[test]
fn live_with_names_only_these_and_they_stay() {
    ours_only!("docker shows zeros for those that do not run");
    let s = Sandbox::new();
    let (asked, other, gone) = (s.name("asked"), s.name("other"), s.name("gone"));
    run(&s, &other, &[], "sleep 1000");
    run(&s, &asked, &[], "sleep 1000");
    run(&s, &gone, &["--rm"], "sleep 1000");
    let mut terminal = Terminal::start(s.command(["stats", &gone, &asked]), 24, 200);
    until(&mut terminal, "both, in this order", |picture| {
        let lines: Vec<&str> = picture.lines().collect();
        lines.len() == 3 && lines[1].contains(&gone) && lines[2].contains(&asked) && runs(picture, &asked)
    });
    s.ok(["kill", &asked]);
    s.ok(["kill", &gone]);
    let dashes = |picture: &str, name: &str| row(picture, name).is_some_and(|row| row.contains("-- / --"));
    until(&mut terminal, "dashes", |picture| dashes(picture, &asked) && dashes(picture, &gone));
    s.ok(["start", &asked]);
    until(&mut terminal, "numbers again", |picture| runs(picture, &asked) && dashes(picture, &gone));
    terminal.signal(Signal::TERM);
    assert_eq!(terminal.finish().0, 143);
    terminal.assert_restored();
}

#[test]
fn a_small_window_is_not_scrolled() {
    ours_only!("docker scrolls");
    let s = Sandbox::new();
    for n in 0..4 {
        run(&s, &s.name(&format!("c{n}")), &[], "sleep 1000");
    }
    let mut terminal = Terminal::start(s.command(["stats", "--format", "{{.Name}}"]), 4, 80);
    until(&mut terminal, "two and a count", |picture| {
        picture.lines().count() == 3 && picture.contains("… 2 more lines")
    });
    terminal.resize(24, 80);
    until(&mut terminal, "all", |picture| picture.lines().count() == 4 && !picture.contains('…'));
    terminal.send([3]);
    assert_eq!(terminal.finish().0, 130);
}

#[test]
fn without_a_terminal_one_table_follows_the_other() {
    ours_only!("docker writes escapes into files, too");
    let s = Sandbox::new();
    let name = s.name("c");
    run(&s, &name, &[], "sleep 1000");
    let mut running = s.command(["stats", &name]).start();
    for _ in 0..3 {
        running.expect("CONTAINER ID");
        running.expect(&name);
    }
    running.signal(Signal::INT);
    let output = running.finish().code(130);
    assert!(!output.out().contains('\x1b') && output.err().is_empty(), "{output}");
    // `stats | head -1`
    let mut running = s.command(["stats", &name]).start();
    running.expect("CONTAINER ID");
    running.close_stdout();
    running.finish().code(0);
}

#[test]
fn few_descriptors_are_enough() {
    ours_only!("docker's client reads no cgroups");
    let s = Sandbox::new();
    let names: Vec<String> = (0..3).map(|n| s.name(&format!("n{n}"))).collect();
    for name in &names {
        run(&s, name, &[], "sleep 1000");
    }
    // 20 leave room to hold the files of none, 80 of two.
    for limit in ["20", "80"] {
        let script = format!("ulimit -n {limit}; exec \"$@\"");
        let output = s.with_shell(&script, ["stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}}"]).run().code(0);
        let mut shown: Vec<String> = output.out().lines().map(str::to_owned).collect();
        shown.sort();
        let expected: Vec<String> = names.iter().map(|name| format!("{name} 1")).collect();
        assert_eq!((shown, output.err()), (expected, String::new()), "{limit} descriptors");
    }
    let mut running = s.with_shell("ulimit -n 20; exec \"$@\"", ["stats", "--format", "{{.Name}} {{.PIDs}}."]).start();
    running.expect(&format!("{} 1.", names[0]));
    s.ok(["kill", &names[2]]);
    // Newest first: where the newest has gone, the second follows the third.
    running.expect(&format!("{} 1.\n{} 1.\n{} 1.\n", names[1], names[0], names[1]));
}

#[test]
fn a_damaged_record_hides_no_other_and_is_told_once() {
    ours_only!("docker keeps its records itself");
    let s = Sandbox::new();
    let (good, bad) = (s.name("good"), s.name("bad"));
    run(&s, &good, &[], "sleep 1000");
    let id = s.ok(["create", "--name", &bad, "busybox"]);
    fs::write(s.root().join("containers").join(&id).join("config.json"), "{").unwrap();
    let output = s.run(["stats", "--no-stream", "--format", "{{.Name}}"]).code(0).says("is damaged");
    assert_eq!((output.out(), output.err().matches("is damaged").count()), (good.clone(), 1));
    let mut running = s.command(["stats", "-a", "--format", "{{.Name}} {{.ID}}"]).start();
    for _ in 0..3 {
        running.expect(&good);
        running.expect(&format!("-- {}", &id[..12]));
    }
    running.signal(Signal::INT);
    assert_eq!(running.finish().err().matches("is damaged").count(), 1);
}
