//! Listing and inspecting records written as the engine writes them, with real processes.

mod networking;

use std::collections::BTreeMap;
use std::fs;

use crate::container::handle::{Locked, Record};
use crate::container::status::Status;
use crate::container::*;
use crate::engine::Engine;
use crate::engine::query::{Filter, ListRequest, inspect};
use crate::sys::process;

fn fresh() -> (tempfile::TempDir, Engine) {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(Some(dir.path().into())).unwrap();
    (dir, engine)
}

fn config(name: &str, second: i64) -> Config {
    Config {
        id: ContainerId::random().unwrap(),
        name: name.to_owned(),
        created: jiff::Timestamp::from_second(1_700_000_000 + second).unwrap(),
        image: ImageSource {
            name: "busybox".into(),
            id: "sha256:abcdef".into(),
            layers: vec!["sha256:11".into(), "sha256:22".into()],
        },
        process: Process {
            entrypoint: vec!["/entry".into()],
            command: vec!["top".into(), "-b".into()],
            env: vec!["PATH=/bin".into()],
            ..crate::container::sample::config().process
        },
        hostname: "h".into(),
        mounts: vec![
            Mount {
                source: MountSource::Host("/a".into()),
                target: "/b".into(),
                read_only: true,
                propagation: None,
                mode: "Z".into(),
            },
            Mount {
                source: MountSource::Volume { name: "data".into(), anonymous: false, copy: true },
                target: "/d".into(),
                read_only: false,
                propagation: None,
                mode: String::new(),
            },
        ],
        ulimits: vec![Ulimit { name: "core".into(), soft: 0, hard: u64::MAX }],
        security: Security { cap_add: vec!["NET_ADMIN".into()], ..Security::default() },
        labels: BTreeMap::from([("tier".to_owned(), format!("l-{name}"))]),
        ..crate::container::sample::config()
    }
}

/// A container whose first process is this test.
fn running() -> State {
    let pid = std::process::id() as i32;
    let this = ProcessRef { pid, start_time: process::start_time(pid).unwrap() };
    let started = Some(jiff::Timestamp::now());
    State { status: Status::Running, boot_id: process::boot_id().into(), init: Some(this), started, ..State::created() }
}

fn exited(code: i32) -> State {
    let now = Some(jiff::Timestamp::now());
    State { status: Status::Exited, exit_code: code, started: now, finished: now, ..State::created() }
}

fn add(engine: &Engine, config: Config, state: State) -> ContainerId {
    names::claim(engine.layout(), &config.name, &config.id).unwrap();
    let container = Locked::create(engine.layout(), config, state).unwrap();
    container.save_config().unwrap();
    container.save_state().unwrap();
    container.id().clone()
}

fn listed(engine: &Engine, all: bool, last: Option<usize>, filters: &[&str]) -> String {
    let filters = filters.iter().map(|text| Filter::parse(text).unwrap()).collect();
    let listing = engine.list(&ListRequest { all, last, filters, size: false }).unwrap();
    listing.containers.iter().map(|container| container.name.as_str()).collect::<Vec<_>>().join(" ")
}

#[test]
fn containers_are_listed_newest_first_and_filtered() {
    let (_dir, engine) = fresh();
    let web = add(&engine, config("web", 1), running());
    add(&engine, config("db", 2), exited(3));
    let new = Config {
        image: ImageSource { name: "other:1".into(), id: "sha256:0123".into(), layers: vec![] },
        ..config("new", 3)
    };
    add(&engine, new, State::created());
    let all = |filters: &[&str]| listed(&engine, true, None, filters);
    assert_eq!(listed(&engine, false, None, &[]), "web");
    assert_eq!(all(&[]), "new db web");
    assert_eq!(listed(&engine, false, Some(2), &[]), "new db");
    assert_eq!(listed(&engine, false, Some(1), &["name=b"]), "db");
    assert_eq!(listed(&engine, false, None, &["status=exited"]), "db");
    assert_eq!(all(&["status=exited", "status=created"]), "new db");
    assert_eq!(all(&["exited=3"]), "db");
    assert_eq!(all(&["exited=0"]), "");
    assert_eq!(all(&["name=^/?web$"]), "web");
    assert_eq!(all(&["name=web", "name=db"]), "db web");
    assert_eq!(all(&["label=tier"]), "new db web");
    assert_eq!(all(&["label=tier=l-db"]), "db");
    assert_eq!(all(&["label=tier", "label=tier=l-db"]), "db");
    assert_eq!(all(&["label=none"]), "");
    assert_eq!(all(&["before=db"]), "web");
    assert_eq!(all(&["since=web"]), "new db");
    assert_eq!(all(&["ancestor=busybox:latest"]), "db web");
    assert_eq!(all(&["ancestor=other:1"]), "new");
    assert_eq!(all(&["volume=data", "name=db"]), "db");
    assert_eq!(all(&["volume=/b", "name=web"]), "web");
    assert_eq!(all(&["network=bridge", &format!("id={}", web.short())]), "web");
    for bad in ["x", "foo=1", "status=foo", "exited=x", "name=("] {
        assert!(Filter::parse(bad).is_err(), "{bad}");
    }
    assert!(
        engine
            .list(&ListRequest { filters: vec![Filter::parse("before=nobody").unwrap()], ..Default::default() })
            .is_err()
    );
}

