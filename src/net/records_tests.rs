use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::error::Class;
use crate::net::Driver;

fn fresh() -> (tempfile::TempDir, Records) {
    let root = tempfile::tempdir().unwrap();
    let records = Records::open(&Layout::new(Some(root.path().into())));
    (root, records)
}

fn network(name: &str, id: &str) -> Network {
    Network {
        version: FORMAT_VERSION,
        id: format!("{id:0<64}"),
        name: name.into(),
        driver: Driver::Bridge,
        created: jiff::Timestamp::UNIX_EPOCH,
        subnets: vec![crate::net::Subnet {
            subnet: "10.0.0.0/24".parse().unwrap(),
            gateway: Some("10.0.0.1".parse().unwrap()),
            range: None,
            auxiliary: BTreeMap::new(),
        }],
        internal: false,
        ipv6: false,
        attachable: false,
        labels: BTreeMap::from([("a".into(), "b".into())]),
        options: BTreeMap::new(),
        device: "br-x".into(),
    }
}

fn names(records: &Records) -> Vec<String> {
    records.list().unwrap().networks.into_iter().map(|network| network.name).collect()
}

#[test]
fn a_network_is_found_as_it_was_saved() {
    let (root, records) = fresh();
    assert_eq!(names(&records), Vec::<String>::new());
    assert_eq!(records.by_name("n1").unwrap(), None);
    assert!(!root.path().join("network").exists(), "reading makes nothing");
    let saved = network("n1", "abc");
    let lock = records.lock().unwrap();
    lock.save(&network("n0", "def")).unwrap();
    lock.save(&saved).unwrap();
    lock.save(&saved).unwrap();
    assert_eq!(names(&records), ["n0", "n1"]);
    assert_eq!(records.by_name("n1").unwrap().as_ref(), Some(&saved));
    assert_eq!(records.find("n1").unwrap(), saved);
    let error = Failure::from_error(&lock.save(&network("n1", "999")).unwrap_err());
    assert_eq!((error.class, error.message.as_str()), (Class::Conflict, "network with name n1 already exists"));
    for directory in ["network", "network/networks"] {
        assert_eq!(fs::metadata(root.path().join(directory)).unwrap().permissions().mode() & 0o777, 0o700);
    }
}

#[test]
fn a_name_comes_before_an_id_and_an_id_before_its_beginning() {
    let (_root, records) = fresh();
    let lock = records.lock().unwrap();
    let (first, second, third) = (network("n1", "abc1"), network("n2", "abc2"), network("abc", "777"));
    for saved in [&first, &second, &third] {
        lock.save(saved).unwrap();
    }
    assert_eq!(records.find("abc").unwrap(), third);
    assert_eq!(records.find("abc1").unwrap(), first);
    assert_eq!(records.find(&second.id).unwrap(), second);
    let ambiguous = Failure::from_error(&records.find("ab").unwrap_err());
    assert_eq!(ambiguous.class, Class::Conflict);
    assert_eq!(ambiguous.message, "network ab is ambiguous (2 matches found based on ID prefix)");
    for missing in ["n9", "f00", "", "../n1", "n1.json", "ABC1", "."] {
        let error = Failure::from_error(&records.find(missing).unwrap_err());
        assert_eq!((error.class, error.message), (Class::NotFound, format!("network {missing} not found")));
        assert_eq!(error.hint.as_deref(), Some("there is abc, n1, n2"));
    }
}

#[test]
fn a_damaged_record_hides_no_other_and_is_named() {
    let (root, records) = fresh();
    let lock = records.lock().unwrap();
    lock.save(&network("good", "abc")).unwrap();
    let directory = root.path().join("network/networks");
    let text = fs::read_to_string(directory.join("good.json")).unwrap();
    fs::write(directory.join("cut.json"), &text[..40]).unwrap();
    fs::write(directory.join("empty.json"), "").unwrap();
    fs::write(directory.join("moved.json"), &text).unwrap();
    fs::write(directory.join("path.json"), text.replace("\"good\"", "\"path\"").replace("abc0", "../0")).unwrap();
    fs::write(directory.join("newer.json"), text.replace("\"good\"", "\"newer\"").replacen(":1,", ":9,", 1)).unwrap();
    fs::write(directory.join(".good.json.1-0.tmp"), "half").unwrap();
    let listing = records.list().unwrap();
    assert_eq!(listing.networks.len(), 1);
    let mut problems: Vec<String> = listing.problems.iter().map(|error| format!("{error:#}")).collect();
    problems.sort();
    for (problem, (file, reason)) in problems.iter().zip([
        ("cut.json", "damaged"),
        ("empty.json", "damaged"),
        ("moved.json", "it describes network \"good\""),
        ("newer.json", "version 9"),
        ("path.json", "is not a network id"),
    ]) {
        assert!(problem.contains(file) && problem.contains(reason), "{problem}");
    }
    assert_eq!(problems.len(), 5);
    assert!(format!("{:#}", records.find("cut").unwrap_err()).contains("cut.json"));
    assert_eq!(records.find("abc").unwrap().name, "good");
    // It does not become another network's by accident, and can be removed.
    lock.save(&network("cut", "123")).unwrap_err();
    lock.discard("cut").unwrap();
    lock.discard("cut").unwrap();
    lock.save(&network("cut", "123")).unwrap();
    assert!(!directory.join(".good.json.1-0.tmp").exists(), "left by a killed writer");
}

