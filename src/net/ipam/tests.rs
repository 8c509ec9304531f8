use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::layout::Layout;
use crate::net::records::{Locked, Records, random_id};
use crate::net::{Driver, FORMAT_VERSION};

#[path = "figures_tests.rs"]
mod figures;

/// A network with one subnet in a data root of its own.
struct Fixture {
    root: tempfile::TempDir,
    records: Records,
    network: Network,
}

impl Fixture {
    fn new(subnet: Subnet) -> Fixture {
        let root = tempfile::tempdir().unwrap();
        let records = Records::open(&Layout::new(Some(root.path().into())));
        Fixture { root, records, network: network(vec![subnet]) }
    }

    fn lock(&self) -> Locked {
        self.records.lock().unwrap()
    }

    fn subnet(&self) -> &Subnet {
        &self.network.subnets[0]
    }

    fn directory(&self) -> PathBuf {
        self.root.path().join("network/ipam").join(&self.network.id)
    }

    fn index(&self) -> PathBuf {
        let subnet = self.subnet().subnet;
        self.directory().join(format!("{}_{}.bitmap", subnet.network(), subnet.prefix()))
    }

    fn owners(&self) -> Owners {
        Owners::open(&table(&self.directory(), self.subnet())).unwrap()
    }

    /// The owner without the bit.
    fn give(&self, address: IpAddr, owner: &str) {
        self.owners().set(Window::of(self.subnet()).number(address).unwrap(), owner).unwrap();
    }

    /// One transition: lock, take the next, unlock.
    fn next(&self) -> Option<IpAddr> {
        self.lock().ipam(&self.network).try_allocate(self.subnet(), "c1").unwrap()
    }

    fn all(&self) -> Vec<IpAddr> {
        std::iter::from_fn(|| self.next()).collect()
    }

    fn release(&self, address: IpAddr) {
        self.lock().ipam(&self.network).release(address, "c1").unwrap();
    }
}

fn network(subnets: Vec<Subnet>) -> Network {
    Network {
        version: FORMAT_VERSION,
        id: random_id().unwrap(),
        name: "n1".into(),
        driver: Driver::Bridge,
        created: jiff::Timestamp::UNIX_EPOCH,
        subnets,
        internal: false,
        ipv6: false,
        attachable: false,
        labels: BTreeMap::new(),
        options: BTreeMap::new(),
        device: String::new(),
    }
}

fn subnet(text: &str) -> Subnet {
    Subnet { subnet: text.parse().unwrap(), gateway: None, range: None, auxiliary: BTreeMap::new() }
}

fn with_gateway(text: &str, gateway: &str) -> Subnet {
    Subnet { gateway: Some(ip(gateway)), ..subnet(text) }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| ip(text)).collect()
}

#[test]
fn a_slash_29_gives_what_is_a_hosts_and_then_says_that_it_is_full() {
    let fixture = Fixture::new(Subnet {
        auxiliary: BTreeMap::from([("router".into(), ip("10.0.0.4"))]),
        ..with_gateway("10.0.0.0/29", "10.0.0.1")
    });
    assert_eq!(fixture.all(), ips(&["10.0.0.2", "10.0.0.3", "10.0.0.5", "10.0.0.6"]));
    let lock = fixture.lock();
    let ipam = lock.ipam(&fixture.network);
    let error = Failure::from_error(&ipam.allocate(fixture.subnet(), "c2", None).unwrap_err());
    assert_eq!(error.to_string(), "no available addresses on network n1 (10.0.0.0/29): all 4 are in use");
    assert!(error.hint.is_some());
    ipam.release(ip("10.0.0.3"), "c1").unwrap();
    assert_eq!(ipam.allocate(fixture.subnet(), "c2", None).unwrap(), ip("10.0.0.3"));
}

#[test]
fn an_address_rests_after_its_release() {
    let fixture = Fixture::new(with_gateway("10.0.0.0/29", "10.0.0.1"));
    assert_eq!(fixture.next(), Some(ip("10.0.0.2")));
    fixture.release(ip("10.0.0.2"));
    assert_eq!(fixture.all(), ips(&["10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.0.2"]));
}

