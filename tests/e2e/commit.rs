//! `commit` and `diff`: what a container wrote, as an image and as a list.

use std::fs;

use serde_json::{Value, json};

use crate::ours_only;
use crate::support::peers::{Docker, host};
use crate::support::{Sandbox, against_docker, eventually};

/// The config of an image, as `save` gives it out.
#[track_caller]
fn config(s: &Sandbox, image: &str) -> Value {
    let file = s.host("config.tar");
    s.ok(["save", "-o", &file, image]);
    let manifest: Value = serde_json::from_str(&host("tar", ["-xOf", &file, "manifest.json"])).unwrap();
    let config = manifest[0]["Config"].as_str().unwrap();
    serde_json::from_str(&host("tar", ["-xOf", &file, config])).unwrap()
}

/// A container named `c` that has run `script`.
#[track_caller]
fn ran(s: &Sandbox, script: &str) -> String {
    let name = s.name("c");
    s.ok(["run", "--name", &name, "busybox", "sh", "-c", script]);
    name
}

const SCRIPT: &str = "mkdir /n /n/m; echo x > /n/f; echo y >> /etc/passwd; rm /bin/vi; rm -rf /usr; mkdir /usr; \
    echo z > /usr/z; chmod 700 /tmp; ln -s a /l; mkfifo /p; touch /root; rm -r /home; touch /home; \
    chmod 600 /etc/group; chmod 644 /etc/group; exec 3<>/etc/shells; mkdir /opt/x; rmdir /opt/x; mv /etc/shadow /etc/s; \
    ln /n/f /n/g; mknod /dv c 1 3";

#[test]
fn diff_is_dockers() {
    ours_only!("compares with docker itself");
    let s = Sandbox::new();
    let docker = Docker::start(&s);
    docker.ok(["import", concat!(env!("CARGO_MANIFEST_DIR"), "/images/busybox.tar"), "busybox"]);
    docker.ok(["run", "--network", "none", "--name", "c1", "busybox", "sh", "-c", SCRIPT]);
    let sorted = |text: String| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let name = ran(&s, SCRIPT);
    assert_eq!(sorted(s.ok(["diff", &name])), sorted(docker.ok(["diff", "c1"])));
    // A volume's place is a change in both, an engine's file in neither.
    docker.ok(["run", "--network", "none", "--name", "v1", "-v", "/var/tmp:/a/b", "busybox", "true"]);
    let mounted = s.name("v");
    s.ok(["run", "--name", &mounted, "-v", "/var/tmp:/a/b", "busybox", "true"]);
    assert_eq!(sorted(s.ok(["container", "diff", &mounted])), sorted(docker.ok(["diff", "v1"])));
    assert_eq!(s.ok(["diff", &mounted]), "A /a\nA /a/b");
    docker.ok(["rm", "c1", "v1"]);
}

#[test]
fn what_was_written_is_in_the_image() {
    let s = Sandbox::new();
    let (name, tag) = (ran(&s, SCRIPT), format!("{}:1", s.name("new")));
    let id = s.ok(["commit", "-a", "me", "-m", "a message", &name, &tag]);
    assert!(id.starts_with("sha256:") && id.len() == 71, "{id}");
    let look = "cat /n/f /n/g /usr/z; tail -1 /etc/passwd; ls /bin/vi /home/x /usr/bin /etc/shadow 2>/dev/null; \
        stat -c '%n %F %a' /p /l /home /tmp /dv; test /n/f -ef /n/g && echo linked";
    let expected = "x\nx\nz\ny\n/p fifo 644\n/l symbolic link 777\n/home regular empty file 644\n/tmp directory 700\n\
        /dv character special file 644\nlinked";
    let second = s.name("second");
    assert_eq!(s.ok(["run", "--name", &second, &tag, "sh", "-c", look]), expected);
    assert_eq!(s.ok(["diff", &second]), "");
    let config = config(&s, &tag);
    let history = config["history"].as_array().unwrap();
    let last = history.last().unwrap();
    assert_eq!((last["author"].as_str(), last["comment"].as_str()), (Some("me"), Some("a message")));
    assert_eq!(last["created_by"], format!("sh -c {SCRIPT}"));
    assert_eq!(last["created"], config["created"]);
    assert_eq!(config["author"], "me");
    let layers = history.iter().filter(|entry| entry["empty_layer"] != true).count();
    assert_eq!(config["rootfs"]["diff_ids"].as_array().unwrap().len(), layers);
    if against_docker() {
        s.ok(["rm", &name, &second]);
        s.ok(["rmi", &tag]);
    }
}

