//! `top`: the processes of a container, as the host sees them.
//!
//! The form of `ps -ef` is made from `/proc`, without any program; for other forms the host's own `ps` is asked, and
//! what belongs to other processes is left out of its answer.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Zoned;
use jiff::tz::TimeZone;

use crate::cgroup::Cgroups;
use crate::container::handle;
use crate::engine::exec::not_running;
use crate::engine::{Engine, resources};
use crate::error::Failure;
use crate::sys::clock;
use crate::sys::procfs::{self, Process};

/// Processes, as Docker's API lists them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProcessTable {
    /// Headings of the columns.
    pub titles: Vec<String>,
    /// One text a column. Command lines hold whatever the processes wrote there.
    pub processes: Vec<Vec<String>>,
}

const TITLES: [&str; 8] = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"];

impl Engine {
    /// Lists the processes of a running container. `options` are ps(1)'s; without any the form is that of `ps -ef`.
    ///
    /// # Errors
    /// The container does not run; with options: there is no `ps`, it refuses them, or its answer has no process ids.
    pub fn top(&self, reference: &str, options: &[String]) -> Result<ProcessTable> {
        let id = handle::find(&self.layout, reference)?;
        let record = handle::load(&self.layout, &id)?;
        if record.live_init().is_none() {
            return Err(not_running(&record));
        }
        let pids = resources::group(&Cgroups::detect()?, &record.config)?.processes();
        let options: Vec<&str> = options.iter().flat_map(|option| option.split_ascii_whitespace()).collect();
        if options.is_empty() { Ok(full_format(&pids)) } else { ask_ps(&options, &pids) }
    }
}

/// `ps -ef` of these processes; those that have ended meanwhile are left out.
fn full_format(pids: &[i32]) -> ProcessTable {
    let users = users(&fs::read_to_string("/etc/passwd").unwrap_or_default());
    let moment = Moment { now: Zoned::now().with_time_zone(TimeZone::system()), since_boot: clock::since_boot() };
    let processes = pids.iter().filter_map(|pid| procfs::process(*pid));
    ProcessTable {
        titles: TITLES.iter().map(|title| (*title).to_owned()).collect(),
        processes: processes.map(|process| row(&process, &users, &moment)).collect(),
    }
}

/// When the table was made.
struct Moment {
    now: Zoned,
    since_boot: Duration,
}

fn row(process: &Process, users: &BTreeMap<u32, String>, moment: &Moment) -> Vec<String> {
    vec![
        users.get(&process.user).cloned().unwrap_or_else(|| process.user.to_string()),
        process.pid.to_string(),
        process.parent.to_string(),
        busy_percent(process, moment.since_boot).to_string(),
        began(process, moment),
        terminal(process.terminal),
        cpu_time(process.cpu),
        match (process.zombie, process.command.as_str()) {
            (true, _) => format!("[{}] <defunct>", process.name),
            (false, "") => format!("[{}]", process.name),
            (false, command) => command.to_owned(),
        },
    ]
}

/// CPU time over the process's life in per cent, in two digits (ps(1), `C`).
fn busy_percent(process: &Process, since_boot: Duration) -> u64 {
    let age = since_boot.saturating_sub(process.started).as_secs();
    process.cpu.as_secs().saturating_mul(100).checked_div(age).unwrap_or(0).min(99)
}

/// The time of day, the day or the year, whichever tells when it was (ps(1), `STIME`).
fn began(process: &Process, moment: &Moment) -> String {
    let age = moment.since_boot.saturating_sub(process.started);
    let began = moment.now.checked_sub(age).unwrap_or_else(|_| moment.now.clone());
    let format = match () {
        () if began.date() == moment.now.date() => "%H:%M",
        () if began.year() == moment.now.year() => "%b%d",
        () => "%Y",
    };
    began.strftime(format).to_string()
}

/// The terminal's name from its device number (`Documentation/admin-guide/devices.txt`).
fn terminal(device: u32) -> String {
    // The kernel's 32-bit form: minor numbers above 255 stand above the major one.
    let (major, minor) = ((device >> 8) & 0xfff, (device & 0xff) | ((device >> 12) & 0xfff00));
    match (major, minor) {
        (4, 0..64) => format!("tty{minor}"),
        (4, _) => format!("ttyS{}", minor - 64),
        (136..144, _) => format!("pts/{}", minor + (major - 136) * 256),
        (229, _) => format!("hvc{minor}"),
        _ => "?".to_owned(),
    }
}