#[test]
fn subnets_of_every_size_give_their_first_hosts() {
    for (text, expected) in [
        ("10.0.0.0/8", &["10.0.0.1", "10.0.0.2"][..]),
        ("10.1.0.0/16", &["10.1.0.1", "10.1.0.2"]),
        ("10.1.2.0/30", &["10.1.2.1", "10.1.2.2"]),
        // Point to point: no network and no broadcast address (RFC 3021, RFC 6164).
        ("10.1.2.2/31", &["10.1.2.2", "10.1.2.3"]),
        ("10.1.2.2/32", &["10.1.2.2"]),
        ("255.255.255.252/30", &["255.255.255.253", "255.255.255.254"]),
        ("fd00::/16", &["fd00::1", "fd00::2"]),
        ("fd00:1::/64", &["fd00:1::1", "fd00:1::2"]),
        ("fd00::4/126", &["fd00::5", "fd00::6", "fd00::7"]),
        ("fd00::4/127", &["fd00::4", "fd00::5"]),
        (
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe/127",
            &["ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"],
        ),
    ] {
        let fixture = Fixture::new(subnet(text));
        let got: Vec<IpAddr> = std::iter::from_fn(|| fixture.next()).take(expected.len()).collect();
        assert_eq!(got, ips(expected), "{text}");
        if fixture.subnet().subnet.prefix() % 32 >= 30 {
            assert_eq!(fixture.next(), None, "{text}");
        }
    }
}

#[test]
fn a_range_limits_the_choice_and_not_the_wish() {
    let fixture =
        Fixture::new(Subnet { range: Some("10.1.5.0/30".parse().unwrap()), ..with_gateway("10.1.0.0/16", "10.1.0.1") });
    {
        let lock = fixture.lock();
        let ipam = lock.ipam(&fixture.network);
        let wish = |text: &str, owner: &str| ipam.allocate(fixture.subnet(), owner, Some(ip(text)));
        assert_eq!(wish("10.1.9.9", "c1").unwrap(), ip("10.1.9.9"));
        assert_eq!(wish("10.1.5.1", "c1").unwrap(), ip("10.1.5.1"));
        assert_eq!(wish("10.1.9.9", "c1").unwrap(), ip("10.1.9.9"), "its owner may ask again");
    }
    assert_eq!(fixture.all(), ips(&["10.1.5.0", "10.1.5.2", "10.1.5.3"]));
    fixture.release(ip("10.1.9.9"));
    assert_eq!(fixture.next(), None);

    let far = Fixture::new(Subnet { range: Some("fd00::ff:0/120".parse().unwrap()), ..subnet("fd00::/64") });
    assert_eq!(far.next(), Some(ip("fd00::ff:0")));
}

#[test]
fn a_wish_that_cannot_be_met_names_the_reason() {
    let fixture = Fixture::new(Subnet {
        auxiliary: BTreeMap::from([("router".into(), ip("10.0.0.4"))]),
        ..with_gateway("10.0.0.0/29", "10.0.0.1")
    });
    let lock = fixture.lock();
    let ipam = lock.ipam(&fixture.network);
    let owner = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    ipam.allocate(fixture.subnet(), owner, Some(ip("10.0.0.2"))).unwrap();
    let refusal = |text: &str| ipam.allocate(fixture.subnet(), "c2", Some(ip(text))).unwrap_err().to_string();
    assert_eq!(refusal("10.0.0.2"), "Address already in use: 10.0.0.2 belongs to 0123456789ab");
    assert_eq!(refusal("10.0.0.1"), "Address already in use: 10.0.0.1 is the gateway");
    assert_eq!(refusal("10.0.0.4"), "Address already in use: 10.0.0.4 is the aux-address router");
    assert!(refusal("10.0.0.0").contains("network or broadcast address"));
    assert!(refusal("10.0.0.7").contains("network or broadcast address"));
    assert_eq!(refusal("10.0.0.8"), "no configured subnet contains IP address 10.0.0.8");
    assert_eq!(refusal("fd00::1"), "no configured subnet contains IP address fd00::1");
    assert_eq!(ipam.leases().unwrap(), [(ip("10.0.0.2"), owner.to_owned())]);
}

