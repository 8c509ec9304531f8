//! The ends of containers in words: what a cause means, who brings it about, what can be done.

use super::quantity;
use crate::container::OomReport;
use crate::engine::query::{Cause, End, HealthView, Why};

/// SIGKILL and SIGTERM, as the facts number them.
const KILL: i32 = 9;
const TERM: i32 = 15;

/// One line of meaning and one of cure; nothing where there is nothing to say.
pub(super) fn explain(why: &Why) -> (Option<String>, Option<String>) {
    let name = if why.name.is_empty() { &why.id } else { &why.name };
    let paused = (why.status == "paused").then(|| format!("thaw it: mydocker unpause {name}"));
    let Some(end) = &why.end else {
        let hint = (why.status == "created").then(|| format!("start it: mydocker start {name}"));
        return (None, paused.or(hint));
    };
    let (message, hint) = match &end.cause {
        Cause::NotStarted { error, hint } => (error.clone(), hint.clone()),
        Cause::SupervisorKilled => (
            format!(
                "its supervisor (the process \"mydocker: shim {name}\") was killed, so nobody saw how it ended; \
                 the exit code stands for that"
            ),
            Some("leave these processes alone; to end a container: mydocker stop".to_owned()),
        ),
        Cause::MachineRestarted => (
            "the machine was restarted, or lost its power, while it ran; the exit code stands for that".to_owned(),
            None,
        ),
        Cause::Memory => {
            let limit = why.oom.as_ref().filter(|_| why.running_since.is_none()).map(|oom| oom.limit);
            let size = limit.filter(|limit| *limit > 0).map_or_else(|| "SIZE".to_owned(), twice);
            let report = why.oom.as_ref().filter(|_| why.running_since.is_none());
            let update = if why.removed.is_some() {
                "run it with a larger -m".to_owned()
            } else {
                format!("raise it: mydocker update -m {size} {name}, or run with a larger -m")
            };
            (memory(report), Some(update))
        }
        Cause::Signal { number, name: signal } => of_signal(end, *number, signal, name),
        Cause::Success => (succeeded(end), None),
        Cause::Code => of_code(end.exit_code, why),
    };
    (Some(message), paused.or(hint))
}

/// `unhealthy: 4 checks in a row have failed, the last with exit code 1: connection refused`; nothing of a
/// container that is well.
pub(super) fn health(health: &HealthView) -> Option<String> {
    if health.status == "none" {
        return Some("not checked any more, because its supervisor was killed: restart it".to_owned());
    }
    let last = health.log.last().filter(|_| health.failing_streak > 0)?;
    let count = match health.failing_streak {
        1 => "1 check has failed".to_owned(),
        count => format!("{count} checks in a row have failed"),
    };
    let code = if last.exit_code < 0 { String::new() } else { format!(" with exit code {}", last.exit_code) };
    let output = last.output.trim();
    let output = if output.is_empty() { String::new() } else { format!(": {output}") };
    Some(format!("{}: {count}, the last{code}{output}", health.status))
}

/// `killed for want of memory: limit 32 MiB, peak 32 MiB, killed: sh (pid 1234)`
pub(super) fn memory(report: Option<&OomReport>) -> String {
    let mut text = "killed for want of memory".to_owned();
    let Some(report) = report else { return text };
    let spaced = |bytes| {
        let size = quantity::human_memory(bytes);
        let unit = size.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(size.len());
        format!("{} {}", &size[..unit], &size[unit..])
    };
    let mut facts = Vec::new();
    if report.limit > 0 {
        facts.push(format!("limit {}", spaced(report.limit)));
    }
    if report.peak > 0 {
        facts.push(format!("peak {}", spaced(report.peak)));
    }
    let victims: Vec<String> =
        report.victims.iter().map(|victim| format!("{} (pid {})", victim.name, victim.pid)).collect();
    match (victims.is_empty(), report.kills) {
        (false, _) => facts.push(format!("killed: {}", victims.join(", "))),
        (true, kills) if kills > 1 => facts.push(format!("{kills} processes killed")),
        (true, _) => {}
    }
    if !facts.is_empty() {
        text.push_str(": ");
        text.push_str(&facts.join(", "));
    }
    text
}

/// Twice a limit, as `-m` takes it: whole gigabytes or megabytes.
fn twice(limit: u64) -> String {
    const MIB: u64 = 1 << 20;
    let mib = limit.saturating_mul(2).div_ceil(MIB);
    if mib.is_multiple_of(1024) { format!("{}g", mib / 1024) } else { format!("{mib}m") }
}