#[test]
fn removal_takes_everything_and_can_be_interrupted() {
    let (root, records) = fresh();
    let lock = records.lock().unwrap();
    let (gone, kept) = (network("n1", "abc"), network("n2", "def"));
    for network in [&gone, &kept] {
        lock.save(network).unwrap();
        let address = lock.ipam(network).allocate(&network.subnets[0], "c1", None).unwrap();
        lock.names(network).register("c1", &["web".to_owned()], &[address]).unwrap();
        assert_eq!(records.leases(network).unwrap(), [(address, "c1".to_owned())]);
        assert_eq!(records.zone(network).lookup("web"), Some(vec![address]));
    }
    // Killed after the names: the record is still there to be asked for.
    fs::remove_file(root.path().join("network/names").join(&gone.id)).unwrap();
    assert_eq!(records.find("n1").unwrap(), gone);
    lock.remove(&gone).unwrap();
    lock.remove(&gone).unwrap();
    assert_eq!(names(&records), ["n2"]);
    assert_eq!(records.leases(&gone).unwrap(), []);
    // Somebody else has the name by now.
    let newer = network("n1", "999");
    lock.save(&newer).unwrap();
    lock.remove(&gone).unwrap();
    assert_eq!(records.find("n1").unwrap(), newer);
    for directory in ["network/ipam", "network/names"] {
        let left: Vec<_> = fs::read_dir(root.path().join(directory)).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, [kept.id.as_str()]);
    }
}

#[test]
fn what_belongs_to_no_network_goes_once_every_record_can_be_read() {
    let (root, records) = fresh();
    let lock = records.lock().unwrap();
    let (damaged, kept) = (network("n1", "abc"), network("n2", "def"));
    for network in [&damaged, &kept] {
        lock.save(network).unwrap();
        lock.ipam(network).allocate(&network.subnets[0], "c1", None).unwrap();
    }
    fs::write(root.path().join("network/networks/n1.json"), "{").unwrap();
    lock.remove_orphans().unwrap();
    assert_eq!(records.leases(&damaged).unwrap().len(), 1);
    lock.discard("n1").unwrap();
    lock.remove_orphans().unwrap();
    assert_eq!((records.leases(&damaged).unwrap().len(), records.leases(&kept).unwrap().len()), (0, 1));
}

#[test]
fn names_follow_dockers_rule() {
    for good in ["n", "n-1", "x_y.z", "0", &"a".repeat(200)] {
        validate_name(good).unwrap();
    }
    for bad in ["", "-a", ".", "..", "_n", "a/b", "a b", "ä", "a\n", &"a".repeat(201)] {
        validate_name(bad).unwrap_err();
    }
    let (_root, records) = fresh();
    let lock = records.lock().unwrap();
    lock.save(&network("../n1", "abc")).unwrap_err();
    lock.save(&network("n1", "../abc")).unwrap_err();
    lock.remove(&network("n1", "../abc")).unwrap_err();
}

#[test]
fn ids_are_random_and_of_the_right_form() {
    let (a, b) = (random_id().unwrap(), random_id().unwrap());
    assert!(is_id(&a) && is_id(&b) && a != b);
}

#[test]
fn one_writer_at_a_time() {
    let (_root, records) = fresh();
    let held = records.lock().unwrap();
    let other = std::thread::spawn({
        let records = records.clone();
        move || records.lock().unwrap().records().by_name("n1").unwrap().is_some()
    });
    held.save(&network("n1", "abc")).unwrap();
    drop(held);
    assert!(other.join().unwrap(), "who waited sees what was written");
}

#[test]
fn of_a_damaged_record_the_id_is_read_or_found_among_what_is_left() {
    let (root, records) = fresh();
    let lock = records.lock().unwrap();
    let (damaged, kept) = (network("n1", "abc"), network("n2", "def"));
    for network in [&damaged, &kept] {
        lock.save(network).unwrap();
        lock.ipam(network).allocate(&network.subnets[0], "c1", None).unwrap();
    }
    let path = root.path().join("network/networks/n1.json");
    let text = fs::read_to_string(&path).unwrap();
    for length in [0, 20, 60, 100, text.len()] {
        fs::write(&path, &text[..length]).unwrap();
        let expected = (length >= 100).then(|| damaged.id.clone());
        assert_eq!(records.salvage_id("n1"), expected, "of {length} bytes");
    }
    fs::write(&path, "\"id\":\"../../../../../../../../../../../../../../../../../../../../../etc\"").unwrap();
    assert_eq!(records.salvage_id("n1"), None);
    assert_eq!(records.orphans().unwrap(), std::slice::from_ref(&damaged.id));
    lock.forget("..").unwrap();
    lock.forget(&damaged.id).unwrap();
    lock.forget(&damaged.id).unwrap();
    assert_eq!(records.orphans().unwrap(), [] as [String; 0]);
    assert_eq!(records.leases(&kept).unwrap().len(), 1);
}