#[test]
fn an_address_is_released_by_its_owner_only() {
    let fixture = Fixture::new(subnet("10.0.0.0/29"));
    let address = fixture.next().unwrap();
    {
        let lock = fixture.lock();
        let ipam = lock.ipam(&fixture.network);
        ipam.release(address, "c2").unwrap();
        assert_eq!(ipam.holder(address).unwrap().as_deref(), Some("c1"));
    }
    fixture.release(address);
    fixture.release(address);
    fixture.release(ip("192.168.9.9"));
    assert_eq!(fixture.records.leases(&fixture.network).unwrap(), []);
}

#[test]
fn the_addresses_of_the_dead_are_found_and_freed() {
    let fixture = Fixture::new(subnet("10.0.0.0/29"));
    let lock = fixture.lock();
    let ipam = lock.ipam(&fixture.network);
    for owner in ["a", "b", "a", "c", "b", "a"] {
        ipam.allocate(fixture.subnet(), owner, None).unwrap();
    }
    let mut asked = Vec::new();
    let freed = ipam.sweep(&mut |owner| {
        asked.push(owner.to_owned());
        owner != "b"
    });
    assert_eq!(freed.unwrap(), [(ip("10.0.0.2"), "b".to_owned()), (ip("10.0.0.5"), "b".to_owned())]);
    assert_eq!(asked, ["a", "b", "c"]);
    assert_eq!(ipam.release_owner("a").unwrap(), ips(&["10.0.0.1", "10.0.0.3", "10.0.0.6"]));
    assert_eq!(ipam.leases().unwrap(), [(ip("10.0.0.4"), "c".to_owned())]);
    assert_eq!(std::iter::from_fn(|| ipam.try_allocate(fixture.subnet(), "d").unwrap()).count(), 5);
}

#[test]
fn owners_that_cannot_be_links_are_refused() {
    let fixture = Fixture::new(subnet("10.0.0.0/29"));
    let lock = fixture.lock();
    let ipam = lock.ipam(&fixture.network);
    for owner in ["", "a/b", "..", ".new", "a b", "a\0", &"a".repeat(120)] {
        ipam.allocate(fixture.subnet(), owner, None).unwrap_err();
        ipam.allocate(fixture.subnet(), owner, Some(ip("10.0.0.2"))).unwrap_err();
    }
    assert_eq!(ipam.leases().unwrap(), []);
}

// What kill -9 or a power cut leaves, made by hand.

#[test]
fn a_lease_without_a_bit_is_respected_and_gets_its_bit() {
    // Killed while taking .2 (after the link), or while releasing it (after the bit).
    let fixture = Fixture::new(with_gateway("10.0.0.0/29", "10.0.0.1"));
    let last = fixture.all().pop().unwrap();
    fixture.release(last);
    fixture.give(last, "c9");
    assert_eq!(fixture.next(), None);
    let lock = fixture.lock();
    let ipam = lock.ipam(&fixture.network);
    assert_eq!(ipam.holder(last).unwrap().as_deref(), Some("c9"));
    ipam.release(last, "c9").unwrap();
    assert_eq!(ipam.try_allocate(fixture.subnet(), "c1").unwrap(), Some(last));
}

#[test]
fn a_bit_without_a_lease_is_found_before_anybody_is_turned_away() {
    let fixture = Fixture::new(with_gateway("10.0.0.0/29", "10.0.0.1"));
    fixture.all();
    fixture.owners().clear(4).unwrap();
    assert_eq!(fixture.next(), Some(ip("10.0.0.4")));
    assert_eq!(fixture.next(), None);
}

#[test]
fn a_damaged_owner_keeps_the_address_until_the_sweep() {
    let fixture = Fixture::new(with_gateway("10.0.0.0/29", "10.0.0.1"));
    fixture.all();
    let path = table(&fixture.directory(), fixture.subnet());
    let mut bytes = fs::read(&path).unwrap();
    bytes[3 * 128 + 1] ^= 1;
    fs::write(&path, &bytes).unwrap();
    assert_eq!(fixture.next(), None);
    let lock = fixture.lock();
    let ipam = lock.ipam(&fixture.network);
    assert_eq!(ipam.sweep(&mut |_| true).unwrap(), [(ip("10.0.0.3"), String::new())]);
    assert_eq!(ipam.try_allocate(fixture.subnet(), "c1").unwrap(), Some(ip("10.0.0.3")));
    // Cut short within a record, the table has lost its last owners, and nothing else breaks: once
    // it is written behind the cut, what is left of that record is a damaged one.
    fs::write(&path, &bytes[..300]).unwrap();
    assert_eq!(ipam.leases().unwrap(), []);
    let left = || std::iter::from_fn(|| ipam.try_allocate(fixture.subnet(), "c1").unwrap()).count();
    assert_eq!(left(), 4);
    assert_eq!(ipam.sweep(&mut |_| true).unwrap(), [(ip("10.0.0.2"), String::new())]);
    assert_eq!(left(), 1);
}

