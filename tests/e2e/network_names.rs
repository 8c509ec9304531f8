//! Names of containers, as programs inside ask for them: `dig` in the container's network namespace.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use super::support::nameserver::NameServer;
use super::support::{Namespace, Sandbox, eventually};
use crate::ours_only;

/// What `dig` says with these arguments, a line an answer.
fn dig(inside: &Namespace, args: &[&str]) -> String {
    let mut command = vec!["dig", "@127.0.0.11", "+tries=1", "+timeout=5"];
    command.extend(args);
    inside.command(&command).code(0).out()
}

fn short(inside: &Namespace, args: &[&str]) -> String {
    let mut all = vec!["+short"];
    all.extend(args);
    dig(inside, &all)
}

#[test]
fn names_lead_to_addresses_and_back() {
    ours_only!("the networks are made on the test's own host");
    let s = Sandbox::new();
    s.ok(["network", "create", "--subnet", "10.71.0.0/24", "--subnet", "fd71::/64", "net71"]);
    s.ok(["network", "create", "--subnet", "10.72.0.0/24", "net72"]);
    let (asker, web, twin, far) = (s.name("asker"), s.name("web"), s.name("twin"), s.name("far"));
    s.sleeper(&asker, &["--network", "net71"]);
    let id = s.sleeper(
        &web,
        &["--network", "net71", "-h", "Web-Host", "--network-alias", "shared", "--network-alias", "www.example"],
    );
    s.sleeper(&twin, &["--network", "net71", "--network-alias", "shared"]);
    s.sleeper(&far, &["--network", "net72"]);
    let inside = s.inside(&asker);
    let (v4, v6) = (s.address(&web, "net71").to_string(), s.address6(&web, "net71").to_string());

    let upper = web.to_uppercase();
    for name in [web.as_str(), &id[..12], "web-host", "WEB-HOST", "www.example", upper.as_str(), &format!("{web}.")] {
        assert_eq!(short(&inside, &[name, "A"]), v4, "{name}");
        assert_eq!(short(&inside, &[name, "AAAA"]), v6, "{name}");
        assert_eq!(short(&inside, &["+tcp", name, "A"]), v4, "{name} by TCP");
    }
    assert_eq!(short(&inside, &["-x", &v4]), format!("{web}."));
    assert_eq!(short(&inside, &["-x", &v6]), format!("{web}."));
    // A name of ours has no mail server, and is no error.
    let mail = dig(&inside, &[&web, "MX"]);
    assert!(mail.contains("status: NOERROR") && mail.contains("ANSWER: 0"), "{mail}");

    // An alias of two leads to both, and each of them is the first sometimes.
    let mut both = [v4.clone(), s.address(&twin, "net71").to_string()];
    both.sort();
    let answers: Vec<Vec<String>> =
        (0..6).map(|_| short(&inside, &["shared", "A"]).lines().map(str::to_owned).collect()).collect();
    for answer in &answers {
        let mut sorted = answer.clone();
        sorted.sort();
        assert_eq!(sorted, both);
    }
    assert!(both.iter().all(|first| answers.iter().any(|answer| answer[0] == *first)), "{answers:?}");

    // Other networks' names are not known here, nor does anybody say so by an address of theirs.
    assert_ne!(short(&inside, &[&far, "A"]), s.address(&far, "net72").to_string());

    // Gone with the container; back with it, at its new address.
    s.ok(["stop", "-t", "0", &twin]);
    assert_eq!(short(&inside, &["shared", "A"]), v4);
    s.ok(["start", &twin]);
    assert_eq!(short(&inside, &[&twin, "A"]), s.address(&twin, "net71").to_string());
    rustix::process::kill_process(rustix::process::Pid::from_raw(s.pid(&twin)).unwrap(), rustix::process::Signal::KILL)
        .unwrap();
    eventually("the name goes with its container", || short(&inside, &["shared", "A"]) == v4);
}

