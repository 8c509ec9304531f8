//! What listings and `inspect` say of networks.

use std::net::SocketAddr;

use super::*;
use crate::engine::network::builtin_id;
use crate::engine::query::ContainerView;
use crate::net::{MacAddress, Published};

fn endpoint(network: &str, id: &str, device: u8) -> Endpoint {
    let address = format!("172.{}.0.2", 17 + device);
    Endpoint {
        network: network.to_owned(),
        network_id: id.to_owned(),
        id: device.to_string().repeat(64),
        interface: format!("eth{device}"),
        host_interface: None,
        mac: MacAddress::of(address.parse().unwrap()),
        addresses: vec![format!("{address}/16").parse().unwrap(), format!("fd0{device}::2/64").parse().unwrap()],
        gateways: vec![format!("172.{}.0.1", 17 + device).parse().unwrap(), format!("fd0{device}::1").parse().unwrap()],
        names: vec!["web".to_owned()],
        published: vec![],
    }
}

fn published(host: &str, target: &str) -> Published {
    let parse = |text: &str| text.parse::<SocketAddr>().unwrap();
    Published { host: parse(host), target: parse(target), protocol: Protocol::Tcp }
}

fn mapping(host: Option<(u16, u16)>, port: u16) -> PortMapping {
    PortMapping { host_ip: None, host_ports: host, port, protocol: Protocol::Tcp }
}

/// Asked for: two networks, 8080:80, a range, an exposed port, a resolver.
fn asking(name: &str, second: i64) -> Config {
    let attachment = |network: &str| Attachment { network: network.to_owned(), ..Attachment::default() };
    let fixed = Attachment {
        aliases: vec!["db".into()],
        ip: Some("172.18.0.2".parse().unwrap()),
        gateway_priority: 3,
        driver_options: [("k".to_owned(), "v".to_owned())].into(),
        ..attachment("n1")
    };
    let networking = Networking {
        attachments: vec![attachment("bridge"), fixed],
        ports: vec![mapping(Some((8080, 8080)), 80), mapping(Some((9000, 9010)), 81), mapping(None, 82)],
        exposed: vec![ExposedPort { port: 443, protocol: Protocol::Tcp }],
        publish_all: true,
        dns: Dns {
            servers: vec!["1.1.1.1".parse().unwrap()],
            search: vec!["example.org".into()],
            options: vec!["ndots:2".into()],
        },
        links: vec![Link { container: "other".into(), alias: "cache".into() }],
    };
    Config { networking, ..config(name, second) }
}

fn connected() -> State {
    let id = "1".repeat(64);
    let mut first = endpoint("bridge", &builtin_id("bridge"), 0);
    first.published = vec![
        published("0.0.0.0:8080", "172.17.0.2:80"),
        published("[::]:8080", "[fd00::2]:80"),
        published("0.0.0.0:9001", "172.17.0.2:81"),
    ];
    State { endpoints: vec![first, endpoint("n1", &id, 1)], ..running() }
}

fn shown(view: &ContainerView, pointer: &str) -> String {
    let value = serde_json::to_value(view).unwrap();
    value.pointer(pointer).unwrap_or_else(|| panic!("{pointer}")).to_string()
}

