//! Bounds: what nobody has the right to expect is answered with patience, and takes nothing from the others.

use super::*;

#[test]
fn good_queries_are_answered_in_a_storm_of_bad_ones() {
    let bed = Bed::new(table());
    let server = Server::start(&bed, "127.0.0.53", says([192, 0, 2, 1]));
    bed.ask(&[server.address], Duration::from_secs(15));
    let namespace = Arc::new(current_namespace());
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let storm = {
        let (namespace, stop) = (Arc::clone(&namespace), Arc::clone(&stop));
        thread::spawn(move || {
            enter(namespace.as_fd());
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            let mut seed = 1u32;
            let mut random = || {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (seed >> 16) as u8
            };
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let mut bytes = query(7, "web", TYPE_A);
                for _ in 0..random() % 8 {
                    let place = usize::from(random()) % bytes.len();
                    bytes[place] = random();
                }
                bytes.truncate(usize::from(random()) % (bytes.len() + 1));
                let _ = socket.send_to(&bytes, (ADDRESS, PORT));
                if let Ok(mut stream) = TcpStream::connect((ADDRESS, PORT)) {
                    let _ = stream.write_all(&bytes);
                }
            }
        })
    };
    // Datagrams are lost when the queue is full: clients ask again.
    let patient = |query: &[u8]| {
        let socket = client();
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        (0..50)
            .find_map(|_| {
                socket.send(query).unwrap();
                let mut bytes = [0; 512];
                socket.recv(&mut bytes).ok().map(|length| bytes[..length].to_vec())
            })
            .expect("no answer in ten seconds")
    };
    for id in 0..200 {
        assert_eq!(records(&patient(&query(id, "web", TYPE_A))), ["172.20.0.2"]);
        assert_eq!(records(&patient(&query(id, "example.org", TYPE_A))), ["192.0.2.1"]);
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    storm.join().unwrap();
}

#[test]
fn the_oldest_query_gives_way_when_there_are_too_many() {
    let bed = Bed::new(table());
    let silent = Server::start(&bed, "127.0.0.53", |_| vec![]);
    bed.ask(&[silent.address], Duration::from_secs(600));
    let first = client();
    first.send(&query(1, "first.example.org", TYPE_A)).unwrap();
    silent.next();
    let others = client();
    for id in 0..MAX_FLIGHTS as u16 {
        others.send(&query(id, "example.org", TYPE_A)).unwrap();
        // It has been taken, and none is lost on the way.
        silent.next();
    }
    assert_eq!(code(&receive(&first)), 2);
    assert_eq!(bed.order(|resolver| resolver.flights.len()), MAX_FLIGHTS);
    // Names of our own are answered all the same.
    assert_eq!(records(&asks(&query(7, "web", TYPE_A))), ["172.20.0.2"]);
}

#[test]
fn a_client_that_repeats_itself_is_one_client() {
    let bed = Bed::new(table());
    let silent = Server::start(&bed, "127.0.0.53", |_| vec![]);
    bed.ask(&[silent.address], Duration::from_secs(600));
    let socket = client();
    for _ in 0..5 {
        socket.send(&query(1, "example.org", TYPE_A)).unwrap();
    }
    silent.next();
    asks(&query(7, "web", TYPE_A));
    assert_eq!(bed.order(|resolver| resolver.flights.len()), 1);
    assert_eq!(silent.count(), 0);
}

#[test]
fn an_idle_resolver_has_nothing_and_waits_for_nothing() {
    let bed = Bed::new(table());
    let server = Server::start(&bed, "127.0.0.53", says([192, 0, 2, 1]));
    bed.ask(&[server.address], Duration::from_secs(15));
    asks(&query(7, "example.org", TYPE_A));
    asks_by_tcp(&query(7, "example.org", TYPE_A));
    asks_by_tcp(&query(7, "web", TYPE_A));
    bed.until(|resolver| {
        let mut watched = Vec::new();
        resolver.watch(&mut watched);
        watched.len() == 2 && resolver.next_deadline().is_none() && resolver.flights.capacity() == 0
    });
}

#[test]
fn connections_are_bounded_and_the_oldest_gives_way() {
    let bed = Bed::new(table());
    let mut streams: Vec<TcpStream> = (0..33)
        .map(|_| {
            let mut stream = tcp_client();
            write_framed(&mut stream, &query(7, "web", TYPE_A));
            read_framed(&mut stream).unwrap();
            stream
        })
        .collect();
    assert_eq!(streams[0].read(&mut [0]).unwrap(), 0, "the first was closed");
    let last = streams.last_mut().unwrap();
    write_framed(last, &query(7, "web", TYPE_A));
    assert!(read_framed(last).is_some());
    drop(bed);
}

#[test]
fn a_silent_connection_is_closed_and_a_waiting_one_is_not() {
    let bed = Bed::new(table());
    let silent = Server::start(&bed, "127.0.0.53", |_| vec![]);
    bed.ask(&[silent.address], Duration::from_secs(600));
    let mut idle = tcp_client();
    idle.write_all(&[0]).unwrap();
    let mut waits = tcp_client();
    write_framed(&mut waits, &query(7, "example.org", TYPE_A));
    silent.next();
    bed.until(|resolver| {
        let mut watched = Vec::new();
        resolver.watch(&mut watched);
        watched.len() == 5
    });
    bed.order(|resolver| {
        let later = resolver.next_deadline().unwrap();
        assert!(later > Instant::now() + Duration::from_secs(5));
        resolver.expire(later, &table());
    });
    assert_eq!(idle.read(&mut [0]).unwrap(), 0);
    bed.order(|resolver| resolver.set_forwarding(false));
    assert_eq!(code(&read_framed(&mut waits).unwrap()), 2);
}

#[test]
fn one_connection_has_few_queries_on_their_way_and_all_are_answered() {
    let bed = Bed::new(table());
    let silent = Server::start(&bed, "127.0.0.53", |_| vec![]);
    bed.ask(&[silent.address], Duration::from_secs(600));
    let mut stream = tcp_client();
    for id in 0..100 {
        write_framed(&mut stream, &query(id, "example.org", TYPE_A));
    }
    (0..16).for_each(|_| drop(silent.next()));
    bed.until(|resolver| resolver.flights.len() == 16);
    assert_eq!(silent.count(), 0);
    // All of them fail now, those that are still to come as well.
    bed.order(|resolver| resolver.set_forwarding(false));
    let mut ids: Vec<u16> = (0..100)
        .map(|_| {
            let answer = read_framed(&mut stream).unwrap();
            u16::from_be_bytes([answer[0], answer[1]])
        })
        .collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..100).collect::<Vec<_>>());
}

#[test]
fn queries_of_a_client_that_has_gone_go_too() {
    let bed = Bed::new(table());
    let silent = Server::start(&bed, "127.0.0.53", |_| vec![]);
    bed.ask(&[silent.address], Duration::from_secs(600));
    let mut stream = tcp_client();
    write_framed(&mut stream, &query(7, "example.org", TYPE_A));
    silent.next();
    // A reset: somebody who only stops asking still wants the answer.
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    drop(stream);
    bed.until(|resolver| resolver.flights.is_empty());
}

#[test]
fn a_message_too_long_for_a_query_is_refused() {
    let _bed = Bed::new(table());
    let long = [query(7, "web", TYPE_A), vec![0; 5000]].concat();
    assert_eq!(code(&asks(&long)), 1);
    let mut stream = tcp_client();
    write_framed(&mut stream, &long);
    // Closed, with or without a reset for what was not read.
    assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)));
}