#[test]
fn a_container_that_changed_nothing_adds_no_layer() {
    let s = Sandbox::new();
    let (name, tag) = (s.name("c"), format!("{}:1", s.name("same")));
    s.sleeper(&name, &[]);
    let before = config(&s, "busybox")["rootfs"].clone();
    s.ok(["commit", &name, &tag]);
    let after = config(&s, &tag);
    assert_eq!(after["rootfs"], before);
    if !against_docker() {
        assert_eq!(s.ok(["image", "prune", "-f"]), "Total reclaimed space: 0B", "the layer of nothing is gone");
    }
    let last = after["history"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(last["empty_layer"], true);
    assert_eq!(last["created_by"], "sleep 1000");
    assert_eq!(after["config"]["Cmd"], json!(["sleep", "1000"]));
    assert!(s.is_running(&name));
    if against_docker() {
        s.ok(["rm", "-f", &name]);
        s.ok(["rmi", &tag]);
    }
}

#[test]
fn the_containers_config_is_the_images() {
    let s = Sandbox::new();
    let (name, tag) = (s.name("c"), format!("{}:1", s.name("conf")));
    s.ok([
        "create",
        "--name",
        &name,
        "-e",
        "A=1",
        "-u",
        "1:2",
        "-w",
        "/w",
        "-l",
        "k=v",
        "--expose",
        "80",
        "-v",
        "/vol",
        "--stop-signal",
        "SIGUSR1",
        "--health-cmd",
        "true",
        "--health-interval",
        "5s",
        "--entrypoint",
        "/bin/echo",
        "-t",
        "busybox",
        "x",
    ]);
    s.ok([
        "commit",
        "-c",
        "ENV B=\"$A 2\" C=3",
        "-c",
        "EXPOSE 90/udp",
        "-c",
        "CMD [\"y\"]",
        "-c",
        "WORKDIR sub",
        &name,
        &tag,
    ]);
    let config = config(&s, &tag)["config"].clone();
    let env: Vec<&str> = config["Env"].as_array().unwrap().iter().map(|entry| entry.as_str().unwrap()).collect();
    assert!(env.ends_with(&["A=1", "B=1 2", "C=3"]), "{env:?}");
    assert!(!env.iter().any(|entry| entry.starts_with("HOSTNAME=") || entry.starts_with("TERM=")), "{env:?}");
    assert_eq!(config["User"], "1:2");
    assert_eq!(config["WorkingDir"], "/w/sub");
    assert_eq!(config["Labels"], json!({"k": "v"}));
    assert_eq!(config["ExposedPorts"], json!({"80/tcp": {}, "90/udp": {}}));
    assert_eq!(config["Volumes"], json!({"/vol": {}}));
    assert_eq!(config["StopSignal"], "SIGUSR1");
    assert_eq!(config["Healthcheck"], json!({"Test": ["CMD-SHELL", "true"], "Interval": 5_000_000_000_i64}));
    assert_eq!(config["Healthcheck"], json!({"Test": ["CMD-SHELL", "true"], "Interval": 5_000_000_000_i64}));
    assert_eq!((&config["Entrypoint"], &config["Cmd"]), (&json!(["/bin/echo"]), &json!(["y"])));
    assert_eq!(s.ok(["run", "--rm", &tag]), "y");
    for (change, reason) in [("RUN x", "is not a valid change command"), ("ENV A", "ENV must have two arguments")] {
        let output = s.run(["commit", "-c", change, &name]);
        assert_ne!(output.code, 0);
        assert!(output.err().contains(reason), "{output}");
    }
    s.fails(1, ["commit", "absent"]).says("No such container: absent");
    assert_ne!(s.run(["commit", &name, "Bad:1"]).code, 0);
    if against_docker() {
        s.ok(["rm", "-v", &name]);
        s.ok(["rmi", &tag]);
    }
}

#[test]
fn older_spellings_and_an_archive() {
    ours_only!("older tools' options");
    let (s, there) = (Sandbox::new(), Sandbox::new());
    let name = ran(&s, "echo here > /mark");
    let file = s.host("out.tar");
    let id = s.ok(["commit", "-n", &name, "-t", "old/style:2"]);
    assert_eq!(s.ok(["run", "--rm", "old/style:2", "cat", "/mark"]), "here");
    assert_eq!(s.ok(["images", "-q", "--no-trunc", "old/style"]), id);
    s.ok(["commit", "-o", &file, &name, "with/file:1"]);
    assert_eq!(there.ok(["load", "-i", &file]), "Loaded image: with/file:1");
    assert_eq!(there.ok(["run", "--rm", "with/file:1", "cat", "/mark"]), "here");
    let id = s.ok(["commit", "-o", &file, &name]);
    assert_eq!(there.ok(["load", "-i", &file]), format!("Loaded image ID: {id}"));
    s.fails(125, ["commit"]).says("requires at least 1");
    s.fails(125, ["commit", "a", "b", "c"]).says("accepts at most 2 arguments");
}

#[test]
fn it_stands_still_meanwhile_and_goes_on() {
    let s = Sandbox::new();
    let name = s.name("c");
    // Two files that are always written together; the first is large enough to be read for a while.
    s.ok([
        "run",
        "-d",
        "--name",
        &name,
        "busybox",
        "sh",
        "-c",
        "i=0; while :; do i=$((i+1)); echo $i > /a.tmp; mv /a.tmp /a; echo $i > /z.tmp; mv /z.tmp /z; done",
    ]);
    eventually("it writes", || s.run(["exec", &name, "test", "-e", "/z"]).code == 0);
    for number in 0..5 {
        let tag = format!("{}:{number}", s.name("still"));
        s.ok(["commit", &name, &tag]);
        assert_eq!(s.field(&name, "{{.State.Status}}"), "running");
        let seen = s.ok(["run", "--rm", &tag, "sh", "-c", "echo $(($(cat /a) - $(cat /z)))"]);
        assert!(matches!(seen.as_str(), "0" | "1"), "{seen}");
        if against_docker() {
            s.ok(["rmi", &tag]);
        }
    }
    // Without a pause it may be torn, and is an image all the same.
    let id = s.ok(["commit", "--pause=false", &name]);
    s.ok(["run", "--rm", &id, "true"]);
    // Whom the user has paused stays paused.
    s.ok(["pause", &name]);
    s.ok(["commit", &name]);
    assert_eq!(s.field(&name, "{{.State.Status}}"), "paused");
    s.ok(["unpause", &name]);
    s.ok(["rm", "-f", &name]);
}

#[test]
fn names_attributes_and_many_files() {
    ours_only!("setfattr on the upper directory");
    let s = Sandbox::new();
    let name = s.name("c");
    s.ok(["run", "--name", &name, "busybox", "sh", "-c",
        "mkdir /many; cd /many; i=0; while [ $i -lt 5000 ]; do : > f$i; i=$((i+1)); done; printf x > \"$(printf '/b\\377d')\"; \
         cp /bin/busybox /suid; chmod 4755 /suid; cp /bin/busybox /cap; mkdir /sticky; chmod 1777 /sticky; chown 12:34 /sticky"]);
    let upper = s.root().join("overlay2").join(s.field(&name, "{{.Id}}")).join("upper");
    host("setfattr", ["-n", "user.note", "-v", "kept", upper.join("cap").to_str().unwrap()]);
    host("setcap", ["cap_net_raw=ep", upper.join("cap").to_str().unwrap()]);
    let id = s.ok(["commit", &name]);
    let look = "ls /many | wc -l; echo /b*d | od -An -c; stat -c '%n %a %u:%g' /suid /sticky";
    let seen = s.ok(["run", "--rm", &id, "sh", "-c", look]);
    assert_eq!(seen, "5000\n   /   b 377   d  \\n\n/suid 4755 0:0\n/sticky 1777 12:34");
    let layers = config(&s, &id)["rootfs"]["diff_ids"].clone();
    let top = layers.as_array().unwrap().last().unwrap().as_str().unwrap()[7..].to_owned();
    let cap = s.root().join("overlay2/layers").join(top).join("diff/cap");
    assert_eq!(host("getcap", [cap.to_str().unwrap()]), format!("{} cap_net_raw=ep", cap.display()));
    assert_eq!(host("getfattr", ["--only-values", "-n", "user.note", cap.to_str().unwrap()]), "kept");
    // The same again is the same layer.
    let again = s.ok(["commit", &name]);
    assert_eq!(config(&s, &again)["rootfs"]["diff_ids"], layers);
}

#[test]
fn events_tell_it() {
    ours_only!("reads the log of events");
    let s = Sandbox::new();
    let name = ran(&s, "echo 1 > /f");
    let id = s.ok(["commit", "-m", "why", &name, "told:1"]);
    s.ok(["export", "-o", "/dev/null", &name]);
    s.ok(["save", "-o", "/dev/null", "told:1"]);
    let log = fs::read_to_string(s.root().join("events.log")).unwrap();
    let events: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let find = |kind: &str, action: &str| {
        let same = |event: &&Value| event["Type"] == kind && event["Action"] == action;
        events.iter().rfind(same).unwrap_or_else(|| panic!("no {kind} {action} in {log}"))["Actor"].clone()
    };
    let commit = find("container", "commit")["Attributes"].clone();
    assert_eq!(
        (&commit["imageID"], &commit["imageRef"], &commit["comment"]),
        (&json!(id), &json!("told:1"), &json!("why"))
    );
    assert_eq!(find("image", "tag")["Attributes"]["name"], "told:1");
    assert_eq!(find("image", "save")["ID"], id);
    assert_eq!(find("container", "export")["Attributes"]["name"], name);
}

#[test]
fn the_comment_is_that_of_the_last_commit() {
    let s = Sandbox::new();
    let [base, second, third] = ["base", "second", "third"].map(|stem| s.name(stem));
    let file = s.host_file("root.tar", crate::support::archive::Layer::busybox().bytes());
    s.ok(["import", "-m", "the first", &file, &base]);
    let name = s.name("c");
    s.ok(["create", "--name", &name, &base, "true"]);
    let comment = |image: &str| s.ok(["image", "inspect", "-f", "{{.Comment}}", image]);
    assert_eq!(comment(&base), "the first");
    s.ok(["commit", "-m", "the second", &name, &second]);
    assert_eq!(comment(&second), "the second");
    s.ok(["commit", &name, &third]);
    assert_eq!(comment(&third), "");
    // A name is refused before anything is read.
    s.fails(1, ["commit", &name, "sha256:abc"]).says("ambiguous tag using digest algorithm as name");
    s.fails(1, ["commit", &name, &format!("x@sha256:{}", "0".repeat(64))])
        .says("refusing to create a tag with a digest reference");
    s.ok(["rm", &name]);
    s.ok(["rmi", &third, &second, &base]);
}

/// Scripts look for the file; nobody changed it.
#[test]
fn a_container_has_dockers_mark_and_its_image_has_not() {
    let s = Sandbox::new();
    let (name, again) = (s.name("c"), s.name("again"));
    let (tag, imported) = (format!("{}:1", s.name("marked")), format!("{}:1", s.name("imported")));
    s.sleeper(&name, &["--network", "none"]);
    assert_eq!(s.ok(["exec", &name, "stat", "-c", "%F %a %s %u", "/.dockerenv"]), "regular empty file 755 0 0");
    assert_eq!(s.ok(["diff", &name]), "");
    s.ok(["commit", &name, &tag]);
    assert_eq!(config(&s, &tag)["rootfs"], config(&s, "busybox")["rootfs"]);
    // An exported root has it, and a container of that root has it unchanged.
    let root = s.host("root.tar");
    s.ok(["export", "-o", &root, &name]);
    s.ok(["import", &root, &imported]);
    s.ok(["run", "-d", "--name", &again, "--network", "none", &imported, "sleep", "1000"]);
    assert_eq!(s.ok(["diff", &again]), "");
    s.ok(["exec", &again, "sh", "-c", "echo mine > /.dockerenv"]);
    assert_eq!(s.ok(["diff", &again]), if against_docker() { "" } else { "C /.dockerenv" });
    s.ok(["rm", "-f", &name, &again]);
    s.ok(["rmi", &tag, &imported]);
}
