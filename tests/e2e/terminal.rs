//! `-t`, `attach` and the keys between, through a real pseudo-terminal.

use rustix::process::Signal;

use crate::ours_only;
use crate::support::{Sandbox, Terminal, against_docker, eventually, processes};

const DETACH: [u8; 2] = [0x10, 0x11];

#[test]
fn an_interactive_shell() {
    let s = Sandbox::new();
    let mut terminal = s.terminal(["run", "--rm", "-it", "busybox", "sh"]);
    terminal.expect("/ # ");
    // What the keyboard sends is a carriage return, what the screen shows ends in both.
    terminal.send("echo sum-$((40+2)); tty\r");
    terminal.expect("sum-42\r\n");
    terminal.expect("/dev/");
    terminal.send("exit 7\r");
    assert_eq!(terminal.finish().0, 7);
    terminal.assert_restored();
}

#[test]
fn the_terminal_is_the_containers_own() {
    let s = Sandbox::new();
    let mut terminal = s.terminal([
        "run",
        "--rm",
        "-it",
        "busybox",
        "sh",
        "-c",
        "tty; ls -l $(tty); test -c /dev/console && echo console; ls /dev/pts; echo > /dev/tty && echo opened",
    ]);
    let (code, screen) = terminal.finish();
    assert_eq!(code, 0, "{screen}");
    // A pty of its own devpts (Docker binds it to /dev/console), never one of the host's.
    assert!(screen.starts_with("/dev/console\r\n") || screen.starts_with("/dev/pts/0\r\n"), "{screen}");
    assert!(screen.contains("console") && screen.contains("opened"), "{screen}");
}

#[test]
fn a_plain_user_may_use_the_terminal() {
    let s = Sandbox::new();
    let mut terminal =
        s.terminal(["run", "--rm", "-it", "-u", "1234", "busybox", "sh", "-c", "echo mine > $(tty) && echo opened"]);
    let (code, screen) = terminal.finish();
    assert!(code == 0 && screen.contains("mine") && screen.contains("opened"), "{screen}");
}

#[test]
fn the_window_has_its_size_from_the_start() {
    ours_only!("docker sets the size after the start");
    let s = Sandbox::new();
    let mut terminal = Terminal::start(s.command(["run", "--rm", "-it", "busybox", "stty", "size"]), 31, 101);
    assert_eq!(terminal.finish(), (0, "31 101\r\n".into()));
}

#[test]
fn the_window_follows_ours() {
    let s = Sandbox::new();
    let script = "until stty size | grep '31 101'; do sleep 0.05; done; trap 'stty size; exit 2' WINCH; \
                  echo ready; while :; do sleep 0.05; done";
    let mut terminal = Terminal::start(s.command(["run", "--rm", "-it", "busybox", "sh", "-c", script]), 31, 101);
    terminal.expect("ready");
    terminal.resize(52, 132);
    terminal.expect("52 132");
    assert_eq!(terminal.finish().0, 2);
}

#[test]
fn interrupt_goes_to_the_container_not_to_us() {
    let s = Sandbox::new();
    let script = "trap 'echo got-int; exit 5' INT; echo ready; while :; do sleep 0.05; done";
    let mut terminal = s.terminal(["run", "--rm", "-it", "busybox", "sh", "-c", script]);
    terminal.expect("ready");
    assert!(terminal.is_raw());
    terminal.send([3]);
    terminal.expect("got-int");
    assert_eq!(terminal.finish().0, 5);
    terminal.assert_restored();
}

#[test]
fn interrupt_without_a_terminal_inside_is_proxied() {
    let s = Sandbox::new();
    let script = "trap 'echo got-int; exit 6' INT; echo ready; while :; do sleep 0.05; done";
    let mut terminal = s.terminal(["run", "--rm", "busybox", "sh", "-c", script]);
    terminal.expect("ready");
    assert!(!terminal.is_raw());
    terminal.send([3]);
    terminal.expect("got-int");
    assert_eq!(terminal.finish().0, 6);
}

#[test]
fn detach_and_come_back() {
    let s = Sandbox::new();
    let name = s.name("detach");
    let mut terminal = s.terminal(["run", "-it", "--name", &name, "busybox", "sh"]);
    terminal.expect("/ # ");
    terminal.send("mark=$((600+6))\r");
    terminal.expect("/ # ");
    terminal.send(DETACH);
    assert_eq!(terminal.finish().0, 0, "{}", terminal.screen());
    terminal.assert_restored();
    assert!(s.is_running(&name));

    let mut terminal = s.terminal(["attach", &name]);
    eventually("raw mode", || terminal.is_raw());
    terminal.send("echo still-$mark\r");
    terminal.expect("still-606");
    terminal.send("exit 3\r");
    assert_eq!(terminal.finish().0, 3);
    terminal.assert_restored();
}

