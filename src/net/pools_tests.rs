use super::*;

fn net(text: &str) -> IpNetwork {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn taken(list: &[(&str, &str)]) -> Vec<Taken> {
    list.iter().map(|(network, by)| Taken { network: net(network), by: (*by).to_owned() }).collect()
}

#[test]
fn pools_are_used_in_order_until_nothing_is_left() {
    let mut list = Vec::new();
    while let Some(network) = free_subnet(&default_pools(), &list) {
        assert!(overlap(network, &list).is_none());
        list.push(Taken { network, by: format!("network n{}", list.len()) });
    }
    let found: Vec<String> = list.iter().map(|taken| taken.network.to_string()).collect();
    assert_eq!(found.len(), 15 + 16);
    assert_eq!(found[..2], ["172.17.0.0/16", "172.18.0.0/16"]);
    assert_eq!(found[14..17], ["172.31.0.0/16", "192.168.0.0/20", "192.168.16.0/20"]);
    assert_eq!(found[30], "192.168.240.0/20");
}

#[test]
fn what_the_host_uses_is_passed_over_whatever_its_size() {
    let pool = Pool { base: net("10.0.0.0/8"), size: 30 };
    let list = taken(&[("10.0.0.0/9", "route of eth0"), ("10.128.0.1/32", "address of eth1"), ("0.0.0.0/32", "x")]);
    assert_eq!(free_subnet(&[pool], &list), Some(net("10.128.0.4/30")));
    assert_eq!(free_subnet(&[pool], &taken(&[("0.0.0.0/0", "route of wg0")])), None);
    let top = Pool { base: net("255.255.255.0/24"), size: 25 };
    assert_eq!(free_subnet(&[top], &taken(&[("255.255.255.128/25", "a"), ("255.255.255.0/25", "b")])), None);
    // Pools that make no sense give nothing.
    assert_eq!(
        free_subnet(&[Pool { base: net("10.0.0.0/8"), size: 4 }, Pool { base: net("10.0.0.0/8"), size: 60 }], &[]),
        None
    );
}

#[test]
fn an_overlap_names_the_other_side() {
    let list =
        taken(&[("172.17.5.0/24", "address of eth0"), ("172.17.0.0/16", "network n1"), ("fd00::/64", "route of eth0")]);
    assert_eq!(overlap(net("172.17.0.0/24"), &list).unwrap().by, "network n1");
    assert_eq!(overlap(net("172.16.0.0/12"), &list).unwrap().by, "network n1");
    assert_eq!(overlap(net("fd00::8000:0/97"), &list).unwrap().by, "route of eth0");
    assert_eq!(overlap(net("172.18.0.0/16"), &list), None);
}

#[test]
fn a_machines_ipv6_pool_is_unique_local_and_its_own() {
    let (a, b) = (ula_pool(1), ula_pool(2));
    assert_eq!((a, a.base.prefix(), a.size), (ula_pool(1), 48, 64));
    assert_ne!(a, b);
    assert!(net("fd00::/8").contains(a.base.network()));
    let first = free_subnet(&[a], &[]).unwrap();
    let second = free_subnet(&[a], &[Taken { network: first, by: String::new() }]).unwrap();
    assert_eq!(number(second.network()) - number(first.network()), 1 << 64);
}

#[test]
fn wishes_become_subnets() {
    let subnets = lay_out(&Wishes {
        subnets: &[net("fd00::1/64"), net("172.28.0.9/16"), net("10.0.0.0/30")],
        gateways: &[ip("10.0.0.2")],
        ranges: &[net("172.28.5.77/24")],
        auxiliary: &[("router".into(), ip("fd00::1")), ("r".into(), ip("172.28.5.0"))],
    })
    .unwrap();
    let texts: Vec<String> = subnets
        .iter()
        .map(|s| format!("{} via {} from {:?}", s.subnet, s.gateway.unwrap(), s.range.map(|r| r.to_string())))
        .collect();
    assert_eq!(
        texts,
        [
            "172.28.0.0/16 via 172.28.5.1 from Some(\"172.28.5.0/24\")",
            "10.0.0.0/30 via 10.0.0.2 from None",
            "fd00::/64 via fd00::2 from None"
        ]
    );
    assert_eq!(subnets[2].auxiliary["router"], ip("fd00::1"));
}

#[test]
fn the_gateway_is_the_first_address_of_the_range_or_of_the_subnet() {
    let gateway = |range: &[IpNetwork]| {
        lay_out(&Wishes { subnets: &[net("10.1.0.0/16")], ranges: range, ..Wishes::default() }).unwrap()[0].gateway
    };
    assert_eq!(gateway(&[]), Some(ip("10.1.0.1")));
    assert_eq!(gateway(&[net("10.1.5.0/24")]), Some(ip("10.1.5.0")));
    assert_eq!(gateway(&[net("10.1.0.0/24")]), Some(ip("10.1.0.1")));
    assert_eq!(gateway(&[net("10.1.255.254/31")]), Some(ip("10.1.255.254")));
}

#[test]
fn what_does_not_fit_is_refused_in_dockers_words() {
    let refusal = |subnets: &[&str], gateways: &[&str], ranges: &[&str], auxiliary: &[&str]| {
        let subnets: Vec<_> = subnets.iter().map(|text| net(text)).collect();
        let gateways: Vec<_> = gateways.iter().map(|text| ip(text)).collect();
        let ranges: Vec<_> = ranges.iter().map(|text| net(text)).collect();
        let auxiliary: Vec<_> = auxiliary.iter().map(|text| ("a".to_owned(), ip(text))).collect();
        lay_out(&Wishes { subnets: &subnets, gateways: &gateways, ranges: &ranges, auxiliary: &auxiliary })
            .unwrap_err()
            .to_string()
    };
    let one = &["10.0.0.0/24"][..];
    assert_eq!(refusal(one, &["10.0.1.1"], &[], &[]), "no matching subnet for gateway 10.0.1.1");
    assert_eq!(refusal(&[], &["10.0.1.1"], &[], &[]), "no matching subnet for gateway 10.0.1.1");
    assert_eq!(refusal(one, &[], &["10.0.0.0/16"], &[]), "no matching subnet for range 10.0.0.0/16");
    assert_eq!(refusal(one, &[], &[], &["10.9.0.1"]), "no matching subnet for aux-address 10.9.0.1");
    assert_eq!(
        refusal(&["10.0.0.0/24", "10.0.0.128/25"], &[], &[], &[]),
        "multiple overlapping subnet configuration is not supported"
    );
    assert_eq!(
        refusal(one, &["10.0.0.1", "10.0.0.2"], &[], &[]),
        "cannot configure multiple gateways (10.0.0.1, 10.0.0.2) for the same subnet (10.0.0.0/24)"
    );
    assert_eq!(
        refusal(one, &[], &["10.0.0.0/26", "10.0.0.64/26"], &[]),
        "cannot configure multiple ranges (10.0.0.0/26, 10.0.0.64/26) on the same subnet (10.0.0.0/24)"
    );
    for address in ["10.0.0.0", "10.0.0.255"] {
        assert!(refusal(one, &[address], &[], &[]).contains("network or broadcast address"));
    }
    assert!(refusal(one, &["10.0.0.9"], &[], &["10.0.0.9"]).contains("also the aux-address a"));
    assert!(refusal(one, &[], &[], &["10.0.0.8", "10.0.0.9"]).contains("given twice"));
    assert!(refusal(one, &[], &["10.0.0.9/32"], &["10.0.0.9"]).contains("free for the gateway"));
    for size in ["10.0.0.0/31", "10.0.0.1/32", "8.0.0.0/7", "fd00::/127", "fd00::1/128"] {
        assert!(refusal(&[size], &[], &[], &[]).contains("its size must be"), "{size}");
    }
    for kind in ["127.0.0.0/8", "224.0.0.0/24", "ff02::/64"] {
        assert!(refusal(&[kind], &[], &[], &[]).contains("not for hosts"), "{kind}");
    }
}