/// Who sent the signals that ended it through the engine.
fn sender(end: &End) -> &'static str {
    if end.stopped { "mydocker stop" } else { "mydocker (kill, rm -f, or ctrl-c of an attached terminal)" }
}

fn succeeded(end: &End) -> String {
    let told = end.signals.as_ref().and_then(|sent| sent.last());
    match told {
        Some(signal) => format!("it was sent {} by {} and ended by itself, with success", signal.name, sender(end)),
        None => "its command ended by itself, with success".to_owned(),
    }
}

fn of_signal(end: &End, number: i32, signal: &str, name: &str) -> (String, Option<String>) {
    let sent = |wanted: i32| end.signals.as_ref().is_some_and(|sent| sent.iter().any(|signal| signal.number == wanted));
    // Nobody but the host can end a container's first process by SIGKILL; most other signals it is
    // shielded from, so that their codes come from a shell in it, of the program that it ran last.
    let what = if number == KILL && sent(KILL) { "it" } else { "it, or the last program that it ran," };
    let first = format!("{what} was ended by {signal} (signal {number})");
    if number == KILL && end.stopped && sent(KILL) {
        let message = format!(
            "{first}: it did not end when it was told to, so mydocker stop killed it after the time it was given"
        );
        let hint = format!(
            "a container's first process is shielded from signals it does not handle: handle SIGTERM (in a script: trap \
             and exec), or give it more time: mydocker stop -t SECONDS {name}"
        );
        return (message, Some(hint));
    }
    if sent(number) {
        return (format!("{first}, sent by {}", sender(end)), None);
    }
    let remembered = end.signals.is_some();
    let (usual, hint) = usual(number);
    let who = match (number, remembered) {
        (KILL | TERM, true) => ", which mydocker did not send",
        _ => "",
    };
    (format!("{first}{who}: {usual}"), hint.map(str::to_owned))
}

/// Who sends a signal as a rule, and the cure where there is one.
fn usual(number: i32) -> (&'static str, Option<&'static str>) {
    match number {
        1 => ("its terminal was closed, or somebody asked it to read its configuration again", None),
        2 => ("somebody typed ctrl-c", None),
        3 => ("somebody typed ctrl-\\", None),
        4 => (
            "the program holds an instruction that this processor does not have",
            Some("use an image built for this processor, or an older generation of it"),
        ),
        5 => ("a debugger's breakpoint, or a check that the program's compiler built in, has failed", None),
        6 => {
            ("the program gave up by itself (abort): a failed assertion, an uncaught exception or damaged memory", None)
        }
        7 => (
            "it used memory that its file no longer backs: a mapped file was cut short, or /dev/shm is full",
            Some("give it a larger /dev/shm: --shm-size"),
        ),
        8 => ("an arithmetic error, such as a division by zero: a fault of the program", None),
        KILL => (
            "kill -9 by somebody on the host or inside, or the kernel, when the whole machine was out of memory",
            Some("the kernel's log knows the latter: dmesg | grep -i 'out of memory'"),
        ),
        11 => {
            ("it used memory that it does not own: a fault of the program, or of a library it was not built for", None)
        }
        13 => ("it wrote to a pipe or socket that nobody reads any more", None),
        14 => ("a timer of its own ran out", None),
        TERM => ("somebody asked it to end: kill, a shutdown of the machine, or a program inside", None),
        24 => ("it used up its processor time", Some("raise the limit: --ulimit cpu=SECONDS")),
        25 => ("it wrote a file larger than it may", Some("raise the limit: --ulimit fsize=BYTES")),
        31 => ("it made a system call that is forbidden to it", None),
        _ => ("a signal that it does not handle; somebody on the host or inside sent it", None),
    }
}

