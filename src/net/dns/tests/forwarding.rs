//! Names of others: what goes to which server, and what comes back.

use super::*;

/// Long enough to be always met by a server that answers.
const LONG: Duration = Duration::from_secs(15);
/// What a server that never answers is given.
const SHORT: Duration = Duration::from_millis(40);

#[test]
fn other_names_come_from_the_server_by_udp_and_tcp() {
    for kind in BOTH {
        let bed = Bed::with(kind, table());
        let server = Server::start(&bed, "127.0.0.53", says([192, 0, 2, 1]));
        bed.ask(&[server.address], LONG);
        assert_eq!(dig(&["+short", "example.org"]), "192.0.2.1\n");
        assert!(!server.next().over_tcp);
        assert_eq!(dig(&["+short", "+tcp", "example.org"]), "192.0.2.1\n");
        assert!(server.next().over_tcp);
        // A single label that is nobody's, and an address that is nobody's.
        assert_eq!(records(&asks(&query(7, "intranet", TYPE_A))), ["192.0.2.1"]);
        assert_eq!(records(&asks(&query(7, "1.2.0.192.in-addr.arpa", TYPE_PTR))).len(), 1);
        server.count();
        asks(&query(7, "web", TYPE_A));
        assert_eq!(server.count(), 0, "our own names stay here");
    }
}

#[test]
fn a_query_is_passed_on_as_it_is_but_for_its_id() {
    let bed = Bed::new(table());
    let server = Server::start(&bed, "127.0.0.53", says([192, 0, 2, 1]));
    bed.ask(&[server.address], LONG);
    let sent = query_with_edns(0x1234, "eXample.org", TYPE_A, 1400);
    let ids: Vec<[u8; 2]> = (0..4)
        .map(|_| {
            let answer = asks(&sent);
            assert_eq!(answer[..2], [0x12, 0x34]);
            let asked = server.next().message;
            assert_eq!(asked[2..], sent[2..]);
            [asked[0], asked[1]]
        })
        .collect();
    assert!(ids.iter().any(|id| *id != ids[0]), "ids are random: {ids:?}");
}

#[test]
fn a_silent_server_is_followed_by_the_next() {
    let bed = Bed::new(table());
    let silent = Server::start(&bed, "127.0.0.53", |_| vec![]);
    let good = Server::start(&bed, "127.0.0.54", says([192, 0, 2, 2]));
    bed.ask(&[silent.address, good.address], SHORT);
    for transport in ["+notcp", "+tcp"] {
        assert_eq!(dig(&["+short", transport, "example.org"]), "192.0.2.2\n");
        assert!(silent.count() > 0);
    }
}

#[test]
fn a_failing_server_is_followed_by_the_next_and_asked_once() {
    for failure in [2, 5] {
        let bed = Bed::new(table());
        let bad = Server::start(&bed, "127.0.0.53", fails(failure));
        let good = Server::start(&bed, "127.0.0.54", says([192, 0, 2, 2]));
        bed.ask(&[bad.address, good.address], LONG);
        assert_eq!(records(&asks(&query(7, "example.org", TYPE_A))), ["192.0.2.2"]);
        bed.ask(&[bad.address], LONG);
        bad.count();
        let answer = asks(&query(7, "example.org", TYPE_A));
        assert_eq!(code(&answer), 2);
        bed.order(|_| ());
        assert_eq!(bad.count(), 1);
        // What is no failure is an answer.
        let nothing = Server::start(&bed, "127.0.0.55", fails(3));
        bed.ask(&[nothing.address, good.address], LONG);
        assert_eq!(code(&asks(&query(7, "example.org", TYPE_A))), 3);
    }
}

#[test]
fn a_server_that_is_not_there_is_followed_by_the_next() {
    let bed = Bed::new(table());
    let good = Server::start(&bed, "127.0.0.54", says([192, 0, 2, 2]));
    // Nobody listens there, and the kernel says so; no route leads to the other.
    bed.ask(&["127.0.0.99:53".parse().unwrap(), "[2001:db8::1]:53".parse().unwrap(), good.address], LONG);
    assert_eq!(records(&asks(&query(7, "example.org", TYPE_A))), ["192.0.2.2"]);
    assert_eq!(records(&asks_by_tcp(&query(7, "example.org", TYPE_A))), ["192.0.2.2"]);
}

