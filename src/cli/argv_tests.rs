//! Golden tests: words to requests, with every parsing trap of Docker's users and of older tools.

use std::path::Path;

use clap::ArgMatches;

use super::create_request::Surroundings;
use super::run::{ExplainAs, RunLine, lower_run};
use super::spec::{self, Spec};
use super::{container, exec, logs, ps, run};
use crate::container::{ExtraHost, MountSource, RestartPolicy, Streams};
use crate::engine::request::PullPolicy;

pub(super) fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

pub(super) fn parse(spec: &Spec, words: Vec<String>) -> anyhow::Result<ArgMatches> {
    crate::cli::parse::parse(spec, spec.name, words)
}

fn variable(name: &str) -> Option<String> {
    (name == "SET").then(|| "from caller".to_owned())
}

fn lower(words: Vec<String>) -> anyhow::Result<RunLine> {
    let matches = parse(&run::RUN, words)?;
    lower_run(&matches, &Surroundings { lookup: &variable, directory: Path::new("/here") })
}

pub(super) fn line(text: &str) -> RunLine {
    lower(words(text)).unwrap_or_else(|error| panic!("{text}: {error:#}"))
}

pub(super) fn refused(text: &str) -> String {
    match lower(words(text)) {
        Ok(line) => panic!("{text}: accepted as {line:?}"),
        Err(error) => format!("{error:#}"),
    }
}

/// Image and command of a line, and what else a table wants to see.
fn gist(line: &RunLine) -> String {
    let create = &line.create;
    let mut flags = String::new();
    for (on, flag) in
        [(create.interactive, 'i'), (create.tty, 't'), (line.attach.is_none(), 'd'), (create.auto_remove, 'r')]
    {
        flags.extend(on.then_some(flag));
    }
    let name = create.name.as_deref().unwrap_or("-");
    format!("{flags}|{name}|{}|{}", create.image, create.command.join(" "))
}

#[test]
fn the_command_begins_at_the_image() {
    for (text, expected) in [
        ("-it busybox sh", "it|-|busybox|sh"),
        ("-itd busybox sh", "itd|-|busybox|sh"),
        ("-i -t -d --rm busybox", "itdr|-|busybox|"),
        ("--rm=true busybox", "r|-|busybox|"),
        ("--rm=false -i=false -t=1 busybox", "t|-|busybox|"),
        ("--rm --rm=false busybox", "|-|busybox|"),
        ("--name a --name=b busybox", "|b|busybox|"),
        ("busybox sh -c exit --rm -it --name x", "|-|busybox|sh -c exit --rm -it --name x"),
        ("busybox -it", "|-|busybox|-it"),
        ("busybox --help", "|-|busybox|--help"),
        ("busybox --bogus -- -x", "|-|busybox|--bogus -- -x"),
        ("-d --name c1 busybox top", "d|c1|busybox|top"),
        ("--stop-timeout -1 busybox", "|-|busybox|"),
    ] {
        assert_eq!(gist(&line(text)), expected, "{text}");
    }
}

#[test]
fn older_tools_spellings() {
    for (text, expected) in [
        ("-ti --name c1 -image busybox -- /bin/sh", "it|c1|busybox|/bin/sh"),
        ("-ti -name c1 -image=busybox -- /bin/sh -name x", "it|c1|busybox|/bin/sh -name x"),
        ("-image busybox /bin/sh -c", "|-|busybox|/bin/sh -c"),
        ("-image busybox", "|-|busybox|"),
        ("-d --name c1 -- top", "d|c1|busybox|top"),
        ("-- top -b", "|-|busybox|top -b"),
        ("-name=c1 busybox", "|c1|busybox|"),
        ("-name c1 busybox -name c2", "|c1|busybox|-name c2"),
        ("-it -net none busybox sh", "it|-|busybox|sh"),
        ("--name -name busybox", "|-name|busybox|"),
        ("-e -name -e -image busybox -image", "|-|busybox|-image"),
        ("-itv /a:/b -name x busybox", "it|x|busybox|"),
    ] {
        assert_eq!(gist(&line(text)), expected, "{text}");
    }
    assert_eq!(line("-it -net none busybox").create.networking.attachments[0].network, "none");
    assert_eq!(line("--net=host busybox").create.networking.attachments[0].network, "host");
    assert_eq!(line("--network container:c1 busybox").create.networking.attachments[0].network, "container:c1");
    assert_eq!(line("-e -name -e -image busybox -image").create.env, ["-name", "-image"]);
    // Only the exact word is rewritten: this one is a cluster of letters, the first of them unknown.
    assert_eq!(refused("-nameX busybox"), "unknown flag: -n");
}

