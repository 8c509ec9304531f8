//! The expected texts were taken from Docker's own client, version 28.2.2.

use super::*;

/// Mappings in a short form: `address|host range|port/protocol`.
fn gist(text: &str) -> String {
    let mappings = parse_publish(text).unwrap_or_else(|why| panic!("{text}: {why}"));
    let one = |mapping: &PortMapping| {
        let address = mapping.host_ip.map(|address| address.to_string()).unwrap_or_default();
        let ports = match mapping.host_ports {
            None => "any".to_owned(),
            Some((first, last)) if first == last => first.to_string(),
            Some((first, last)) => format!("{first}-{last}"),
        };
        format!("{address}|{ports}|{}/{}", mapping.port, mapping.protocol)
    };
    mappings.iter().map(one).collect::<Vec<_>>().join(" ")
}

#[test]
fn published_ports_in_every_form() {
    for (text, expected) in [
        ("80", "|any|80/tcp"),
        (":80", "|any|80/tcp"),
        ("::80", "|any|80/tcp"),
        ("0:80", "|any|80/tcp"),
        ("8080:80", "|8080|80/tcp"),
        ("8080:80/", "|8080|80/tcp"),
        ("8080:80/udp", "|8080|80/udp"),
        ("8080:80/SCTP", "|8080|80/sctp"),
        ("127.0.0.1:8080:80", "127.0.0.1|8080|80/tcp"),
        ("127.0.0.1::80/udp", "127.0.0.1|any|80/udp"),
        ("0.0.0.0:80:80", "0.0.0.0|80|80/tcp"),
        ("[::1]:8080:80", "::1|8080|80/tcp"),
        ("[::1]::80", "::1|any|80/tcp"),
        ("::1:8080:80", "::1|8080|80/tcp"),
        ("8000-8010:80", "|8000-8010|80/tcp"),
        ("8000-8002:9000-9002/udp", "|8000|9000/udp |8001|9001/udp |8002|9002/udp"),
        ("80-81", "|any|80/tcp |any|81/tcp"),
        ("127.0.0.1::80-81", "127.0.0.1|any|80/tcp 127.0.0.1|any|81/tcp"),
        ("65535:65535", "|65535|65535/tcp"),
        ("target=80", "|any|80/tcp"),
        ("target=80,published=8080,protocol=udp,mode=host", "|8080|80/udp"),
        ("published=8000-8001,target=80-81", "|8000|80/tcp |8001|81/tcp"),
        ("target=80,published=8080,host_ip=::1", "::1|8080|80/tcp"),
    ] {
        assert_eq!(gist(text), expected, "{text}");
    }
    assert_eq!(parse_publish("1-65535:1-65535").unwrap().len(), 65_535);
}

#[test]
fn malformed_ports_are_refused_in_dockers_words() {
    for (text, why) in [
        ("", "no port specified: <empty>"),
        ("80:", "no port specified: 80:<empty>"),
        ("/udp", "no port specified: /udp<empty>"),
        ("abc", "invalid containerPort: abc"),
        ("80:x", "invalid containerPort: x"),
        ("99999", "invalid containerPort: 99999"),
        ("80:99999", "invalid containerPort: 99999"),
        ("80:+80", "invalid containerPort: +80"),
        ("80:0", "invalid containerPort: 0"),
        ("90-80", "invalid containerPort: 90-80"),
        ("80:80-", "invalid containerPort: 80-"),
        ("x:80", "invalid hostPort: x"),
        ("0-9:80", "invalid hostPort: 0-9"),
        ("1.2.3.4:80", "invalid hostPort: 1.2.3.4"),
        ("1.2.3.4:x:80", "invalid hostPort: x"),
        ("1.2.3:80:80", "invalid IP address: 1.2.3"),
        ("localhost:80:80", "invalid IP address: localhost"),
        ("80:80:80:80", "invalid IP address: 80:80"),
        ("[::1:80:80", "invalid IP address: [::1"),
        ("[]:80:80", "invalid IP address: []"),
        ("80/foo", "invalid proto: foo"),
        ("80/tcp/udp", "invalid proto: tcp/udp"),
        ("8000-8001:80-82", "invalid ranges specified for container and host Ports: 80-82 and 8000-8001"),
        ("8080:80-82", "invalid ranges specified for container and host Ports: 80-82 and 8080"),
        ("target=x", "invalid containerPort: x"),
        ("target=80,published=x", "invalid hostPort: x"),
        ("target=80,protocol=foo", "invalid proto: foo"),
        ("published=80", "no port specified: published=80<empty>"),
        ("target=80,mode=foo", "invalid publish mode: foo"),
        ("target=80,foo=1", "invalid field key foo"),
        ("target=80,foo", "invalid publish opts format (should be name=value but got 'foo')"),
    ] {
        assert_eq!(parse_publish(text).unwrap_err(), why, "{text}");
    }
}

