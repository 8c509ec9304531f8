//! On the kernel, in a network namespace of each test's own.

use std::io::Read;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use rustix::thread::UnshareFlags;

use super::*;
use crate::error::Class;

/// This thread is alone in a network with 127.0.0.1 and ::1.
fn alone() {
    #[allow(deprecated)] // Safe for what is unshared here: no descriptor table.
    rustix::thread::unshare(UnshareFlags::NEWNET).unwrap();
    crate::sys::network::loopback_up().unwrap();
}

fn wanted(protocol: Protocol, host_ip: Option<&str>, ports: Option<(u16, u16)>) -> Wanted {
    let host_ip = host_ip.map(|text| text.parse().unwrap());
    Wanted { protocol, host_ip, ports, ipv4: true, ipv6: true }
}

fn nobody(_: Protocol, _: SocketAddr) -> Option<String> {
    None
}

fn addresses_of(held: &Held) -> Vec<String> {
    held.addresses.iter().map(ToString::to_string).collect()
}

fn failure(result: Result<Held>) -> Failure {
    Failure::from_error(&result.unwrap_err())
}

/// Holds what was closed a moment ago: a process that another test is just starting has a copy of
/// every socket until it executes its program.
fn soon(wanted: &Wanted) -> Held {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        match hold(wanted, &nobody) {
            Err(error) if Instant::now() > end => panic!("{error}"),
            Err(_) => std::thread::yield_now(),
            Ok(held) => return held,
        }
    }
}

const ME: &str = "has it";

#[test]
fn a_held_port_is_held() {
    alone();
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let eighty = wanted(protocol, None, Some((80, 80)));
        let held = hold(&eighty, &nobody).unwrap();
        assert_eq!(addresses_of(&held), ["0.0.0.0:80", "[::]:80"]);
        for address in ["0.0.0.0:80", "127.0.0.1:80", "[::]:80", "[::1]:80"] {
            let taken = match protocol {
                Protocol::Tcp => TcpListener::bind(address).map(drop),
                _ => UdpSocket::bind(address).map(drop),
            };
            assert_eq!(taken.unwrap_err().kind(), io::ErrorKind::AddrInUse, "{address}");
        }
        let again = failure(hold(&eighty, &nobody));
        assert_eq!(again.class, Class::Conflict);
        let text = again.to_string();
        assert!(text.starts_with("Bind for 0.0.0.0:80 failed: port is already allocated: process "), "{text}");
        assert!(text.contains(&format!("process {} (", std::process::id())) && text.ends_with(ME), "{text}");
        assert_eq!(again.hint.as_deref(), Some("port 81 is free"));
        drop(held);
        soon(&eighty);
    }
}

#[test]
fn the_container_that_has_it_is_named() {
    alone();
    let _held = hold(&wanted(Protocol::Tcp, None, Some((80, 80))), &nobody).unwrap();
    let ours =
        |protocol, address: SocketAddr| (protocol == Protocol::Tcp && address.port() == 80).then(|| "web".to_owned());
    let text = failure(hold(&wanted(Protocol::Tcp, Some("127.0.0.1"), Some((80, 80))), &ours)).to_string();
    assert_eq!(text, "Bind for 127.0.0.1:80 failed: port is already allocated: container web has it");
}

#[test]
fn a_range_gives_the_first_that_is_free_on_all_addresses() {
    alone();
    let _first = TcpListener::bind("0.0.0.0:8000").unwrap();
    let _second = TcpListener::bind("[::1]:8001").unwrap();
    let range = wanted(Protocol::Tcp, None, Some((8000, 8002)));
    let held = hold(&range, &nobody).unwrap();
    assert_eq!(addresses_of(&held), ["0.0.0.0:8002", "[::]:8002"]);
    let full = failure(hold(&range, &nobody));
    assert_eq!(full.class, Class::Conflict);
    assert_eq!(full.to_string(), "Bind for 0.0.0.0:8000-8002 failed: all ports of 8000-8002/tcp are taken");
    // The last number there is does not overflow.
    let last = wanted(Protocol::Udp, None, Some((65535, 65535)));
    let _held = hold(&last, &nobody).unwrap();
    assert_eq!(failure(hold(&last, &nobody)).hint, None);
}

