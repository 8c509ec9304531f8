//! Records written as they are on disk, and what is shown of them.

use std::fs;

use super::*;
use crate::net::FORMAT_VERSION;

fn fresh() -> (tempfile::TempDir, Engine) {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(Some(dir.path().into())).unwrap();
    (dir, engine)
}

fn add(engine: &Engine, network: &Network) {
    let directory = engine.layout().root().join("network/networks");
    fs::create_dir_all(&directory).unwrap();
    let path = directory.join(format!("{}.json", network.name));
    crate::store::write_json(&path, network, crate::store::Durability::ProcessCrash).unwrap();
}

fn network(name: &str, digit: char) -> Network {
    Network {
        version: FORMAT_VERSION,
        id: digit.to_string().repeat(64),
        name: name.to_owned(),
        driver: Driver::Bridge,
        created: Timestamp::from_second(1_700_000_000).unwrap(),
        subnets: vec![Subnet {
            subnet: "10.5.0.0/24".parse().unwrap(),
            gateway: Some("10.5.0.1".parse().unwrap()),
            range: Some("10.5.0.128/25".parse().unwrap()),
            auxiliary: BTreeMap::from([("router".to_owned(), "10.5.0.9".parse().unwrap())]),
        }],
        internal: false,
        ipv6: false,
        attachable: false,
        labels: BTreeMap::from([("tier".to_owned(), "a".to_owned())]),
        options: BTreeMap::from([("com.docker.network.driver.mtu".to_owned(), "1400".to_owned())]),
        device: "br-0".to_owned(),
    }
}

fn listed(engine: &Engine, filters: &[&str]) -> String {
    let filters: Vec<_> = filters.iter().map(|text| NetworkFilter::parse(text).unwrap()).collect();
    let listing = engine.network_list(&filters).unwrap();
    listing.networks.iter().map(|network| network.name.as_str()).collect::<Vec<_>>().join(" ")
}

#[test]
fn three_networks_were_always_there() {
    let (_dir, engine) = fresh();
    let listing = engine.network_list(&[]).unwrap();
    let shown: Vec<_> = listing.networks.iter().map(|network| (network.name.as_str(), network.driver)).collect();
    assert_eq!(shown, [("bridge", "bridge"), ("host", "host"), ("none", "null")]);
    let ids: std::collections::BTreeSet<_> = listing.networks.iter().map(|network| &network.id).collect();
    assert!(ids.len() == 3 && ids.iter().all(|id| id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit())));
    // The first use gives the default network a subnet, and changes neither its id nor the list.
    add(&engine, &Network { id: builtin_id("bridge"), ..network("bridge", '0') });
    let listing = engine.network_list(&[]).unwrap();
    assert_eq!(listing.networks.len(), 3);
    assert_eq!((listing.networks[0].subnets.len(), listing.networks[0].is_builtin()), (1, true));
}

