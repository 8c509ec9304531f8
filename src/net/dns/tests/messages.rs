//! Messages by themselves: what is read, what is written.

use proptest::prelude::*;

use super::super::message::{self, Arrival, Transport, Verdict};
use super::*;

fn question(bytes: &[u8]) -> message::Question {
    match message::read(bytes) {
        Arrival::Asked(question) => question,
        Arrival::Refused(answer) => panic!("refused: {answer:02x?}"),
        Arrival::Noise => panic!("taken for noise"),
    }
}

fn refusal(bytes: &[u8]) -> Vec<u8> {
    match message::read(bytes) {
        Arrival::Refused(answer) => answer,
        _ => panic!("not refused"),
    }
}

#[test]
fn an_answer_byte_by_byte() {
    let asked = question(&query_with_edns(0xabcd, "Web", TYPE_A, 1232));
    assert_eq!(asked.name().as_deref(), Some("web"));
    let answer = asked.addresses(&[IpAddr::from([172, 20, 0, 2])], 1232);
    #[rustfmt::skip]
    assert_eq!(
        answer,
        [
            0xab, 0xcd, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 1,         // response, RD, RA; 1 question, 1 answer, 1 OPT
            3, b'W', b'e', b'b', 0, 0, 1, 0, 1,                     // the question as asked
            0xc0, 12, 0, 1, 0, 1, 0, 0, 0x02, 0x58, 0, 4, 172, 20, 0, 2, // its name, A, IN, 600 s
            0, 0, 41, 0x10, 0, 0, 0, 0, 0, 0, 0,                    // OPT, 4096 bytes
        ]
    );
}

