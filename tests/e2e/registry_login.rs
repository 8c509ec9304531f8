//! `login`, `logout`, `search`, through the program.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use serde_json::{Value, json};

use crate::ours_only;
use crate::support::invocation::Invocation;
use crate::support::registry::{Options, Registry};
use crate::support::scripted::Scripted;
use crate::support::{Output, Sandbox};

/// A command line with a directory of credentials of its own, and no settings of the machine's.
fn command(sandbox: &Sandbox, args: &[&str]) -> Invocation {
    let settings = sandbox.host_file("config.toml", "registry-timeout = 5\n");
    sandbox.command(args).env("DOCKER_CONFIG", &sandbox.host("docker")).env("MYDOCKER_CONFIG", &settings)
}

fn run(sandbox: &Sandbox, args: &[&str]) -> Output {
    command(sandbox, args).run().cleanly()
}

fn config(sandbox: &Sandbox) -> Value {
    serde_json::from_slice(&fs::read(sandbox.path("docker/config.json")).unwrap()).unwrap()
}

const SECRET: &str = "s3cret:with:colons";

fn guarded(sandbox: &Sandbox) -> Registry {
    Registry::start(sandbox, Options { account: Some(("ann", SECRET)), ..Options::default() })
}

#[test]
fn a_login_is_tried_kept_and_forgotten() {
    ours_only!("Docker's daemon lives in another network namespace");
    let sandbox = Sandbox::new();
    let registry = guarded(&sandbox);
    let server = registry.address();
    let wrong = command(&sandbox, &["login", "-u", "ann", "--password-stdin", server]).stdin("wrong\n").run();
    wrong.cleanly().code(1).says("unauthorized: incorrect username or password");
    assert!(!sandbox.path("docker").exists(), "nothing is kept of a login that failed");
    let login =
        command(&sandbox, &["login", "-u", "ann", "--password-stdin", server]).stdin(format!("{SECRET}\n")).run();
    let login = login.cleanly().code(0).says("your credentials are stored unencrypted in");
    assert_eq!(login.out(), "Login Succeeded");
    assert_eq!(config(&sandbox)["auths"].as_object().unwrap().keys().collect::<Vec<_>>(), [server]);
    assert_eq!(fs::metadata(sandbox.path("docker/config.json")).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(sandbox.path("docker")).unwrap().permissions().mode() & 0o777, 0o700);
    // What is kept is tried again, and serves others.
    assert!(run(&sandbox, &["login", server]).code(0).out().ends_with("Login Succeeded"));
    let inspect = std::process::Command::new("skopeo")
        .args(["list-tags", "--tls-verify=false", "--authfile", &sandbox.host("docker/config.json")])
        .arg(format!("docker://{server}/none"))
        .output()
        .expect("run skopeo");
    let said = String::from_utf8_lossy(&inspect.stderr).into_owned();
    assert!(said.contains("404"), "skopeo is let in: {said}");
    let out = run(&sandbox, &["logout", server]).code(0).out();
    assert_eq!(out, format!("Removing login credentials for {server}"));
    assert_eq!(config(&sandbox)["auths"], json!({}));
    assert_eq!(run(&sandbox, &["logout", server]).code(0).out(), format!("Not logged in to {server}"));
    assert_eq!(run(&sandbox, &["logout"]).code(0).out(), "Not logged in to https://index.docker.io/v1/");
}

#[test]
fn malformed_logins_are_refused_in_dockers_words() {
    ours_only!("Docker's daemon lives in another network namespace");
    let sandbox = Sandbox::new();
    let registry = guarded(&sandbox);
    let server = registry.address();
    run(&sandbox, &["login", server]).code(1).says("Cannot perform an interactive login from a non TTY device");
    run(&sandbox, &["login", "--password-stdin", server]).code(1).says("Must provide --username with --password-stdin");
    run(&sandbox, &["login", "-u", "a", "-p", "b", "--password-stdin", server]).code(1).says("mutually exclusive");
    run(&sandbox, &["login", "-u", "a", "--password-stdin", server]).code(1).says("password is required");
    run(&sandbox, &["login", "-u", "a", "-p", "b", "no host"]).code(125).says("invalid registry host");
    run(&sandbox, &["login", "-u", "a", "-p", "b", "127.0.0.1:1"]).code(1).says("connection refused");
    let output = run(&sandbox, &["login", "-u", "ann", "-p", SECRET, server]).code(0);
    let output = output.says("WARNING! Using --password via the CLI is insecure. Use --password-stdin.");
    assert!(!format!("{}{}", output.out(), output.err()).contains(SECRET));
    fs::write(sandbox.path("docker/config.json"), "{\"auths\": ").unwrap();
    run(&sandbox, &["login", server]).code(1).says("config.json is malformed: line 1");
    run(&sandbox, &["logout", server]).code(1).says("config.json is malformed");
    let strange = sandbox.host_file("strange.toml", "registry-miror = []\n");
    let output = sandbox.command(["login", "-u", "a", "-p", "b", server]).env("MYDOCKER_CONFIG", &strange);
    let output = output.env("DOCKER_CONFIG", &sandbox.host("other")).run();
    output.cleanly().code(125).says("strange.toml, line 1: unknown field `registry-miror`");
}