#[test]
fn an_index_that_is_missing_or_damaged_is_made_anew() {
    let fixture = Fixture::new(with_gateway("10.0.0.0/20", "10.0.0.1"));
    let mut seen = BTreeSet::from([fixture.next().unwrap()]);
    let whole = fs::read(fixture.index()).unwrap();
    let mut foreign = whole.clone();
    foreign[6] ^= 1;
    let mut cursor = whole.clone();
    cursor[12..16].fill(0xff);
    let mut full = whole.clone();
    full[32..96].fill(0xff);
    let mut taken = whole.clone();
    taken[4096..].fill(0xff);
    let mut empty = whole.clone();
    empty[4096..].fill(0);
    empty[12..16].fill(0);
    let random: Vec<u8> = whole.iter().enumerate().map(|(at, byte)| byte ^ (at as u8).wrapping_mul(37)).collect();
    for damaged in [
        vec![],
        whole[..50].to_vec(),
        whole[..4096].to_vec(),
        whole[..5000].to_vec(),
        foreign,
        cursor,
        full,
        taken,
        empty,
        random,
    ] {
        fs::write(fixture.index(), &damaged).unwrap();
        for _ in 0..20 {
            assert!(seen.insert(fixture.next().unwrap()), "an address was given twice");
        }
    }
    fs::remove_file(fixture.index()).unwrap();
    assert!(seen.insert(fixture.next().unwrap()));
    // A release finds a damaged one as well.
    fs::write(fixture.index(), &whole[..4096]).unwrap();
    for address in &seen {
        fixture.release(*address);
    }
    assert_eq!(fixture.all().len(), 4096 - 3);
}

#[test]
fn a_summary_that_says_less_or_more_than_the_blocks_costs_nothing_but_time() {
    // Two blocks; the first is full.
    let fixture = Fixture::new(subnet("10.0.0.0/16"));
    let lock = fixture.lock();
    let ipam = lock.ipam(&fixture.network);
    let first: Vec<IpAddr> = (0..32767).map(|_| ipam.try_allocate(fixture.subnet(), "c1").unwrap().unwrap()).collect();
    assert_eq!(first.last(), Some(&ip("10.0.127.255")));
    let header = fs::read(fixture.index()).unwrap();
    assert_eq!((header[32], &header[12..16]), (1, &32768_u32.to_le_bytes()[..]));
    // Killed between the word and the header: the block is full, the summary does not know it, and
    // the cursor stands before the last address.
    let mut bytes = header.clone();
    bytes[32] = 0;
    bytes[12..16].copy_from_slice(&32767_u32.to_le_bytes());
    fs::write(fixture.index(), &bytes).unwrap();
    assert_eq!(ipam.try_allocate(fixture.subnet(), "c1").unwrap(), Some(ip("10.0.128.0")));
    // A release in a full block says so in the summary.
    ipam.release(ip("10.0.3.3"), "c1").unwrap();
    assert_eq!(fs::read(fixture.index()).unwrap()[32], 0);
    let rest = std::iter::from_fn(|| ipam.try_allocate(fixture.subnet(), "c1").unwrap());
    let rest: BTreeSet<IpAddr> = rest.collect();
    assert_eq!(rest.len(), 32768 - 2 + 1);
    assert!(rest.contains(&ip("10.0.3.3")));
}