#[test]
fn detach_keys_can_be_chosen() {
    let s = Sandbox::new();
    let name = s.name("keys");
    let mut terminal = s.terminal(["run", "-it", "--detach-keys", "ctrl-a,d", "--name", &name, "busybox", "sh"]);
    terminal.expect("/ # ");
    // The usual keys are nothing special now: ctrl-p recalls the line before.
    terminal.send("echo one-$((1+0))\r");
    terminal.expect("one-1");
    terminal.send([0x10]);
    terminal.send("\r");
    terminal.expect("one-1");
    // The first key of the two alone passes, followed by another.
    terminal.send([1]);
    terminal.send("# \r");
    terminal.expect("/ # ");
    terminal.send([1, b'd']);
    assert_eq!(terminal.finish().0, 0);
    assert!(s.is_running(&name));
    terminal.assert_restored();
    if !against_docker() {
        s.fails(125, ["run", "-d", "--detach-keys", "nonsense-keys", "busybox", "true"]);
    }
}

#[test]
fn half_of_the_detach_keys_is_input() {
    let s = Sandbox::new();
    // `od` shows the bytes that came through: ctrl-p then x.
    let mut terminal = s.terminal([
        "run",
        "--rm",
        "-it",
        "busybox",
        "sh",
        "-c",
        "stty raw -echo; echo ready; head -c 2 | od -An -tx1",
    ]);
    terminal.expect("ready");
    terminal.send([0x10]);
    terminal.send("x");
    terminal.expect("10 78");
    assert_eq!(terminal.finish().0, 0);
}

#[test]
fn the_terminal_is_restored_when_the_start_fails() {
    let s = Sandbox::new();
    let mut terminal = s.terminal(["run", "--rm", "-it", "busybox", "no-such-program"]);
    let (code, screen) = terminal.finish();
    assert_eq!(code, 127, "{screen}");
    terminal.assert_restored();
}

#[test]
fn the_terminal_is_restored_when_the_container_is_killed() {
    let s = Sandbox::new();
    let name = s.name("killed");
    let mut terminal = s.terminal(["run", "-it", "--name", &name, "busybox", "sh"]);
    terminal.expect("/ # ");
    s.ok(["kill", &name]);
    assert_eq!(terminal.finish().0, 137);
    terminal.assert_restored();
}

#[test]
fn the_terminal_is_restored_when_the_cli_is_asked_to_leave() {
    let s = Sandbox::new();
    let name = s.name("leave");
    let mut terminal = s.terminal([
        "run",
        "-it",
        "--name",
        &name,
        "busybox",
        "sh",
        "-c",
        "trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done",
    ]);
    terminal.expect("ready");
    terminal.signal(Signal::TERM);
    assert_eq!(terminal.finish().0, 9);
    terminal.assert_restored();
}

#[test]
fn kill_9_of_the_cli_leaves_the_container_and_attach_works() {
    let s = Sandbox::new();
    let name = s.name("orphan");
    let mut terminal = s.terminal(["run", "-it", "--name", &name, "busybox", "sh"]);
    terminal.expect("/ # ");
    terminal.signal(Signal::KILL);
    assert_eq!(terminal.finish().0, 137);
    assert!(s.is_running(&name));
    let mut again = s.terminal(["attach", &name]);
    eventually("raw mode", || again.is_raw());
    again.send("echo back-$((1+1))\r");
    again.expect("back-2");
    again.send("exit\r");
    assert_eq!(again.finish().0, 0);
}

#[test]
fn a_terminal_that_hangs_up_leaves_the_container() {
    let s = Sandbox::new();
    let name = s.name("hangup");
    let mut terminal = s.terminal(["run", "-it", "--name", &name, "busybox", "sh"]);
    terminal.expect("/ # ");
    let pid = terminal.pid().as_raw_nonzero().get();
    drop(terminal);
    eventually("the CLI ends", || !processes::is_alive(pid));
    assert!(s.is_running(&name));
}