#[test]
fn flags_that_are_missing_are_refused_by_name() {
    for (text, flag) in [
        ("--link-local-ip 169.254.1.1 busybox", "--link-local-ip"),
        ("--init busybox", "--init"),
        ("--gpus all busybox", "--gpus"),
    ] {
        assert_eq!(refused(text), format!("flag {flag} is not supported yet"), "{text}");
    }
}

#[test]
fn health_checks_are_dockers() {
    let health = |text: &str| line(text).create.health;
    assert_eq!(health("busybox"), None);
    assert_eq!(health("--health-interval 0s --health-retries 0 --health-timeout 0 busybox"), None);
    assert_eq!(health("--no-healthcheck busybox").unwrap().test, ["NONE"]);
    assert_eq!(health("--no-healthcheck=false busybox"), None);
    let check = health("--health-cmd a --health-interval 1m30s --health-timeout=500ms --health-retries 4 busybox");
    let check = check.unwrap();
    assert_eq!(check.test, ["CMD-SHELL", "a"]);
    assert_eq!((check.interval, check.timeout, check.retries), (90_000_000_000, 500_000_000, 4));
    let periods = health("--health-start-period 1.5h --health-start-interval 2s busybox").unwrap();
    assert_eq!((periods.start_period, periods.start_interval), (5_400_000_000_000, 2_000_000_000));
    assert!(periods.test.is_empty());
    let conflict = "--no-healthcheck conflicts with --health-* options";
    assert_eq!(refused("--no-healthcheck --health-retries 1 busybox"), conflict);
    assert_eq!(refused("--health-interval=-1s busybox"), "--health-interval cannot be negative");
    assert_eq!(refused("--health-retries=-1 busybox"), "--health-retries cannot be negative");
    for bad in ["5", "x", "1d", "\"\"", "99999999999h"] {
        let text = refused(&format!("--health-timeout {bad} busybox"));
        assert!(text.contains("for \"--health-timeout\" flag: write a duration"), "{bad}: {text}");
    }
}

#[test]
fn limits_in_both_spellings() {
    let resources = |text: &str| line(text).create.resources;
    for text in ["-m 100m busybox", "-it -mem 100m busybox sh", "--memory=100m busybox", "-mem=102400k busybox"] {
        assert_eq!(resources(text).memory, Some(100 << 20), "{text}");
    }
    assert_eq!(resources("-cpushare 512 busybox").cpu_shares, Some(512));
    assert_eq!(resources("-c 512 busybox").cpu_shares, Some(512));
    assert_eq!(resources("-cpuset=0,1 busybox").cpuset_cpus.as_deref(), Some("0,1"));
    assert_eq!(resources("--cpus .5 busybox").nano_cpus, Some(500_000_000));
    assert_eq!(resources("--memory-swap -1 -m 64m busybox").memory_swap, Some(-1));
    assert_eq!(resources("--device-write-bps /dev/vda:1mb busybox").write_bps[0].rate, 1 << 20);
    assert_eq!(resources("--memory 0 --pids-limit 0 busybox"), Default::default());
}

