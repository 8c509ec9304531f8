//! Names of our own, asked for by real clients.

use super::*;

#[test]
fn dig_finds_names_by_udp_and_tcp() {
    for kind in BOTH {
        let _bed = Bed::with(kind, table());
        for transport in ["+notcp", "+tcp"] {
            assert_eq!(dig(&["+short", transport, "web", "A"]), "172.20.0.2\n", "{kind:?} {transport}");
            assert_eq!(dig(&["+short", transport, "web.", "AAAA"]), "fd00:20::2\n", "{kind:?} {transport}");
            let address = dig(&["+short", transport, "-x", "172.20.0.2"]);
            assert_eq!(address, "web.n1.\n", "{kind:?} {transport}");
            assert_eq!(dig(&["+short", transport, "-x", "fd00:20::2"]), "web.n1.\n", "{kind:?} {transport}");
        }
    }
}

#[test]
fn busybox_finds_names() {
    for kind in BOTH {
        let _bed = Bed::with(kind, table());
        let text = output("busybox", &["nslookup", "web", "127.0.0.11"]);
        assert!(text.contains("172.20.0.2") && text.contains("fd00:20::2"), "{kind:?}: {text}");
    }
}

#[test]
fn known_names_without_such_records_get_an_empty_answer() {
    let _bed = Bed::new(table());
    for (name, kind) in [("four", TYPE_AAAA), ("web", TYPE_MX), ("web", TYPE_TXT), ("nothing", TYPE_A)] {
        let answer = asks(&query(7, name, kind));
        assert_eq!((code(&answer), records(&answer)), (0, vec![]), "{name} {kind}");
        assert_eq!(answer[3] & 0x80, 0x80, "recursion available");
    }
}

#[test]
fn letter_case_is_ignored_and_given_back() {
    let _bed = Bed::new(table());
    let answer = asks(&query(7, "wEb", TYPE_A));
    assert_eq!(records(&answer), ["172.20.0.2"]);
    assert_eq!(&answer[12..16], b"\x03wEb");
}

#[test]
fn several_addresses_take_turns() {
    let _bed = Bed::new(table());
    let first = |kind| {
        let answer = asks(&query(7, "replicas", kind));
        records(&answer).first().cloned()
    };
    // As programs ask: for both families each time.
    let firsts: Vec<_> = (0..6).map(|_| (first(TYPE_A), first(TYPE_AAAA)).0.unwrap()).collect();
    assert_eq!(firsts[..3], firsts[3..]);
    let mut all = firsts[..3].to_vec();
    all.sort();
    assert_eq!(all, ["172.20.0.10", "172.20.0.11", "172.20.0.12"]);
}

#[test]
fn edns_is_answered_with_edns_and_its_size_respected() {
    let many: Vec<String> = (0..200).map(|n| format!("172.20.1.{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let _bed = Bed::new(Table::default().with("many", &many));
    let truncated = |answer: &[u8]| answer[2] & 2 != 0;

    let plain = asks(&query(7, "many", TYPE_A));
    assert!(truncated(&plain) && plain.len() <= 512 && plain.len() > 480, "{}", plain.len());
    assert_eq!(plain[10..12], [0, 0], "no OPT that was not asked for");
    let large = asks(&query_with_edns(7, "many", TYPE_A, 1232));
    assert!(truncated(&large) && large.len() <= 1232 && large.len() > 1200, "{}", large.len());
    assert_eq!(large[10..12], [0, 1]);
    let whole = asks(&query_with_edns(7, "many", TYPE_A, 4096));
    assert!(!truncated(&whole));
    assert_eq!(records(&whole).len(), 200);
    assert_eq!(records(&asks_by_tcp(&query(7, "many", TYPE_A))).len(), 200);
    // dig does all of that by itself.
    assert_eq!(dig(&["+short", "+noedns", "+ignore", "many"]).lines().count(), 30);
    assert_eq!(dig(&["+short", "+noedns", "many"]).lines().count(), 200);
}

#[test]
fn a_client_with_a_connection_may_ask_many_times_and_stop_asking() {
    let _bed = Bed::new(table());
    let mut stream = tcp_client();
    let queries: Vec<Vec<u8>> = (0..100).map(|id| query(id, "web", TYPE_A)).collect();
    for query in &queries {
        write_framed(&mut stream, query);
    }
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    for id in 0..100u16 {
        let answer = read_framed(&mut stream).unwrap();
        assert_eq!((u16::from_be_bytes([answer[0], answer[1]]), records(&answer).len()), (id, 1));
    }
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
}

#[test]
fn a_query_may_come_in_pieces() {
    let bed = Bed::new(table());
    let mut stream = tcp_client();
    stream.set_nodelay(true).unwrap();
    let query = query(7, "web", TYPE_A);
    let framed = [&(query.len() as u16).to_be_bytes()[..], &query].concat();
    for byte in framed {
        stream.write_all(&[byte]).unwrap();
        // A turn of the loop in between.
        bed.order(|_| ());
    }
    assert_eq!(records(&read_framed(&mut stream).unwrap()), ["172.20.0.2"]);
}
