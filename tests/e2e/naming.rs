//! Names, ids, prefixes.

use crate::support::{Sandbox, against_docker};

#[test]
fn a_container_goes_by_name_id_and_prefix() {
    let s = Sandbox::new();
    let name = s.name("web");
    let id = s.idle(&name, &[]);
    for reference in [&name, &id, &id[..12], &id[..20], &format!("/{name}")] {
        assert_eq!(s.field(reference, "{{.Id}}"), id, "{reference}");
    }
    assert_eq!(s.ok(["exec", &id[..12], "echo", "by prefix"]), "by prefix");
    assert_eq!(s.ok(["stop", "-t", "0", &id[..12]]), id[..12]);
}

#[test]
fn names_without_being_asked_are_readable() {
    let s = Sandbox::new();
    let label = s.name("label");
    let id = s.ok(["create", "-l", &label, "busybox"]);
    let name = s.field(&id, "{{.Name}}");
    let words: Vec<&str> = name.trim_start_matches('/').split('_').collect();
    assert!(words.len() == 2 && words.iter().all(|word| word.len() > 1), "{name}");
    s.ok(["rm", name.trim_start_matches('/')]);
}

#[test]
fn a_name_in_use_is_refused_with_its_holder() {
    let s = Sandbox::new();
    let name = s.name("taken");
    let id = s.ok(["create", "--name", &name, "busybox"]);
    let output = s.fails(125, ["run", "--name", &name, "busybox", "true"]);
    output.says("Conflict. The container name").says(&id);
    s.fails(1, ["create", "--name", &name, "busybox"]).says(&id);
    s.ok(["rm", &name]);
    s.ok(["run", "--rm", "--name", &name, "busybox", "true"]);
}

#[test]
fn of_many_who_race_for_a_name_exactly_one_wins() {
    let s = Sandbox::new();
    let name = s.name("race");
    for _ in 0..3 {
        let running: Vec<_> = (0..8).map(|_| s.command(["create", "--name", &name, "busybox"]).start()).collect();
        let outputs: Vec<_> = running.into_iter().map(|running| running.finish().cleanly()).collect();
        let winners: Vec<_> = outputs.iter().filter(|output| output.code == 0).collect();
        assert_eq!(winners.len(), 1);
        assert_eq!(s.field(&name, "{{.Id}}"), winners[0].out());
        // Those who lost left nothing.
        let filter = format!("name={name}");
        assert_eq!(s.ok(["ps", "-aq", "--filter", &filter]).lines().count(), 1);
        s.ok(["rm", &name]);
    }
}

#[test]
fn names_have_dockers_alphabet() {
    let s = Sandbox::new();
    for name in ["a", "-a", ".a", "a b", "a/b", "../x", "", "a\n", "ä", "_ab"] {
        let output = s.run(["create", "--name", name, "busybox"]);
        // Docker takes an empty name for none.
        if name.is_empty() {
            continue;
        }
        assert!(matches!(output.code, 1 | 125), "{name:?}: {output}");
    }
    let long = format!("{}.x_y-Z0", s.name("ok"));
    s.ok(["create", "--name", &long, "busybox"]);
}

#[test]
fn an_ambiguous_prefix_lists_its_matches() {
    let s = Sandbox::new();
    // Seventeen ids on sixteen digits: two begin alike.
    let ids: Vec<String> = (0..17).map(|n| s.ok(["create", "--name", &s.name(&format!("n{n}")), "busybox"])).collect();
    let digit =
        "0123456789abcdef".chars().find(|digit| ids.iter().filter(|id| id.starts_with(*digit)).count() > 1).unwrap();
    let output = s.run(["rm", &digit.to_string()]);
    assert_ne!(output.code, 0);
    if !against_docker() {
        let err = output.err();
        assert!(err.contains("ambiguous"), "{output}");
        for id in ids.iter().filter(|id| id.starts_with(digit)) {
            assert!(err.contains(&id[..12]), "{output}");
        }
    }
    assert_eq!(ids.iter().filter(|id| s.run(["inspect", id]).code == 0).count(), 17);
}

#[test]
fn a_name_that_looks_like_a_prefix_wins() {
    let s = Sandbox::new();
    let other = s.ok(["create", "--name", &s.name("other"), "busybox"]);
    // A container named like the beginning of the other's id.
    let name = &other[..6];
    let id = s.ok(["create", "--name", name, "busybox"]);
    assert_eq!(s.field(name, "{{.Id}}"), id);
    s.ok(["rm", name]);
    assert_eq!(s.field(name, "{{.Id}}"), other);
}

#[test]
fn objects_that_are_not_there_have_dockers_wording() {
    let s = Sandbox::new();
    for command in ["start", "stop", "restart", "kill", "rm", "logs", "wait", "attach"] {
        s.fails(1, [command, "no-such-thing"]).says("No such container: no-such-thing");
    }
    let output = s.fails(1, ["inspect", "no-such-thing"]);
    assert_eq!(output.out(), "[]");
    output.says("No such object: no-such-thing");
}

#[test]
fn references_are_no_paths() {
    let s = Sandbox::new();
    s.ok(["create", "--name", &s.name("c"), "busybox"]);
    for reference in ["..", ".", "../containers", "*", ".lock", "a/../b"] {
        assert_ne!(s.run(["rm", "-f=false", reference]).code, 0, "{reference}");
        assert_ne!(s.run(["inspect", reference]).code, 0, "{reference}");
    }
}
