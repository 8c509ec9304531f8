//! The first process: environment, directory, user, groups, names, limits.

use crate::ours_only;
use crate::support::Sandbox;

#[test]
fn environment_is_built_from_nothing() {
    let s = Sandbox::new();
    let invocation =
        s.command(["run", "--rm", "-h", "box", "busybox", "env"]).env("LEAKED_SECRET", "1").env("LD_PRELOAD", "");
    let mut names: Vec<String> =
        invocation.run().code(0).out().lines().map(|line| line.split('=').next().unwrap().to_owned()).collect();
    names.sort();
    assert_eq!(names, ["HOME", "HOSTNAME", "PATH"]);
    assert_eq!(
        s.script(&["-h", "box"], "echo $HOSTNAME $PATH $HOME"),
        "box /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin /root"
    );
}

#[test]
fn a_terminal_adds_term() {
    let s = Sandbox::new();
    let mut terminal = s.terminal(["run", "--rm", "-it", "busybox", "sh", "-c", "echo term=$TERM."]);
    terminal.expect("term=xterm.");
    assert_eq!(terminal.finish().0, 0);
}

#[test]
fn env_values_are_kept_to_the_letter() {
    let s = Sandbox::new();
    let value = "A=B C='\"$x\n\ty";
    assert_eq!(s.ok(["run", "--rm", "-e", &format!("V={value}"), "busybox", "sh", "-c", "echo \"$V\""]), value);
    // The last one wins; an empty value is a value.
    assert_eq!(s.script(&["-e", "A=1", "-e", "A=2", "-e", "B="], "echo $A ${B-unset}."), "2 .");
}

#[test]
fn a_bare_name_takes_the_callers_value() {
    let s = Sandbox::new();
    let args = [
        "run",
        "--rm",
        "-e",
        "FROM_CALLER",
        "-e",
        "NOT_THERE",
        "busybox",
        "sh",
        "-c",
        "echo $FROM_CALLER ${NOT_THERE-unset}",
    ];
    assert_eq!(s.command(args).env("FROM_CALLER", "v a l").run().code(0).out(), "v a l unset");
}

#[test]
fn env_file_and_its_order_below_the_flags() {
    let s = Sandbox::new();
    let file = s.host_file("env", "A=file\n# comment\n\nB=from # file\nCALLER\nQ=\"kept\"\n");
    let args = ["run", "--rm", "--env-file", &file, "-e", "A=flag", "busybox", "sh", "-c", "echo \"$A|$B|$CALLER|$Q\""];
    assert_eq!(s.command(args).env("CALLER", "c").run().code(0).out(), "flag|from # file|c|\"kept\"");
    s.fails(125, ["run", "--rm", "--env-file", &s.host("missing"), "busybox", "true"]).says("missing");
    let bad = s.host_file("bad", "A B=1\n");
    s.fails(125, ["run", "--rm", "--env-file", &bad, "busybox", "true"]);
}

#[test]
fn workdir_is_made_when_missing() {
    let s = Sandbox::new();
    assert_eq!(s.script(&["-w", "/made/for/me"], "pwd; ls -ld . | cut -c1-10"), "/made/for/me\ndrwxr-xr-x");
    assert_eq!(s.script(&["--workdir", "/tmp"], "pwd"), "/tmp");
    assert_ne!(s.run(["run", "--rm", "-w", "/etc/passwd", "busybox", "pwd"]).code, 0);
    s.fails(125, ["run", "--rm", "-w", "relative", "busybox", "pwd"]).says("relative");
}

#[test]
fn relative_commands_are_found_in_the_workdir() {
    let s = Sandbox::new();
    assert_eq!(s.ok(["run", "--rm", "-w", "/bin", "busybox", "./echo", "here"]), "here");
}

#[test]
fn path_of_the_container_finds_the_command() {
    let s = Sandbox::new();
    s.fails(127, ["run", "--rm", "-e", "PATH=/nowhere", "busybox", "echo"]);
    assert_eq!(s.ok(["run", "--rm", "-e", "PATH=/nowhere:/bin", "busybox", "echo", "found"]), "found");
}

#[test]
fn users_come_from_the_containers_passwd() {
    let s = Sandbox::new();
    let who = "echo $(id -u):$(id -g) $HOME";
    assert_eq!(s.script(&["-u", "nobody"], "echo $(id -u):$(id -g)"), "65534:65534");
    assert_eq!(s.script(&["-u", "daemon"], "echo $(id -u):$(id -g)"), "1:1");
    assert_eq!(s.script(&["-u", "1234"], who), "1234:0 /");
    assert_eq!(s.script(&["-u", "1234:4321"], who), "1234:4321 /");
    assert_eq!(s.script(&["-u", "nobody:daemon"], "echo $(id -u):$(id -g)"), "65534:1");
    assert_eq!(s.script(&["-u", "0:7"], who), "0:7 /root");
    assert_eq!(s.script(&["-u", "root", "-e", "HOME=/mine"], "echo $HOME"), "/mine");
}

