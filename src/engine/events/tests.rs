//! What goes in through any number of writers comes out of `Engine::events`, whatever stands between.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::*;
use crate::error::Failure;

/// Long enough that only a hang exceeds it.
const HANG: Duration = Duration::from_secs(60);

fn fresh() -> (tempfile::TempDir, Engine) {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(Some(dir.path().into())).unwrap();
    (dir, engine)
}

fn event(id: &str, action: &str) -> Event {
    let name = format!("name-{id}");
    Event {
        time: Timestamp::now(),
        kind: Kind::Container,
        action: action.to_owned(),
        id: id.to_owned(),
        attributes: BTreeMap::from([("name".to_owned(), name), ("image".to_owned(), "busybox:1".to_owned())]),
    }
}

fn past(engine: &Engine, since: Option<Timestamp>, filters: &[&str]) -> Vec<Event> {
    let filters = filters.iter().map(|text| Filter::parse(text).unwrap()).collect();
    let mut seen = Vec::new();
    let request = EventsRequest { since, until: Some(Timestamp::now()), filters };
    engine
        .events(&request, &mut |event| {
            seen.push(event.clone());
            Ok(())
        })
        .unwrap();
    seen
}

fn ids(events: &[Event]) -> Vec<&str> {
    events.iter().map(|event| event.id.as_str()).collect()
}

/// `events` in a thread; ends when the receiver is dropped and one more event comes.
fn follow(engine: &Engine, request: EventsRequest) -> (Receiver<Event>, std::thread::JoinHandle<Result<()>>) {
    let (sender, receiver) = mpsc::channel();
    let engine = engine.clone();
    let thread = std::thread::spawn(move || {
        engine.events(&request, &mut |event| {
            sender.send(event.clone()).map_err(|_| Failure::engine("nobody listens").into())
        })
    });
    (receiver, thread)
}

fn append_raw(path: &Path, bytes: &[u8]) {
    OpenOptions::new().append(true).create(true).open(path).unwrap().write_all(bytes).unwrap();
}

