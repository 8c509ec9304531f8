//! Signal names and numbers (signal(7)), as `kill --signal`, `stop --signal` and `STOPSIGNAL` write them.

/// Name without `SIG`, number of this architecture. Of two names for one number the first is the one shown.
const SIGNALS: &[(&str, i32)] = &[
    ("HUP", libc::SIGHUP),
    ("INT", libc::SIGINT),
    ("QUIT", libc::SIGQUIT),
    ("ILL", libc::SIGILL),
    ("TRAP", libc::SIGTRAP),
    ("ABRT", libc::SIGABRT),
    ("IOT", libc::SIGABRT),
    ("BUS", libc::SIGBUS),
    ("FPE", libc::SIGFPE),
    ("KILL", libc::SIGKILL),
    ("USR1", libc::SIGUSR1),
    ("SEGV", libc::SIGSEGV),
    ("USR2", libc::SIGUSR2),
    ("PIPE", libc::SIGPIPE),
    ("ALRM", libc::SIGALRM),
    ("TERM", libc::SIGTERM),
    ("STKFLT", libc::SIGSTKFLT),
    ("CHLD", libc::SIGCHLD),
    ("CLD", libc::SIGCHLD),
    ("CONT", libc::SIGCONT),
    ("STOP", libc::SIGSTOP),
    ("TSTP", libc::SIGTSTP),
    ("TTIN", libc::SIGTTIN),
    ("TTOU", libc::SIGTTOU),
    ("URG", libc::SIGURG),
    ("XCPU", libc::SIGXCPU),
    ("XFSZ", libc::SIGXFSZ),
    ("VTALRM", libc::SIGVTALRM),
    ("PROF", libc::SIGPROF),
    ("WINCH", libc::SIGWINCH),
    ("IO", libc::SIGIO),
    ("POLL", libc::SIGIO),
    ("PWR", libc::SIGPWR),
    ("SYS", libc::SIGSYS),
];

/// The first real-time signal programs may use; the kernel's 32 and 33 belong to the C library.
const RTMIN: i32 = 34;
/// The last real-time signal.
const RTMAX: i32 = 64;

/// The number of a signal given as `KILL`, `SIGKILL`, `9`, `RTMIN+3` or `SIGRTMAX-1`, in any case;
/// `None` for anything else, 0 and numbers above 64 included.
pub fn parse(text: &str) -> Option<i32> {
    if text.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse().ok().filter(|n| (1..=RTMAX).contains(n));
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some((_, number)) = SIGNALS.iter().find(|(known, _)| *known == name) {
        return Some(*number);
    }
    let real_time = if let Some(rest) = name.strip_prefix("RTMIN") {
        if rest.is_empty() { RTMIN } else { RTMIN + distance(rest, '+')? }
    } else if let Some(rest) = name.strip_prefix("RTMAX") {
        if rest.is_empty() { RTMAX } else { RTMAX - distance(rest, '-')? }
    } else {
        return None;
    };
    (RTMIN..=RTMAX).contains(&real_time).then_some(real_time)
}

/// The digits after `sign`; two at most, so that no sum overflows.
fn distance(text: &str, sign: char) -> Option<i32> {
    let digits = text.strip_prefix(sign)?;
    let plain = (1..=2).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| digits.parse().ok())?
}

/// The usual name of signal `number` (`SIGTERM`, `SIGRTMIN+3`); the number itself when it has none.
pub fn name(number: i32) -> String {
    if let Some((name, _)) = SIGNALS.iter().find(|(_, known)| *known == number) {
        return format!("SIG{name}");
    }
    match number {
        RTMIN => "SIGRTMIN".into(),
        RTMAX => "SIGRTMAX".into(),
        // The halves are named from the nearer end, as bash and ps do.
        35..=49 => format!("SIGRTMIN+{}", number - RTMIN),
        50..=63 => format!("SIGRTMAX-{}", RTMAX - number),
        _ => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_signal_is_understood() {
        for text in ["KILL", "SIGKILL", "kill", "sigKill", "9", "09"] {
            assert_eq!(parse(text).unwrap(), 9, "{text}");
        }
        assert_eq!(parse("SIGRTMIN+3").unwrap(), 37);
        assert_eq!(parse("rtmin").unwrap(), 34);
        assert_eq!(parse("RTMAX-14").unwrap(), 50);
        assert_eq!(parse("SIGCLD").unwrap(), libc::SIGCHLD);
    }

    #[test]
    fn what_is_no_signal_is_none() {
        let bad = ["", "0", "65", "-9", "+9", "FOO", "SIG", "SIGSIGKILL", "RTMIN-1", "RTMIN+31", "RTMAX+1", "RTMIN+"];
        for text in bad.iter().chain(&["99999999999", "9 ", "RTMIN+999999999999", "RTMIN++3", "RTMIN+-3", "ключ"]) {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn names_lead_back_to_their_numbers() {
        for number in 1..=64 {
            assert_eq!(parse(&name(number)).unwrap(), number);
        }
        assert_eq!((name(15).as_str(), name(37).as_str(), name(63).as_str()), ("SIGTERM", "SIGRTMIN+3", "SIGRTMAX-1"));
        assert_eq!(name(0), "0");
    }
}