#[test]
fn networks_are_filtered() {
    let (_dir, engine) = fresh();
    add(&engine, &network("n1", '1'));
    add(&engine, &Network { driver: Driver::Macvlan, labels: BTreeMap::new(), ..network("n2", '2') });
    for (filters, expected) in [
        (&[][..], "bridge host n1 n2 none"),
        (&["driver=bridge"], "bridge n1"),
        (&["driver=bridge", "driver=null"], "bridge n1 none"),
        (&["driver=bridge", "type=custom"], "n1"),
        (&["type=builtin"], "bridge host none"),
        (&["name=n"], "n1 n2 none"),
        (&["name=^n[0-9]$"], "n1 n2"),
        (&["id=2222"], "n2"),
        (&["label=tier"], "n1"),
        (&["label=tier=b"], ""),
        (&["label=tier", "label=other"], ""),
        (&["scope=local", "name=n1"], "n1"),
        (&["scope=swarm"], ""),
        (&["dangling=true"], "n1 n2"),
        (&["dangling=false"], "bridge host none"),
    ] {
        assert_eq!(listed(&engine, filters), expected, "{filters:?}");
    }
    for bad in ["x", "foo=1", "type=x", "dangling=x", "name=("] {
        assert!(NetworkFilter::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn prune_has_filters_of_its_own() {
    let summary = NetworkSummary::of(&network("n1", '1'));
    let moment = |text: &str| text.parse().ok();
    let passes = |text: &str| filter::passes(&[NetworkFilter::parse_prune(text, moment).unwrap()], &summary, false);
    assert!(passes("until=2023-11-14T22:13:21Z") && !passes("until=2023-11-14T22:13:20Z"));
    assert!(passes("label=tier=a") && !passes("label!=tier") && passes("label!=tier=b"));
    for bad in ["until=x", "name=n1", "x"] {
        assert!(NetworkFilter::parse_prune(bad, moment).is_err(), "{bad}");
    }
}

#[test]
fn inspect_has_dockers_shape() {
    let (_dir, engine) = fresh();
    add(&engine, &network("n1", 'a'));
    add(&engine, &network("n2", 'b'));
    let text = serde_json::to_string(&engine.network_inspect("aaa").unwrap()).unwrap();
    let expected = format!(
        r#"{{"Name":"n1","Id":"{}","Created":"2023-11-14T22:13:20Z","Scope":"local","Driver":"bridge","EnableIPv4":true,"EnableIPv6":false,"IPAM":{{"Driver":"default","Options":{{}},"Config":[{{"Subnet":"10.5.0.0/24","IPRange":"10.5.0.128/25","Gateway":"10.5.0.1","AuxiliaryAddresses":{{"router":"10.5.0.9"}}}}]}},"Internal":false,"Attachable":false,"Ingress":false,"ConfigFrom":{{"Network":""}},"ConfigOnly":false,"Containers":{{}},"Options":{{"com.docker.network.driver.mtu":"1400"}},"Labels":{{"tier":"a"}}}}"#,
        "a".repeat(64)
    );
    assert_eq!(text, expected);
    let host = engine.network_inspect("host").unwrap();
    assert_eq!((host.driver.as_str(), host.created.as_str(), host.ipam.config.len()), ("host", NEVER, 0));
    assert_eq!(engine.network_inspect(&builtin_id("none")).unwrap().name, "none");
}

#[test]
fn references_are_names_ids_and_prefixes() {
    let (_dir, engine) = fresh();
    add(&engine, &network("n1", 'a'));
    add(&engine, &Network { id: format!("aab{}", "c".repeat(61)), ..network("aaaa", 'a') });
    let name = |reference: &str| engine.network_inspect(reference).map(|view| view.name);
    assert_eq!(name("n1").unwrap(), "n1");
    assert_eq!(name("aaaa").unwrap(), "aaaa", "a name goes before the prefix of an id");
    assert_eq!(name("aab").unwrap(), "aaaa");
    assert_eq!(name("aaa").unwrap(), "n1");
    assert_eq!(name("aa").unwrap_err().to_string(), "network aa is ambiguous (2 matches found based on ID prefix)");
    for missing in ["n", "", "../n1", "N1"] {
        assert_eq!(name(missing).unwrap_err().to_string(), format!("network {missing} not found"));
    }
}

#[test]
fn a_damaged_record_hides_no_other() {
    let (_dir, engine) = fresh();
    add(&engine, &network("n1", '1'));
    let file = engine.layout().root().join("network/networks/bad.json");
    fs::write(&file, "{\"na").unwrap();
    let listing = engine.network_list(&[]).unwrap();
    assert_eq!((listing.networks.len(), listing.problems.len()), (4, 1));
    assert!(format!("{:#}", engine.network_inspect("bad").unwrap_err()).contains("bad.json is damaged"));
    assert!(engine.network_inspect("worse").unwrap_err().to_string().contains("not found"));
}
