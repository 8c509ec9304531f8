//! Messages byte by byte, as the specification has them, and a conversation over a real socket.

use std::os::unix::net::UnixListener;

use super::*;

const MANAGER: Method<'_> = Method { destination: "d.d", path: "/p", interface: "i.i", member: "Do" };

#[test]
fn a_call_is_marshalled_as_specified() {
    let mut body = Body::default();
    body.text("unit");
    body.properties(&[("A", Value::Boolean(true)), ("B", Value::Number(7)), ("C", Value::Numbers(vec![9]))]);
    let message = MANAGER.call(5, "sa(sv)", &body);
    let body_bytes: &[u8] = &[
        4, 0, 0, 0, b'u', b'n', b'i', b't', 0, 0, 0, 0, // s, gap
        60, 0, 0, 0, // length of the array; its first element is aligned already
        1, 0, 0, 0, b'A', 0, 1, b'b', 0, 0, 0, 0, 1, 0, 0, 0, // (s v:b)
        1, 0, 0, 0, b'B', 0, 1, b't', 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, // (s v:t)
        1, 0, 0, 0, b'C', 0, 2, b'a', b'u', 0, 0, 0, 4, 0, 0, 0, 9, 0, 0, 0, // (s v:au)
    ];
    assert_eq!(body.bytes, body_bytes);
    let header: &[u8] = &[
        b'l', 1, 0, 1, 76, 0, 0, 0, 5, 0, 0, 0, 76, 0, 0, 0, //
        1, 1, b'o', 0, 2, 0, 0, 0, b'/', b'p', 0, 0, 0, 0, 0, 0, //
        2, 1, b's', 0, 3, 0, 0, 0, b'i', b'.', b'i', 0, 0, 0, 0, 0, //
        3, 1, b's', 0, 2, 0, 0, 0, b'D', b'o', 0, 0, 0, 0, 0, 0, //
        6, 1, b's', 0, 3, 0, 0, 0, b'd', b'.', b'd', 0, 0, 0, 0, 0, //
        8, 1, b'g', 0, 6, b's', b'a', b'(', b's', b'v', b')', 0, 0, 0, 0, 0,
    ];
    assert_eq!(message, [header, body_bytes].concat());
}

/// An answer to call `serial`, or the signal `member`.
fn answer(kind: u8, fields: &[(u8, &str, &str)], serial: u32, text: &str) -> Vec<u8> {
    let mut body = Body::default();
    body.text(text);
    let mut message = Body::default();
    message.bytes.extend([b'l', kind, 0, 1]);
    message.number32(body.bytes.len() as u32);
    message.number32(77);
    message.array(8, |list| {
        for (code, signature, value) in fields {
            list.align(8);
            list.byte(*code);
            list.signature(signature);
            list.text(value);
        }
        if serial > 0 {
            list.align(8);
            list.byte(field::REPLY_SERIAL);
            list.signature("u");
            list.number32(serial);
        }
        list.align(8);
        list.byte(field::SIGNATURE);
        list.signature("g");
        list.signature("s");
    });
    message.align(8);
    message.bytes.extend(body.bytes);
    message.bytes
}

/// A server of one connection, which lets in whoever knows how to ask, then sends `answers` for each call.
fn serve(greeting: &'static [u8], answers: Vec<Vec<u8>>) -> (tempfile::TempDir, std::thread::JoinHandle<()>) {
    let directory = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(directory.path().join("bus")).unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut text = [0; 512];
        let count = stream.read(&mut text).unwrap();
        let words = &text[..count];
        assert!(words.starts_with(b"\0AUTH EXTERNAL 3") && words.ends_with(b"\r\nBEGIN\r\n"), "{words:?}");
        stream.write_all(greeting).unwrap();
        if answers.is_empty() {
            return;
        }
        let _ = stream.read(&mut text).unwrap();
        answers.iter().for_each(|answer| stream.write_all(answer).unwrap());
    });
    (directory, server)
}

#[test]
fn an_answer_is_told_from_signals_that_come_before_it() {
    let signal = answer(4, &[(field::PATH, "o", "/x"), (field::MEMBER, "s", "JobRemoved"), (7, "s", ":1.2")], 0, "job");
    let (directory, server) = serve(b"OK 1234\r\n", vec![signal, answer(METHOD_RETURN, &[], 1, "yes")]);
    let mut connection = Connection::open(&directory.path().join("bus")).unwrap();
    let reply = connection.call(&MANAGER, "", &Body::default()).unwrap();
    assert_eq!(reply.reader().text(), Some("yes"));
    let signal = connection.signal().unwrap();
    assert_eq!((signal.member.as_str(), signal.reader().text()), ("JobRemoved", Some("job")));
    server.join().unwrap();
    // The other side has gone: an error, not an endless wait.
    assert_eq!(connection.signal().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}

#[test]
fn a_refusal_has_a_name_and_a_text() {
    let no = answer(ERROR, &[(field::ERROR_NAME, "s", "org.x.NoSuchUnit")], 1, "no such thing");
    let (directory, server) = serve(b"OK\r\n", vec![no]);
    let mut connection = Connection::open(&directory.path().join("bus")).unwrap();
    match connection.call(&MANAGER, "", &Body::default()).unwrap_err() {
        CallError::Refused { name, text } => assert_eq!((&*name, &*text), ("org.x.NoSuchUnit", "no such thing")),
        CallError::Connection(error) => panic!("{error}"),
    }
    server.join().unwrap();
}

#[test]
fn who_is_not_let_in_is_told_so() {
    let (directory, server) = serve(b"REJECTED EXTERNAL\r\n", vec![]);
    let error = Connection::open(&directory.path().join("bus")).unwrap_err();
    assert!(error.to_string().contains("REJECTED"), "{error}");
    server.join().unwrap();
    // Hung up in the middle of the greeting.
    let (directory, server) = serve(b"O", vec![]);
    let error = Connection::open(&directory.path().join("bus")).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    server.join().unwrap();
}

#[test]
fn nonsense_is_an_error_and_never_a_panic() {
    for length in 0..64_u8 {
        let mut bytes = answer(4, &[(field::MEMBER, "s", "Signal")], 3, "text");
        let at = usize::from(length) % bytes.len();
        for value in [0, 1, 7, 0x7f, 0xff] {
            bytes[at] = value;
            let fixed: [u8; 16] = bytes[..16].try_into().unwrap();
            if let Some(header) = Header::parse(&fixed) {
                let _ = Message::parse(&bytes, &header).map(|message| message.reader().text().map(str::len));
            }
        }
    }
}
