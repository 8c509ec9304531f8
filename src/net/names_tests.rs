use std::fs;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::layout::Layout;
use crate::net::records::{Locked, Records};

struct Fixture {
    root: tempfile::TempDir,
    lock: Locked,
}

impl Fixture {
    fn new() -> Fixture {
        let root = tempfile::tempdir().unwrap();
        let lock = Records::open(&Layout::new(Some(root.path().into()))).lock().unwrap();
        Fixture { root, lock }
    }

    fn path(&self) -> PathBuf {
        self.root.path().join("network/names/n1")
    }

    fn names(&self) -> Names<'_> {
        Names::new(self.path(), self.lock.held())
    }

    fn zone(&self) -> Zone {
        Zone::open(self.path())
    }

    fn register(&self, owner: &str, names: &[&str], addresses: &[&str]) {
        self.names().register(owner, &strings(names), &ips(addresses)).unwrap();
    }

    fn unregister(&self, owner: &str, names: &[&str], addresses: &[&str]) {
        self.names().unregister(owner, &strings(names), &ips(addresses)).unwrap();
    }

    /// Every record, sorted.
    fn all(&self) -> Vec<String> {
        let records = Table::open(&self.path()).map_or(Vec::new(), |table| table.all().unwrap());
        let mut texts: Vec<String> =
            records.iter().map(|record| format!("{} {} {}", record.key, record.owner, record.value)).collect();
        texts.sort();
        texts
    }
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn names_lead_to_addresses_and_back_in_any_case() {
    let fixture = Fixture::new();
    let zone = fixture.zone();
    assert_eq!(zone.lookup("web"), None);
    fixture.register("c1", &["Web", "api.v1"], &["10.0.0.2", "fd00::2"]);
    fixture.register("c2", &["db"], &["10.0.0.3"]);
    for name in ["web", "WEB", "Web.", "API.v1"] {
        assert_eq!(zone.lookup(name), Some(ips(&["10.0.0.2", "fd00::2"])), "{name}");
    }
    // Known, without IPv6: the resolver answers AAAA with nothing, which is not "no such name".
    assert_eq!(zone.lookup("db"), Some(ips(&["10.0.0.3"])));
    assert_eq!(zone.reverse("fd00::2".parse().unwrap()).as_deref(), Some("Web"));
    assert_eq!(zone.reverse("10.0.0.3".parse().unwrap()).as_deref(), Some("db"));
    assert_eq!(zone.reverse("10.0.0.9".parse().unwrap()), None);
}

#[test]
fn an_alias_of_several_leads_to_all_of_them() {
    let fixture = Fixture::new();
    fixture.register("c2", &["b", "app"], &["10.0.0.30"]);
    fixture.register("c1", &["a", "app"], &["10.0.0.4"]);
    assert_eq!(fixture.zone().lookup("app"), Some(ips(&["10.0.0.4", "10.0.0.30"])));
    fixture.unregister("c2", &["b", "app"], &["10.0.0.30"]);
    assert_eq!(fixture.zone().lookup("app"), Some(ips(&["10.0.0.4"])));
    assert_eq!(fixture.all(), ["@10.0.0.4 c1 a", "a c1 10.0.0.4", "app c1 10.0.0.4"]);
    fixture.unregister("c1", &["a", "app"], &["10.0.0.4"]);
    fixture.unregister("c1", &["a", "app"], &["10.0.0.4"]);
    assert_eq!(fixture.all(), Vec::<String>::new());
}

#[test]
fn registering_again_replaces_and_is_harmless() {
    let fixture = Fixture::new();
    fixture.register("c1", &["web"], &["10.0.0.2"]);
    // Left by a process that was killed between its two steps.
    fs::write(fixture.path().with_extension("new"), "half").unwrap();
    fixture.register("c1", &["web"], &["10.0.0.3"]);
    fixture.register("c1", &["web"], &["10.0.0.3"]);
    assert_eq!(fixture.zone().lookup("web"), Some(ips(&["10.0.0.3"])));
    // An address that has passed on to another leads to that one, whoever lets it go late.
    fixture.register("c2", &["db"], &["10.0.0.2"]);
    fixture.unregister("c1", &["web"], &["10.0.0.2", "10.0.0.3"]);
    assert_eq!(fixture.all(), ["@10.0.0.2 c2 db", "db c2 10.0.0.2"]);
}