#[test]
fn users_who_are_not_there_are_refused() {
    let s = Sandbox::new();
    for user in ["no-such-user", "nobody:no-such-group", "root:", "-1", "4294967296"] {
        let output = s.run(["run", "--rm", "-u", user, "busybox", "true"]);
        // Docker takes an empty group for none.
        if user != "root:" {
            assert!(matches!(output.code, 125 | 126), "{output}");
        }
    }
    s.run(["run", "--rm", "-u", "no-such-user", "busybox", "true"]).says("no-such-user");
}

#[test]
fn a_number_is_a_uid_whatever_passwd_says() {
    // CVE-2016-3697: a user *named* 1000 with uid 0.
    let s = Sandbox::new();
    let name = s.name("numeric");
    s.idle(&name, &[]);
    s.ok(["exec", &name, "sh", "-c", "echo '1000:x:0:0::/root:/bin/sh' >> /etc/passwd"]);
    assert_eq!(s.ok(["exec", "-u", "1000", &name, "id", "-u"]), "1000");
}

#[test]
fn supplementary_groups_come_from_the_container() {
    let s = Sandbox::new();
    let name = s.name("groups");
    s.idle(&name, &[]);
    let files = "echo 'alice:x:1234:1235::/home/alice:/bin/sh' >> /etc/passwd; \
                 printf 'team:x:4321:alice\\nother:x:4322:bob,alice\\nnot:x:4323:bob\\n' >> /etc/group";
    s.ok(["exec", &name, "sh", "-c", files]);
    assert_eq!(s.ok(["exec", "-u", "alice", &name, "sh", "-c", "id -G; echo $HOME"]), "1235 4321 4322\n/home/alice");
    // With a group named, only that one.
    assert_eq!(s.ok(["exec", "-u", "alice:4323", &name, "id", "-G"]), "4323");
    // A uid that has an entry is that user.
    assert_eq!(s.ok(["exec", "-u", "1234", &name, "id", "-G"]), "1235 4321 4322");
}

#[test]
fn group_add_by_number_and_name() {
    let s = Sandbox::new();
    let groups = s.script(&["-u", "1234:55", "--group-add", "77", "--group-add", "daemon"], "id -G");
    let mut groups: Vec<u32> = groups.split(' ').map(|group| group.parse().unwrap()).collect();
    groups.sort_unstable();
    assert_eq!(groups, [1, 55, 77]);
    assert_ne!(s.run(["run", "--rm", "--group-add", "no-such-group", "busybox", "true"]).code, 0);
}

#[test]
fn the_callers_groups_are_dropped() {
    let s = Sandbox::new();
    let args = ["run", "--rm", "-u", "1234:55", "busybox", "grep", "Groups", "/proc/self/status"];
    let output = s.with_shell("exec setpriv --groups 20,24,25 \"$@\"", args).run().code(0).out();
    let groups: Vec<&str> = output.split_whitespace().skip(1).collect();
    assert!(groups.is_empty() || groups == ["55"], "{output}");
}

#[test]
fn the_hostname_is_the_short_id_or_the_users() {
    let s = Sandbox::new();
    let name = s.name("host");
    let id = s.idle(&name, &[]);
    assert_eq!(s.ok(["exec", &name, "hostname"]), id[..12]);
    assert_eq!(s.ok(["exec", &name, "cat", "/etc/hostname"]), id[..12]);
    assert_eq!(
        s.script(&["--hostname", "web.example.org"], "hostname; cat /etc/hostname"),
        "web.example.org\nweb.example.org"
    );
    assert_eq!(s.script(&["--domainname", "example.org"], "cat /proc/sys/kernel/domainname"), "example.org");
}

#[test]
fn a_shared_uts_namespace_has_the_hosts_name() {
    let s = Sandbox::new();
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(s.script(&["--uts", "host"], "hostname"), host.trim());
    s.fails(125, ["run", "--rm", "--uts", "host", "-h", "name", "busybox", "true"]);
}

#[test]
fn hosts_file_knows_localhost_and_added_hosts() {
    let s = Sandbox::new();
    let hosts = s.script(&["--add-host", "db:10.1.2.3", "--add-host", "six:fd00::1"], "cat /etc/hosts");
    let lines: Vec<Vec<&str>> = hosts.lines().map(|line| line.split_whitespace().collect()).collect();
    for line in [["127.0.0.1", "localhost"], ["10.1.2.3", "db"], ["fd00::1", "six"]] {
        assert!(lines.iter().any(|found| found == &line), "{line:?} is not in\n{hosts}");
    }
    s.fails(125, ["run", "--rm", "--add-host", "nonsense", "busybox", "true"]).says("nonsense");
    s.fails(125, ["run", "--rm", "--add-host", "a:not-an-address", "busybox", "true"]);
}

