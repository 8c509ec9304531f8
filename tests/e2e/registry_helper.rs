//! Credential helpers that fail, talk nonsense or are not there: who needs no credentials is not held up by them.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use crate::ours_only;
use crate::support::registry::{Options, Registry};
use crate::support::{Output, Sandbox};

/// A command for which `docker-credential-odd` keeps everything; without a script there is no such program.
fn with_helper(s: &Sandbox, script: Option<&str>, args: &[&str]) -> Output {
    let (directory, docker) = (s.host_dir("bin"), s.host_dir("docker"));
    let program = format!("{directory}/docker-credential-odd");
    let _ = fs::remove_file(&program);
    if let Some(script) = script {
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    }
    fs::write(format!("{docker}/config.json"), json!({ "credsStore": "odd" }).to_string()).unwrap();
    let path = format!("{directory}:{}", std::env::var("PATH").unwrap());
    s.command(args).env("PATH", &path).env("DOCKER_CONFIG", &docker).run().cleanly()
}

#[test]
fn a_helper_that_is_of_no_use_matters_only_where_credentials_are_needed() {
    ours_only!("Docker's daemon lives in another network namespace");
    let s = Sandbox::new();
    let open = Registry::start(&s, Options::default());
    let guarded = Registry::start(&s, Options { account: Some(("ann", "secret")), ..Options::default() });
    open.fill_busybox("box");
    for (script, says) in [
        (None, "docker-credential-odd: not found"),
        (
            Some("cat >/dev/null; printf 'the safe is \\033[31mlocked'; exit 1"),
            "failed to get: the safe is \\u{1b}[31mlocked",
        ),
        (Some("cat >/dev/null; echo 'hunter2 {'"), "its answer is not what a credential helper answers"),
        (Some("cat >/dev/null; echo 7"), "its answer is not what a credential helper answers"),
        (Some("exit 0"), "its answer is not what a credential helper answers"),
        (Some("cat >/dev/null; exec yes"), "failed to get"),
        (Some("kill -9 $$"), "failed to get: signal: 9"),
    ] {
        let pull = with_helper(&s, script, &["pull", "-q", &open.image("box")]);
        assert_eq!(pull.code, 0, "Docker pulls what is for everybody all the same; {script:?}: {pull}");
        let push = with_helper(&s, script, &["push", "-q", &open.image("box")]);
        assert_eq!(push.code, 0, "{script:?}: {push}");
        s.ok(["tag", &open.image("box"), &guarded.image("box")]);
        for command in [["pull", "-q"], ["push", "-q"]] {
            let refused = with_helper(&s, script, &[command[0], command[1], &guarded.image("box")]).code(1);
            assert!(!refused.err().contains("hunter2") && !refused.err().contains('\u{1b}'), "{refused}");
            refused.says("no basic auth credentials").says(says);
        }
        with_helper(&s, script, &["login", guarded.address()]).code(1).says(says);
    }
    // One that has nothing is fine, and so is one that is right.
    let nothing = "cat >/dev/null; echo credentials not found in native keychain; exit 1";
    with_helper(&s, Some(nothing), &["pull", "-q", &guarded.image("box")]).code(1).says("log in: mydocker login");
    let right = format!(
        "read server; test \"$server\" = {} && echo '{{\"Username\":\"ann\",\"Secret\":\"secret\"}}'",
        guarded.address()
    );
    with_helper(&s, Some(&right), &["push", "-q", &guarded.image("box")]).code(0);
    with_helper(&s, Some(&right), &["pull", "-q", &guarded.image("box")]).code(0);
}
