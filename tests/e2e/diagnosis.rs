//! A start that fails says the cause and the cure.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::ours_only;
use crate::support::{Output, Sandbox};

/// Runs `/vol/NAME` with these contents and mode.
#[track_caller]
fn start(s: &Sandbox, name: &str, contents: impl AsRef<[u8]>, mode: u32) -> Output {
    s.host_dir("vol");
    let path = s.path("vol").join(name);
    fs::write(&path, contents).unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
    let mount = format!("{}:/vol", s.host("vol"));
    s.run(["run", "--rm", "-v", &mount, "busybox", &format!("/vol/{name}")])
}

/// One line of cause, one line of cure, in the user's words.
#[track_caller]
fn explains(output: Output, code: i32, words: &[&str]) {
    let output = output.code(code);
    let lines = output.err().lines().filter(|line| !line.trim().is_empty()).count();
    assert!(lines >= 2, "no cure is told: {output}");
    let err = output.err().to_lowercase();
    for word in words {
        assert!(err.contains(&word.to_lowercase()), "{word:?} is not said by {output}");
    }
    // Nor is anything said that a user can make nothing of.
    for noise in ["OCI runtime", "unwrap", "Os {", "InitPlan", "json"] {
        assert!(!output.err().contains(noise), "{noise:?} is said by {output}");
    }
}

#[test]
fn a_missing_file() {
    ours_only!("docker diagnoses none of this");
    let s = Sandbox::new();
    explains(s.run(["run", "--rm", "busybox", "no-such-program"]), 127, &["no-such-program", "PATH"]);
    explains(s.run(["run", "--rm", "busybox", "/no/such/program"]), 127, &["/no/such/program"]);
}

#[test]
fn a_misspelt_flag_after_the_image() {
    ours_only!("docker diagnoses none of this");
    let s = Sandbox::new();
    // What follows the image is the command: a frequent slip.
    explains(s.run(["run", "busybox", "--rm", "true"]), 127, &["--rm", "before the image"]);
    s.ok(["rm", "-f", s.ok(["ps", "-lq"]).as_str()]);
}

#[test]
fn no_execute_permission() {
    ours_only!("docker diagnoses none of this");
    let s = Sandbox::new();
    explains(start(&s, "script", "#!/bin/sh\necho x\n", 0o644), 126, &["/vol/script", "chmod +x"]);
}

#[test]
fn no_execute_permission_for_this_user() {
    ours_only!("docker diagnoses none of this");
    let s = Sandbox::new();
    let path = s.host_file("script", "#!/bin/sh\necho x\n");
    fs::set_permissions(&path, PermissionsExt::from_mode(0o700)).unwrap();
    let mount = format!("{path}:/script");
    explains(s.run(["run", "--rm", "-u", "1234", "-v", &mount, "busybox", "/script"]), 126, &["/script", "1234"]);
}

#[test]
fn a_directory() {
    ours_only!("docker diagnoses none of this");
    let s = Sandbox::new();
    explains(s.run(["run", "--rm", "busybox", "/etc"]), 126, &["/etc", "directory"]);
}

#[test]
fn a_missing_interpreter() {
    ours_only!("docker diagnoses none of this");
    let s = Sandbox::new();
    explains(
        start(&s, "script", "#!/usr/bin/python3 -u\nprint(1)\n", 0o755),
        127,
        &["/vol/script", "/usr/bin/python3"],
    );
    explains(start(&s, "env", "#!/no/bin/env bash\n", 0o755), 127, &["/no/bin/env"]);
}

#[test]
fn carriage_returns_in_the_first_line() {
    ours_only!("docker diagnoses none of this");
    let s = Sandbox::new();
    explains(start(&s, "script", "#!/bin/sh\r\necho x\r\n", 0o755), 127, &["/vol/script", "CRLF"]);
}

#[test]
fn a_missing_interpreter_line() {
    ours_only!("docker diagnoses none of this");
    let s = Sandbox::new();
    explains(start(&s, "script", "echo no first line\n", 0o755), 126, &["/vol/script", "#!"]);
    explains(start(&s, "empty", "", 0o755), 126, &["/vol/empty", "empty"]);
}

