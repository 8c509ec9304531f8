//! Words of networks to requests. The refusals are those of Docker's client where it has them.

use super::argv_tests::{line, parse, refused, words};
use super::spec;
use super::{network, port, ps};
use crate::container::{Attachment, Networking};
use crate::engine::network::NetworkFilter;
use crate::engine::request::{ConnectRequest, NetworkRequest};

fn networking(text: &str) -> Networking {
    line(&format!("{text} busybox")).create.networking
}

/// An attachment in a short form, what is not given left out.
fn gist(attachment: &Attachment) -> String {
    let mut parts = vec![attachment.network.clone()];
    parts.extend(attachment.aliases.iter().map(|alias| format!("alias={alias}")));
    parts.extend(attachment.ip.map(|ip| format!("ip={ip}")));
    parts.extend(attachment.ip6.map(|ip| format!("ip6={ip}")));
    parts.extend(attachment.mac.map(|mac| format!("mac={mac}")));
    parts.extend((attachment.gateway_priority != 0).then(|| format!("priority={}", attachment.gateway_priority)));
    parts.extend(attachment.driver_options.iter().map(|(key, value)| format!("{key}={value}")));
    parts.join(" ")
}

#[test]
fn networks_of_a_container() {
    for (text, expected) in [
        ("", ""),
        ("--network n1", "n1"),
        ("--net n1", "n1"),
        ("-net n1", "n1"),
        ("-net=n1", "n1"),
        ("--network default", "bridge"),
        ("--network none", "none"),
        ("--network container:c1", "container:c1"),
        ("--network n1 --network n2", "n1, n2"),
        ("--network bridge --network n1", "bridge, n1"),
        ("--network name=n1", "n1"),
        (
            "--network name=n1,alias=a,alias=b,ip=1.2.3.4,ip6=fd00::2,mac-address=02:42:AC:11:00:02,driver-opt=k=v=w,gw-priority=-1",
            "n1 alias=a alias=b ip=1.2.3.4 ip6=fd00::2 mac=02:42:ac:11:00:02 priority=-1 k=v=w",
        ),
        ("--network \"alias=a\",\"driver-opt=k=1,2\",name=n1", "n1 alias=a k=1,2"),
        ("--network name=n1,alias=a --network name=n2,alias=a", "n1 alias=a, n2 alias=a"),
        // The flags of their own are about the first network.
        ("--network n1 --network n2 --network-alias a --net-alias b --ip 1.2.3.4", "n1 alias=a alias=b ip=1.2.3.4, n2"),
        ("--network name=n1,alias=a --ip6 fd00::1", "n1 alias=a ip6=fd00::1"),
        ("--mac-address 02-42-ac-11-00-02", "bridge mac=02:42:ac:11:00:02"),
        ("--ip= --mac-address= --ip6=", ""),
    ] {
        let shown: Vec<String> = networking(text).attachments.iter().map(gist).collect();
        assert_eq!(shown.join(", "), expected, "{text}");
    }
    assert_eq!(networking(""), Networking::default());
}