#[test]
fn a_running_container_shows_what_it_got() {
    let (_dir, engine) = fresh();
    add(&engine, asking("web", 1), connected());
    let view = engine.inspect("web").unwrap();
    for (pointer, expected) in [
        (
            "/NetworkSettings/Ports/80~1tcp",
            r#"[{"HostIp":"0.0.0.0","HostPort":"8080"},{"HostIp":"::","HostPort":"8080"}]"#,
        ),
        ("/NetworkSettings/Ports/443~1tcp", "null"),
        ("/NetworkSettings/Ports/82~1tcp", "null"),
        ("/NetworkSettings/IPAddress", "\"172.17.0.2\""),
        ("/NetworkSettings/IPPrefixLen", "16"),
        ("/NetworkSettings/Gateway", "\"172.17.0.1\""),
        ("/NetworkSettings/GlobalIPv6Address", "\"fd00::2\""),
        ("/NetworkSettings/GlobalIPv6PrefixLen", "64"),
        ("/NetworkSettings/IPv6Gateway", "\"fd00::1\""),
        ("/NetworkSettings/MacAddress", "\"02:42:ac:11:00:02\""),
        ("/NetworkSettings/Networks/n1/IPAddress", "\"172.18.0.2\""),
        ("/NetworkSettings/Networks/n1/IPAMConfig", r#"{"IPv4Address":"172.18.0.2"}"#),
        ("/NetworkSettings/Networks/n1/Aliases", "[\"db\"]"),
        ("/NetworkSettings/Networks/n1/GwPriority", "3"),
        ("/NetworkSettings/Networks/n1/DriverOpts", r#"{"k":"v"}"#),
        ("/NetworkSettings/Networks/n1/DNSNames", "[\"web\"]"),
        ("/NetworkSettings/Networks/bridge/IPAMConfig", "null"),
        ("/HostConfig/NetworkMode", "\"bridge\""),
        ("/HostConfig/PortBindings/80~1tcp", r#"[{"HostIp":"","HostPort":"8080"}]"#),
        ("/HostConfig/PortBindings/81~1tcp", r#"[{"HostIp":"","HostPort":"9000-9010"}]"#),
        ("/HostConfig/PortBindings/82~1tcp", r#"[{"HostIp":"","HostPort":""}]"#),
        ("/HostConfig/PublishAllPorts", "true"),
        ("/HostConfig/Dns", "[\"1.1.1.1\"]"),
        ("/HostConfig/DnsSearch", "[\"example.org\"]"),
        ("/HostConfig/DnsOptions", "[\"ndots:2\"]"),
        ("/HostConfig/Links", "[\"/other:/web/cache\"]"),
        ("/Config/ExposedPorts", r#"{"443/tcp":{},"80/tcp":{},"81/tcp":{},"82/tcp":{}}"#),
    ] {
        assert_eq!(shown(&view, pointer), expected, "{pointer}");
    }
    assert_eq!(shown(&view, "/NetworkSettings/Networks/bridge/NetworkID"), format!("\"{}\"", builtin_id("bridge")));
    assert_eq!(shown(&view, "/NetworkSettings/SandboxKey"), format!("\"/proc/{}/ns/net\"", std::process::id()));
}

#[test]
fn a_stopped_container_shows_what_it_asked_for_without_addresses() {
    let (_dir, engine) = fresh();
    // Endpoints that a crash left in the record are not believed.
    add(&engine, asking("web", 1), State { endpoints: connected().endpoints, ..exited(0) });
    let view = engine.inspect("web").unwrap();
    for (pointer, expected) in [
        ("/NetworkSettings/Ports", "{}"),
        ("/NetworkSettings/IPAddress", "\"\""),
        ("/NetworkSettings/SandboxKey", "\"\""),
        ("/NetworkSettings/Networks/n1/IPAddress", "\"\""),
        ("/NetworkSettings/Networks/n1/Aliases", "[\"db\"]"),
        ("/HostConfig/PortBindings/80~1tcp", r#"[{"HostIp":"","HostPort":"8080"}]"#),
    ] {
        assert_eq!(shown(&view, pointer), expected, "{pointer}");
    }
    assert_eq!(view.network_settings.networks.len(), 2);
    let all = ListRequest { all: true, ..ListRequest::default() };
    let summary = engine.list(&all).unwrap().containers.remove(0);
    assert_eq!((summary.networks.join(","), summary.ports.len(), summary.addresses.len()), ("bridge,n1".into(), 0, 0));
}

#[test]
fn other_ways_of_having_a_network() {
    let (_dir, engine) = fresh();
    let mode = |network: NetworkMode| Namespaces { network, ..Namespaces::default() };
    let peer = "ab".repeat(32);
    for (name, network, expected, networks) in [
        ("c-a", NetworkMode::Host, "host", 1),
        ("c-b", NetworkMode::None, "none", 1),
        ("c-c", NetworkMode::Container(peer.clone()), &*format!("container:{peer}"), 0),
        // Disconnected from all.
        ("c-d", NetworkMode::Networks, "none", 0),
    ] {
        let networking = Networking { exposed: asking(name, 1).networking.exposed, ..Networking::default() };
        add(&engine, Config { namespaces: mode(network), networking, ..config(name, 1) }, running());
        let view = engine.inspect(name).unwrap();
        assert_eq!(view.host_config.network_mode, expected);
        assert_eq!(view.network_settings.networks.len(), networks, "{name}");
        // What a container exposes in a network of its own only means something there.
        assert_eq!(view.network_settings.ports.len(), usize::from(name == "c-d"), "{name}");
    }
    let first =
        Networking { attachments: vec![asking("x", 1).networking.attachments.remove(1)], ..Networking::default() };
    add(&engine, Config { networking: first, ..config("c-e", 1) }, State::created());
    assert_eq!(engine.inspect("c-e").unwrap().host_config.network_mode, "n1");
}

#[test]
fn listings_have_networks_addresses_and_ports() {
    let (_dir, engine) = fresh();
    add(&engine, asking("web", 2), connected());
    add(&engine, config("old", 1), running());
    let listing = engine.list(&ListRequest::default()).unwrap();
    let web = &listing.containers[0];
    assert_eq!(web.networks, ["bridge", "n1"]);
    let addresses: Vec<String> = web.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["172.17.0.2", "fd00::2", "172.18.0.2", "fd01::2"]);
    let ports: Vec<(Option<u16>, u16)> =
        web.ports.iter().map(|port| (port.host.map(|host| host.port()), port.port)).collect();
    assert_eq!(ports, [(None, 82), (None, 443), (Some(8080), 80), (Some(9001), 81), (Some(8080), 80)]);
    for (filter, expected) in [
        ("publish=8080", "web"),
        ("publish=80", ""),
        ("publish=8000-9000/tcp", "web"),
        ("publish=8080/udp", ""),
        ("expose=80", "web"),
        ("expose=443/tcp", "web"),
        ("expose=8080", ""),
        ("network=n1", "web"),
        ("network=bridge", "web old"),
        ("network=none", ""),
        (&*format!("network={}", builtin_id("bridge")), "web old"),
        (&*format!("network={}", &builtin_id("bridge")[..12]), "web old"),
    ] {
        assert_eq!(listed(&engine, false, None, &[filter]), expected, "{filter}");
    }
    assert_eq!(listed(&engine, false, None, &["publish=1", "expose=443"]), "web");
    assert_eq!(listed(&engine, false, None, &["network=nobody", "network=n1"]), "web");
}

#[test]
fn network_inspect_tells_who_is_connected() {
    let (_dir, engine) = fresh();
    let web = add(&engine, asking("web", 1), connected());
    add(&engine, asking("gone", 2), State { endpoints: connected().endpoints, ..exited(0) });
    let view = engine.network_inspect("bridge").unwrap();
    assert_eq!(view.containers.keys().collect::<Vec<_>>(), [web.as_str()]);
    let connection = &view.containers[web.as_str()];
    assert_eq!((connection.name.as_str(), connection.ipv4_address.as_str()), ("web", "172.17.0.2/16"));
    assert_eq!(
        (connection.mac_address.as_str(), connection.ipv6_address.as_str()),
        ("02:42:ac:11:00:02", "fd00::2/64")
    );
    assert_eq!(engine.network_inspect("host").unwrap().containers.len(), 0);
}
