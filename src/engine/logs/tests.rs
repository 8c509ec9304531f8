//! The log as a whole: what goes in through the writer comes out of `Engine::logs`.

mod follow;

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::container::handle::Locked;
use crate::container::status::Status;
use crate::container::{ContainerId, LogOptions, ProcessRef, State};
use crate::sys::process;

/// Long enough that only a hang exceeds it.
const HANG: Duration = Duration::from_secs(60);

struct Fixture {
    _root: tempfile::TempDir,
    engine: Engine,
    container: Locked,
}

impl Fixture {
    fn new(max_size: u64, max_file: u32) -> Fixture {
        Fixture::with(LogOptions { driver: JSON_FILE.into(), max_size, max_file })
    }

    fn with(log: LogOptions) -> Fixture {
        let root = tempfile::tempdir().unwrap();
        let engine = Engine::open(Some(root.path().to_owned())).unwrap();
        let container = Locked::create(engine.layout(), config(log), State::created()).unwrap();
        container.save_config().unwrap();
        container.save_state().unwrap();
        Fixture { _root: root, engine, container }
    }

    fn path(&self) -> PathBuf {
        self.engine.layout().log(self.container.id())
    }

    fn writer(&self) -> LogWriter {
        open_for(self.engine.layout(), &self.container.config).unwrap()
    }

    fn logs(&self, request: &LogsRequest) -> (Vec<u8>, Vec<u8>) {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        self.engine.logs(self.container.id().as_str(), request, &mut stdout, &mut stderr).unwrap();
        (stdout, stderr)
    }

    fn stdout(&self, request: &LogsRequest) -> String {
        String::from_utf8(self.logs(request).0).unwrap()
    }

    /// Runs two processes that stand for shim and init, and records the container as running.
    fn run(&mut self) -> Processes {
        let processes = Processes([sleeper(), sleeper()]);
        let [shim, init] = processes.0.each_ref().map(|child| {
            let pid = child.id() as i32;
            Some(ProcessRef { pid, start_time: process::start_time(pid).unwrap() })
        });
        let state = &mut self.container.state;
        (state.shim, state.init, state.boot_id) = (shim, init, process::boot_id().to_owned());
        self.container.transition(Status::Starting).unwrap();
        self.container.transition(Status::Running).unwrap();
        processes
    }

    /// `logs -f` in a thread; the receiver hears of its end.
    fn follow(&self, request: LogsRequest) -> (Shared, mpsc::Receiver<Result<()>>) {
        let (sender, ended) = mpsc::channel();
        let shared = Shared::default();
        let (engine, id, mut out) = (self.engine.clone(), self.container.id().clone(), shared.clone());
        std::thread::spawn(move || {
            let mut err = out.clone();
            let _ = sender.send(engine.logs(id.as_str(), &LogsRequest { follow: true, ..request }, &mut out, &mut err));
        });
        (shared, ended)
    }
}

struct Processes([Child; 2]);

impl Processes {
    fn kill(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        self.kill();
    }
}

fn sleeper() -> Child {
    Command::new("sleep").arg("600").stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap()
}

/// A writer whose contents can be waited for from another thread.
#[derive(Clone, Default)]
struct Shared(Arc<(Mutex<Vec<u8>>, Condvar)>);

impl Shared {
    fn wait_for(&self, length: usize) -> Vec<u8> {
        let written = self.0.0.lock().unwrap();
        let (written, timeout) = self.0.1.wait_timeout_while(written, HANG, |bytes| bytes.len() < length).unwrap();
        assert!(!timeout.timed_out(), "{} of {length} bytes came", written.len());
        written.clone()
    }
}

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.0.lock().unwrap().extend_from_slice(bytes);
        self.0.1.notify_all();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn config(log: LogOptions) -> Config {
    Config { id: ContainerId::random().unwrap(), log, ..crate::container::sample::config() }
}

fn both() -> LogsRequest {
    LogsRequest { stdout: true, stderr: true, ..LogsRequest::default() }
}

fn tail(count: u64) -> LogsRequest {
    LogsRequest { tail: Some(count), ..both() }
}