/// Codes that a command gave itself.
fn of_code(code: i32, why: &Why) -> (String, Option<String>) {
    let meaning = match code {
        1 => "1 says no more than that it failed",
        2 => "2 is what shells and many programs give for a mistake in their arguments",
        125 => "125 is its own; env, timeout and nohup give it when they fail themselves",
        126 => "a shell gives 126 for a program that it found and could not execute",
        127 => "a shell gives 127 for a program that it did not find",
        255 => "255 is often a program's -1",
        _ => "what it means, only the program knows",
    };
    let quiet = why.log.is_empty() && why.removed.is_none();
    let hint = match code {
        126 => Some("make it executable in the image (chmod +x), or fix the line it begins with".to_owned()),
        127 => Some("install it in the image, or give its path".to_owned()),
        _ if quiet => Some(format!(
            "it wrote nothing; look around in its image: mydocker run --rm -it --entrypoint sh {}",
            why.image
        )),
        _ => None,
    };
    (format!("its command ended by itself and reported a failure: {meaning}"), hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::OomVictim;
    use crate::engine::query::SentSignal;

    fn ended(code: i32, cause: Cause) -> Why {
        let end =
            End { started: None, finished: None, exit_code: code, cause, signals: Some(Vec::new()), stopped: false };
        Why {
            id: "0123456789abcdef".into(),
            name: "web".into(),
            image: "busybox".into(),
            command: vec!["sh".into()],
            status: "exited".into(),
            created: None,
            running_since: None,
            pid: None,
            removed: None,
            restart_count: 0,
            oom: None,
            health: None,
            end: Some(end),
            log: Vec::new(),
        }
    }

    fn killed(number: i32, name: &str, sent: &[i32], stopped: bool) -> String {
        let mut why = ended(128 + number, Cause::Signal { number, name: name.into() });
        if let Some(end) = &mut why.end {
            let signal =
                |number| SentSignal { time: jiff::Timestamp::UNIX_EPOCH, number, name: format!("SIG{number}") };
            end.signals = Some(sent.iter().map(|number| signal(*number)).collect());
            end.stopped = stopped;
        }
        let (message, hint) = explain(&why);
        format!("{}|{}", message.unwrap(), hint.unwrap_or_default())
    }

    #[test]
    fn memory_is_told_with_its_cure() {
        let mut why = ended(137, Cause::Memory);
        why.oom = Some(OomReport {
            limit: 32 << 20,
            peak: 32 << 20,
            kills: 1,
            victims: vec![OomVictim { pid: 1234, name: "sh".into() }],
        });
        let (message, hint) = explain(&why);
        assert_eq!(message.unwrap(), "killed for want of memory: limit 32 MiB, peak 32 MiB, killed: sh (pid 1234)");
        assert_eq!(hint.unwrap(), "raise it: mydocker update -m 64m web, or run with a larger -m");
        for (limit, more) in [(512 << 20, "1g"), (1 << 30, "2g"), (6_000_000, "12m"), (u64::MAX, "17179869184g")] {
            assert_eq!(twice(limit), more, "{limit}");
        }
        why.oom = None;
        let (message, hint) = explain(&why);
        assert_eq!(message.unwrap(), "killed for want of memory");
        assert!(hint.unwrap().contains("update -m SIZE web"));
    }

    #[test]
    fn a_signal_is_told_with_its_sender() {
        let not_handled = killed(9, "SIGKILL", &[15, 9], true);
        assert!(not_handled.contains("it did not end when it was told to"), "{not_handled}");
        assert!(not_handled.contains("mydocker stop -t SECONDS web"), "{not_handled}");
        assert_eq!(
            killed(15, "SIGTERM", &[15], true),
            "it, or the last program that it ran, was ended by SIGTERM (signal 15), sent by mydocker stop|"
        );
        assert!(
            killed(9, "SIGKILL", &[9], false).starts_with("it was ended by SIGKILL (signal 9), sent by mydocker (kill")
        );
        let foreign = killed(9, "SIGKILL", &[], false);
        assert!(foreign.contains("which mydocker did not send") && foreign.contains("dmesg"), "{foreign}");
        let fault = killed(11, "SIGSEGV", &[15], false);
        assert!(fault.contains("was ended by SIGSEGV (signal 11): it used memory"), "{fault}");
    }

    #[test]
    fn a_code_is_told_with_its_meaning() {
        for (code, part) in
            [(1, "no more"), (126, "could not execute"), (127, "did not find"), (255, "-1"), (42, "only")]
        {
            let (message, _) = explain(&ended(code, Cause::Code));
            assert!(message.as_ref().unwrap().contains(part), "{code}: {message:?}");
        }
        let (_, hint) = explain(&ended(42, Cause::Code));
        assert!(hint.unwrap().ends_with("--entrypoint sh busybox"));
        let spoke = Why { log: vec!["x".into()], ..ended(42, Cause::Code) };
        assert_eq!(explain(&spoke).1, None);
    }
}