#[test]
fn pointers_byte_by_byte() {
    let asked = question(&query(1, "2.0.20.172.in-addr.arpa", TYPE_PTR));
    assert_eq!(asked.address(), Some(IpAddr::from([172, 20, 0, 2])));
    let answer = asked.pointer("web.n1", 512).unwrap();
    assert_eq!(answer[..12], [0, 1, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
    let record = b"\xc0\x0c\x00\x0c\x00\x01\x00\x00\x02\x58\x00\x08\x03web\x02n1\x00";
    assert!(answer.ends_with(record), "{answer:02x?}");
    let six = "2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.2.0.0.0.0.d.f.IP6.ARPA";
    assert_eq!(question(&query(1, six, TYPE_PTR)).address(), Some("fd00:20::2".parse().unwrap()));
    for other in ["20.172.in-addr.arpa", "1.2.0.20.172.in-addr.arpa", "x.0.20.172.in-addr.arpa", "web"] {
        assert_eq!(question(&query(1, other, TYPE_PTR)).address(), None, "{other}");
    }
    assert_eq!(question(&query(1, "2.0.20.172.in-addr.arpa", TYPE_A)).address(), None);
}

#[test]
fn what_cannot_be_a_query_is_met_with_silence() {
    let mut response = query(1, "web", TYPE_A);
    response[2] |= 0x80;
    for noise in [&[][..], &[0; 11], &response] {
        assert!(matches!(message::read(noise), Arrival::Noise), "{noise:02x?}");
    }
}

#[test]
fn what_is_no_proper_question_is_refused_with_its_header() {
    let valid = query(0x1234, "web", TYPE_A);
    let with = |place: usize, value: u8| {
        let mut bytes = valid.clone();
        bytes[place] = value;
        bytes
    };
    // No question, two, a label beyond the end, a pointer to itself, an OPT that ends early.
    let cut_opt = query_with_edns(0x1234, "web", TYPE_A, 512);
    for bytes in [with(5, 0), with(5, 2), with(12, 63), with(12, 0xc0), cut_opt[..cut_opt.len() - 3].to_vec()] {
        assert_eq!(refusal(&bytes), [0x12, 0x34, 0x81, 0x81, 0, 0, 0, 0, 0, 0, 0, 0], "{bytes:02x?}");
    }
    // A status request, an update.
    for (operation, flags) in [(2 << 3, 0x90), (5 << 3, 0xa8)] {
        assert_eq!(refusal(&with(2, operation)), [0x12, 0x34, flags, 0x84, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
    // EDNS of a version that nobody knows (RFC 6891, 6.1.3): BADVERS is 16, its high bits in the OPT record.
    let mut future = query_with_edns(0x1234, "web", TYPE_A, 512);
    let version = future.len() - 5;
    future[version] = 9;
    let answer = refusal(&future);
    assert_eq!((answer[3] & 0xf, &answer[answer.len() - 11..]), (0, &[0, 0, 41, 16, 0, 1, 0, 0, 0, 0, 0][..]));
}

#[test]
fn names_that_no_container_has() {
    let mut dotted = query(1, "aXb", TYPE_A);
    dotted[14] = b'.';
    assert_eq!(question(&dotted).name(), None, "a label with a dot is not two labels");
    assert_eq!(question(&query(1, "", TYPE_A)).name(), None);
    assert_eq!(question(&query(1, "_srv._TCP.web-1", TYPE_A)).name().as_deref(), Some("_srv._tcp.web-1"));
}

#[test]
fn sizes_that_clients_take() {
    let limit = |query: &[u8], transport| question(query).limit(transport);
    assert_eq!(limit(&query(1, "web", TYPE_A), Transport::Datagram), 512);
    assert_eq!(limit(&query_with_edns(1, "web", TYPE_A, 100), Transport::Datagram), 512);
    assert_eq!(limit(&query_with_edns(1, "web", TYPE_A, 1400), Transport::Datagram), 1400);
    assert_eq!(limit(&query_with_edns(1, "web", TYPE_A, 65535), Transport::Datagram), 65507);
    assert_eq!(limit(&query(1, "web", TYPE_A), Transport::Stream), 65535);
}

#[test]
fn resolv_conf_as_the_manual_has_it() {
    let text = "# nameserver 9.9.9.9\n; nameserver 9.9.9.9\ndomain x\nsearch a b\nnameserver 127.0.0.53\n\
                nameserver nonsense\n nameserver ::1 # not the first\noptions ndots:2 timeout:1 attempts:9 rotate\n\
                nameserver 10.0.0.1\nnameserver 10.0.0.2\noptions timeout:0 edns0\nnameserver fe80::1%lo";
    let servers = Servers::from_resolv_conf(text);
    let addresses = ["127.0.0.53:53", "[::1]:53", "10.0.0.1:53"].map(|text| text.parse().unwrap());
    let expected =
        Servers { addresses: addresses.to_vec(), timeout: Duration::from_secs(1), attempts: 5, rotate: true };
    assert_eq!(servers, expected);
    let scoped = Servers::from_resolv_conf("nameserver fe80::1%lo\nnameserver fe80::1%7\nnameserver fe80::1%absent");
    assert_eq!(scoped.addresses, ["[fe80::1%1]:53", "[fe80::1%7]:53"].map(|text| text.parse().unwrap()));
    let options = ["timeout:40".to_owned(), "attempts:0".to_owned(), "timeout:x".to_owned()];
    let given = Servers::new(["10.0.0.1".parse().unwrap()], &options);
    assert_eq!((given.timeout, given.attempts), (Duration::from_secs(30), 1));
    assert_eq!(Servers::from_resolv_conf("").addresses, ["127.0.0.1:53".parse().unwrap()]);
}

#[test]
fn a_connection_takes_as_many_addresses_as_a_message_holds() {
    let asked = question(&query(1, "web", TYPE_AAAA));
    let addresses = vec![IpAddr::from([0xfd00u16; 8]); 5000];
    let whole = asked.addresses(&addresses, asked.limit(Transport::Stream));
    assert_eq!((whole.len(), whole[2] & 2), (12 + 9 + 2339 * 28, 2));
    assert_eq!(records(&whole).len(), 2339);
}

/// Valid queries of all kinds.
fn queries() -> impl Strategy<Value = Vec<u8>> {
    let label = "[a-zA-Z0-9_-]{1,63}";
    let names = prop::collection::vec(label, 0..4).prop_map(|labels| labels.join("."));
    (any::<u16>(), names, any::<u16>(), prop::option::of(any::<u16>())).prop_map(|(id, name, kind, edns)| match edns {
        Some(payload) => query_with_edns(id, &name, kind, payload),
        None => query(id, &name, kind),
    })
}

/// The same with some bytes changed, and perhaps cut or grown.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
    (queries(), changes, any::<prop::sample::Index>(), prop::collection::vec(any::<u8>(), 0..40), any::<bool>())
        .prop_map(|(mut bytes, changes, end, more, cut)| {
            for (place, value) in changes {
                let place = place.index(bytes.len());
                bytes[place] = value;
            }
            if cut {
                bytes.truncate(end.index(bytes.len()));
            }
            bytes.extend(more);
            bytes
        })
}

/// Everything that is said to these bytes keeps to its limits.
fn check(bytes: &[u8], addresses: &[IpAddr]) {
    let asked = match message::read(bytes) {
        Arrival::Noise => return,
        Arrival::Refused(answer) => {
            assert!((12..=512).contains(&answer.len()) && answer[2] & 0x80 != 0);
            assert_eq!(answer[..2], bytes[..2]);
            return;
        }
        Arrival::Asked(asked) => asked,
    };
    assert!(asked.end <= bytes.len());
    for transport in [Transport::Datagram, Transport::Stream] {
        let limit = asked.limit(transport);
        let answers = [
            asked.addresses(addresses, limit),
            asked.pointer("some-container.some-network", limit).unwrap(),
            asked.failure(ResponseCode::ServFail),
            asked.truncated(),
        ];
        for answer in answers {
            assert!((12..=limit).contains(&answer.len()), "{} of {limit}", answer.len());
            assert_eq!(answer[..2], bytes[..2]);
            hickory_proto::op::Message::from_vec(&answer).unwrap();
        }
    }
    let _ = (asked.name(), asked.address(), asked.families());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_are_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        check(&bytes, &[IpAddr::from([1, 2, 3, 4])]);
    }

    #[test]
    fn no_damage_is_too_strange(bytes in mutated(), count in 0usize..4000) {
        let addresses: Vec<IpAddr> =
            (0..count).map(|n| if n % 2 == 0 { [10, 0, 0, n as u8].into() } else { [0xfd00u16; 8].into() }).collect();
        check(&bytes, &addresses);
    }

    #[test]
    fn valid_queries_are_understood(bytes in queries()) {
        prop_assert!(matches!(message::read(&bytes), Arrival::Asked(_)));
        let asked = question(&bytes);
        let answer = answer(&bytes[..asked.end], 0, [1, 2, 3, 4]);
        prop_assert_eq!(message::judge(&bytes, asked.end, &answer), Verdict::Answer);
    }

    #[test]
    fn no_server_is_too_strange(bytes in queries(), other in prop::collection::vec(any::<u8>(), 0..100)) {
        let end = question(&bytes).end;
        prop_assert_ne!(message::judge(&bytes, end, &other), Verdict::Answer);
        let mut framed = bytes.clone();
        framed.truncate(end.min(20));
        framed[2] |= 0x80;
        framed.extend(other);
        if message::judge(&bytes, end, &framed) == Verdict::Answer {
            message::readdress(&mut framed, &bytes, end, [9, 9]);
        }
    }
}
