//! Instructions as they are written: a name and what follows, by the rules of Docker's parser
//! (Dockerfile reference; messages are BuildKit's).

use anyhow::{Result, bail};
use serde_json::Value;

use super::words;
use super::{Change, CommandForm};
use crate::error::Failure;
use crate::image::Healthcheck;

/// Parses changes; each may have several lines, of which one that ends with a backslash goes on.
///
/// # Errors
/// In Docker's words, with the number of the line: an instruction that is none, or not allowed here, or lacks what
/// it needs.
pub fn parse(changes: &[String]) -> Result<Vec<Change>> {
    let joined = changes.join("\n");
    let mut parsed = Vec::new();
    let mut lines = joined.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let mut line = line.trim().to_owned();
        while line.ends_with('\\') {
            line.pop();
            match lines.next() {
                Some((_, more)) => line.push_str(more.trim_end()),
                None => break,
            }
        }
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        parsed.push(instruction(&line).map_err(|error| match error.downcast::<Failure>() {
            Ok(failure) => failure,
            Err(error) => Failure::usage(format!("dockerfile parse error on line {}: {error}", number + 1)),
        })?);
    }
    Ok(parsed)
}

fn instruction(line: &str) -> Result<Change> {
    let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let rest = rest.trim();
    let upper = name.to_ascii_uppercase();
    let one = || -> Result<String> {
        if rest.is_empty() { bail!("{upper} requires exactly one argument") } else { Ok(rest.to_owned()) }
    };
    let some = || if rest.is_empty() { bail!("{upper} requires at least one argument") } else { Ok(()) };
    match upper.as_str() {
        "CMD" => Ok(Change::Cmd(command(rest)?)),
        "ENTRYPOINT" => {
            some()?;
            Ok(Change::Entrypoint(command(rest)?))
        }
        "ENV" => Ok(Change::Env(pairs(&upper, rest)?)),
        "LABEL" => Ok(Change::Label(pairs(&upper, rest)?)),
        "EXPOSE" => some().map(|()| Change::Expose(rest.split_whitespace().map(str::to_owned).collect())),
        "HEALTHCHECK" => Ok(Change::Healthcheck(healthcheck(rest)?)),
        "ONBUILD" => {
            some()?;
            match rest.split_whitespace().next().unwrap_or_default().to_ascii_uppercase().as_str() {
                "ONBUILD" => bail!("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
                trigger @ ("FROM" | "MAINTAINER") => bail!("{trigger} isn't allowed as an ONBUILD trigger"),
                _ => Ok(Change::OnBuild(rest.to_owned())),
            }
        }
        "STOPSIGNAL" => one().map(Change::StopSignal),
        "USER" => one().map(Change::User),
        "WORKDIR" => one().map(Change::Workdir),
        "VOLUME" => {
            some()?;
            let volumes = match array(rest)? {
                Some(volumes) => volumes,
                None => rest.split_whitespace().map(str::to_owned).collect(),
            };
            if volumes.is_empty() {
                bail!("VOLUME requires at least one argument");
            }
            if volumes.iter().any(|volume| volume.trim().is_empty()) {
                bail!("VOLUME specified can not be an empty string");
            }
            Ok(Change::Volume(volumes))
        }
        _ => Err(Failure::usage(format!("{name} is not a valid change command"))
            .with_hint(
                "these are: CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME, WORKDIR",
            )
            .into()),
    }
}

/// `["a", "b"]`; `None` for what is not JSON and so means something else.
fn array(text: &str) -> Result<Option<Vec<String>>> {
    if !text.starts_with('[') {
        return Ok(None);
    }
    let Ok(Value::Array(items)) = serde_json::from_str(text) else { return Ok(None) };
    let strings: Option<Vec<String>> = items.iter().map(|item| item.as_str().map(str::to_owned)).collect();
    match strings {
        Some(strings) => Ok(Some(strings)),
        None => bail!("when using JSON array syntax, arrays must be comprised of strings only"),
    }
}

fn command(text: &str) -> Result<CommandForm> {
    Ok(match array(text)? {
        Some(words) => CommandForm::Exec(words),
        None => CommandForm::Shell(text.to_owned()),
    })
}

/// `a=b c="d e"`, or the old form of one pair without `=`: `a b c`.
fn pairs(name: &str, rest: &str) -> Result<Vec<(String, String)>> {
    let found = words::split(rest);
    let Some(first) = found.first() else { bail!("{name} requires at least one argument") };
    if !first.contains('=') {
        let Some((key, value)) = rest.split_once(char::is_whitespace) else {
            bail!("{name} must have two arguments");
        };
        return Ok(vec![(key.to_owned(), value.trim_start().to_owned())]);
    }
    let pair = |word: &String| match word.split_once('=') {
        Some(("", _)) => bail!("{name} names can not be blank"),
        Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
        None => bail!("Syntax error - can't find = in {word:?}. Must be of the form: name=value"),
    };
    found.iter().map(pair).collect()
}

fn healthcheck(mut rest: &str) -> Result<Healthcheck> {
    let mut check = Healthcheck::default();
    let mut any = false;
    while let Some(flag) = rest.strip_prefix("--") {
        any = true;
        let (flag, after) = flag.split_once(char::is_whitespace).unwrap_or((flag, ""));
        rest = after.trim_start();
        let (key, value) = flag.split_once('=').unwrap_or((flag, ""));
        let time = |what: &str| match duration(value) {
            Some(time) if time == 0 || time >= 1_000_000 => Ok(time),
            Some(_) => bail!("Interval {what:?} cannot be less than 1ms"),
            None => bail!("time: invalid duration {value:?}"),
        };
        match key {
            "interval" => check.interval = time("interval")?,
            "timeout" => check.timeout = time("timeout")?,
            "start-period" => check.start_period = time("start-period")?,
            "start-interval" => check.start_interval = time("start-interval")?,
            "retries" => match value.parse::<u32>() {
                Ok(retries) => check.retries = i64::from(retries),
                Err(_) => bail!("--retries must be a non-negative number, not {value:?}"),
            },
            _ => bail!("unknown flag: --{key}"),
        }
    }
    let (kind, command_text) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let command_text = command_text.trim();
    match kind.to_ascii_uppercase().as_str() {
        "" => bail!("HEALTHCHECK requires at least one argument"),
        "NONE" if any => bail!("unknown flag: HEALTHCHECK NONE takes no flags"),
        "NONE" if !command_text.is_empty() => bail!("HEALTHCHECK NONE takes no arguments"),
        "NONE" => Ok(Healthcheck { test: Some(vec!["NONE".to_owned()]), ..Healthcheck::default() }),
        "CMD" if command_text.is_empty() => bail!("Missing command after HEALTHCHECK CMD"),
        "CMD" => {
            check.test = Some(match command(command_text)? {
                CommandForm::Exec(words) => ["CMD".to_owned()].into_iter().chain(words).collect(),
                CommandForm::Shell(line) => vec!["CMD-SHELL".to_owned(), line],
            });
            Ok(check)
        }
        other => bail!("Unknown type {other:?} in HEALTHCHECK (try CMD)"),
    }
}

/// A duration as Go writes it (`1m30s`, `500ms`, `1.5h`), in nanoseconds; not negative.
fn duration(text: &str) -> Option<i64> {
    if text == "0" {
        return Some(0);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    let mut total = 0_f64;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..letters] {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        rest = &rest[letters..];
        total += number * unit;
    }
    // A century: what is longer is no duration that anybody waits for, and would not fit Go's.
    (total <= 3.2e18).then_some(total as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Change {
        let mut changes = parse(&[text.to_owned()]).unwrap_or_else(|error| panic!("{text}: {error:#}"));
        assert_eq!(changes.len(), 1, "{text}");
        changes.remove(0)
    }

    fn refused(text: &str) -> String {
        match parse(&[text.to_owned()]) {
            Ok(changes) => panic!("{text}: accepted as {changes:?}"),
            Err(error) => format!("{error:#}"),
        }
    }

    fn strings(list: &[&str]) -> Vec<String> {
        list.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn commands_have_two_forms() {
        assert_eq!(one(r#"CMD ["a", "b c"]"#), Change::Cmd(CommandForm::Exec(strings(&["a", "b c"]))));
        assert_eq!(one("cmd echo $HOME"), Change::Cmd(CommandForm::Shell("echo $HOME".into())));
        assert_eq!(one("CMD ['a']"), Change::Cmd(CommandForm::Shell("['a']".into())));
        assert_eq!(one("CMD []"), Change::Cmd(CommandForm::Exec(vec![])));
        assert_eq!(one("ENTRYPOINT [\"/x\"]"), Change::Entrypoint(CommandForm::Exec(strings(&["/x"]))));
        assert!(refused("CMD [1]").contains("comprised of strings only"));
    }

    #[test]
    fn pairs_have_two_forms() {
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(one("ENV a b  c"), Change::Env(vec![pair("a", "b  c")]));
        assert_eq!(one(r#"ENV a=b c="d e""#), Change::Env(vec![pair("a", "b"), pair("c", r#""d e""#)]));
        assert_eq!(one("LABEL a= b=1"), Change::Label(vec![pair("a", ""), pair("b", "1")]));
        assert_eq!(one("ENV a=1 \\\n  b=2"), Change::Env(vec![pair("a", "1"), pair("b", "2")]));
        assert!(refused("ENV a").contains("ENV must have two arguments"));
        assert!(refused("ENV a=b c").contains("can't find = in \"c\". Must be of the form: name=value"));
        assert!(refused("LABEL =x").contains("LABEL names can not be blank"));
    }

    #[test]
    fn the_others() {
        assert_eq!(one("EXPOSE 80 90/udp"), Change::Expose(strings(&["80", "90/udp"])));
        assert_eq!(one("VOLUME /a /b"), Change::Volume(strings(&["/a", "/b"])));
        assert_eq!(one(r#"VOLUME ["/a b"]"#), Change::Volume(strings(&["/a b"])));
        assert_eq!(one("USER nobody:users"), Change::User("nobody:users".into()));
        assert_eq!(one("WORKDIR a b"), Change::Workdir("a b".into()));
        assert_eq!(one("STOPSIGNAL SIGUSR1"), Change::StopSignal("SIGUSR1".into()));
        assert_eq!(one("ONBUILD RUN make"), Change::OnBuild("RUN make".into()));
        let none = Healthcheck { test: Some(strings(&["NONE"])), ..Healthcheck::default() };
        assert_eq!(one("HEALTHCHECK NONE"), Change::Healthcheck(none));
        let Change::Healthcheck(check) =
            one("HEALTHCHECK --interval=1m30s --timeout=500ms --retries=3 CMD curl -f http://localhost/ || exit 1")
        else {
            panic!()
        };
        assert_eq!((check.interval, check.timeout, check.retries), (90_000_000_000, 500_000_000, 3));
        assert_eq!(check.test, Some(strings(&["CMD-SHELL", "curl -f http://localhost/ || exit 1"])));
        assert_eq!(parse(&strings(&["", "# nothing", "USER a\nUSER b"])).unwrap().len(), 2);
    }

    #[test]
    fn errors_name_the_line_in_dockers_words() {
        for (text, expected) in [
            ("RUN make", "RUN is not a valid change command"),
            ("foo", "foo is not a valid change command"),
            ("EXPOSE", "dockerfile parse error on line 1: EXPOSE requires at least one argument"),
            ("USER a\n\nUSER", "dockerfile parse error on line 3: USER requires exactly one argument"),
            ("WORKDIR", "dockerfile parse error on line 1: WORKDIR requires exactly one argument"),
            ("VOLUME [\"\"]", "dockerfile parse error on line 1: VOLUME specified can not be an empty string"),
            (
                "ONBUILD ONBUILD x",
                "dockerfile parse error on line 1: Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed",
            ),
            ("ONBUILD FROM x", "dockerfile parse error on line 1: FROM isn't allowed as an ONBUILD trigger"),
            ("HEALTHCHECK", "dockerfile parse error on line 1: HEALTHCHECK requires at least one argument"),
            ("HEALTHCHECK CMD", "dockerfile parse error on line 1: Missing command after HEALTHCHECK CMD"),
            ("HEALTHCHECK --interval=1y CMD x", "dockerfile parse error on line 1: time: invalid duration \"1y\""),
            ("HEALTHCHECK x", "dockerfile parse error on line 1: Unknown type \"X\" in HEALTHCHECK (try CMD)"),
        ] {
            assert_eq!(refused(text), expected);
        }
    }

    #[test]
    fn durations() {
        for (text, expected) in [
            ("0", Some(0)),
            ("1s", Some(1_000_000_000)),
            ("1.5h", Some(5_400_000_000_000)),
            ("2m3s", Some(123_000_000_000)),
            ("", None),
            ("5", None),
            ("1d", None),
            ("-1s", None),
            ("1.2.3s", None),
            ("999999999999h", None),
        ] {
            assert_eq!(duration(text), expected, "{text}");
        }
    }
}
