//! The rules as text: golden files.

use std::collections::BTreeSet;

use super::super::plan::{Sweep, plan};
use super::super::rules::{self, Family, Ruleset};
use super::super::saved::{Rule, Saved};
use super::super::{bridge_sysctls, check_device, program};
use super::world::{network, published};
use crate::net::{Network, Protocol, option};

fn made(family: Family, network: &Network) -> String {
    let mut want = rules::base(family);
    want.append(rules::network(family, "0badcafe", network));
    plan(&want, &Saved::default(), &Sweep::Nothing, false).script
}

#[test]
fn a_network_on_an_empty_host() {
    let n1 = network("n1", "0123456789abcdef", 1);
    insta::assert_snapshot!("network_v4", made(Family::V4, &n1));
    insta::assert_snapshot!("network_v6", made(Family::V6, &n1));
}

#[test]
fn an_internal_network() {
    let n1 = Network { internal: true, ..network("n1", "0123456789abcdef", 1) };
    insta::assert_snapshot!("internal_v4", made(Family::V4, &n1));
    insta::assert_snapshot!("internal_v6", made(Family::V6, &n1));
}

#[test]
fn options_take_rules_away() {
    let mut n1 = network("n1", "0123456789abcdef", 1);
    n1.options.insert(option::ICC.to_owned(), "false".to_owned());
    n1.options.insert(option::MASQUERADE.to_owned(), "false".to_owned());
    let text = made(Family::V4, &n1);
    assert!(!text.contains("-A MYDOCKER-NET-01234567 -i br-n1"), "{text}");
    assert!(!text.contains("! -o br-n1"), "{text}");
    // Through the host's addresses it works all the same.
    assert!(text.contains("-s 10.1.0.0/24 -o br-n1 -m conntrack --ctstate DNAT"), "{text}");
}

#[test]
fn publishing_and_its_reverse() {
    let n1 = network("n1", "0123456789abcdef", 1);
    let ports = [
        published(Protocol::Tcp, "0.0.0.0:8080", "10.1.0.2:80"),
        published(Protocol::Udp, "127.0.0.1:53", "10.1.0.2:53"),
        published(Protocol::Sctp, "192.0.2.1:9", "10.1.0.2:9"),
        published(Protocol::Tcp, "[::]:8080", "[fd00:1::2]:80"),
        published(Protocol::Tcp, "[2001:db8::1]:81", "[fd00:1::2]:81"),
    ];
    let owner = "f".repeat(64);
    for (name, family) in [("publish_v4", Family::V4), ("publish_v6", Family::V6)] {
        let rules = rules::published(family, "0badcafe", &owner, &n1, &ports);
        insta::assert_snapshot!(name, rules::publish_text(&rules));
    }
    insta::assert_snapshot!("unpublish", rules::unpublish_text("0badcafe", &owner, &n1.id));
}

#[test]
fn names_of_chains_fit() {
    let id = "f".repeat(64);
    assert_eq!(rules::owner_chain(&id, &id).len(), 28);
    assert!(rules::is_private(&rules::owner_chain(&id, &id)) && rules::is_private(&rules::network_chain(&id)));
    for fixed in ["MYDOCKER", "MYDOCKER-USER", "MYDOCKER-POSTROUTING", "MYDOCKER-INTERNAL", "DOCKER-USER"] {
        assert!(!rules::is_private(fixed), "{fixed}");
    }
}

#[test]
fn a_rule_is_recognised_however_it_is_printed() {
    let form = |text: &str| Rule::parse(text).form;
    let written =
        "-d 10.1.0.1/32 ! -i br0 -p tcp -m conntrack --ctstate RELATED,ESTABLISHED -m comment --comment \"a b\" -j X";
    for printed in [
        "-d 10.1.0.1 ! -i br0 -p tcp -m comment --comment \"a b\" -m conntrack --ctstate ESTABLISHED,RELATED -j X",
        "! -i br0 -d 10.1.0.1/32 -p tcp -m conntrack --ctstate RELATED,ESTABLISHED -m comment --comment a\\ b -j X",
    ] {
        assert_eq!(form(printed), form(written), "{printed}");
    }
    for other in [
        "-d 10.1.0.1/32 -i br0 -p tcp -m conntrack --ctstate RELATED,ESTABLISHED -m comment --comment \"a b\" -j X",
        "-d 10.1.0.1/32 ! -i br0 -p tcp -m conntrack --ctstate RELATED -m comment --comment \"a b\" -j X",
    ] {
        assert_ne!(form(other), form(written), "{other}");
    }
    assert_eq!(Rule::parse(&rules::comment("t", "0123456789abcdef")).mark, Some(("t".into(), "0123456789ab".into())));
    assert_eq!(Rule::parse("-m comment --comment mydocker -j X").mark, None);
}

#[test]
fn what_cannot_be_parsed_hurts_nobody() {
    for text in
        ["", "*", ":", "-A", "-A X", "-A X \"", "-A X \\", "*nat\n-A X ! ! -j", "\u{0}\n*\u{1F980}\n-A \u{1F980} -j"]
    {
        let saved = Saved::parse(text);
        plan(&rules::base(Family::V4), &saved, &Sweep::Orphans { tag: "t".into(), known: BTreeSet::new() }, false);
    }
}

#[test]
fn nothing_gets_into_rules_by_a_name() {
    for bad in ["", "br+", "br\"", "a b", "-x", "!x", "br\n-P", "sixteen-letters-"] {
        assert!(check_device(bad).is_err(), "{bad:?}");
    }
    for good in ["br-0123456789ab", "mydocker0", "br0.5"] {
        check_device(good).unwrap();
    }
    assert_eq!(rules::comment("a\" b\n", "c;d"), "-m comment --comment \"mydocker ab cd\"");
}

#[test]
fn what_stands_is_not_written_again() {
    let n1 = network("n1", "0123456789abcdef", 1);
    let mut want = rules::base(Family::V4);
    want.append(rules::network(Family::V4, "t", &n1));
    let saved = Saved::parse(
        &plan(&want, &Saved::default(), &Sweep::Nothing, false)
            .script
            .replace("-I FORWARD 1", "-A FORWARD")
            .replace("-I INPUT 1", "-A INPUT")
            .replace("-I PREROUTING 1", "-A PREROUTING"),
    );
    // The script's order of insertions is the reverse of what then stands.
    let again = plan(&want, &saved, &Sweep::Nothing, false);
    assert!(again.problems.len() <= 1, "{:?}", again.problems);
    let sweep = Sweep::Of { tag: "t".into(), id: rules::short(&n1.id), chain: None };
    let gone = plan(&Ruleset::default(), &saved, &sweep, false).script;
    insta::assert_snapshot!("network_removed", gone);
}

#[test]
fn sysctls_of_bridges() {
    let n1 = network("n1", "0123456789abcdef", 1);
    insta::assert_debug_snapshot!("sysctls", bridge_sysctls(&n1));
    let mut inner = Network { internal: true, ..n1 };
    inner.subnets.truncate(1);
    assert_eq!(bridge_sysctls(&inner), [("net/ipv6/conf/br-n1/disable_ipv6".to_owned(), "1".to_owned())]);
}

#[test]
fn a_host_without_iptables_is_told_the_cure() {
    let empty = tempfile::tempdir().unwrap();
    let error = program::choose(&[empty.path().to_owned()], "iptables", false).unwrap_err();
    let failure = crate::error::Failure::from_error(&error);
    assert_eq!(failure.to_string(), "run iptables-restore: it is not installed");
    assert!(failure.hint.unwrap().contains("apt-get install iptables"));
}