#[test]
fn a_missing_elf_loader() {
    ours_only!("docker diagnoses none of this");
    let s = Sandbox::new();
    // A dynamic program of this machine: its loader is not in a busybox image.
    explains(start(&s, "dynamic", fs::read("/usr/bin/env").unwrap(), 0o755), 127, &["/vol/dynamic", "ld-linux"]);
}

#[test]
fn a_program_for_another_machine() {
    ours_only!("docker diagnoses none of this");
    let s = Sandbox::new();
    let mut program = fs::read("/bin/busybox").unwrap();
    // e_machine of the ELF header: 183 is AArch64, 62 is x86-64.
    let other = if cfg!(target_arch = "aarch64") { 62u16 } else { 183 };
    program[18..20].copy_from_slice(&other.to_le_bytes());
    let name = if other == 183 { "arm" } else { "x86" };
    explains(start(&s, "foreign", program, 0o755), 126, &["/vol/foreign", name]);
}

#[test]
fn a_damaged_program() {
    ours_only!("docker diagnoses none of this");
    let s = Sandbox::new();
    // Whatever the header claims, the diagnosis is a message.
    let program = fs::read("/bin/busybox").unwrap();
    for cut in [4, 17, 63, 100] {
        explains(start(&s, "cut", &program[..cut], 0o755), 126, &["/vol/cut"]);
    }
    let mut absurd = program.clone();
    absurd[32..40].copy_from_slice(&u64::MAX.to_le_bytes());
    absurd[54..58].copy_from_slice(&[0xff; 4]);
    explains(start(&s, "absurd", absurd, 0o755), 126, &["/vol/absurd"]);
    let long = [b"#!".as_slice(), &[b'x'; 100_000]].concat();
    let output = start(&s, "long", long, 0o755);
    assert!(matches!(output.code, 126 | 127), "{output}");
}

#[test]
fn a_file_system_without_exec() {
    ours_only!("docker diagnoses none of this");
    let s = Sandbox::new();
    let name = s.name("c");
    s.idle(&name, &["--tmpfs", "/t:noexec"]);
    s.ok(["exec", &name, "cp", "/bin/busybox", "/t/busybox"]);
    explains(s.run(["exec", &name, "/t/busybox", "true"]), 126, &["/t/busybox", "noexec"]);
    // The same when the container itself starts from one: /dev/shm is noexec too.
    s.ok(["exec", &name, "true"]);
}

#[test]
fn exec_diagnoses_as_run_does() {
    ours_only!("docker diagnoses none of this");
    let s = Sandbox::new();
    let name = s.name("c");
    s.idle(&name, &[]);
    s.ok(["exec", &name, "sh", "-c", "printf '#!/bin/sh\\r\\n' > /crlf; chmod +x /crlf; printf '#!/bin/sh\\n' > /nox; printf '#!/none\\n' > /bad; chmod +x /bad"]);
    explains(s.run(["exec", &name, "/crlf"]), 127, &["/crlf", "CRLF"]);
    explains(s.run(["exec", &name, "/nox"]), 126, &["/nox", "chmod +x"]);
    explains(s.run(["exec", &name, "/bad"]), 127, &["/bad", "/none"]);
    assert!(s.is_running(&name));
}

#[test]
fn a_loop_or_a_fifo_as_the_command_is_a_message() {
    ours_only!("docker diagnoses none of this");
    let s = Sandbox::new();
    let name = s.name("c");
    s.idle(&name, &[]);
    s.ok(["exec", &name, "sh", "-c", "ln -s /loop /loop; mkfifo /fifo; chmod +x /fifo"]);
    explains(s.run(["exec", &name, "/loop"]), 126, &["/loop"]);
    explains(s.run(["exec", &name, "/fifo"]), 126, &["/fifo"]);
}

#[test]
fn an_image_that_is_not_there() {
    ours_only!("docker asks a registry");
    let s = Sandbox::new();
    let output = s.fails(125, ["run", "--rm", "--pull", "never", "no-such-image", "true"]);
    output.says("no-such-image");
}