#[test]
fn malformed_lines_say_what_and_where() {
    for (text, part) in [
        ("-m 5x busybox", "invalid argument \"5x\" for \"--memory\" flag"),
        ("-m -5m busybox", "invalid size"),
        ("--cpus two busybox", "number of processors"),
        ("--device-read-bps vda:1mb busybox", "begins with /dev/"),
        ("--device-read-bps /dev/vda busybox", "DEVICE:NUMBER"),
        ("--device-read-iops /dev/vda:1mb busybox", "invalid rate"),
        ("--hugetlb 2=1 busybox", "page size"),
        ("--cgroup-conf memory.high busybox", "FILE=VALUE"),
        ("--bogus busybox", "unknown flag: --bogus"),
        ("--interactiv busybox", "did you mean --interactive?"),
        ("-Z busybox", "unknown flag: -Z"),
        ("busybox-before --name", ""),
        ("--name", "flag needs an argument: --name"),
        ("-e", "flag needs an argument: "),
        ("--rm=maybe busybox", "invalid argument \"maybe\" for --rm flag"),
        ("-a foo busybox", "valid streams are STDIN, STDOUT and STDERR"),
        ("-d -a stdout busybox", "conflicting options: cannot specify both --attach and --detach"),
        ("-e =x busybox", "the variable has no name"),
        ("--add-host x busybox", "\"--add-host\" flag"),
        ("--add-host x:y busybox", "neither IPv4 nor IPv6"),
        ("--ulimit nofile=2:1 busybox", "soft limit must be less"),
        ("--shm-size x busybox", "\"--shm-size\" flag"),
        ("--stop-timeout x busybox", "must be a whole number"),
        ("--security-opt foo busybox", "\"--security-opt\" flag"),
        ("--pid x busybox", "must be one of private, host, container:NAME"),
        ("--uts container:x busybox", "must be one of host"),
        ("--log-driver syslog busybox", "only json-file and none"),
        ("--log-opt max-size=x busybox", "\"--log-opt\" flag"),
        ("--log-opt tag=x busybox", "only max-size and max-file"),
        ("--pull sometimes busybox", "always, missing, never"),
        ("--platform linux/a/b/c busybox", "invalid platform"),
        ("--detach-keys ctrl-aa busybox", "unknown key"),
        ("--explain=x busybox", "\"--explain\" flag"),
        ("-w x busybox", "absolute path"),
        ("--label =x busybox", "the label has no name"),
        ("--sysctl x busybox", "write KEY=VALUE"),
        ("-v /a:/x -v /b:/x busybox", "Duplicate mount point: /x"),
        ("-v /a:/x --tmpfs /x/ busybox", "Duplicate mount point: /x"),
        ("--env-file /no/such/file busybox", "read --env-file /no/such/file: "),
    ] {
        if part.is_empty() {
            assert_eq!(line(text).create.command, ["--name"]);
        } else {
            let refusal = refused(text);
            assert!(refusal.contains(part), "{text}: {refusal}");
        }
    }
}

#[test]
fn variables_and_labels() {
    let env = |text: &str| line(text).create.env;
    assert_eq!(env("-e s1=hello -e s2=world busybox"), ["s1=hello", "s2=world"]);
    assert_eq!(env("-eA=B --env=C=D=E --env F= busybox"), ["A=B", "C=D=E", "F="]);
    assert_eq!(env("-e SET -e UNSET busybox"), ["SET=from caller", "UNSET"]);
    assert_eq!(env("-e -mem=1 -e --rm busybox"), ["-mem=1", "--rm"]);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("env");
    std::fs::write(&path, "# c\n\nA=1\nSET\nUNSET\n").unwrap();
    let file = path.to_str().unwrap();
    assert_eq!(env(&format!("-e A=2 --env-file {file} busybox")), ["A=1", "SET=from caller", "A=2"]);
    std::fs::write(&path, "A=1\n=x\n").unwrap();
    let refusal = refused(&format!("--env-file {file} busybox"));
    assert!(refusal.contains(&format!("{file}: line 2: ")), "{refusal}");
    std::fs::write(&path, "a\nb=x=y\n").unwrap();
    let labels = line(&format!("--label-file {file} -l b=2 --label c busybox")).create.labels;
    let labels: Vec<String> = labels.into_iter().map(|(key, value)| format!("{key}={value}")).collect();
    assert_eq!(labels, ["a=", "b=2", "c="]);
}

