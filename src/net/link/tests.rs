use super::*;
use crate::net::MacAddress;
use std::os::fd::AsFd;

const MAC: MacAddress = MacAddress([2, 0x42, 10, 0, 0, 1]);

/// A network namespace of its own for the test's thread.
fn private() {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
    crate::sys::network::loopback_up().unwrap();
}

#[test]
fn a_bridge_with_a_container_in_one_round_each() {
    private();
    let inside = crate::sys::network::new_namespace().unwrap();
    let mut host = Links::open().unwrap();
    host.carry_out(vec![bridge("br0", MAC, Some(1400)), alias("br0", "mydocker test")]).unwrap();
    let index = Links::index_of("br0").unwrap().unwrap();
    let gateway: IpNetwork = "10.0.0.1/24".parse().unwrap();
    let gateway6: IpNetwork = "fd00::1/64".parse().unwrap();
    host.carry_out(vec![address(index, gateway), address(index, gateway6), up(index)]).unwrap();
    let pair = VethPair { name: "veth1", peer: "eth0", namespace: inside.as_fd(), mac: MAC, mtu: Some(1400) };
    host.carry_out(vec![veth(&pair), port("veth1", index), port_flags("veth1", true, true)]).unwrap();

    let mut container = crate::sys::network::inside(inside.as_fd(), Links::open).unwrap().unwrap();
    let eth0 = container.device("eth0").unwrap().unwrap();
    assert_eq!((eth0.mtu, eth0.kind.as_str()), (1400, "veth"));
    container
        .carry_out(vec![
            up(eth0.index),
            address(eth0.index, "10.0.0.2/24".parse().unwrap()),
            address(eth0.index, "fd00::2/64".parse().unwrap()),
            default_route(eth0.index, Some("10.0.0.1".parse().unwrap()), false),
            default_route(eth0.index, Some("fd00::1".parse().unwrap()), true),
        ])
        .unwrap();
    let addresses = container.addresses().unwrap();
    assert!(addresses.contains(&("10.0.0.2/24".parse().unwrap(), eth0.index)), "{addresses:?}");
    assert!(addresses.contains(&("fd00::2/64".parse().unwrap(), eth0.index)), "{addresses:?}");
    assert!(host.addresses().unwrap().contains(&(gateway, index)));
    let device = host.device("br0").unwrap().unwrap();
    assert_eq!((device.alias.as_str(), device.kind.as_str()), ("mydocker test", "bridge"));
    let veth1 = host.device("veth1").unwrap().unwrap();
    assert_eq!(veth1.controller, Some(index));
    let flags = std::process::Command::new("bridge").args(["-d", "link", "show", "dev", "veth1"]).output().unwrap();
    let flags = String::from_utf8(flags.stdout).unwrap();
    assert!(flags.contains("hairpin on") && flags.contains("isolated on"), "{flags}");
    // A port has no address of its own, of whatever kind.
    assert!(!host.addresses().unwrap().iter().any(|(_, device)| *device == veth1.index));
    let routes = host.routes().unwrap();
    assert!(routes.contains(&Route { destination: "10.0.0.0/24".parse().unwrap(), device: index }), "{routes:?}");
    assert!(routes.contains(&Route { destination: "fd00::/64".parse().unwrap(), device: index }), "{routes:?}");

    host.carry_out(vec![delete(index)]).unwrap();
    assert_eq!(Links::index_of("br0").unwrap(), None);
}

#[test]
fn the_first_failure_is_told_and_the_rest_is_tried() {
    private();
    let mut host = Links::open().unwrap();
    host.carry_out(vec![bridge("d0", MAC, None)]).unwrap();
    let error = host.carry_out(vec![bridge("d0", MAC, None), bridge("d1", MAC, None)]).unwrap_err();
    assert_eq!(format!("{error:#}"), "make bridge d0: File exists (os error 17)");
    assert!(Links::index_of("d1").unwrap().is_some());
}

#[test]
fn a_device_above_another() {
    private();
    let inside = crate::sys::network::new_namespace().unwrap();
    let mut host = Links::open().unwrap();
    host.carry_out(vec![bridge("d0", MAC, None)]).unwrap();
    let parent = Links::index_of("d0").unwrap().unwrap();
    let other = MacAddress([2, 0x42, 10, 0, 0, 2]);
    let request = above(crate::net::Driver::Macvlan, "bridge", parent, "eth0", inside.as_fd(), Some(other), None);
    host.carry_out(vec![request]).unwrap();
    let mut container = crate::sys::network::inside(inside.as_fd(), Links::open).unwrap().unwrap();
    assert_eq!(container.device("eth0").unwrap().unwrap().kind, "macvlan");
}