#[test]
fn two_hundred_at_once_never_share_an_address() {
    let fixture = Fixture::new(with_gateway("10.0.0.0/24", "10.0.0.1"));
    let owners: Vec<String> = (0..200).map(|number| format!("c{number}")).collect();
    let all: BTreeMap<IpAddr, String> = std::thread::scope(|scope| {
        let takers: Vec<_> = owners
            .iter()
            .map(|owner| {
                let fixture = &fixture;
                scope.spawn(move || {
                    let take =
                        || fixture.lock().ipam(&fixture.network).allocate(fixture.subnet(), owner, None).unwrap();
                    // The first is given back, so that releases race as well.
                    let first = take();
                    let second = take_after_release(fixture, owner, first, &take);
                    (second, owner.clone())
                })
            })
            .collect();
        takers.into_iter().map(|taker| taker.join().unwrap()).collect()
    });
    assert_eq!(all.len(), 200);
    assert_eq!(fixture.records.leases(&fixture.network).unwrap(), all.into_iter().collect::<Vec<_>>());
}

fn take_after_release(fixture: &Fixture, owner: &str, first: IpAddr, take: &dyn Fn() -> IpAddr) -> IpAddr {
    fixture.lock().ipam(&fixture.network).release(first, owner).unwrap();
    take()
}

#[derive(Debug, Clone)]
enum Step {
    Take(u8),
    Wish(u8, u32),
    Release(u8, u32),
    Lose,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// Against a model: nobody gets what another has or what is reserved, nobody is turned away
    /// while there is one, and the order is next-free.
    #[test]
    fn allocations_agree_with_a_set(
        prefix in 24_u8..=30,
        gateway in 1_u32..3,
        range in proptest::option::of(0_u8..2),
        steps in proptest::collection::vec(prop_oneof![
            6 => (0_u8..4).prop_map(Step::Take),
            2 => (0_u8..4, 0_u32..260).prop_map(|(owner, host)| Step::Wish(owner, host)),
            5 => (0_u8..4, 0_u32..260).prop_map(|(owner, host)| Step::Release(owner, host)),
            1 => Just(Step::Lose),
        ], 1..120),
    ) {
        let base = u32::from_be_bytes([10, 0, 3, 0]);
        let at = |host: u32| IpAddr::from((base + host).to_be_bytes());
        let hosts = 1_u32 << (32 - prefix);
        let range = range.map(|shorter| ipnetwork::IpNetwork::new(at(hosts / 2), (prefix + 1 + shorter).min(32)).unwrap());
        let fixture = Fixture::new(Subnet {
            subnet: ipnetwork::IpNetwork::new(at(0), prefix).unwrap(), gateway: Some(at(gateway)), range, auxiliary: BTreeMap::new(),
        });
        let choice = range.map_or(0..hosts, |range| hosts / 2..hosts / 2 + (1 << (32 - range.prefix())));
        let usable = |host: u32| host > 0 && host < hosts - 1 && host != gateway;
        let mut model: BTreeMap<u32, String> = BTreeMap::new();
        let mut cursor = choice.start;
        let lock = fixture.lock();
        let ipam = lock.ipam(&fixture.network);
        for step in steps {
            match step {
                Step::Take(owner) => {
                    let free = |host: &u32| usable(*host) && !model.contains_key(host);
                    let expected = (cursor..choice.end).chain(choice.start..cursor).find(free);
                    let owner = format!("c{owner}");
                    prop_assert_eq!(ipam.try_allocate(fixture.subnet(), &owner).unwrap(), expected.map(at));
                    if let Some(host) = expected {
                        model.insert(host, owner);
                        cursor = if host + 1 == choice.end { choice.start } else { host + 1 };
                    }
                }
                Step::Wish(owner, host) => {
                    let owner = format!("c{owner}");
                    let free = model.get(&host).is_none_or(|holder| *holder == owner);
                    let got = ipam.allocate(fixture.subnet(), &owner, Some(at(host)));
                    prop_assert_eq!(got.is_ok(), host < hosts && usable(host) && free);
                    if got.is_ok() {
                        model.insert(host, owner);
                    }
                }
                Step::Release(owner, host) => {
                    let owner = format!("c{owner}");
                    ipam.release(at(host), &owner).unwrap();
                    if model.get(&host) == Some(&owner) {
                        model.remove(&host);
                    }
                }
                Step::Lose => {
                    // With the index the place of the cursor is lost, and nothing else.
                    let _ = fs::remove_file(fixture.index());
                    cursor = choice.start;
                }
            }
            let expected: Vec<(IpAddr, String)> = model.iter().map(|(host, owner)| (at(*host), owner.clone())).collect();
            prop_assert_eq!(ipam.leases().unwrap(), expected);
        }
    }
}