#[test]
fn a_damaged_record_hides_no_other() {
    let (_dir, engine) = fresh();
    add(&engine, config("good", 1), exited(0));
    let bad = add(&engine, config("bad", 2), exited(0));
    fs::write(engine.layout().container(&bad).join("state.json"), "{\"stat").unwrap();
    let listing = engine.list(&ListRequest { all: true, ..Default::default() }).unwrap();
    let shown: Vec<_> =
        listing.containers.iter().map(|c| (c.id.clone() == bad, c.status_text(jiff::Timestamp::now()))).collect();
    assert_eq!(shown, [(false, "Exited (0) Less than a second ago".to_owned()), (true, "Damaged".to_owned())]);
    assert_eq!(listing.problems.len(), 1);
    assert!(format!("{:#}", listing.problems[0]).contains(bad.as_str()));
    assert_eq!(engine.list(&ListRequest::default()).unwrap().containers.len(), 0);
}

#[test]
fn a_container_in_the_making_is_not_damaged_and_an_old_torso_is() {
    let (_dir, engine) = fresh();
    let id = ContainerId::random().unwrap();
    let directory = engine.layout().container(&id);
    fs::create_dir(&directory).unwrap();
    let all = ListRequest { all: true, ..Default::default() };
    assert!(engine.list(&all).unwrap().problems.is_empty());
    let hour_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
    fs::File::open(&directory).unwrap().set_modified(hour_ago).unwrap();
    assert_eq!(engine.list(&all).unwrap().problems.len(), 1);
}

#[test]
fn the_kernel_overrules_the_record() {
    let (_dir, engine) = fresh();
    let mut state = running();
    state.init = state.init.map(|process| ProcessRef { start_time: process.start_time + 1, ..process });
    add(&engine, config("gone", 1), state);
    assert_eq!(listed(&engine, false, None, &[]), "");
    let view = engine.inspect("gone").unwrap();
    assert_eq!(
        (view.state.status.as_str(), view.state.running, view.state.pid, view.state.exit_code),
        ("exited", false, 0, 255)
    );
}