#[test]
fn every_flag_reaches_the_request() {
    let line = line(
        "-a stdin -a STDERR --cidfile /c --pidfile /p -w /w -u 1:2 --group-add 7 -h host --domainname dom --entrypoint /e \
         -v /a:/b:ro --mount type=tmpfs,target=/t,tmpfs-size=1k --tmpfs /s:size=1m --read-only --stop-signal USR1 \
         --stop-timeout 3 --ulimit core=-1 --shm-size 1m --sysctl net.a=1 --add-host a:1.2.3.4 --add-host b=::1 \
         --privileged --cap-add cap_net_admin --cap-add ALL --cap-drop mknod --security-opt no-new-privileges \
         --security-opt systempaths=unconfined --security-opt seccomp=unconfined --pid host --ipc shareable --uts host \
         --network none --detach-keys ctrl-a,b --sig-proxy=false --log-opt max-size=10m --log-opt max-file=3 --pull never -q \
         --explain=json -i busybox a b",
    );
    let create = line.create;
    assert_eq!(create.image, "busybox");
    assert_eq!(create.command, ["a", "b"]);
    assert_eq!(create.attach, Streams { stdin: true, stdout: false, stderr: true });
    assert_eq!(create.workdir.as_deref(), Some("/w"));
    assert_eq!(create.user.as_deref(), Some("1:2"));
    assert_eq!(create.group_add, ["7"]);
    assert_eq!(create.hostname.as_deref(), Some("host"));
    assert_eq!(create.domainname.as_deref(), Some("dom"));
    assert_eq!(create.entrypoint, Some(vec!["/e".to_owned()]));
    assert_eq!(create.mounts.len(), 1);
    assert_eq!((create.mounts[0].source.clone(), create.mounts[0].read_only), (MountSource::Host("/a".into()), true));
    let tmpfs: Vec<String> = create.tmpfs.iter().map(|t| format!("{} {}", t.target, t.options)).collect();
    assert_eq!(tmpfs, ["/t size=1024", "/s size=1m"]);
    assert!(create.read_only && create.security.privileged && create.security.no_new_privileges);
    assert!(create.security.unconfined_paths);
    assert_eq!(create.security.cap_add, ["NET_ADMIN", "ALL"]);
    assert_eq!(create.security.cap_drop, ["MKNOD"]);
    assert_eq!((create.stop_signal.as_deref(), create.stop_timeout), (Some("USR1"), Some(3)));
    assert_eq!((create.ulimits[0].name.as_str(), create.ulimits[0].soft), ("core", u64::MAX));
    assert_eq!(create.shm_size, Some(1 << 20));
    assert_eq!(create.sysctls.get("net.a").map(String::as_str), Some("1"));
    let host = |name: &str, address: &str| ExtraHost { name: name.into(), address: address.into() };
    assert_eq!(create.extra_hosts, [host("a", "1.2.3.4"), host("b", "::1")]);
    assert_eq!(
        [create.pid, create.ipc, create.uts, create.networking.attachments[0].network.clone()],
        ["host", "shareable", "host", "none"]
    );
    assert_eq!((create.log.max_size, create.log.max_file), (10_000_000, 3));
    assert_eq!(create.pull, PullPolicy::Never);
    let attach = line.attach.unwrap();
    assert_eq!((attach.streams, attach.sig_proxy), (create.attach, false));
    assert_eq!(attach.detach_keys, Some(vec![1, b'b']));
    assert_eq!((line.cidfile.as_deref(), line.pidfile.as_deref()), (Some(Path::new("/c")), Some(Path::new("/p"))));
    assert_eq!(line.explain, ExplainAs::Json);
}

#[test]
fn defaults_are_dockers() {
    let streams = |text: &str| line(text).create.attach;
    assert_eq!(streams("busybox"), Streams { stdin: false, stdout: true, stderr: true });
    assert_eq!(streams("-i busybox"), Streams { stdin: true, stdout: true, stderr: true });
    assert_eq!(streams("-itd busybox"), Streams::default());
    assert!(line("busybox").attach.unwrap().sig_proxy);
    assert!(line("-t busybox").attach.unwrap().sig_proxy);
    let plain = line("--name= --entrypoint= --shm-size 0 busybox").create;
    assert_eq!((plain.name, plain.entrypoint, plain.shm_size), (None, Some(vec![]), None));
    assert_eq!(line("--explain busybox").explain, ExplainAs::Table);
    assert_eq!(line("--explain=plan busybox").explain, ExplainAs::Plan);
    assert_eq!(line("-v /x busybox").create.mounts.len(), 1);
    assert_eq!(line("-v ./a:/b busybox").create.mounts[0].source, MountSource::Host("/here/a".into()));
    let machine = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
    line(&format!("--platform linux/{machine} busybox"));
    line("--platform linux busybox");
}

#[test]
fn exec_leaves_the_command_alone() {
    let exec = |text: &str| {
        let matches = parse(&exec::EXEC, words(text)).unwrap();
        exec::lower(&matches, &variable).unwrap()
    };
    let (reference, request) = exec("-it -e A=1 -w /w -u 1 c1 sh -c -e B=2");
    assert_eq!(reference, "c1");
    assert_eq!(request.command, ["sh", "-c", "-e", "B=2"]);
    assert_eq!(request.env, ["A=1"]);
    assert!(request.tty && request.interactive && !request.detach);
    assert_eq!(exec("c1 -- x").1.command, ["--", "x"]);
    assert!(exec("-d --privileged c1 x").1.privileged);
}