#[test]
fn exposed_ports_have_ranges_and_protocols() {
    let gist = |text: &str| {
        let ports = parse_expose(text).unwrap();
        ports.iter().map(|port| format!("{}/{}", port.port, port.protocol)).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(gist("80"), "80/tcp");
    assert_eq!(gist("80-82/udp"), "80/udp 81/udp 82/udp");
    for (text, why) in [
        ("80:90", "invalid port format for --expose: 80:90"),
        ("x", "invalid range format for --expose: x, error: write a port or a range such as 80-90"),
        ("80-70", "invalid range format for --expose: 80-70, error: write a port or a range such as 80-90"),
        ("80/foo", "invalid proto: foo"),
    ] {
        assert_eq!(parse_expose(text).unwrap_err(), why, "{text}");
    }
}

fn port(text: &str) -> PortSummary {
    let (host, inside) = text.split_once("->").unwrap_or(("", text));
    let (port, protocol) = inside.split_once('/').unwrap();
    let host = (!host.is_empty()).then(|| host.parse().unwrap());
    PortSummary { host, port: port.parse().unwrap(), protocol: protocol.parse().unwrap() }
}

#[test]
fn the_ports_column_is_dockers() {
    let shown = |ports: &[&str]| column(&ports.iter().map(|text| port(text)).collect::<Vec<_>>());
    assert_eq!(shown(&[]), "");
    assert_eq!(shown(&["80/tcp"]), "80/tcp");
    assert_eq!(shown(&["[::]:8080->80/tcp", "0.0.0.0:8080->80/tcp"]), "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp");
    assert_eq!(
        shown(&["0.0.0.0:8002->8002/tcp", "0.0.0.0:8000->8000/tcp", "0.0.0.0:8001->8001/tcp"]),
        "0.0.0.0:8000-8002->8000-8002/tcp"
    );
    assert_eq!(shown(&["65535/tcp", "1/tcp"]), "1/tcp, 65535/tcp");
    // What the client prints of this very list.
    assert_eq!(
        shown(&[
            "0.0.0.0:8080->80/tcp",
            "[::]:8080->80/tcp",
            "0.0.0.0:8000->8000/tcp",
            "0.0.0.0:8001->8001/tcp",
            "0.0.0.0:8003->8003/tcp",
            "[::]:8000->8000/tcp",
            "[::]:8001->8001/tcp",
            "443/tcp",
            "444/tcp",
            "53/udp",
            "90/tcp",
            "127.0.0.1:53->53/udp",
        ]),
        "90/tcp, 0.0.0.0:8000-8001->8000-8001/tcp, 53/udp, 127.0.0.1:53->53/udp, 443-444/tcp, \
         0.0.0.0:8003->8003/tcp, [::]:8000-8001->8000-8001/tcp, 0.0.0.0:8080->80/tcp, [::]:8080->80/tcp"
    );
}