fn records(path: &std::path::Path) -> Vec<serde_json::Value> {
    fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![Just(b'\n'), Just(b'"'), Just(b'\\'), any::<u8>(), 0x20..0x7fu8];
    prop_oneof![
        8 => proptest::collection::vec(byte, 0..300),
        1 => (any::<u8>(), 0usize..70_000).prop_map(|(byte, length)| vec![byte; length]),
        1 => (0usize..3, 1usize..8000).prop_map(|(shift, n)| [" ".repeat(shift), "€ü😀".repeat(n)].concat().into_bytes()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_goes_in_comes_out(
        chunks in proptest::collection::vec((any::<bool>(), bytes()), 0..40),
        max_size in prop_oneof![Just(0), 30_000u64..200_000],
    ) {
        let fixture = Fixture::new(max_size, u32::MAX);
        let mut writer = fixture.writer();
        let mut expected = (Vec::new(), Vec::new());
        for (stderr, chunk) in &chunks {
            let (stream, side) =
                if *stderr { (Stream::Stderr, &mut expected.1) } else { (Stream::Stdout, &mut expected.0) };
            writer.append(stream, chunk);
            side.extend_from_slice(chunk);
        }
        writer.finish();
        prop_assert_eq!(fixture.logs(&both()), expected.clone());
        prop_assert_eq!(fixture.logs(&tail(u64::MAX)), expected);
    }
}

#[test]
fn long_lines_become_pieces_of_16_kib() {
    let fixture = Fixture::new(0, 1);
    let mut writer = fixture.writer();
    let line = [vec![b'a'; 2 * PIECE + 5], b"\n".to_vec()].concat();
    for chunk in line.chunks(1000) {
        writer.append(Stream::Stdout, chunk);
    }
    writer.append(Stream::Stdout, &[vec![b'b'; PIECE - 1], b"\n".to_vec()].concat());
    writer.append(Stream::Stdout, &[vec![b'c'; PIECE], b"\n".to_vec()].concat());
    let lengths: Vec<usize> = records(&fixture.path()).iter().map(|r| r["log"].as_str().unwrap().len()).collect();
    assert_eq!(lengths, [PIECE, PIECE, 6, PIECE, PIECE, 1]);
    assert_eq!(fixture.stdout(&tail(3)).len(), line.len() + 2 * PIECE + 1);
    assert_eq!(fixture.stdout(&tail(1)), format!("{}\n", "c".repeat(PIECE)));
}

#[test]
fn an_unfinished_line_waits_for_its_end() {
    let fixture = Fixture::new(0, 1);
    let mut writer = fixture.writer();
    writer.append(Stream::Stdout, b"prompt> ");
    writer.append(Stream::Stderr, b"oops");
    assert_eq!(fs::metadata(fixture.path()).unwrap().len(), 0);
    writer.end(Stream::Stderr);
    assert_eq!(fixture.logs(&both()), (vec![], b"oops".to_vec()));
    writer.finish();
    assert_eq!(fixture.logs(&both()), (b"prompt> ".to_vec(), b"oops".to_vec()));
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(fs::metadata(fixture.path()).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn rotation_keeps_to_its_bounds_and_loses_only_the_oldest() {
    for max_file in [1, 2, 5] {
        let fixture = Fixture::new(4000, max_file);
        let mut writer = fixture.writer();
        let lines: Vec<String> = (0..1000).map(|n| format!("line {n}\n")).collect();
        for chunk in lines.concat().as_bytes().chunks(777) {
            writer.append(Stream::Stdout, chunk);
        }
        writer.finish();
        let directory = fixture.path().parent().unwrap().to_owned();
        let files: Vec<PathBuf> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.to_str().unwrap().contains("-json.log"))
            .collect();
        assert_eq!(files.len() as u32, max_file);
        assert!(files.iter().all(|file| fs::metadata(file).unwrap().len() <= 4000));
        let kept = fixture.stdout(&both());
        assert!(lines.concat().ends_with(&kept) && kept.starts_with("line "), "{kept}");
        let per_file = 4000 / fs::read_to_string(fixture.path()).unwrap().lines().next().unwrap().len() as u32;
        let lines = kept.lines().count() as u32;
        assert!(lines > (max_file - 1) * (per_file - 1) && lines <= max_file * per_file, "{lines} in {max_file}");
    }
}

#[test]
fn tail_counts_lines_of_both_streams_across_files() {
    let fixture = Fixture::new(40_000, 50);
    let mut writer = fixture.writer();
    let mut expected: Vec<(Stream, String)> = Vec::new();
    for n in 0..100 {
        let stream = if n % 3 == 0 { Stream::Stderr } else { Stream::Stdout };
        let length = if n % 7 == 0 { 3 * PIECE } else { n };
        let line = format!("{n}:{}\n", "x".repeat(length));
        writer.append(stream, line.as_bytes());
        expected.push((stream, line));
    }
    assert!(super::files::open_all(&fixture.path()).unwrap().len() > 10);
    for count in [0, 1, 2, 3, 7, 50, 99, 100, 101] {
        let (stdout, stderr) = fixture.logs(&tail(count as u64));
        let mut sides = [String::new(), String::new()];
        for (stream, line) in &expected[100usize.saturating_sub(count)..] {
            sides[*stream as usize].push_str(line);
        }
        assert_eq!([stdout, stderr].map(|side| String::from_utf8(side).unwrap()), sides, "tail {count}");
        let only = LogsRequest { stderr: false, ..tail(count as u64) };
        let lines: Vec<&str> =
            expected.iter().filter(|(s, _)| *s == Stream::Stdout).map(|(_, line)| line.as_str()).collect();
        let wanted = lines[lines.len().saturating_sub(count)..].concat();
        assert_eq!(fixture.stdout(&only), wanted, "tail {count} of stdout");
    }
}

#[test]
fn tail_shows_a_line_whole_when_the_other_stream_came_in_between() {
    let fixture = Fixture::new(0, 1);
    let mut writer = fixture.writer();
    writer.append(Stream::Stdout, b"before\n");
    writer.append(Stream::Stdout, &[b'a'; PIECE]);
    writer.append(Stream::Stderr, b"between\n");
    writer.append(Stream::Stdout, b"end\nlast\n");
    let joined = format!("{}end\nlast\n", "a".repeat(PIECE));
    assert_eq!(fixture.logs(&tail(2)), (joined.clone().into_bytes(), vec![]));
    assert_eq!(fixture.logs(&tail(3)), (joined.into_bytes(), b"between\n".to_vec()));
}

#[test]
fn times_select_and_are_shown_once_a_line() {
    let fixture = Fixture::new(0, 1);
    let record = |second: u32, log: &str| {
        format!("{{\"log\":\"{log}\",\"stream\":\"stdout\",\"time\":\"2026-01-02T03:04:{second:02}.500000000Z\"}}\n")
    };
    let log = [record(1, r"one\n"), record(2, "two"), record(3, r" halves\n"), record(4, r"three\n")].concat();
    fs::write(fixture.path(), log).unwrap();
    let at = |text: &str| Some(format!("2026-01-02T03:04:{text}Z").parse().unwrap());
    let since = LogsRequest { since: at("04.5"), ..both() };
    assert_eq!(fixture.stdout(&since), "three\n");
    assert_eq!(fixture.stdout(&LogsRequest { since: at("04.500000001"), ..both() }), "");
    assert_eq!(fixture.stdout(&LogsRequest { until: at("01.5"), ..both() }), "one\n");
    assert_eq!(fixture.stdout(&LogsRequest { since: at("01.6"), until: at("04"), ..both() }), "two halves\n");
    assert_eq!(fixture.stdout(&LogsRequest { until: at("04"), ..tail(1) }), "two halves\n");
    assert_eq!(
        fixture.stdout(&LogsRequest { timestamps: true, ..tail(2) }),
        "2026-01-02T03:04:02.500000000Z two halves\n2026-01-02T03:04:04.500000000Z three\n"
    );
}

#[test]
fn recorded_times_are_now_and_never_fall() {
    let fixture = Fixture::new(0, 1);
    let mut writer = fixture.writer();
    let before = jiff::Timestamp::now();
    for _ in 0..2000 {
        writer.append(Stream::Stdout, b"x\n");
    }
    let times: Vec<String> = records(&fixture.path()).iter().map(|r| r["time"].as_str().unwrap().into()).collect();
    assert!(times.is_sorted() && times.iter().all(|time| time.len() == 30));
    let parse = |text: &String| text.parse::<jiff::Timestamp>().unwrap();
    assert!(before <= parse(&times[0]) && parse(&times[1999]) <= jiff::Timestamp::now());
}

#[test]
fn damage_hides_only_what_it_hit() {
    let fixture = Fixture::new(0, 1);
    let mut writer = fixture.writer();
    writer.append(Stream::Stdout, b"one\ntwo\nthree\n");
    let mut text = fs::read_to_string(fixture.path()).unwrap().replace("two", "tw\"o");
    text.insert_str(0, &"\0".repeat(700_000));
    text.insert_str(0, "}{\n\n");
    fs::write(fixture.path(), &text).unwrap();
    // The line of zeros runs into the first record.
    assert_eq!(fixture.stdout(&both()), "three\n");
    // A crash in the middle of a record.
    fs::write(fixture.path(), &text[..text.len() - 5]).unwrap();
    assert_eq!(fixture.stdout(&both()), "");
    let mut writer = fixture.writer();
    writer.append(Stream::Stdout, b"four\n");
    assert_eq!(fixture.stdout(&both()), "four\n");
    assert_eq!(fixture.stdout(&tail(5)), "four\n");
}

#[test]
fn order_between_the_streams_is_kept() {
    let fixture = Fixture::new(0, 1);
    let mut writer = fixture.writer();
    let mut expected = String::new();
    for n in 0..1000 {
        let line = format!("{n}\n");
        writer.append(if n % 5 < 3 { Stream::Stdout } else { Stream::Stderr }, line.as_bytes());
        expected.push_str(&line);
    }
    let shared = Shared::default();
    let id = fixture.container.id().as_str();
    fixture.engine.logs(id, &both(), &mut shared.clone(), &mut shared.clone()).unwrap();
    assert_eq!(shared.wait_for(0), expected.as_bytes());
}

#[test]
fn a_closed_pipe_ends_quietly_and_other_errors_do_not() {
    let fixture = Fixture::new(0, 1);
    fixture.writer().append(Stream::Stdout, b"one\n");
    let id = fixture.container.id().as_str();
    let (reader, mut pipe) = io::pipe().unwrap();
    drop(reader);
    fixture.engine.logs(id, &both(), &mut pipe, &mut io::sink()).unwrap();
    let mut full = File::create("/dev/full").unwrap();
    let error = fixture.engine.logs(id, &both(), &mut full, &mut io::sink()).unwrap_err();
    assert_eq!(format!("{error:#}"), "write output: No space left on device (os error 28)");
}

#[test]
fn a_log_that_is_not_kept_cannot_be_read() {
    let fixture = Fixture::with(LogOptions { driver: NONE.into(), ..LogOptions::default() });
    let mut writer = fixture.writer();
    writer.append(Stream::Stdout, b"one\n");
    writer.finish();
    assert!(!fixture.path().exists());
    let id = fixture.container.id().as_str();
    let error = fixture.engine.logs(id, &both(), &mut io::sink(), &mut io::sink()).unwrap_err();
    assert_eq!(error.to_string(), "configured logging driver does not support reading");
    let error = fixture.engine.logs("nobody", &both(), &mut io::sink(), &mut io::sink()).unwrap_err();
    assert_eq!(error.to_string(), "No such container: nobody");
}

#[test]
fn a_full_disk_costs_records_and_is_told_afterwards() {
    use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
    // In a thread of its own, whose mount namespace goes with it.
    let test = std::thread::spawn(|| {
        let dir = tempfile::tempdir().unwrap();
        #[allow(deprecated)] // Safe for what is unshared here: no descriptor table.
        rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNS).unwrap();
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
        mount("tmpfs", dir.path(), "tmpfs", MountFlags::empty(), c"size=64k").unwrap();
        let (path, filler) = (dir.path().join("log"), dir.path().join("filler"));
        fs::write(&filler, vec![0; 32 * 1024]).unwrap();
        let mut writer = LogWriter::open(&path, &LogOptions::default()).unwrap();
        let (lines, per_append) = (1000, 10);
        for n in (0..lines).step_by(per_append) {
            let text: String = (n..n + per_append).map(|n| format!("line {n}\n")).collect();
            writer.append(Stream::Stdout, text.as_bytes());
        }
        let kept = records(&path);
        assert!(!kept.is_empty() && kept.len() < lines, "{}", kept.len());
        fs::remove_file(filler).unwrap();
        writer.append(Stream::Stdout, b"again\n");
        let all = records(&path);
        assert_eq!(all[..kept.len()], kept);
        let [notice, again] = &all[kept.len()..] else { panic!("{all:?}") };
        let lost = lines - kept.len();
        let text = format!("[mydocker: {lost} log records lost: No space left on device (os error 28)]\n");
        assert_eq!((notice["log"].as_str(), notice["stream"].as_str()), (Some(text.as_str()), Some("stderr")));
        assert_eq!(again["log"], "again\n");
        rustix::mount::unmount(dir.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
    });
    test.join().unwrap();
}

#[test]
fn a_log_that_cannot_be_rotated_does_not_grow() {
    let fixture = Fixture::new(1000, 2);
    let mut writer = fixture.writer();
    // No file can be renamed over a directory that is not empty.
    let obstacle = super::files::rotated(&fixture.path(), 1);
    fs::create_dir_all(obstacle.join("x")).unwrap();
    (0..50).for_each(|n| writer.append(Stream::Stdout, format!("line {n}\n").as_bytes()));
    let kept = records(&fixture.path()).len();
    assert!(kept > 5 && fs::metadata(fixture.path()).unwrap().len() <= 1000);
    fs::remove_dir_all(obstacle).unwrap();
    writer.append(Stream::Stdout, b"again\n");
    let (stdout, stderr) = fixture.logs(&both());
    assert!(String::from_utf8(stdout).unwrap().ends_with(&format!("line {}\nagain\n", kept - 1)));
    let stderr = String::from_utf8(stderr).unwrap();
    assert!(stderr.starts_with(&format!("[mydocker: {} log records lost: ", 50 - kept)), "{stderr}");
}