#[test]
fn when_nobody_answers_the_client_is_told() {
    let bed = Bed::new(table());
    let silent = Server::start(&bed, "127.0.0.53", |_| vec![]);
    bed.ask(&[silent.address], SHORT);
    let answer = asks(&query_with_edns(7, "example.org", TYPE_A, 1232));
    assert_eq!((code(&answer), &answer[..2]), (2, &[0, 7][..]));
    assert_eq!(silent.count(), 2, "attempts");
    assert_eq!(code(&asks_by_tcp(&query(7, "example.org", TYPE_A))), 2);
}

#[test]
fn a_truncated_answer_is_passed_on_and_the_rest_comes_by_tcp() {
    let bed = Bed::new(table());
    let server = Server::start(&bed, "127.0.0.53", |asked| {
        let mut answer = answer(&asked.message, 0, [192, 0, 2, 3]);
        if !asked.over_tcp {
            answer[2] |= 2;
        }
        vec![answer]
    });
    bed.ask(&[server.address], LONG);
    assert_eq!(asks(&query(7, "example.org", TYPE_A))[2] & 2, 2);
    server.next();
    assert_eq!(dig(&["+short", "example.org"]), "192.0.2.3\n");
    assert_eq!([server.next().over_tcp, server.next().over_tcp], [false, true]);
}

#[test]
fn an_answer_that_is_too_large_for_the_client_is_cut() {
    let bed = Bed::new(table());
    let server = Server::start(&bed, "127.0.0.53", |asked| {
        vec![[answer(&asked.message, 0, [192, 0, 2, 3]), vec![0; 3000]].concat()]
    });
    bed.ask(&[server.address], LONG);
    let answer = asks(&query(7, "example.org", TYPE_A));
    assert!(answer.len() <= 512 && answer[2] & 2 == 2, "{answer:?}");
    assert!(asks(&query_with_edns(7, "example.org", TYPE_A, 4096)).len() > 3000);
    assert!(asks_by_tcp(&query(7, "example.org", TYPE_A)).len() > 3000);
}

#[test]
fn forged_answers_are_ignored() {
    let bed = Bed::new(table());
    let server = Server::start(&bed, "127.0.0.53", |asked| {
        let forged = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut forged = answer(&asked.message, 0, [6, 6, 6, 6]);
            change(&mut forged);
            forged
        };
        vec![
            forged(&|bytes| bytes[0] ^= 1),
            forged(&|bytes| bytes[13] = b'z'),
            // Another type, and one that differs as letters' cases do.
            forged(&|bytes| bytes[26] = 16),
            forged(&|bytes| bytes[26] ^= 0x20),
            forged(&|bytes| bytes[5] = 2),
            forged(&|bytes| bytes[2] &= 0x7f),
            forged(&|bytes| bytes.truncate(11)),
            vec![],
            answer(&asked.message, 0, [192, 0, 2, 4]),
        ]
    });
    bed.ask(&[server.address], LONG);
    let name = query(7, "example.org", TYPE_A);
    assert_eq!((name.len(), name[26]), (29, 1), "the places above");
    assert_eq!(records(&asks(&name)), ["192.0.2.4"]);

    // From elsewhere, with everything else right: the server itself sends it from other sockets first, one of them on
    // its own address.
    let careful = Server::start(&bed, "127.0.0.55", move |asked| {
        let target = sockets_of_udp().into_iter().find(|(_, remote)| remote.starts_with("3700007F:")).unwrap().0;
        for address in ["127.0.0.66:0", "127.0.0.55:0"] {
            UdpSocket::bind(address).unwrap().send_to(&answer(&asked.message, 0, [6, 6, 6, 6]), target).unwrap();
        }
        vec![answer(&asked.message, 0, [192, 0, 2, 5])]
    });
    bed.ask(&[careful.address], LONG);
    assert_eq!(records(&asks(&query(7, "example.org", TYPE_A))), ["192.0.2.5"]);
}