#[test]
fn any_port_is_the_same_on_both_families() {
    alone();
    let mut seen = Vec::new();
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        for _ in 0..50 {
            let held = hold(&wanted(protocol, None, None), &nobody).unwrap();
            let [four, six] = held.addresses[..] else { panic!("{held:?}") };
            assert_eq!(four.port(), six.port());
            assert!(four.is_ipv4() && six.is_ipv6() && four.port() > 0);
            seen.push(held);
        }
    }
    let held = hold(&Wanted { ipv6: false, ..wanted(Protocol::Tcp, None, None) }, &nobody).unwrap();
    assert_eq!(held.addresses.len(), 1);
}

#[test]
fn a_client_is_refused_while_rules_are_missing() {
    alone();
    let held = hold(&wanted(Protocol::Tcp, None, None), &nobody).unwrap();
    for loopback in ["127.0.0.1", "::1"] {
        let address = SocketAddr::new(loopback.parse().unwrap(), held.addresses[0].port());
        assert_eq!(TcpStream::connect(address).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
}

#[test]
fn connections_of_the_past_are_no_obstacle() {
    alone();
    let listener = TcpListener::bind("127.0.0.1:80").unwrap();
    let mut client = TcpStream::connect("127.0.0.1:80").unwrap();
    // Whoever closes first keeps the port in TIME_WAIT.
    drop(listener.accept().unwrap());
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    drop((client, listener));
    let eighty = wanted(Protocol::Tcp, None, Some((80, 80)));
    assert_eq!(bind(Protocol::Tcp, "0.0.0.0:80".parse().unwrap(), false).unwrap_err(), Errno::ADDRINUSE);
    let held = soon(&eighty);
    assert!(TcpListener::bind("127.0.0.1:80").is_err(), "it is held all the same");
    assert!(hold(&eighty, &nobody).is_err());
    drop(held);
}

#[test]
fn holders_are_found_whatever_their_socket_does() {
    alone();
    let me = std::process::id() as i32;
    let find = |protocol, address: &str| holder(protocol, address.parse().unwrap()).map(|holder| holder.pid);
    let _listening = TcpListener::bind("[::]:81").unwrap();
    assert_eq!(find(Protocol::Tcp, "0.0.0.0:81"), Some(me));
    assert_eq!(find(Protocol::Tcp, "[::1]:81"), Some(me));
    let _bound = hold(&wanted(Protocol::Tcp, Some("127.0.0.1"), Some((82, 82))), &nobody).unwrap();
    assert_eq!(find(Protocol::Tcp, "0.0.0.0:82"), Some(me));
    assert_eq!(find(Protocol::Tcp, "127.0.0.2:82"), None);
    let _datagrams = UdpSocket::bind("127.0.0.1:83").unwrap();
    assert_eq!(find(Protocol::Udp, "0.0.0.0:83"), Some(me));
    assert_eq!(find(Protocol::Tcp, "0.0.0.0:83"), None);
    assert_eq!(find(Protocol::Udp, "0.0.0.0:84"), None);
}

#[test]
fn an_address_that_is_not_ours_is_said_so() {
    alone();
    let text = failure(hold(&wanted(Protocol::Tcp, Some("192.0.2.1"), Some((80, 80))), &nobody)).to_string();
    assert_eq!(text, "Bind for 192.0.2.1:80 failed: this host has no address 192.0.2.1");
    let text = failure(hold(&wanted(Protocol::Udp, Some("2001:db8::1"), None), &nobody)).to_string();
    assert_eq!(text, "Bind for [2001:db8::1]:0 failed: this host has no address 2001:db8::1");
}

#[test]
fn sctp_is_kept_apart_even_by_a_kernel_that_has_none() {
    alone();
    let one = wanted(Protocol::Sctp, None, Some((80, 80)));
    let held = hold(&one, &nobody).unwrap();
    assert_eq!(addresses_of(&held), ["0.0.0.0:80", "[::]:80"]);
    let ours =
        |protocol, address: SocketAddr| (protocol == Protocol::Sctp && address.port() == 80).then(|| "web".to_owned());
    assert!(failure(hold(&one, &ours)).to_string().ends_with("container web has it"));
    assert_ne!(hold(&wanted(Protocol::Sctp, None, None), &nobody).unwrap().addresses[0].port(), 0);
}