#[test]
fn malformed_networks_are_refused_in_dockers_words() {
    let prefix =
        |flag: &str, value: &str, why: &str| format!("invalid argument {value:?} for \"--{flag}\" flag: {why}");
    for (text, why) in [
        ("--network=", "no name set for network".to_owned()),
        ("--network n1 --net n1", "network \"n1\" is specified multiple times".into()),
        ("--network default --net bridge", "network \"bridge\" is specified multiple times".into()),
        (
            "--network host --network n1",
            "conflicting options: cannot attach both user-defined and non-user-defined network-modes".into(),
        ),
        (
            "--network n1 --network container:c",
            "conflicting options: cannot attach both user-defined and non-user-defined network-modes".into(),
        ),
        (
            "--network name=n1,alias=x --network-alias y",
            "conflicting options: cannot specify both --network-alias and per-network alias".into(),
        ),
        (
            "--network name=n1,ip=1.2.3.4 --ip 1.2.3.5",
            "conflicting options: cannot specify both --ip and per-network IPv4 address".into(),
        ),
        (
            "--network name=n1,ip6=::2 --ip6 ::3",
            "conflicting options: cannot specify both --ip6 and per-network IPv6 address".into(),
        ),
        (
            "--network name=n1,mac-address=02:42:ac:11:00:02 --mac-address 02:42:ac:11:00:03",
            "conflicting options: cannot specify both --mac-address and per-network MAC address".into(),
        ),
        ("--network name=n1,foo=x", prefix("network", "name=n1,foo=x", "invalid field key foo")),
        ("--network name=n1,foo", prefix("network", "name=n1,foo", "invalid field foo")),
        ("--network alias=x", prefix("network", "alias=x", "network name/id is not specified")),
        (
            "--network name=n1,gw-priority=x",
            prefix("network", "name=n1,gw-priority=x", "invalid gw-priority (x): invalid syntax"),
        ),
        (
            "--network name=n1,driver-opt=x",
            prefix("network", "name=n1,driver-opt=x", "invalid key value pair format in driver options"),
        ),
        (
            "--network name=n1,link-local-ip=::1",
            prefix("network", "name=n1,link-local-ip=::1", "link-local-ip is not supported yet"),
        ),
        ("--network name=n1,mac-address=x", "x is not a valid mac address".into()),
        ("--mac-address x", "x is not a valid mac address".into()),
        ("--mac-address 01:00:00:00:00:00", "01:00:00:00:00:00 is not the mac address of one device".into()),
        ("--ip x", "invalid IPv4 address: x".into()),
        ("--ip ::1", "invalid IPv4 address: ::1".into()),
        ("--ip6 1.2.3.4", "invalid IPv6 address: 1.2.3.4".into()),
        ("--link=", prefix("link", "", "empty string specified for links")),
        ("--link a:b:c", prefix("link", "a:b:c", "bad format for links: a:b:c")),
        ("--link :b", prefix("link", ":b", "bad format for links: :b")),
        ("--dns x", prefix("dns", "x", "IP address is not correctly formatted: x")),
        ("--dns-search a..b", prefix("dns-search", "a..b", "a..b is not a valid domain")),
        ("--dns-option=", prefix("dns-option", "", "it must be one word")),
        ("-p x", "invalid containerPort: x".into()),
        ("--expose 80:90", "invalid port format for --expose: 80:90".into()),
    ] {
        assert_eq!(refused(&format!("{text} busybox")), why, "{text}");
    }
    // No value may put a line of its own into resolv.conf.
    for (flag, value) in
        [("dns-search", "a\nnameserver 1.2.3.4"), ("dns-option", "a\nnameserver"), ("dns-option", "a b")]
    {
        let matches = parse(&super::run::RUN, vec![format!("--{flag}={value}"), "busybox".into()]).unwrap();
        assert!(super::networking::networking(&matches).is_err(), "{value:?}");
    }
}

#[test]
fn ports_names_and_links_reach_the_request() {
    let asked = networking(
        "-p 8080:80 -p 127.0.0.1::53/udp --publish target=443,published=1443 -P --expose 7000-7001 --expose 7000 \
         --dns 1.1.1.1 --dns ::1 --dns-search . --dns-search example.org --dns-opt ndots:2 --dns-option rotate \
         --link db --link db:sql --link /c1:/web/cache",
    );
    let ports: Vec<(u16, Option<(u16, u16)>)> = asked.ports.iter().map(|port| (port.port, port.host_ports)).collect();
    assert_eq!(ports, [(80, Some((8080, 8080))), (53, None), (443, Some((1443, 1443)))]);
    assert!(asked.publish_all);
    assert_eq!(asked.exposed.iter().map(|port| port.port).collect::<Vec<_>>(), [7000, 7001]);
    assert_eq!(asked.dns.servers.iter().map(ToString::to_string).collect::<Vec<_>>(), ["1.1.1.1", "::1"]);
    assert_eq!(asked.dns.search, [".", "example.org"]);
    assert_eq!(asked.dns.options, ["ndots:2", "rotate"]);
    let links: Vec<String> = asked.links.iter().map(|link| format!("{} {}", link.container, link.alias)).collect();
    assert_eq!(links, ["db db", "db sql", "c1 cache"]);
    assert!(asked.attachments.is_empty());
    // Clusters of letters, and values that hang on their letter.
    assert_eq!(networking("-dp 80:80").ports.len(), 1);
    assert_eq!(networking("-itp8080:80").ports[0].host_ports, Some((8080, 8080)));
    assert!(!networking("-P=false").publish_all);
    let many = ["-p 1-65535:1-65535"; 3].join(" ");
    assert_eq!(refused(&format!("{many} busybox")), "more than 65536 ports are to be published");
}

