//! What allocating and releasing costs, on subnets that are large or full.

use std::io::Write;
use std::time::Instant;

use super::*;

/// Prints what `--nocapture` shows; asserts only that the addresses are right.
#[test]
fn figures_for_large_and_full_subnets() {
    let time = |what: &str, count: u32, work: &mut dyn FnMut()| {
        let start = Instant::now();
        work();
        let _ = writeln!(
            std::io::stderr(),
            "{what}: {:.1} µs each",
            start.elapsed().as_secs_f64() * 1e6 / f64::from(count)
        );
    };
    for text in ["10.0.0.0/8", "10.0.0.0/16", "fd00::/64"] {
        let fixture = Fixture::new(subnet(text));
        time(&format!("{text} first, index made"), 1, &mut || assert!(fixture.next().is_some()));
        time(&format!("{text} allocate, with lock"), 1000, &mut || {
            (0..1000).for_each(|_| assert!(fixture.next().is_some()))
        });
        let leases = fixture.records.leases(&fixture.network).unwrap();
        time(&format!("{text} release, with lock"), 1000, &mut || {
            leases[1..].iter().for_each(|(address, _)| fixture.release(*address));
        });
        assert_eq!(fixture.records.leases(&fixture.network).unwrap().len(), 1);
    }
    let fixture = Fixture::new(subnet("10.0.0.0/16"));
    let lock = fixture.lock();
    let ipam = lock.ipam(&fixture.network);
    let mut count = 0;
    time("filling a /16", 65534, &mut || {
        while count < 65534 {
            assert!(ipam.try_allocate(fixture.subnet(), "c1").unwrap().is_some());
            count += 1;
        }
    });
    let holes: Vec<IpAddr> = (0..100_u32).map(|n| IpAddr::from([10, 0, (n * 2 + 1) as u8, 77])).collect();
    time("full /16 release", 100, &mut || holes.iter().for_each(|hole| ipam.release(*hole, "c1").unwrap()));
    let mut got = BTreeSet::new();
    time("nearly full /16 allocate", 100, &mut || {
        got.extend((0..100).map(|_| ipam.try_allocate(fixture.subnet(), "c1").unwrap().unwrap()));
    });
    assert_eq!(got, holes.into_iter().collect());
    time("full /16 turns away", 1, &mut || assert_eq!(ipam.try_allocate(fixture.subnet(), "c1").unwrap(), None));
}