#[test]
fn a_terminal_without_input() {
    let s = Sandbox::new();
    let output = s
        .run(["run", "--rm", "-t", "busybox", "sh", "-c", "tty > /dev/null && echo has-terminal; echo err >&2"])
        .code(0);
    // One terminal, one stream, with carriage returns.
    assert_eq!((output.stdout, output.stderr), (b"has-terminal\r\nerr\r\n".to_vec(), Vec::new()));
}

#[test]
fn input_that_is_no_terminal_is_refused_with_it() {
    let s = Sandbox::new();
    s.command(["run", "--rm", "-it", "busybox", "sh"]).stdin("exit\n").run().code(1).says("not a TTY");
}

#[test]
fn large_output_on_a_terminal_is_whole() {
    let s = Sandbox::new();
    let mut terminal = s.terminal(["run", "--rm", "-it", "busybox", "sh", "-c", "seq 30000; echo fin"]);
    terminal.expect("\n29999\r\n30000\r\nfin\r\n");
    let (code, screen) = terminal.finish();
    assert_eq!((code, screen.lines().count()), (0, 30001));
}

#[test]
fn pasted_input_is_whole() {
    let s = Sandbox::new();
    let mut terminal = s.terminal([
        "run",
        "--rm",
        "-it",
        "busybox",
        "sh",
        "-c",
        "stty raw -echo; echo ready; head -c 100000 | md5sum",
    ]);
    terminal.expect("ready");
    terminal.send(vec![b'y'; 100_000]);
    terminal.expect("f0a7af634b47967c6cf3a0aaaaa50d17");
    assert_eq!(terminal.finish().0, 0);
}

#[test]
fn exec_on_a_terminal() {
    let s = Sandbox::new();
    let name = s.name("exec");
    s.idle(&name, &[]);
    let mut terminal = Terminal::start(s.command(["exec", "-it", &name, "sh"]), 33, 99);
    terminal.expect("/ # ");
    terminal.send("stty size; tty\r");
    terminal.expect("33 99");
    terminal.expect("/dev/pts/");
    terminal.resize(44, 88);
    // The shell is told by SIGWINCH; the size is there at once.
    terminal.send("until [ \"$(stty size)\" = '44 88' ]; do sleep 0.05; done; echo resized-$((0+1))\r");
    terminal.expect("resized-1");
    terminal.send([3]);
    terminal.expect("/ # ");
    terminal.send("exit 12\r");
    assert_eq!(terminal.finish().0, 12);
    terminal.assert_restored();
    assert!(s.is_running(&name));
}

#[test]
fn exec_detaches_and_the_command_goes_on() {
    let s = Sandbox::new();
    let name = s.name("exec-detach");
    s.idle(&name, &[]);
    let mut terminal = s.terminal(["exec", "-it", &name, "sh", "-c", "echo ready; sleep 1; touch /went-on; sleep 60"]);
    terminal.expect("ready");
    terminal.send(DETACH);
    terminal.finish();
    terminal.assert_restored();
    eventually("the command goes on", || s.run(["exec", &name, "test", "-e", "/went-on"]).code == 0);
}

#[test]
fn two_terminals_on_one_container_see_the_same() {
    let s = Sandbox::new();
    let name = s.name("two");
    s.ok(["run", "-itd", "--name", &name, "busybox", "sh"]);
    let mut first = s.terminal(["attach", &name]);
    let mut second = s.terminal(["attach", &name]);
    eventually("both are attached", || first.is_raw() && second.is_raw());
    first.send("echo both-$((1+1))\r");
    first.expect("both-2");
    second.expect("both-2");
    second.send("exit 8\r");
    assert_eq!((first.finish().0, second.finish().0), (8, 8));
}

#[test]
fn keys_that_are_typed_while_a_client_joins_are_the_containers() {
    ours_only!("strace on our own program");
    let s = Sandbox::new();
    let name = s.name("c");
    s.ok([
        "run",
        "-dit",
        "--name",
        &name,
        "busybox",
        "sh",
        "-c",
        "for i in $(seq 100); do echo tick; sleep 0.05; done; exec cat",
    ]);
    // Whoever sees output may type, however long the client takes to change its terminal.
    let script = "exec strace -f -q -o /dev/null -e trace=ioctl -e inject=ioctl:delay_enter=100000 \"$@\"";
    let mut terminal = Terminal::start(s.with_shell(script, ["attach", &name]), 24, 80);
    terminal.expect("tick");
    terminal.send(DETACH);
    assert_eq!(terminal.finish().0, 0);
    assert_eq!(s.field(&name, "{{.State.Status}}"), "running");
}
