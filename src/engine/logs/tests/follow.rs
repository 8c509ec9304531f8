//! `logs -f`: through rotations, to an end it must notice by itself.

use super::*;

#[test]
fn follow_of_a_container_that_does_not_run_ends_at_once() {
    let fixture = Fixture::new(0, 1);
    assert_eq!(fixture.logs(&LogsRequest { follow: true, ..both() }), (vec![], vec![]));
    fixture.writer().append(Stream::Stdout, b"one\ntwo\n");
    assert_eq!(fixture.stdout(&LogsRequest { follow: true, ..tail(1) }), "two\n");
}

#[test]
fn follow_goes_through_rotations_to_the_end() {
    for max_file in [1, 3] {
        let mut fixture = Fixture::new(3000, max_file);
        let _processes = fixture.run();
        // Before the log exists.
        let (shared, ended) = fixture.follow(both());
        let mut writer = fixture.writer();
        let mut expected = Vec::new();
        for n in 0..2000 {
            let line = format!("line {n} {}\n", "x".repeat(n % 50));
            let (first, second) = line.as_bytes().split_at(n % line.len());
            let stream = if n % 4 == 0 { Stream::Stderr } else { Stream::Stdout };
            writer.append(stream, first);
            writer.append(stream, second);
            expected.extend_from_slice(line.as_bytes());
            // Else the writer would rotate away what was not read: that is its right.
            if n % 10 == 0 {
                shared.wait_for(expected.len());
            }
        }
        writer.append(Stream::Stdout, b"no newline");
        expected.extend_from_slice(b"no newline");
        assert!(ended.try_recv().is_err());
        writer.finish();
        fixture.container.transition(Status::Exited).unwrap();
        ended.recv_timeout(HANG).unwrap().unwrap();
        assert_eq!(String::from_utf8(shared.wait_for(0)).unwrap(), String::from_utf8(expected).unwrap());
    }
}

#[test]
fn follow_of_the_tail_goes_on_where_the_tail_ended() {
    let mut fixture = Fixture::new(200, 100);
    let _processes = fixture.run();
    let mut writer = fixture.writer();
    (0..20).for_each(|n| writer.append(Stream::Stdout, format!("{n}\n").as_bytes()));
    for (count, before) in [(0, ""), (2, "18\n19\n")] {
        let (shared, ended) = fixture.follow(tail(count));
        // With a tail of nothing there is no sign that it has begun; it ends all the same.
        shared.wait_for(before.len());
        if count > 0 {
            writer.append(Stream::Stdout, b"20\n");
            assert_eq!(shared.wait_for(9), b"18\n19\n20\n");
        }
        fixture.container.transition(Status::Exited).unwrap();
        ended.recv_timeout(HANG).unwrap().unwrap();
        assert!(shared.wait_for(0).starts_with(before.as_bytes()));
        fixture.container.transition(Status::Starting).unwrap();
        fixture.container.transition(Status::Running).unwrap();
    }
}

#[test]
fn follow_goes_on_in_a_log_that_was_emptied_by_hand() {
    let mut fixture = Fixture::new(1000, 3);
    let _processes = fixture.run();
    let mut writer = fixture.writer();
    let (shared, ended) = fixture.follow(both());
    (0..10).for_each(|n| writer.append(Stream::Stdout, format!("{n}\n").as_bytes()));
    shared.wait_for(20);
    File::options().write(true).open(fixture.path()).unwrap().set_len(0).unwrap();
    // Were its size not looked up again, the writer would now rotate a file that has room.
    writer.append(Stream::Stdout, b"10\n11\n");
    assert!(shared.wait_for(26).ends_with(b"8\n9\n10\n11\n"));
    assert_eq!(fixture.stdout(&both()), "10\n11\n");
    assert!(!super::files::rotated(&fixture.path(), 1).exists());
    fixture.container.transition(Status::Exited).unwrap();
    ended.recv_timeout(HANG).unwrap().unwrap();
}

#[test]
fn follow_ends_when_nobody_is_left_to_record_the_end() {
    let mut fixture = Fixture::new(0, 1);
    let mut processes = fixture.run();
    let mut writer = fixture.writer();
    writer.append(Stream::Stdout, b"one\n");
    let (shared, ended) = fixture.follow(both());
    shared.wait_for(4);
    // The shim outlives init: what init wrote last is still on its way.
    processes.0[1].kill().unwrap();
    processes.0[1].wait().unwrap();
    writer.append(Stream::Stdout, b"two\n");
    shared.wait_for(8);
    assert!(ended.try_recv().is_err());
    processes.kill();
    ended.recv_timeout(HANG).unwrap().unwrap();
}

#[test]
fn follow_ends_when_the_container_is_removed() {
    for rename in [true, false] {
        let mut fixture = Fixture::new(0, 1);
        let _processes = fixture.run();
        fixture.writer().append(Stream::Stdout, b"one\n");
        let (shared, ended) = fixture.follow(both());
        shared.wait_for(4);
        let directory = fixture.engine.layout().container(fixture.container.id());
        if rename {
            fs::rename(directory, fixture.engine.layout().trash().join("x")).unwrap();
        } else {
            fs::remove_dir_all(directory).unwrap();
        }
        ended.recv_timeout(HANG).unwrap().unwrap();
    }
}

#[test]
fn follow_ends_at_the_time_asked_for() {
    let mut fixture = Fixture::new(0, 1);
    let _processes = fixture.run();
    fixture.writer().append(Stream::Stdout, b"one\n");
    let until = jiff::Timestamp::now() + Duration::from_millis(50);
    let (shared, ended) = fixture.follow(LogsRequest { until: Some(until), ..both() });
    ended.recv_timeout(HANG).unwrap().unwrap();
    assert!(jiff::Timestamp::now() >= until);
    assert_eq!(shared.wait_for(4), b"one\n");
}

#[test]
fn files_are_in_order_however_fast_the_writer_rotates() {
    // In memory, because the writer must rotate twice between two looks of the reader.
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = directory.path().join("log");
    let writer = std::thread::spawn({
        let path = path.clone();
        // Each file holds its number in the order of making; two are kept.
        move || {
            for serial in 0..100_000_u32 {
                let _ = fs::rename(&path, path.with_file_name("log.1"));
                fs::write(&path, serial.to_string()).unwrap();
            }
        }
    });
    while !writer.is_finished() {
        let files = crate::engine::logs::files::open_all(&path).unwrap();
        let serials = files.iter().filter_map(|file| std::io::read_to_string(&file.file).unwrap().parse::<u32>().ok());
        let serials: Vec<u32> = serials.collect();
        assert!(serials.is_sorted(), "{serials:?}");
    }
    writer.join().unwrap();
}