/// `[days-]hours:minutes:seconds`.
fn cpu_time(time: Duration) -> String {
    let seconds = time.as_secs();
    let clock = format!("{:02}:{:02}:{:02}", seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    if seconds < 86400 { clock } else { format!("{}-{clock}", seconds / 86400) }
}

/// Names of the host's users: processes are shown as the host sees them. Read from the file, as getpwuid(3) of a
/// static program would need the host's libraries.
fn users(passwd: &str) -> BTreeMap<u32, String> {
    let mut users = BTreeMap::new();
    for line in passwd.lines() {
        let mut fields = line.split(':');
        if let (Some(name), Some(Ok(user))) = (fields.next(), fields.nth(1).map(str::parse)) {
            // The first entry of a number counts.
            users.entry(user).or_insert_with(|| name.to_owned());
        }
    }
    users
}

/// What the host's `ps` says of these processes.
fn ask_ps(options: &[&str], pids: &[i32]) -> Result<ProcessTable> {
    check_titles(options)?;
    let list: Vec<String> = pids.iter().map(i32::to_string).collect();
    // Options that choose columns only would show the processes of our own terminal.
    let chosen = format!("-q{}", list.join(","));
    let with_choice: Vec<&str> = std::iter::once(chosen.as_str()).chain(options.iter().copied()).collect();
    // Options that choose processes themselves cannot be combined with that, nor does every ps have it.
    let text = run_ps(&with_choice).or_else(|_| run_ps(options))?;
    filter(&text, pids)
}

fn run_ps(arguments: &[&str]) -> Result<String> {
    let output = match Command::new("ps").args(arguments).stdin(Stdio::null()).output() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(Failure::engine("run ps: this host has none in its PATH")
                .with_hint("install procps, or leave the ps options out: the usual columns need no ps")
                .into());
        }
        result => result.context("run ps")?,
    };
    if !output.status.success() {
        let told = String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or_default().to_owned();
        let told = if told.is_empty() { output.status.to_string() } else { told };
        return Err(Failure::engine(format!("ps: {told}")).into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Refuses another column under the title `PID`: its numbers would be taken for process ids.
fn check_titles(options: &[&str]) -> Result<(), Failure> {
    let text = options.join(" ");
    for (at, _) in text.match_indices('=') {
        let column = text[..at].rsplit([' ', ',']).next().unwrap_or_default();
        let title = text[at + 1..].trim_start().split(' ').next().unwrap_or_default();
        // As in `-opid=PID`, too.
        let column = column.strip_prefix("-o").unwrap_or(column);
        if title.starts_with("PID") && column != "pid" {
            return Err(Failure::engine(format!("specifying \"{column}={title}\" is not allowed")));
        }
    }
    Ok(())
}

/// Keeps the lines of a ps listing whose PID is one of these.
fn filter(text: &str, pids: &[i32]) -> Result<ProcessTable> {
    let mut lines = text.lines();
    let titles: Vec<String> = lines.next().unwrap_or_default().split_ascii_whitespace().map(str::to_owned).collect();
    let Some(column) = titles.iter().position(|title| title == "PID") else {
        return Err(Failure::engine("Couldn't find PID field in ps output").into());
    };
    let mut processes = Vec::new();
    let mut ours = false;
    for line in lines {
        let Some(row) = row_with_pid(line, titles.len(), column) else { continue };
        // `-` stands for a thread of the process above (ps m).
        if let Ok(pid) = row[column].parse() {
            ours = pids.contains(&pid);
        }
        if ours {
            processes.push(row);
        }
    }
    Ok(ProcessTable { titles, processes })
}

/// The cells of a line whose column `pid` holds a process id or `-`; `None` when there is no such thing.
///
/// Texts before it may hold blanks, names of processes above all (`mydocker: shim web`): then the id is the next number
/// to the right, and what stands in between belongs to the column before.
fn row_with_pid(line: &str, columns: usize, pid: usize) -> Option<Vec<String>> {
    let behind: Vec<&str> = line.split_ascii_whitespace().skip(pid).collect();
    let shift = match behind.first()? {
        word if *word == "-" => 0,
        _ => behind.iter().position(|word| word.parse::<i32>().is_ok())?,
    };
    let mut cells = split(line, columns + shift);
    if shift > 0 {
        let name = cells.drain(pid.checked_sub(1)?..pid + shift).collect::<Vec<_>>().join(" ");
        cells.insert(pid - 1, name);
    }
    Some(cells)
}

/// Cuts a line into so many columns, the last of which may hold blanks.
fn split(line: &str, columns: usize) -> Vec<String> {
    let mut cells = Vec::with_capacity(columns);
    let mut rest = line.trim_ascii();
    while cells.len() + 1 < columns && !rest.is_empty() {
        let end = rest.find(|c: char| c.is_ascii_whitespace()).unwrap_or(rest.len());
        cells.push(rest[..end].to_owned());
        rest = rest[end..].trim_ascii_start();
    }
    if !rest.is_empty() {
        cells.push(rest.to_owned());
    }
    cells
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_those_of_ps() {
        let moment = Moment {
            now: "2024-03-05T10:30:00+00:00[+00:00]".parse().unwrap(),
            since_boot: Duration::from_secs(100 * 86400),
        };
        let began = |days: u64, hours: u64| moment.since_boot - Duration::from_secs(days * 86400 + hours * 3600);
        let process = |started, cpu, command: &str| Process {
            pid: 42,
            parent: 7,
            user: 1000,
            terminal: 34817,
            started,
            cpu: Duration::from_secs(cpu),
            zombie: false,
            name: "sh".into(),
            command: command.into(),
        };
        let users = users("root:x:0:0:root:/root:/bin/sh\nbroken\nalice:x:1000:1000::/:/bin/sh\nalso:x:1000:1::/:\n");
        let shown = |process: &Process| row(process, &users, &moment).join("|");
        assert_eq!(shown(&process(began(0, 1), 36, "sh -c x")), "alice|42|7|1|09:30|pts/1|00:00:36|sh -c x");
        assert_eq!(shown(&process(began(3, 0), 200_000, "x")), "alice|42|7|77|Mar02|pts/1|2-07:33:20|x");
        assert_eq!(shown(&process(began(90, 0), 0, "")), "alice|42|7|0|2023|pts/1|00:00:00|[sh]");
        let gone = Process { zombie: true, user: 5, terminal: 0, ..process(began(0, 0), 9, "") };
        assert_eq!(shown(&gone), "5|42|7|0|10:30|?|00:00:09|[sh] <defunct>");
    }

    #[test]
    fn terminals_have_the_names_of_their_devices() {
        for (device, name) in [(0, "?"), (0x8800, "pts/0"), (0x0010_8805, "pts/261"), (0x8901, "pts/257")] {
            assert_eq!(terminal(device), name, "{device:#x}");
        }
        assert_eq!((terminal(0x401), terminal(0x441)), ("tty1".into(), "ttyS1".into()));
    }

    #[test]
    fn a_listing_of_ps_is_reduced_to_the_containers_processes() {
        let text = "  PID TTY      STAT COMMAND\n    1 ?        Ss   init\n   42 ?        -    sh -c  a b\n    - -        S    -\n\
                    \n   43 ?        -    x\n    - -        S    -\n";
        let table = filter(text, &[42]).unwrap();
        assert_eq!(table.titles, ["PID", "TTY", "STAT", "COMMAND"]);
        assert_eq!(table.processes, [["42", "?", "-", "sh -c  a b"], ["-", "-", "S", "-"]]);
        let error = |text: &str| format!("{:#}", filter(text, &[1]).unwrap_err());
        assert_eq!(error("TTY CMD\n? sh\n"), "Couldn't find PID field in ps output");
        assert_eq!(error(""), "Couldn't find PID field in ps output");
        assert_eq!(filter("PID CMD\nx sh\n", &[1]).unwrap().processes, [[""; 0]; 0]);
        assert_eq!(filter("CMD PID\nsh\n", &[1]).unwrap().processes, [[""; 0]; 0]);
    }

    #[test]
    fn names_before_the_process_id_may_hold_blanks() {
        let text = "STAT COMMAND           PID   ARGS\nS    mydocker: shim w   41   x\nS    a b  c   42   sleep  1\nS sh 43 y\n";
        assert_eq!(filter(text, &[42]).unwrap().processes, [["S", "a b c", "42", "sleep  1"]]);
        assert_eq!(filter(text, &[41]).unwrap().processes, [["S", "mydocker: shim w", "41", "x"]]);
        assert_eq!(filter(text, &[43]).unwrap().processes, [["S", "sh", "43", "y"]]);
    }

    #[test]
    fn no_other_column_passes_for_the_process_id() {
        for bad in [&["-o", "ppid=PID"][..], &["-oppid=PIDX"], &["-o", "comm,ppid=PID"], &["-o", "ppid=", "PID"]] {
            assert!(check_titles(bad).is_err(), "{bad:?}");
        }
        for good in [&["-o", "pid=PID"][..], &["-opid=PID"], &["-o", "pid,comm=NAME"], &["aux"], &["-o", "ppid="]] {
            assert!(check_titles(good).is_ok(), "{good:?}");
        }
    }
}