#[test]
fn what_a_dead_owner_has_left_is_found_by_its_name_alone() {
    let fixture = Fixture::new();
    fixture.names().unregister_owner("c1").unwrap();
    fixture.register("c1", &["web", "app"], &["10.0.0.2", "fd00::2"]);
    fixture.register("c2", &["db", "app"], &["10.0.0.3"]);
    fixture.names().unregister_owner("c1").unwrap();
    assert_eq!(fixture.all(), ["@10.0.0.3 c2 db", "app c2 10.0.0.3", "db c2 10.0.0.3"]);
    let mut asked = Vec::new();
    let mut alive = |owner: &str| {
        asked.push(owner.to_owned());
        false
    };
    fixture.names().sweep(&mut alive).unwrap();
    assert_eq!((fixture.all(), asked), (vec![], strings(&["c2"])));
}

#[test]
fn a_table_grows_and_carries_a_name_that_fills_more_than_a_page() {
    let fixture = Fixture::new();
    let name = |number: usize| format!("name-{number}");
    let address = |number: usize| IpAddr::from([10, 1, (number / 256) as u8, (number % 256) as u8]);
    let owner = |number: usize| format!("{number:064x}");
    for number in 0..400 {
        fixture.names().register(&owner(number), &[name(number), "app".into()], &[address(number)]).unwrap();
    }
    let zone = fixture.zone();
    assert_eq!(zone.lookup("app").unwrap(), (0..400).map(address).collect::<Vec<_>>());
    for number in 0..400 {
        assert_eq!(zone.lookup(&name(number)), Some(vec![address(number)]));
        assert_eq!(zone.reverse(address(number)), Some(name(number)));
    }
    // Longer values where a page has no more room.
    for number in 0..100 {
        let more: Vec<IpAddr> = (0..15).map(|n| IpAddr::from([10, 2, n, number as u8])).collect();
        fixture.names().register(&owner(number), &["app".into()], &more).unwrap();
    }
    assert_eq!(zone.lookup("app").unwrap().len(), 300 + 1500);
    for number in 0..400 {
        fixture.names().unregister(&owner(number), &[name(number), "app".into()], &[address(number)]).unwrap();
    }
    assert_eq!(zone.lookup("app"), None);
    for number in 0..100 {
        fixture.names().unregister_owner(&owner(number)).unwrap();
    }
    assert_eq!(fixture.all(), Vec::<String>::new());
}

#[test]
fn a_damaged_table_loses_names_and_breaks_nothing() {
    let fixture = Fixture::new();
    let names: Vec<String> = (0..40).map(|number| format!("name-{number}")).collect();
    let register = || {
        for name in &names {
            fixture.register("c1", &[name], &["10.0.0.2"]);
        }
    };
    register();
    let whole = fs::read(fixture.path()).unwrap();
    let mut page = whole.clone();
    page[4096 + 20] ^= 1;
    let mut size = whole.clone();
    size[8..12].fill(0xff);
    let mut used = whole.clone();
    used[12..16].fill(0xff);
    let mut lengths = whole.clone();
    lengths[4096..].fill(0xff);
    for damaged in [vec![], whole[..10].to_vec(), whole[..5000].to_vec(), page, size, used, lengths] {
        fs::write(fixture.path(), &damaged).unwrap();
        fixture.zone().lookup("name-1");
        fixture.names().unregister_owner("nobody").unwrap();
        register();
        for name in &names {
            assert_eq!(fixture.zone().lookup(name), Some(ips(&["10.0.0.2"])));
        }
    }
}