fn create(text: &str) -> anyhow::Result<NetworkRequest> {
    network::lower_create(&parse(&network::CREATE, words(text))?)
}

#[test]
fn network_create() {
    let plain = create("n1").unwrap();
    assert_eq!((plain.name.as_str(), plain.driver.as_str()), ("n1", "bridge"));
    assert_eq!(plain, NetworkRequest { name: "n1".into(), driver: "bridge".into(), ..NetworkRequest::default() });
    // Every spelling of command-forms, the older tools' included.
    for text in [
        "--subnet 192.168.0.0/24 --driver bridge testbridge",
        "-driver bridge -subnet 192.168.0.0/24 testbridge",
        "-driver=bridge -subnet=192.168.0.0/24 testbridge",
        "testbridge -driver bridge -subnet 192.168.0.0/24",
        "-d bridge testbridge --subnet=192.168.0.0/24",
    ] {
        let request = create(text).unwrap();
        assert_eq!((request.name.as_str(), request.driver.as_str()), ("testbridge", "bridge"), "{text}");
        assert_eq!(request.subnets, ["192.168.0.0/24".parse().unwrap()], "{text}");
    }
    let full = create(
        "--driver macvlan --subnet 10.1.0.0/16,fd00::/64 --subnet 10.2.0.5/16 --gateway 10.1.0.1 --gateway fd00::1 \
         --ip-range 10.1.4.0/24 --aux-address a=10.1.0.7 --aux-address b=10.1.0.8 --internal --ipv6 --ipv4 --attachable \
         --label a --label b=c=d -o mtu=1400 --opt parent=eth0 -o flag --scope local --ipam-driver default n1",
    )
    .unwrap();
    let shown: Vec<String> = full.subnets.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["10.1.0.0/16", "fd00::/64", "10.2.0.5/16"]);
    assert_eq!(full.gateways.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.1.0.1", "fd00::1"]);
    assert_eq!(full.ranges, ["10.1.4.0/24".parse().unwrap()]);
    let auxiliary: Vec<String> = full.auxiliary.iter().map(|(name, at)| format!("{name}={at}")).collect();
    assert_eq!(auxiliary, ["a=10.1.0.7", "b=10.1.0.8"]);
    assert!(full.internal && full.ipv6 && full.attachable && full.driver == "macvlan");
    assert_eq!(full.labels, [("a", ""), ("b", "c=d")].map(|(k, v)| (k.to_owned(), v.to_owned())).into());
    let options = [("flag", ""), ("mtu", "1400"), ("parent", "eth0")];
    assert_eq!(full.options, options.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
}

#[test]
fn network_create_refuses_what_it_cannot_do() {
    for (text, why) in [
        ("--subnet x n", "invalid CIDR address: x"),
        ("--subnet 10.0.0.0 n", "invalid CIDR address: 10.0.0.0"),
        ("--subnet 10.0.0.0/33 n", "invalid CIDR address: 10.0.0.0/33"),
        ("--ip-range x n", "invalid CIDR address: x"),
        ("--gateway x n", "invalid IP address: x"),
        ("--aux-address a n", "\"--aux-address\" flag: write NAME=ADDRESS"),
        ("--aux-address a=x n", "invalid IP address: x"),
        ("--scope swarm n", "\"--scope\" flag: only local is supported"),
        ("--ipam-driver dhcp n", "\"--ipam-driver\" flag: only default is supported"),
        ("--ipv4=false n", "\"--ipv4\" flag"),
        ("--label =x n", "the label has no name"),
        ("-o =x n", "the option has no name"),
        ("--ipam-opt a=b n", "flag --ipam-opt is not supported yet"),
        ("--config-only n", "flag --config-only is not supported yet"),
        ("--config-from x n", "flag --config-from is not supported yet"),
        ("--ingress n", "flag --ingress is not supported yet"),
    ] {
        let refusal = format!("{:#}", create(text).unwrap_err());
        assert!(refusal.ends_with(why) || refusal.contains(why), "{text}: {refusal}");
    }
    let spec = &network::CREATE;
    assert_eq!(
        spec.arity.check(2, spec, "network create").unwrap_err().message,
        "'mydocker network create' requires 1 argument: mydocker network create [OPTIONS] NETWORK"
    );
    let spec = &port::PORT;
    let refusal = spec.arity.check(3, spec, "port").unwrap_err();
    assert!(refusal.message.starts_with("'mydocker port' requires at least 1 and at most 2 arguments"));
}

#[test]
fn network_connect() {
    let connect = |text: &str| network::lower_connect(&parse(&network::CONNECT, words(text))?);
    let request = connect(
        "--alias a,b --alias c --ip 10.1.0.9 --ip6 fd00::9 --link db:sql --driver-opt k=v --gw-priority 5 n1 web",
    )
    .unwrap();
    assert_eq!(gist(&request.attachment), "n1 alias=a alias=b alias=c ip=10.1.0.9 ip6=fd00::9 priority=5 k=v");
    assert_eq!((request.container.as_str(), request.links[0].alias.as_str()), ("web", "sql"));
    let plain = connect("n1 web").unwrap();
    let attachment = Attachment { network: "n1".into(), ..Attachment::default() };
    assert_eq!(plain, ConnectRequest { container: "web".into(), attachment, links: vec![] });
    for (text, why) in [
        ("--ip x n c", "invalid IPv4 address: x"),
        ("--driver-opt x n c", "invalid key/value pair format in driver options"),
        ("--gw-priority x n c", "must be a whole number"),
        ("--link a:b:c n c", "bad format for links"),
        ("--link-local-ip ::1 n c", "flag --link-local-ip is not supported yet"),
    ] {
        let refusal = format!("{:#}", connect(text).unwrap_err());
        assert!(refusal.contains(why), "{text}: {refusal}");
    }
    let matches = parse(&network::DISCONNECT, words("-f n1 web")).unwrap();
    assert!(spec::is_set(&matches, "force"));
    assert_eq!(spec::operands(&matches), ["n1", "web"]);
}

#[test]
fn filters_of_networks_and_ports() {
    let now: jiff::Timestamp = "2024-01-01T12:00:00Z".parse().unwrap();
    let list = |text: &str| network::lower_list(&parse(&network::LIST, words(text)).unwrap());
    assert_eq!(list("-q --no-trunc -f driver=bridge --filter type=custom").unwrap().len(), 2);
    assert_eq!(list("-f foo=1").unwrap_err().to_string(), "invalid filter 'foo'");
    let prune = |text: &str| network::lower_prune(&parse(&network::PRUNE, words(text)).unwrap(), now);
    assert_eq!(
        prune("-f --filter until=24h").unwrap(),
        [NetworkFilter::Until("2023-12-31T12:00:00Z".parse().unwrap())]
    );
    assert_eq!(
        prune("--filter label!=a=b --filter label=c").unwrap(),
        [NetworkFilter::NotLabel("a".into(), Some("b".into())), NetworkFilter::Label("c".into(), None)]
    );
    assert!(prune("--filter until=x").is_err() && prune("--filter name=x").is_err());
    let ps = |text: &str| ps::lower(&parse(&ps::PS, words(text)).unwrap());
    assert_eq!(ps("-f publish=80 -f expose=80-90/udp -f network=n1").unwrap().filters.len(), 3);
    for bad in ["publish=x", "publish=90-80", "expose=80/foo", "publish="] {
        assert!(ps(&format!("-f {bad}")).is_err(), "{bad}");
    }
    let matches = parse(&network::REMOVE, words("-f a b")).unwrap();
    assert!(spec::is_set(&matches, "force") && spec::operands(&matches) == ["a", "b"]);
    let matches = parse(&network::INSPECT, words("a -v -f {{.Id}} b")).unwrap();
    assert_eq!((spec::operands(&matches), spec::text(&matches, "format")), (words("a b"), Some("{{.Id}}".into())));
}
