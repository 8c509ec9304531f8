use super::*;
use crate::cgroup::{Group, Member, Mode};

fn rule_of(node: &LinuxDevice) -> String {
    LinuxDeviceCgroup::from(node).to_string()
}

#[test]
fn rules_are_read_as_docker_reads_them() {
    for (text, expected) in [
        ("c 1:3 mr", "c 1:3 mr"),
        ("b *:* rwm", "b *:* rwm"),
        ("a *:3 m", "a *:3 m"),
        ("c 10:* rr", "c 10:* rr"),
        ("c 007:4294967295 w", "c 7:4294967295 w"),
    ] {
        let rule = parse_rule(text).unwrap_or_else(|| panic!("{text} is refused"));
        assert!(rule.allow());
        assert_eq!(rule.to_string(), expected);
    }
    for bad in [
        "",
        "x",
        "c",
        "c 1:3",
        "c 1:3 ",
        " c 1:3 r",
        "c 1:3  r",
        "c 1:3 r ",
        "c 1 r",
        "d 1:3 r",
        "c 1:3 x",
        "c -1:3 r",
        "c +1:3 r",
        "c :3 r",
        "c 1: r",
        "c **:3 r",
        "c 1:2:3 r",
        "c 1:3 rwmr",
        "c 4294967296:0 r",
        "c 1:3 r\n",
        "C 1:3 r",
    ] {
        assert_eq!(parse_rule(bad), None, "{bad:?}");
    }
}

#[test]
fn a_link_is_followed_and_a_directory_is_all_its_devices() {
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    let host = directory.path().to_str().unwrap();
    let make = |name: &str, kind, major, minor| {
        let path = directory.path().join(name);
        rustix::fs::mknodat(rustix::fs::CWD, &path, kind, 0o640.into(), rustix::fs::makedev(major, minor)).unwrap();
    };
    use rustix::fs::FileType::{BlockDevice, CharacterDevice};
    fs::create_dir(directory.path().join("sub")).unwrap();
    make("zero", CharacterDevice, 1, 5);
    make("sub/disk", BlockDevice, 7, 300);
    fs::write(directory.path().join("file"), "").unwrap();
    std::os::unix::fs::symlink("zero", directory.path().join("link")).unwrap();
    let found = |path: &str, inside: &str| {
        let mapping =
            DeviceMapping { host: format!("{host}{path}"), container: inside.into(), permissions: "r".into() };
        gather(&mapping)
    };

    let linked = found("/link", "/dev/mine").unwrap();
    assert_eq!((rule_of(&linked[0]).as_str(), linked[0].path()), ("c 1:5 rwm", &PathBuf::from("/dev/mine")));
    assert_eq!(linked[0].file_mode().unwrap() & 0o777, 0o640);
    // Links in a directory are not followed, and what is no device is left out.
    let mut all = found("", "/dev/all").unwrap();
    all.sort_by_key(|node| node.path().clone());
    let all: Vec<_> = all.iter().map(|node| format!("{} {}", node.path().display(), rule_of(node))).collect();
    assert_eq!(all, ["/dev/all/sub/disk b 7:300 rwm", "/dev/all/zero c 1:5 rwm"]);

    let text = |path: &str| found(path, "/x").unwrap_err().to_string();
    let begin = format!("error gathering device information while adding custom device \"{host}");
    assert_eq!(text("/missing"), format!("{begin}/missing\": no such file or directory"));
    assert_eq!(text("/file"), format!("{begin}/file\": not a device node"));
}

#[test]
fn dockers_list_as_lines_and_as_a_program() {
    let mut rules = vec![everything(false)];
    rules.extend(DEFAULT_RULES.iter().map(|rule| parse_rule(rule).unwrap()));
    let group = |mode| Group {
        mode,
        members: vec![Member { controllers: Vec::new(), mount: "/".into(), path: "/g".into() }],
        scope: None,
    };
    insta::assert_snapshot!("device_lines", group(Mode::V1).device_plan(&rules).unwrap().join("\n"));
    insta::assert_snapshot!("device_program", group(Mode::V2).device_plan(&rules).unwrap().join("\n"));
}