#[test]
fn hostile_names_reach_nothing() {
    let fixture = Fixture::new();
    fixture.register("c1", &["web"], &["10.0.0.2"]);
    let before = fixture.all();
    let long = "a".repeat(254);
    for name in
        ["", ".", "..", "...", "../n2", "/etc", "a/b", "@", "@/10.0.0.2", "a\0b", "a b", "*", "ä", ".new", &long]
    {
        assert_eq!(fixture.zone().lookup(name), None, "{name:?}");
        validate(name).unwrap_err();
        fixture.names().register("c1", &strings(&["good", name]), &ips(&["10.0.0.9"])).unwrap_err();
        fixture.names().unregister("c1", &strings(&[name]), &[]).unwrap();
    }
    for owner in ["", "..", "a/b", ".new"] {
        fixture.names().register(owner, &strings(&["good"]), &ips(&["10.0.0.9"])).unwrap_err();
        fixture.names().unregister_owner(owner).unwrap();
    }
    let many: Vec<IpAddr> = (0..40).map(|n| IpAddr::from([10, 100, 200, 200 + n])).collect();
    fixture.names().register("c1", &strings(&["good"]), &many).unwrap_err();
    assert_eq!(fixture.all(), before);
    let longest = "a".repeat(253);
    fixture.register("c1", &[&longest], &["10.0.0.2"]);
    assert!(fixture.zone().lookup(&longest).is_some());
}

#[test]
fn a_reader_beside_writers_meets_the_old_or_the_new() {
    let fixture = Fixture::new();
    let zone = fixture.zone();
    fixture.register("keeper", &["app"], &["10.0.0.1"]);
    fixture.register("mover", &["moving"], &["10.0.0.5"]);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut seen = [false; 2];
            loop {
                let last = done.load(Ordering::Acquire);
                let both = ips(&["10.0.0.1", "10.0.0.2"]);
                let found = zone.lookup("app").expect("a name that is always there");
                assert!(found == both || found == both[..1], "{found:?}");
                seen[found.len() - 1] = true;
                let moving = zone.lookup("moving").expect("replaced, never missing");
                assert!(moving == ips(&["10.0.0.5"]) || moving == ips(&["10.0.0.6"]), "{moving:?}");
                assert!(zone.lookup("web").is_none_or(|found| found == both[1..]));
                if last {
                    return seen;
                }
            }
        });
        for round in 0..2000 {
            fixture.register("c1", &["web", "app"], &["10.0.0.2"]);
            fixture.register("mover", &["moving"], &[["10.0.0.6", "10.0.0.5"][round % 2]]);
            fixture.unregister("c1", &["web", "app"], &["10.0.0.2"]);
        }
        done.store(true, Ordering::Release);
        assert!(reader.join().unwrap()[0]);
    });
}

/// Prints what `--nocapture` shows.
#[test]
fn figures_for_a_lookup() {
    let fixture = Fixture::new();
    for number in 0..1000 {
        fixture.register(
            &format!("c{number}"),
            &[&format!("web-{number}")],
            &[&format!("10.0.{}.{}", number / 250, number % 250)],
        );
    }
    let zone = fixture.zone();
    let start = std::time::Instant::now();
    for number in 0..1000 {
        assert_eq!(zone.lookup(&format!("web-{number}")).map(|found| found.len()), Some(1));
    }
    let _ = writeln!(std::io::stderr(), "lookup among 1000 names: {:.1} µs each", start.elapsed().as_secs_f64() * 1e3);
    let start = std::time::Instant::now();
    for number in 0..1000 {
        let address = format!("10.0.{}.{}", number / 250, number % 250);
        fixture.unregister(&format!("c{number}"), &[&format!("web-{number}")], &[&address]);
    }
    let _ = writeln!(
        std::io::stderr(),
        "unregister one name and address: {:.1} µs each",
        start.elapsed().as_secs_f64() * 1e3
    );
    assert_eq!(fixture.all(), Vec::<String>::new());
}