/// The UDP sockets of the thread's namespace: where they are, and whom they are connected to as the kernel writes it.
fn sockets_of_udp() -> Vec<(SocketAddr, String)> {
    let text = std::fs::read_to_string("/proc/thread-self/net/udp").unwrap();
    text.lines()
        .skip(1)
        .map(|line| {
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            let (address, port) = words[1].split_once(':').unwrap();
            let address = u32::from_str_radix(address, 16).unwrap().to_ne_bytes();
            (SocketAddr::from((address, u16::from_str_radix(port, 16).unwrap())), words[2].to_owned())
        })
        .collect()
}

#[test]
fn a_container_of_internal_networks_asks_nobody() {
    let bed = Bed::new(table());
    let server = Server::start(&bed, "127.0.0.53", says([192, 0, 2, 1]));
    bed.ask(&[server.address], LONG);
    bed.order(|resolver| resolver.set_forwarding(false));
    assert!(dig(&["example.org"]).contains("status: SERVFAIL"));
    assert!(dig(&["+tcp", "-x", "192.0.2.1"]).contains("status: SERVFAIL"));
    assert_eq!(records(&asks(&query(7, "web", TYPE_A))), ["172.20.0.2"]);
    assert_eq!(server.count(), 0);
    bed.order(|resolver| resolver.set_forwarding(true));
    assert_eq!(dig(&["+short", "example.org"]), "192.0.2.1\n");
}

#[test]
fn queries_on_their_way_end_with_the_permission() {
    let bed = Bed::new(table());
    let silent = Server::start(&bed, "127.0.0.53", |_| vec![]);
    bed.ask(&[silent.address], LONG);
    let socket = client();
    socket.send(&query(7, "example.org", TYPE_A)).unwrap();
    silent.next();
    bed.order(|resolver| resolver.set_forwarding(false));
    assert_eq!(code(&receive(&socket)), 2);
}

#[test]
fn the_hosts_file_is_read_anew_when_it_has_changed() {
    let bed = Bed::new(table());
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("resolv.conf");
    std::fs::write(&path, "options timeout:3\nnameserver 127.0.0.53\n").unwrap();
    bed.upstream(Upstream::HostFile(path.clone()));
    let servers = |bed: &Bed| bed.order(|resolver| resolver.source.servers().addresses.clone());
    assert_eq!(servers(&bed), ["127.0.0.53:53".parse().unwrap()]);
    assert!(
        bed.order(|resolver| Arc::ptr_eq(&resolver.source.servers(), &resolver.source.servers())),
        "not read again for nothing"
    );
    // In place, as dhclient does it, and by a rename, as everybody else.
    std::fs::write(&path, "nameserver 127.0.0.54\nnameserver ::1\n").unwrap();
    assert_eq!(servers(&bed), ["127.0.0.54:53".parse().unwrap(), "[::1]:53".parse().unwrap()]);
    std::fs::write(directory.path().join("new"), "nameserver 127.0.0.55").unwrap();
    std::fs::rename(directory.path().join("new"), &path).unwrap();
    assert_eq!(servers(&bed), ["127.0.0.55:53".parse().unwrap()]);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(servers(&bed), ["127.0.0.1:53".parse().unwrap()]);
}

#[test]
fn a_resolver_does_not_ask_itself() {
    // On the host's namespace as its own: what a container in the host's network would be.
    enter_new_namespace();
    let servers = Servers { addresses: vec![SocketAddr::new(ADDRESS.into(), PORT)], ..Servers::default() };
    let (orders, queue) = channel::<Order>();
    let (bell, ring) = UnixStream::pair().unwrap();
    let namespace = current_namespace();
    let shim = thread::spawn(move || {
        enter(namespace.as_fd());
        let settings = Settings { upstream: Upstream::Servers(servers), forwarding: true };
        run(Resolver::new(Sockets::open().unwrap(), settings), &table(), &queue, &ring);
    });
    orders.send(Box::new(|_| ())).unwrap();
    assert_eq!(code(&asks_when_there(&query(7, "example.org", TYPE_A))), 5);
    drop(orders);
    drop(bell);
    shim.join().unwrap();
}

/// As [`asks`], for a resolver that may still be opening its sockets.
fn asks_when_there(query: &[u8]) -> Vec<u8> {
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect((ADDRESS, PORT)).is_err() {
        assert!(Instant::now() < deadline);
    }
    asks(query)
}
