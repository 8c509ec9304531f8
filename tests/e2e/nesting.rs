//! An engine inside a container: it finds its own part of the cgroup tree and limits what it runs there.

use super::support::Sandbox;

#[test]
fn an_engine_in_a_container_limits_its_own_containers() {
    crate::ours_only!("the engine itself runs inside");
    let s = Sandbox::new();
    let name = s.name("outer");
    let program = format!("{}:/bin/engine:ro", s.program().display());
    // Where the outer engine finds its own: in the checkout, or where it is installed.
    let checkout = concat!(env!("CARGO_MANIFEST_DIR"), "/images");
    let installed = "/usr/share/mydocker/images";
    let images = if std::path::Path::new(checkout).is_dir() { checkout } else { installed };
    let images = format!("{images}:{installed}:ro");
    // An overlay cannot lie on an overlay: the inner data root is a directory of the host.
    let data = format!("{}:/data", s.host_dir("data"));
    s.idle(&name, &["--privileged", "-v", &program, "-v", &images, "-v", &data]);
    let limit = "cat /sys/fs/cgroup/pids.max 2>/dev/null || cat /sys/fs/cgroup/pids/pids.max";
    let inner = ["engine", "--root", "/data/root", "run", "--rm", "-m", "32m", "--pids-limit", "9", "busybox"];
    let run = |script: &str| s.ok([&["exec", &name][..], &inner, &["sh", "-c", script]].concat());
    assert_eq!(run(limit), "9");
    // Below the outer container's group, not beside it.
    let ours = s.field(&name, "{{.Id}}");
    let path = s.ok([
        "exec",
        &name,
        "sh",
        "-c",
        "engine --root /data/root run -d --name in busybox sleep 100 >&2;
        cat /proc/$(engine --root /data/root inspect -f '{{.State.Pid}}' in)/cgroup;
        engine --root /data/root rm -f in >&2",
    ]);
    let line = path.lines().find(|line| line.contains("pids") || line.starts_with("0::/mydocker/"));
    // v2 has a namespace of the outer container's, whose root is the outer container's own group.
    let below = |line: &str| line.starts_with("0::/mydocker/") || line.contains(&format!("{ours}/mydocker/"));
    assert!(line.is_some_and(below), "{path}");
    // The outer container is as it was.
    assert_eq!(s.ok(["exec", &name, "echo", "still here"]), "still here");
    assert_eq!(run(limit), "9");
    s.ok(["rm", "-f", &name]);
}