#[test]
fn a_renamed_container_has_its_new_name() {
    ours_only!("the networks are made on the test's own host");
    let s = Sandbox::new();
    let (asker, old, new) = (s.name("asker"), s.name("old"), s.name("new"));
    s.sleeper(&asker, &["--dns", "127.0.0.9"]);
    s.sleeper(&old, &["--network-alias", "constant"]);
    let (inside, at) = (s.inside(&asker), s.address(&old, "bridge").to_string());
    assert_eq!(short(&inside, &[&old]), at);
    s.ok(["rename", &old, &new]);
    assert_eq!(short(&inside, &[&new]), at);
    assert_eq!(short(&inside, &["constant"]), at);
    assert_eq!(short(&inside, &["-x", &at]), format!("{new}."));
    assert!(dig(&inside, &[&old]).contains("status: SERVFAIL"), "the old name is nobody's");
    // Somebody else may have the old name now.
    s.sleeper(&old, &[]);
    assert_eq!(short(&inside, &[&old]), s.address(&old, "bridge").to_string());
    s.ok(["stop", "-t", "0", &new]);
    assert!(dig(&inside, &[&new]).contains("status: SERVFAIL"));
}

#[test]
fn links_are_private_names() {
    ours_only!("the networks are made on the test's own host");
    let s = Sandbox::new();
    let (target, linked, other) = (s.name("target"), s.name("linked"), s.name("other"));
    s.sleeper(&target, &[]);
    s.sleeper(&linked, &["--link", &format!("{target}:database"), "--dns", "127.0.0.9"]);
    s.sleeper(&other, &["--dns", "127.0.0.9"]);
    let at = s.address(&target, "bridge").to_string();
    assert_eq!(short(&s.inside(&linked), &["database"]), at);
    assert!(dig(&s.inside(&other), &["database"]).contains("status: SERVFAIL"));
    assert_eq!(s.field(&linked, "{{json .HostConfig.Links}}"), format!(r#"["/{target}:/{linked}/database"]"#));
}

#[test]
fn other_names_are_asked_for_outside() {
    ours_only!("the networks are made on the test's own host");
    let s = Sandbox::new();
    let (local, shut, sealed) = (s.name("local"), s.name("shut"), s.name("sealed"));
    // The way it is on many hosts: their resolver is on a loopback address that is not the container's.
    let server = NameServer::at(&Namespace::here(), Ipv4Addr::new(127, 0, 0, 53), Ipv4Addr::new(192, 0, 2, 53));
    s.sleeper(&local, &["--dns", "127.0.0.53", "--dns-search", "corp.example", "--dns-option", "ndots:3"]);
    let inside = s.inside(&local);
    assert_eq!(short(&inside, &["www.example.org"]), "192.0.2.53");
    assert_eq!(short(&inside, &["+tcp", "www.example.org"]), "192.0.2.53");
    assert_eq!(short(&inside, &["+noedns", "www.example.org"]), "192.0.2.53");
    assert_eq!(server.asked(), 3);
    let resolv = s.ok(["exec", &local, "cat", "/etc/resolv.conf"]);
    assert!(resolv.contains("search corp.example") && resolv.contains("ndots:3"), "{resolv}");
    // Our own names are nobody else's business.
    let asked = server.asked();
    assert_eq!(short(&inside, &[&local]), s.address(&local, "bridge").to_string());
    assert_eq!(server.asked(), asked);
    // Two servers, the first of which does not answer.
    s.sleeper(&shut, &["--dns", "127.0.0.9", "--dns", "127.0.0.53", "--dns-option", "timeout:1"]);
    assert_eq!(short(&s.inside(&shut), &["www.example.org"]), "192.0.2.53");
    // From an internal network nothing gets out, not even a question (CVE-2024-29018).
    s.ok(["network", "create", "--internal", "sealed"]);
    s.sleeper(&sealed, &["--network", "sealed", "--dns", "127.0.0.53"]);
    let asked = server.asked();
    let answer = dig(&s.inside(&sealed), &["secret.example.org"]);
    assert!(answer.contains("status: SERVFAIL"), "{answer}");
    assert_eq!(short(&s.inside(&sealed), &[&sealed]), s.address(&sealed, "sealed").to_string());
    assert_eq!(server.asked(), asked);
    // With a network that leads outside it may ask; without it no more.
    s.ok(["network", "connect", "bridge", &sealed]);
    assert_eq!(short(&s.inside(&sealed), &["www.example.org"]), "192.0.2.53");
    s.ok(["network", "disconnect", "bridge", &sealed]);
    assert!(dig(&s.inside(&sealed), &["www.example.org"]).contains("status: SERVFAIL"));
}

#[test]
fn a_resolver_that_would_ask_itself_refuses() {
    ours_only!("the networks are made on the test's own host");
    let s = Sandbox::new();
    let name = s.name("loop");
    s.sleeper(&name, &["--dns", "127.0.0.11"]);
    let answer = dig(&s.inside(&name), &["www.example.org"]);
    assert!(answer.contains("status: REFUSED") || answer.contains("status: SERVFAIL"), "{answer}");
    assert_eq!(short(&s.inside(&name), &[&name]), s.address(&name, "bridge").to_string());
}

#[test]
fn a_program_may_serve_port_53_itself() {
    ours_only!("the networks are made on the test's own host");
    let s = Sandbox::new();
    let (name, client) = (s.name("own-dns"), s.name("client"));
    s.sleeper(&name, &["-p", "5353:53/udp", "-p", "5353:53"]);
    s.sleeper(&client, &[]);
    let inside = s.inside(&name);
    // On all addresses, both transports.
    let _own = NameServer::at(&inside, Ipv4Addr::UNSPECIFIED, Ipv4Addr::new(192, 0, 2, 99));
    let at = s.address(&name, "bridge").to_string();
    let ask = |from: &Namespace, server: &str, more: &[&str]| {
        let server = format!("@{server}");
        let mut args = vec!["dig", &server, "+short", "+tries=1", "+timeout=5", "www.example.org"];
        args.extend(more);
        from.command(&args).code(0).out()
    };
    for transport in ["+notcp", "+tcp"] {
        assert_eq!(ask(&s.inside(&client), &at, &[transport]), "192.0.2.99");
        assert_eq!(ask(&inside, &at, &[transport]), "192.0.2.99");
        assert_eq!(ask(&Namespace::here(), "127.0.0.1", &[transport, "-p", "5353"]), "192.0.2.99");
    }
    // Ours is where it was.
    assert_eq!(short(&inside, &[&client]), s.address(&client, "bridge").to_string());
    assert_eq!(short(&inside, &["+tcp", &client]), s.address(&client, "bridge").to_string());
}

#[test]
fn what_cannot_be_read_does_no_harm() {
    ours_only!("the networks are made on the test's own host");
    let s = Sandbox::new();
    let name = s.name("noise");
    s.sleeper(&name, &[]);
    let inside = s.inside(&name);
    inside.run(|| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let header = |count: u8| [0x12, 0x34, 1, 0, 0, count, 0, 0, 0, 0, 0, 0];
        // Compressed for ever, labels beyond the end, no question, many questions, an answer, an empty and a huge one.
        let pointer = [header(1).as_slice(), &[0xc0, 12, 0, 1, 0, 1]].concat();
        let beyond = [header(1).as_slice(), &[63, b'a']].concat();
        let answer = [[0x12, 0x34, 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0].as_slice(), &[1, b'a', 0, 0, 1, 0, 1]].concat();
        let noise: [&[u8]; 8] = [&pointer, &beyond, &header(0), &header(255), &answer, &[], &[0; 3], &[0xff; 9000]];
        for bytes in noise {
            for _ in 0..20 {
                socket.send_to(bytes, "127.0.0.11:53").unwrap();
            }
        }
    });
    // The same by TCP, cut off, and a connection that says nothing.
    let _silent = inside.run(|| {
        use std::io::Write;
        for bytes in [&[0u8][..], &[0, 0], &[0xff, 0xff, 1, 2, 3], &[0, 5, 1, 2, 3, 4, 5]] {
            let mut stream = std::net::TcpStream::connect("127.0.0.11:53").unwrap();
            stream.write_all(bytes).unwrap();
        }
        std::net::TcpStream::connect("127.0.0.11:53").unwrap()
    });
    assert_eq!(short(&inside, &[&name]), s.address(&name, "bridge").to_string());
    assert_eq!(short(&inside, &["+tcp", &name]), s.address(&name, "bridge").to_string());
    assert!(s.is_running(&name));
}