#[test]
fn restart_policies() {
    use RestartPolicy::{Always, No, OnFailure, UnlessStopped};
    for (text, policy) in [
        ("busybox", No),
        ("--restart= busybox", No),
        ("--restart no --rm busybox", No),
        ("--restart always busybox", Always),
        ("--restart=always:0 busybox", Always),
        ("--restart unless-stopped busybox", UnlessStopped),
        ("--restart on-failure busybox", OnFailure { max_retries: 0 }),
        ("--restart on-failure: busybox", OnFailure { max_retries: 0 }),
        ("--restart on-failure:3 busybox", OnFailure { max_retries: 3 }),
        ("--restart always --restart on-failure:4 busybox", OnFailure { max_retries: 4 }),
    ] {
        assert_eq!(line(text).create.restart, policy, "{text}");
    }
    for (text, why) in [
        ("--restart always --rm", "conflicting options: cannot specify both --restart and --rm"),
        ("--restart on-failure:x", "invalid restart policy format: maximum retry count must be an integer"),
        ("--restart on-failure:3:4", "invalid restart policy format: maximum retry count must be an integer"),
        ("--restart :3", "invalid restart policy format: no policy provided before colon"),
        ("--restart always:3", "invalid restart policy: maximum retry count can only be used with 'on-failure'"),
        (
            "--restart no:-1",
            "invalid restart policy: maximum retry count can only be used with 'on-failure' and cannot be negative",
        ),
        ("--restart on-failure:-1", "invalid restart policy: maximum retry count cannot be negative"),
        (
            "--restart sometimes",
            "invalid restart policy: unknown policy 'sometimes'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'",
        ),
    ] {
        assert_eq!(refused(&format!("{text} busybox")), why, "{text}");
    }
}

#[test]
fn other_commands_take_flags_anywhere() {
    let matches = parse(&container::REMOVE, words("a -f b -v c")).unwrap();
    assert_eq!(spec::operands(&matches), ["a", "b", "c"]);
    assert!(spec::is_set(&matches, "force") && spec::is_set(&matches, "volumes"));
    let matches = parse(&container::REMOVE, words("-fv a -- -b")).unwrap();
    assert_eq!(spec::operands(&matches), ["a", "-b"]);
    let matches = parse(&container::STOP, words("c1 --time -1")).unwrap();
    assert_eq!(spec::integer::<i64>(&matches, "timeout").unwrap(), Some(-1));
    let text = parse(&container::REMOVE, words("-l a")).unwrap_err().to_string();
    assert_eq!(text, "flag -l is not supported yet");
    let spec = &container::RENAME;
    assert_eq!(spec.arity.check(1, spec, "rename").unwrap_err().code, 125);
    assert!(spec.arity.check(2, spec, "rename").is_ok());
}

#[test]
fn logs_and_ps() {
    let now: jiff::Timestamp = "2024-01-01T12:00:00Z".parse().unwrap();
    let logs = |text: &str| logs::lower(&parse(&logs::LOGS, words(text)).unwrap(), now);
    let (reference, request) = logs("c1 -ft --tail 5 --since 10m --until 2024-01-01T11:59:00Z").unwrap();
    assert_eq!((reference.as_str(), request.follow, request.timestamps, request.tail), ("c1", true, true, Some(5)));
    assert_eq!(request.since, Some("2024-01-01T11:50:00Z".parse().unwrap()));
    assert_eq!(request.until, Some("2024-01-01T11:59:00Z".parse().unwrap()));
    assert_eq!(logs("-n all c1").unwrap().1.tail, None);
    assert_eq!(logs("--tail -1 c1").unwrap().1.tail, None);
    assert_eq!(logs("-n 0 c1").unwrap().1.tail, Some(0));
    assert!(logs("-n x c1").is_err() && logs("--since x c1").is_err());
    let ps = |text: &str| ps::lower(&parse(&ps::PS, words(text)).unwrap());
    let request = ps("-aq -n 3 -f name=x --filter status=exited").unwrap();
    assert_eq!((request.all, request.last, request.filters.len()), (true, Some(3), 2));
    assert_eq!(ps("-l").unwrap().last, Some(1));
    assert_eq!(ps("-n -1").unwrap().last, None);
    assert!(ps("-f x").is_err() && ps("-f foo=1").is_err());
}
