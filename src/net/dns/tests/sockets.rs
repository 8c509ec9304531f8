//! How packets come to the resolver, and what else may happen in its namespace.

use super::*;

#[test]
fn programs_in_the_container_may_listen_on_port_53() {
    let bed = Bed::with(Kind::Steered, table());
    assert!(bed.order(|resolver| resolver.sockets().is_steered()));
    let udp = UdpSocket::bind("0.0.0.0:53").unwrap();
    // Without SO_REUSEADDR, which Rust sets on listeners.
    let (family, kind) = (rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM);
    let tcp = rustix::net::socket_with(family, kind, rustix::net::SocketFlags::CLOEXEC, None).unwrap();
    rustix::net::bind(&tcp, &"0.0.0.0:53".parse::<SocketAddr>().unwrap()).unwrap();
    rustix::net::listen(&tcp, 8).unwrap();
    let tcp = TcpListener::from(tcp);

    assert_eq!(dig(&["+short", "web"]), "172.20.0.2\n");
    assert_eq!(dig(&["+short", "+tcp", "web"]), "172.20.0.2\n");
    assert!(output("busybox", &["nslookup", "web", "127.0.0.11"]).contains("172.20.0.2"));
    // What is meant for them comes to them.
    let other = UdpSocket::bind("127.0.0.1:0").unwrap();
    other.send_to(b"for you", "127.0.0.1:53").unwrap();
    udp.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut bytes = [0; 16];
    assert_eq!(udp.recv_from(&mut bytes).unwrap(), (7, other.local_addr().unwrap()));
    let stream = TcpStream::connect("127.0.0.1:53").unwrap();
    let (mut accepted, from) = tcp.accept().unwrap();
    assert_eq!(from, stream.local_addr().unwrap());
    drop(stream);
    assert_eq!(accepted.read(&mut [0]).unwrap(), 0);
    // And they may go and come while one of our connections is there.
    let ours = tcp_client();
    drop((udp, tcp, accepted));
    let deadline = Instant::now() + PATIENCE;
    // A child of another test's thread may have the sockets that were closed here until it calls execve(2).
    while UdpSocket::bind("0.0.0.0:53").is_err() || TcpListener::bind("0.0.0.0:53").is_err() {
        assert!(Instant::now() < deadline, "port 53 is still held");
    }
    drop(ours);
}

#[test]
fn answers_come_from_port_53_to_any_address_of_the_container() {
    for kind in BOTH {
        let _bed = Bed::with(kind, table());
        output("ip", &["address", "add", "172.20.0.9/32", "dev", "lo"]);
        for address in ["127.0.0.1:0", "127.8.8.8:0", "172.20.0.9:0", "0.0.0.0:0"] {
            let socket = UdpSocket::bind(address).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket.send_to(&query(7, "web", TYPE_A), (ADDRESS, PORT)).unwrap();
            let mut bytes = [0; 512];
            let (length, from) = socket.recv_from(&mut bytes).unwrap();
            assert_eq!(from, SocketAddr::from((ADDRESS, PORT)), "{kind:?} {address}");
            assert_eq!(records(&bytes[..length]), ["172.20.0.2"]);
        }
    }
}

#[test]
fn sockets_can_be_opened_before_loopback_is_up() {
    for kind in BOTH {
        let namespace = thread::spawn(move || {
            leave_namespace();
            let sockets = kind.open();
            crate::sys::network::loopback_up().unwrap();
            UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"hello", (ADDRESS, PORT)).unwrap();
            let mut bytes = Vec::with_capacity(16);
            sockets.receive(&mut bytes).unwrap();
            bytes
        });
        assert_eq!(namespace.join().unwrap(), b"hello", "{kind:?}");
    }
}

#[test]
fn without_the_program_the_sockets_take_port_53_and_say_why() {
    leave_namespace();
    // A process without CAP_BPF and CAP_SYS_ADMIN: those of this thread only.
    let mut sets = rustix::thread::capabilities(None).unwrap();
    sets.effective.remove(rustix::thread::CapabilitySet::SYS_ADMIN | rustix::thread::CapabilitySet::BPF);
    rustix::thread::set_capabilities(None, sets).unwrap();
    let sockets = Sockets::open().unwrap();
    assert!(!sockets.is_steered());
    assert!(sockets.why_direct().unwrap().contains("Operation not permitted"), "{:?}", sockets.why_direct());
    crate::sys::network::loopback_up().unwrap();
    assert!(UdpSocket::bind("0.0.0.0:53").is_err());
}

#[test]
fn the_namespace_goes_with_the_resolver() {
    for kind in BOTH {
        // The veth's other end, in this thread's namespace, goes when the namespace of the resolver goes.
        enter_new_namespace();
        let sockets = thread::scope(|scope| {
            let outer = current_namespace();
            scope
                .spawn(move || {
                    enter_new_namespace();
                    output("ip", &["link", "add", "inside", "type", "veth", "peer", "name", "outside"]);
                    let inner = current_namespace();
                    enter(outer.as_fd());
                    // The outer end comes here; a path names the namespace for ip(8).
                    let path = format!("/proc/{}/fd/{}", std::process::id(), rustix::fd::AsRawFd::as_raw_fd(&outer));
                    enter(inner.as_fd());
                    output("ip", &["link", "set", "outside", "netns", &path]);
                    kind.open()
                })
                .join()
                .unwrap()
        });
        assert!(has_outside(), "the sockets keep the namespace");
        let events = rtnetlink_events();
        drop(sockets);
        let deadline = Instant::now() + PATIENCE;
        while has_outside() {
            assert!(Instant::now() < deadline, "{kind:?}: something keeps the namespace");
            let mut set = [PollFd::new(&events, PollFlags::IN)];
            rustix::event::poll(&mut set, Some(&Timespec::try_from(PATIENCE).unwrap())).unwrap();
            let _ = rustix::net::recv(&events, &mut [0u8; 4096][..], rustix::net::RecvFlags::empty());
        }
    }
}

fn has_outside() -> bool {
    std::fs::read_to_string("/proc/thread-self/net/dev").unwrap().contains("outside")
}

/// A socket that hears of links that come and go (rtnetlink(7)).
fn rtnetlink_events() -> OwnedFd {
    use rustix::net::netlink::SocketAddrNetlink;
    let socket = rustix::net::socket(rustix::net::AddressFamily::NETLINK, rustix::net::SocketType::RAW, None).unwrap();
    rustix::net::bind(&socket, &SocketAddrNetlink::new(0, 1)).unwrap();
    socket
}