#[test]
fn inspect_has_dockers_shape() {
    let (_dir, engine) = fresh();
    let config = config("web", 1);
    let record = Record::new(config, State { exit_code: 7, ..running() });
    let view = serde_json::to_value(inspect::view(engine.layout(), &record)).unwrap();
    let pick = |pointer: &str| view.pointer(pointer).unwrap_or_else(|| panic!("{pointer}")).to_string();
    for (pointer, expected) in [
        ("/Name", "\"/web\""),
        ("/Created", "\"2023-11-14T22:13:21Z\""),
        ("/Path", "\"/entry\""),
        ("/Args", "[\"top\",\"-b\"]"),
        ("/State/Status", "\"running\""),
        ("/State/Running", "true"),
        ("/State/OOMKilled", "false"),
        ("/State/ExitCode", "0"),
        ("/State/FinishedAt", "\"0001-01-01T00:00:00Z\""),
        ("/Image", "\"sha256:abcdef\""),
        ("/HostConfig/Binds", "[\"/a:/b:ro,Z\",\"data:/d\"]"),
        ("/HostConfig/CapAdd", "[\"CAP_NET_ADMIN\"]"),
        ("/HostConfig/CapDrop", "null"),
        ("/HostConfig/LogConfig", "{\"Config\":{\"max-file\":\"5\",\"max-size\":\"100m\"},\"Type\":\"json-file\"}"),
        ("/HostConfig/Ulimits/0", "{\"Hard\":-1,\"Name\":\"core\",\"Soft\":0}"),
        ("/HostConfig/UTSMode", "\"\""),
        ("/HostConfig/IpcMode", "\"private\""),
        ("/Mounts/0/Mode", "\"ro,Z\""),
        ("/Mounts/0/RW", "false"),
        ("/Mounts/1/Type", "\"volume\""),
        ("/Config/Cmd", "[\"top\",\"-b\"]"),
        ("/Config/Volumes", "null"),
        ("/Config/Image", "\"busybox\""),
        ("/NetworkSettings/Networks/bridge/IPAddress", "\"\""),
    ] {
        assert_eq!(pick(pointer), expected, "{pointer}");
    }
    assert_eq!(pick("/State/Pid"), std::process::id().to_string());
    let lower = pick("/GraphDriver/Data/LowerDir");
    assert!(lower.find("/22/diff").unwrap() < lower.find("/11/diff").unwrap(), "topmost layer first: {lower}");
}

#[test]
fn sizes_count_what_was_written() {
    let (_dir, engine) = fresh();
    let id = add(&engine, config("web", 1), exited(0));
    let upper = engine.layout().container_overlay(&id).join("upper");
    fs::create_dir_all(&upper).unwrap();
    fs::write(upper.join("f"), [0; 42]).unwrap();
    let layer = engine.layout().layers().join("11/diff");
    fs::create_dir_all(&layer).unwrap();
    fs::write(layer.join("g"), [0; 1000]).unwrap();
    let view = engine.inspect_with_size("web").unwrap();
    assert_eq!((view.size_rw, view.size_root_fs), (Some(42), Some(1042)));
}

/// A container whose shim, which is this test, waits to start it again.
fn restarting(code: i32) -> State {
    let State { boot_id, init: shim, .. } = running();
    State { status: Status::Restarting, boot_id, shim, restart_count: 2, ..exited(code) }
}

#[test]
fn a_container_between_two_runs_is_dockers_restarting() {
    let (_dir, engine) = fresh();
    let policy = RestartPolicy::OnFailure { max_retries: 4 };
    add(&engine, Config { restart: policy, ..config("web", 1) }, restarting(3));
    let orphan = State { shim: None, ..restarting(3) };
    add(&engine, Config { restart: RestartPolicy::Always, ..config("orphan", 2) }, orphan);
    let view = engine.inspect("web").unwrap();
    let state = &view.state;
    assert_eq!((state.status.as_str(), state.running, state.restarting), ("restarting", true, true));
    assert_eq!((state.pid, state.exit_code, view.restart_count), (0, 3, 2));
    let shown = &view.host_config.restart_policy;
    assert_eq!((shown.name.as_str(), shown.maximum_retry_count), ("on-failure", 4));
    // Without a shim nobody will start it again.
    let view = engine.inspect("orphan").unwrap();
    assert_eq!((view.state.status.as_str(), view.state.running, view.state.exit_code), ("exited", false, 3));
    assert_eq!(listed(&engine, false, None, &[]), "web");
    assert_eq!(listed(&engine, true, None, &["status=restarting"]), "web");
    assert_eq!(listed(&engine, true, None, &["exited=3"]), "orphan");
    let info = engine.info().unwrap();
    assert_eq!((info.containers_running, info.containers_stopped), (0, 2));
}

#[test]
fn info_counts() {
    let (_dir, engine) = fresh();
    add(&engine, config("web", 1), running());
    add(&engine, config("db", 2), exited(3));
    let info = engine.info().unwrap();
    assert_eq!((info.containers, info.containers_running, info.containers_stopped), (2, 1, 1));
    assert!(info.mem_total > 0 && info.ncpu > 0 && !info.kernel_version.is_empty());
    assert_eq!(info.plugins.network, ["bridge", "host", "ipvlan", "macvlan", "null"]);
    assert!(["1", "2", "hybrid", "none"].contains(&info.cgroup_version.as_str()));
}