#[test]
fn name_service_files_are_the_containers_own() {
    let s = Sandbox::new();
    let (a, b) = (s.name("a"), s.name("b"));
    s.idle(&a, &[]);
    s.idle(&b, &[]);
    for file in ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"] {
        s.ok(["exec", &a, "sh", "-c", &format!("echo '# mine' >> {file}")]);
        assert!(s.ok(["exec", &a, "cat", file]).ends_with("# mine"), "{file}");
        assert!(!s.ok(["exec", &b, "cat", file]).contains("# mine"), "{file}");
    }
    assert!(!std::fs::read_to_string("/etc/hosts").unwrap().contains("# mine"));
}

#[test]
fn ulimits_are_set() {
    let s = Sandbox::new();
    // Hard limits are not raised: the test machine may lack CAP_SYS_RESOURCE.
    assert_eq!(
        s.script(&["--ulimit", "nofile=100:200", "--ulimit", "core=0"], "ulimit -Sn; ulimit -Hn; ulimit -c"),
        "100\n200\n0"
    );
    assert_eq!(s.script(&["--ulimit", "nofile=123"], "ulimit -Sn; ulimit -Hn"), "123\n123");
    s.fails(125, ["run", "--rm", "--ulimit", "nonsense=1", "busybox", "true"]).says("nonsense");
    s.fails(125, ["run", "--rm", "--ulimit", "nofile=20:10", "busybox", "true"]);
}

#[test]
fn sysctls_of_the_containers_namespaces_only() {
    let s = Sandbox::new();
    let values = s.script(
        &["--sysctl", "net.ipv4.ip_forward=1", "--sysctl", "kernel.msgmax=65000"],
        "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax",
    );
    assert_eq!(values, "1\n65000");
    let before = std::fs::read("/proc/sys/kernel/core_pattern").unwrap();
    for key in ["kernel.core_pattern=|/bin/sh", "vm.swappiness=1", "net/../kernel/core_pattern=x", "net.../../../x=1"] {
        assert_ne!(s.run(["run", "--rm", "--sysctl", key, "busybox", "true"]).code, 0, "{key}");
    }
    assert_eq!(std::fs::read("/proc/sys/kernel/core_pattern").unwrap(), before);
    // With the host's network its keys are the host's too.
    assert_ne!(
        s.run(["run", "--rm", "--network", "host", "--sysctl", "net.ipv4.ip_forward=1", "busybox", "true"]).code,
        0
    );
}

#[test]
fn pid_1_is_the_command_itself() {
    let s = Sandbox::new();
    assert_eq!(s.ok(["run", "--rm", "busybox", "sh", "-c", "echo $$; cat /proc/1/comm; true"]), "1\nsh");
}

#[test]
fn signals_are_at_their_defaults() {
    let s = Sandbox::new();
    // Whoever starts us may ignore or block signals; the command begins afresh.
    let args = ["run", "--rm", "busybox", "grep", "Sig[BI]", "/proc/self/status"];
    let output = s.with_shell("trap '' INT QUIT HUP PIPE TERM; exec \"$@\"", args).run().code(0).out();
    for line in output.lines() {
        assert!(line.ends_with("\t0000000000000000"), "{output}");
    }
}

#[test]
fn umask_and_oom_score_do_not_come_from_the_caller() {
    ours_only!("docker's daemon has no caller");
    let s = Sandbox::new();
    let output = s.with_shell(
        "umask 077; exec \"$@\"",
        ["run", "--rm", "busybox", "sh", "-c", "umask; touch /x; ls -l /x | cut -c1-10"],
    );
    assert_eq!(output.run().code(0).out(), "0022\n-rw-r--r--");
}

#[test]
fn a_plain_user_may_ping_and_bind_low_ports() {
    let s = Sandbox::new();
    // Listening ends by the time limit (128+15), not at once with "permission denied" (1).
    let script = "timeout 1 nc -l -p 80; echo $?; cat /proc/sys/net/ipv4/ping_group_range";
    let out = s.ok(["run", "--rm", "-u", "1000", "--cap-drop", "ALL", "busybox", "sh", "-c", script]);
    assert_eq!(out, "143\n0\t2147483647");
    // The user's word counts more.
    let own = ["run", "--rm", "--sysctl", "net.ipv4.ip_unprivileged_port_start=99", "busybox", "cat"];
    assert_eq!(s.ok(own.iter().chain(&["/proc/sys/net/ipv4/ip_unprivileged_port_start"])), "99");
}