#[test]
fn a_password_is_asked_for_unseen() {
    ours_only!("Docker's daemon lives in another network namespace");
    let sandbox = Sandbox::new();
    let registry = guarded(&sandbox);
    let login = command(&sandbox, &["login", registry.address()]);
    let mut terminal = crate::support::Terminal::start(login, 24, 80);
    terminal.expect("Username: ");
    terminal.send(b"ann\r");
    terminal.expect("Password: ");
    terminal.send(b"typo\x15s3crex\x7ft:with:colons\r");
    let (code, screen) = terminal.finish();
    assert_eq!(code, 0, "{screen}");
    assert!(screen.contains("Login Succeeded") && !screen.contains("s3cr"), "{screen}");
    terminal.assert_restored();

    let mut terminal =
        crate::support::Terminal::start(command(&sandbox, &["login", "-u", "bob", registry.address()]), 24, 80);
    terminal.expect("Password: ");
    terminal.send(b"abc\x03");
    assert_eq!(terminal.finish().0, 130);
    terminal.assert_restored();
}

#[test]
fn helpers_keep_what_config_json_does_not() {
    ours_only!("Docker's daemon lives in another network namespace");
    let sandbox = Sandbox::new();
    let registry = guarded(&sandbox);
    let server = registry.address();
    let directory = sandbox.host_dir("bin");
    let kept = sandbox.host("kept");
    // The protocol of docker-credential-helpers, as a script with one entry.
    let script = format!(
        "#!/bin/sh\ncase $1 in\nstore) cat > {kept};;\nerase) cat > /dev/null; rm -f {kept};;\n\
         get) cat > /dev/null; if [ -e {kept} ]; then cat {kept}; else\n\
         echo credentials not found in native keychain; exit 1; fi;;\nesac\n"
    );
    fs::write(format!("{directory}/docker-credential-box"), script).unwrap();
    fs::set_permissions(format!("{directory}/docker-credential-box"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(sandbox.path("docker")).unwrap();
    let before = json!({ "credHelpers": { server: "box" }, "psFormat": "x" });
    fs::write(sandbox.path("docker/config.json"), before.to_string()).unwrap();
    let path = format!("{directory}:{}", std::env::var("PATH").unwrap());
    let with_helper = |args: &[&str]| command(&sandbox, args).env("PATH", &path);
    let login = with_helper(&["login", "-u", "ann", "--password-stdin", server]).stdin(SECRET).run().cleanly().code(0);
    assert!(!login.err().contains("unencrypted"), "{login}");
    let entry: Value = serde_json::from_slice(&fs::read(&kept).unwrap()).unwrap();
    assert_eq!(entry, json!({ "ServerURL": server, "Username": "ann", "Secret": SECRET }));
    let after = json!({ "credHelpers": { server: "box" }, "psFormat": "x", "auths": { server: {} } });
    assert_eq!(config(&sandbox), after, "the secret is nowhere else, other keys stay");
    assert!(with_helper(&["login", server]).run().code(0).out().ends_with("Login Succeeded"));
    with_helper(&["logout", server]).run().cleanly().code(0);
    assert!(!Path::new(&kept).exists());
    with_helper(&["login", server]).run().code(1).says("non TTY");
    run(&sandbox, &["login", server]).code(1).says("docker-credential-box: not found");
}

#[test]
fn under_sudo_the_file_is_the_users() {
    ours_only!("Docker's daemon lives in another network namespace");
    let sandbox = Sandbox::new();
    let registry = guarded(&sandbox);
    // The sandbox is root's alone; the user's directory is reached through it.
    fs::set_permissions(sandbox.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(sandbox.path("docker")).unwrap();
    std::os::unix::fs::chown(sandbox.path("docker"), Some(4321), Some(8765)).unwrap();
    let login = || {
        command(&sandbox, &["login", "-u", "ann", "--password-stdin", registry.address()])
            .env("SUDO_UID", "4321")
            .env("SUDO_GID", "8765")
            .stdin(SECRET)
            .run()
            .cleanly()
    };
    login().code(0);
    let made = fs::metadata(sandbox.path("docker/config.json")).unwrap();
    assert_eq!((made.uid(), made.gid(), made.permissions().mode() & 0o777), (4321, 8765, 0o600));
    // A link to what only root may touch leads nowhere.
    let precious = sandbox.host_file("precious", "{\"root\": true}");
    fs::set_permissions(&precious, fs::Permissions::from_mode(0o600)).unwrap();
    fs::remove_file(sandbox.path("docker/config.json")).unwrap();
    std::os::unix::fs::symlink(&precious, sandbox.path("docker/config.json")).unwrap();
    login().code(1).says("permission denied");
    assert_eq!(fs::read_to_string(&precious).unwrap(), "{\"root\": true}");
}

#[test]
fn catalogues_and_searches_are_looked_through() {
    ours_only!("Docker's daemon lives in another network namespace");
    let sandbox = Sandbox::new();
    let registry = guarded(&sandbox);
    run(&sandbox, &["search", &format!("{}/web", registry.address())]).code(1).says("no basic auth credentials");
    run(&sandbox, &["login", "-u", "ann", "-p", SECRET, registry.address()]).code(0);
    let plain = Registry::start(&sandbox, Options::default());
    for name in ["team/web:1", "web-cache:2", "db:1"] {
        plain.fill_with(&[b"x".to_vec()], name);
    }
    let term = format!("{}/web", plain.address());
    let out = run(&sandbox, &["search", "--format", "{{.Name}}", &term]).code(0).out();
    let mut names: Vec<&str> = out.lines().collect();
    names.sort_unstable();
    assert_eq!(names, [format!("{}/team/web", plain.address()), format!("{}/web-cache", plain.address())]);
    let out = run(&sandbox, &["search", "--limit", "1", "--format", "{{.Name}}", &term]).code(0).out();
    assert_eq!(out.lines().count(), 1);
    assert_eq!(run(&sandbox, &["search", &format!("{}/none", registry.address())]).code(0).out().lines().count(), 1);

    let server = Scripted::start(|request, answer| {
        assert_eq!(request.header("authorization"), None);
        let results = json!({ "num_results": 2, "results": [
            { "name": "a/fine", "description": "a \u{1b}[2Jvery long description that no table has room for", "star_count": 7,
                "is_official": true, "is_automated": false },
            { "name": "poor", "description": null, "star_count": 0, "is_official": false }] });
        match request.target.as_str() {
            "/v1/search?q=a%20b&n=100" => answer.send("200 OK", &[], results.to_string().as_bytes()),
            _ => answer.send("404 x", &[], b""),
        }
    });
    let term = format!("{}/a b", server.address());
    let search = |more: &[&str]| {
        let args = [&["search", "--limit", "100"], more, &[term.as_str()]].concat();
        run(&sandbox, &args).code(0).out()
    };
    let table = search(&[]);
    assert!(table.starts_with("NAME ") && table.contains("OFFICIAL") && table.contains("[OK]"), "{table}");
    assert!(table.contains("a \\u{1b}[2Jvery") && table.contains('…'), "{table}");
    assert!(search(&["--no-trunc"]).contains("no table has room for"));
    let name = format!("{}/a/fine", server.address());
    for filter in ["stars=1", "is-official=true"] {
        assert_eq!(search(&["-f", filter, "--format", "{{.Name}} {{.StarCount}}"]), format!("{name} 7"));
    }
    run(&sandbox, &["search", "--limit", "101", "x"]).code(125).says("outside the range of [1, 100]");
    run(&sandbox, &["search", "-f", "colour=red", "x"]).code(125).says("invalid filter 'colour'");
}

#[test]
fn local_images_are_found_without_a_network() {
    ours_only!("Docker has no 'image search'");
    let sandbox = Sandbox::new();
    sandbox.ok(["run", "--rm", "busybox", "true"]);
    let output = run(&sandbox, &["image", "search", "--format", "{{.Name}} {{.Source}}", "usyb"]).code(0);
    assert_eq!(output.out(), "busybox:latest local");
    output.says("no registry was searched").says("no such host");
    run(&sandbox, &["search", "usyb"]).code(1).says("lookup index.docker.io: no such host");
}