#[test]
fn an_event_is_one_line_and_comes_back() {
    let (_dir, engine) = fresh();
    let mut told = event("a", "exec_start: sh -c \"x\"\n\u{1b}");
    told.attributes.insert("label".into(), "{\"status\":\"\n\\".into());
    engine.tell(told.clone());
    let text = fs::read_to_string(engine.layout().events()).unwrap();
    assert_eq!(text.matches('\n').count(), 1, "{text}");
    assert!(text.starts_with(r#"{"status":"exec_start: "#), "{text}");
    assert_eq!(past(&engine, None, &[]), [told]);
    let mode = fs::metadata(engine.layout().events()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn labels_without_end_are_left_out() {
    let (_dir, engine) = fresh();
    let mut told = event("a", "create");
    told.attributes.insert("huge".into(), "\u{1}".repeat(100_000));
    engine.tell(told.clone());
    told.attributes.remove("huge");
    assert_eq!(past(&engine, None, &[]), [told]);
    assert_eq!(Exec { id: "", command: &["ä".repeat(MAX_COMMAND)] }.line().len(), MAX_COMMAND);
}

#[test]
fn torn_and_foreign_lines_hide_no_other() {
    let (_dir, engine) = fresh();
    let log = engine.layout().events();
    let whole = record::line(event("torn", "start"));
    let volume = || engine.note_object(Kind::Volume, "v", "create", &[("driver", "local".into())]);
    engine.tell(event("1", "create"));
    append_raw(&log, b"nonsense\n\n{}\n\xff\0\xfe\n[1,2]\n");
    engine.tell(event("2", "create"));
    // What a full disk or a kill leaves, at every length; the next line comes right behind it.
    for cut in 1..whole.len() - 1 {
        append_raw(&log, &whole[..cut]);
        if cut % 2 == 0 { engine.tell(event("3", "start")) } else { volume() }
    }
    append_raw(&log, &vec![b'x'; 1 << 20]);
    append_raw(&log, b"\n");
    engine.tell(event("4", "create"));
    append_raw(&log, &whole[..whole.len() - 1]);
    let seen = past(&engine, None, &[]);
    let count = |id| seen.iter().filter(|event| event.id == id).count();
    let cuts = whole.len() - 2;
    assert_eq!((count("1"), count("2"), count("3"), count("v"), count("4")), (1, 1, cuts / 2, cuts.div_ceil(2), 1));
    assert_eq!(count("torn"), 0);
    assert_eq!(seen.len(), 3 + cuts);
}

#[test]
fn the_log_is_bounded_and_keeps_one_old_file() {
    let (_dir, engine) = fresh();
    let log = engine.layout().events();
    let limit = 10_000;
    for n in 0..500 {
        append::append(&log, &record::line(event(&n.to_string(), "start")), limit).unwrap();
        let length = |path: &Path| fs::metadata(path).map_or(0, |metadata| metadata.len());
        assert!(length(&log) < limit && length(&log.with_extension("log.1")) < limit + 1000);
    }
    let kept: Vec<u32> = past(&engine, None, &[]).iter().map(|event| event.id.parse().unwrap()).collect();
    assert!(kept.len() > 30 && kept.windows(2).all(|pair| pair[1] == pair[0] + 1) && kept.last() == Some(&499));
    let files = fs::read_dir(engine.layout().root()).unwrap().flatten();
    let names: Vec<_> = files.map(|entry| entry.file_name()).collect();
    assert_eq!(names.iter().filter(|name| name.to_string_lossy().starts_with("events")).count(), 2, "{names:?}");
}

/// Lines of so many bytes at most fit the file that is kept beside the current one.
const RACE_LIMIT: u64 = 16 * 1024;

#[test]
fn of_many_writers_no_line_is_lost_or_torn_and_a_follower_sees_each_once() {
    let (_dir, engine) = fresh();
    let (receiver, follower) =
        follow(&engine, EventsRequest { since: Some(Timestamp::UNIX_EPOCH), ..EventsRequest::default() });
    let (writers, lines) = (8, 400);
    // At most so many lines are written and not seen: else the writers would rotate away what nobody
    // has read, which is their right.
    let (give, permits) = mpsc::sync_channel::<()>(24);
    let permits = std::sync::Mutex::new(permits);
    let mut seen = vec![Vec::new(); writers];
    std::thread::scope(|scope| {
        for writer in 0..writers {
            let (log, give) = (engine.layout().events(), give.clone());
            scope.spawn(move || {
                for n in 0..lines {
                    give.send(()).unwrap();
                    let line = record::line(event(&format!("{writer}.{n}"), &"x".repeat(n % 200)));
                    append::append(&log, &line, RACE_LIMIT).unwrap();
                }
            });
        }
        for _ in 0..writers * lines {
            let event = receiver.recv_timeout(HANG).unwrap();
            permits.lock().unwrap().recv().unwrap();
            let (writer, n) = event.id.split_once('.').unwrap();
            assert_eq!(event.action.len(), n.parse::<usize>().unwrap() % 200);
            seen[writer.parse::<usize>().unwrap()].push(n.parse::<usize>().unwrap());
        }
    });
    // Each writer's in its order, all of them.
    assert!(seen.iter().all(|numbers| numbers.iter().copied().eq(0..lines)), "{seen:?}");
    drop(receiver);
    engine.tell(event("last", "x"));
    assert!(follower.join().unwrap().is_err());
}

#[test]
fn processes_that_append_at_once_lose_nothing_over_a_rotation() {
    // This test is its own helper: the processes are this program again, told by a variable what to do.
    const TARGET: &str = "MYDOCKER_TEST_APPEND_TO";
    const COUNT: usize = 200;
    if let Some(target) = std::env::var_os(TARGET) {
        let engine = Engine::open(Some(target.into())).unwrap();
        for n in 0..COUNT {
            engine.tell(event(&format!("{}.{n}", std::process::id()), "start"));
        }
        return;
    }
    let (_dir, engine) = fresh();
    // The one rotation comes in the middle of it.
    let filler = record::line(event("filler", &"f".repeat(4000)));
    while fs::metadata(engine.layout().events()).map_or(0, |log| log.len()) + 200_000 < append::LIMIT {
        append_raw(&engine.layout().events(), &filler);
    }
    let program = std::env::current_exe().unwrap();
    let name = "engine::events::tests::processes_that_append_at_once_lose_nothing_over_a_rotation";
    let processes: Vec<_> = (0..6)
        .map(|_| {
            let mut command = Command::new(&program);
            command.args(["--exact", name]).env(TARGET, engine.layout().root()).stdout(Stdio::null());
            command.spawn().unwrap()
        })
        .collect();
    let mut expected = Vec::new();
    for mut process in processes {
        let pid = process.id();
        assert!(process.wait().unwrap().success());
        expected.extend((0..COUNT).map(|n| format!("{pid}.{n}")));
    }
    let mut seen: Vec<_> = past(&engine, None, &["event=start"]).into_iter().map(|event| event.id).collect();
    assert!(engine.layout().root().join("events.log.1").exists(), "nothing was rotated");
    seen.sort();
    expected.sort();
    assert_eq!(seen, expected);
}

#[test]
fn nobody_waits_for_one_that_was_stopped_while_rotating() {
    let (_dir, engine) = fresh();
    engine.tell(event("1", "start"));
    let held = File::open(engine.layout().events()).unwrap();
    held.lock().unwrap();
    engine.tell(event("2", "start"));
    assert_eq!(ids(&past(&engine, None, &[])), ["1", "2"]);
    drop(held);
    // Nor does one that reads it, or was stopped while writing, keep others from anything but rotating.
    let held = File::open(engine.layout().events()).unwrap();
    held.lock_shared().unwrap();
    append::append(&engine.layout().events(), &record::line(event("3", "start")), 1).unwrap();
    drop(held);
    append::append(&engine.layout().events(), &record::line(event("4", "start")), 1).unwrap();
    assert_eq!(ids(&past(&engine, None, &[])), ["1", "2", "3", "4"]);
    assert_eq!(fs::metadata(engine.layout().events()).unwrap().len(), 0);
}

#[test]
fn an_event_that_cannot_be_written_is_nobodys_failure() {
    let (_dir, engine) = fresh();
    std::os::unix::fs::symlink("/dev/full", engine.layout().events()).unwrap();
    engine.tell(event("1", "start"));
    assert!(append::append(&engine.layout().events(), b"x\n", 10).is_err());
    fs::remove_file(engine.layout().events()).unwrap();
    fs::create_dir(engine.layout().events()).unwrap();
    engine.tell(event("1", "start"));
    assert!(append::append(&engine.layout().events(), b"x\n", 10).is_err());
}

#[test]
fn without_times_only_what_comes_is_shown() {
    let (_dir, engine) = fresh();
    let log = engine.layout().events();
    engine.tell(event("before", "start"));
    // A line that is being written belongs to what comes.
    let line = record::line(event("half", "start"));
    append_raw(&log, &line[..40]);
    let (receiver, follower) = follow(&engine, EventsRequest::default());
    // Nothing tells that it has begun, but an event that comes until then is seen, or is before its time.
    let began = Instant::now();
    let mut first = loop {
        assert!(began.elapsed() < HANG);
        append_raw(&log, b"\n");
        engine.tell(event("ping", "start"));
        if let Ok(event) = receiver.recv_timeout(Duration::from_millis(20)) {
            break event;
        }
    };
    append_raw(&log, b"\n");
    append_raw(&log, &line[..40]);
    append_raw(&log, &line[40..]);
    // By hand, then by a rotation.
    while first.id != "half" {
        assert_eq!(first.id, "ping");
        first = receiver.recv_timeout(HANG).unwrap();
    }
    fs::remove_file(&log).unwrap();
    engine.tell(event("anew", "start"));
    assert_eq!(receiver.recv_timeout(HANG).unwrap().id, "anew");
    append::append(&log, &record::line(event("full", "start")), 1).unwrap();
    engine.tell(event("next", "start"));
    assert_eq!(receiver.recv_timeout(HANG).unwrap().id, "full");
    assert_eq!(receiver.recv_timeout(HANG).unwrap().id, "next");
    fs::remove_dir_all(engine.layout().root()).unwrap();
    let error = follower.join().unwrap().unwrap_err();
    assert!(format!("{error:#}").contains("data root was removed"), "{error:#}");
}

#[test]
fn times_bound_what_is_shown_on_both_sides_inclusively() {
    let (_dir, engine) = fresh();
    let at = |second: i64| Timestamp::from_second(1_700_000_000 + second).unwrap();
    for second in 0..5 {
        engine.tell(Event { time: at(second), ..event(&second.to_string(), "start") });
    }
    let between = |since: Option<Timestamp>, until: Option<Timestamp>| {
        let mut seen = String::new();
        let request = EventsRequest { since, until, filters: vec![] };
        engine.events(&request, &mut |event| {
            seen.push_str(&event.id);
            Ok(())
        })?;
        anyhow::Ok(seen)
    };
    assert_eq!(between(Some(at(1)), Some(at(3))).unwrap(), "123");
    assert_eq!(between(None, Some(at(2))).unwrap(), "012");
    let error = between(Some(at(3)), Some(at(1))).unwrap_err().to_string();
    assert!(error.contains("cannot be after `until`"), "{error}");
    // A time to come is waited for.
    let until = Timestamp::now() + Duration::from_millis(50);
    assert_eq!(between(Some(at(4)), Some(until)).unwrap(), "4");
    assert!(Timestamp::now() > until);
}

#[test]
fn filters_are_dockers() {
    let (_dir, engine) = fresh();
    for (id, action) in [("aa11", "create"), ("aa22", "exec_start: sh -c x"), ("bb33", "start"), ("bb33", "die")] {
        let mut told = event(id, action);
        told.attributes.insert("tier".into(), format!("t{}", &id[..1]));
        engine.tell(told);
    }
    engine.note_object(Kind::Volume, "vol", "create", &[("driver", "local".into())]);
    engine.note_object(Kind::Image, "sha256:1234", "tag", &[("name", "reg:5000/busybox:1".into())]);
    let seen = |filters: &[&str]| {
        let events = past(&engine, None, filters);
        events.iter().map(|event| format!("{}{}", &event.id[..2], &event.action[..2])).collect::<Vec<_>>().join(" ")
    };
    let all = "aacr aaex bbst bbdi vocr shta";
    for (filters, expected) in [
        (&[] as &[&str], all),
        (&["scope=local"], all),
        (&["scope=swarm"], ""),
        (&["container=aa"], "aacr aaex"),
        (&["container=name-bb"], "bbst bbdi"),
        (&["container=/name-aa11"], "aacr"),
        (&["container=aa11", "container=bb33"], "aacr bbst bbdi"),
        (&["container=vol"], ""),
        (&["volume=vol"], "vocr"),
        (&["network=vol"], ""),
        (&["type=container", "event=create"], "aacr"),
        (&["event=create", "event=die"], "aacr bbdi vocr"),
        (&["event=exec_start"], "aaex"),
        (&["event=exec"], ""),
        (&["event=exec_start: sh -c x"], "aaex"),
        (&["type=volume", "type=image"], "vocr shta"),
        (&["type=network"], ""),
        (&["label=tier"], "aacr aaex bbst bbdi"),
        (&["label=tier=tb"], "bbst bbdi"),
        (&["label=tier=ta", "label=tier=tb"], ""),
        (&["label=name=name-aa11"], "aacr"),
        (&["image=busybox"], "aacr aaex bbst bbdi"),
        (&["image=busybox:1"], "aacr aaex bbst bbdi"),
        (&["image=busybox:2"], ""),
        (&["image=reg:5000/busybox"], "shta"),
        (&["image=sha256:1234"], "shta"),
        (&["image="], ""),
    ] {
        assert_eq!(seen(filters), expected, "{filters:?}");
    }
    for bad in ["container", "type=nonsense", "color=red", "plugin=x", ""] {
        assert!(Filter::parse(bad).is_err(), "{bad}");
    }
}
