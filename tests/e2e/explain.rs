//! `run --explain`.

use serde_json::Value;

use crate::ours_only;
use crate::support::Sandbox;

#[test]
fn steps_with_their_times_go_to_stderr() {
    ours_only!("docker has no --explain");
    let s = Sandbox::new();
    let output = s.run(["run", "--rm", "--explain", "busybox", "echo", "hello"]).code(0);
    assert_eq!(output.out(), "hello");
    let err = output.err();
    for word in ["clone", "overlay", "exec", "init", "shim"] {
        assert!(err.contains(word), "{word} is not in\n{err}");
    }
    assert!(err.lines().filter(|line| line.contains("µs") || line.contains("ms")).count() > 5, "{err}");
}

#[test]
fn as_json_for_programs() {
    ours_only!("docker has no --explain");
    let s = Sandbox::new();
    let output = s.run(["run", "--rm", "--explain=json", "busybox", "sh", "-c", "echo hello; echo own >&2"]).code(0);
    assert_eq!(output.out(), "hello");
    let err = output.err();
    let document: String = err.lines().filter(|line| *line != "own").collect::<Vec<_>>().join("\n");
    let value: Value = serde_json::from_str(&document).unwrap_or_else(|error| panic!("{error}\n{document}"));
    let steps = value.as_array().or_else(|| value["steps"].as_array()).unwrap();
    assert!(steps.len() > 5, "{document}");
    for step in steps {
        assert!(step["step"].is_string() && step["process"].is_string(), "{step}");
        assert!(step["at"].is_u64() && step["took"].is_u64(), "{step}");
    }
    let processes: std::collections::BTreeSet<&str> =
        steps.iter().map(|step| step["process"].as_str().unwrap()).collect();
    assert!(processes.len() >= 3, "{processes:?}");
    // Within a process, time goes forward.
    for process in processes {
        let at: Vec<u64> =
            steps.iter().filter(|step| step["process"] == process).map(|step| step["at"].as_u64().unwrap()).collect();
        assert!(at.is_sorted(), "{process}: {at:?}");
    }
}

#[test]
fn a_failing_step_is_named_with_its_errno() {
    ours_only!("docker has no --explain");
    let s = Sandbox::new();
    let output = s.run(["run", "--rm", "--explain", "busybox", "no-such-program"]).code(127);
    let err = output.err();
    assert!(err.contains("exec") && err.contains("ENOENT"), "{err}");
    // A mount option that the kernel refuses.
    let output = s.run(["run", "--rm", "--explain", "--tmpfs", "/t:nr_inodes=nonsense", "busybox", "true"]);
    assert_ne!(output.code, 0);
    let err = output.err();
    assert!(err.contains("mount") && err.contains("EINVAL") && err.contains("/t"), "{err}");
}

#[test]
fn a_plan_runs_nothing() {
    ours_only!("docker has no --explain");
    let s = Sandbox::new();
    let dir = s.host_dir("dir");
    let mount = format!("{dir}:/mnt:ro");
    let output = s
        .run(["run", "--rm", "--explain=plan", "-v", &mount, "--network", "none", "busybox", "touch", "/mnt/ran"])
        .code(0);
    let plan = output.out();
    for word in ["/mnt", &dir, "overlay", "proc", "pid", "mydocker/"] {
        assert!(plan.contains(word), "{word} is not in\n{plan}");
    }
    assert!(!s.path("dir/ran").exists());
    // Nothing was made either.
    assert_eq!(s.ok(["ps", "-aq"]), "");
}

#[test]
fn other_forms_are_usage_errors() {
    ours_only!("docker has no --explain");
    let s = Sandbox::new();
    s.fails(125, ["run", "--rm", "--explain=nonsense", "busybox", "true"]).says("nonsense");
}
