//! What else can happen to networks: files torn or deleted, a full disk, devices and rules taken away
//! by hand, a reboot.

use std::fs;
use std::process::Command;

use crate::ours_only;
use crate::support::networks::{leases, nothing_at_all, nothing_of_containers, rules, targets_of};
use crate::support::{Sandbox, eventually, host, processes};

const PUBLISH: &str = "18080:80";

#[track_caller]
fn sh(script: &str) {
    let output = Command::new("sh").args(["-ec", script]).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
}

/// From within a container of this network the gateway answers.
#[track_caller]
fn reaches_its_gateway(sandbox: &Sandbox, container: &str) {
    let script = "ping -c 1 -W 5 $(ip route | sed -n 's/^default via \\([0-9.]*\\).*/\\1/p')";
    sandbox.ok(["exec", container, "sh", "-c", script]);
}

fn id_of(sandbox: &Sandbox, network: &str) -> String {
    sandbox.ok(["network", "inspect", "--format", "{{.Id}}", network])
}

#[test]
fn a_damaged_record_hides_no_other_network_and_can_be_removed() {
    ours_only!("damages our own files");
    let sandbox = Sandbox::new();
    sandbox.ok(["network", "create", "good"]);
    let torn = |text: &str| text[..text.len() / 2].to_owned();
    // What is left of the record: half, nothing, another's, no JSON. Of the last three not even the id is.
    let damages: [&dyn Fn(&str) -> String; 4] =
        [&torn, &|_| String::new(), &|text| text.replace("\"bad\"", "\"other\""), &|_| "\0\0\0\0".to_owned()];
    for damage in damages {
        sandbox.ok(["network", "create", "--ipv6", "bad"]);
        sandbox.ok(["run", "--rm", "--network", "bad", "busybox", "true"]);
        let record = sandbox.root().join("network/networks/bad.json");
        let text = fs::read_to_string(&record).unwrap();
        fs::write(&record, damage(&text)).unwrap();
        let listing = sandbox.run(["network", "ls"]).code(0);
        assert!(listing.out().contains("good"), "{listing}");
        assert!(listing.err().contains("bad.json"), "the damaged file is named: {listing}");
        sandbox.fails(125, ["run", "--rm", "--network", "bad", "busybox", "true"]).says("bad.json");
        sandbox.ok(["run", "--rm", "--network", "good", "busybox", "true"]);
        sandbox.fails(1, ["network", "inspect", "bad"]).says("bad.json");
        assert_eq!(sandbox.ok(["network", "rm", "bad"]), "bad");
        assert!(!sandbox.path("root/network/networks/bad.json").exists());
        assert!(!host::ip(&["link"]).contains(" bad:"), "its bridge is left");
    }
    sandbox.ok(["network", "rm", "good"]);
    nothing_at_all(&sandbox, "rm");
}

#[test]
fn a_damaged_network_in_use_is_not_removed() {
    ours_only!("damages our own files");
    let sandbox = Sandbox::new();
    sandbox.ok(["network", "create", "n1"]);
    let name = sandbox.name("c");
    let id = sandbox.idle(&name, &["--network", "n1", "-p", PUBLISH]);
    fs::write(sandbox.root().join("network/networks/n1.json"), "{\"version\":1").unwrap();
    sandbox.fails(1, ["network", "rm", "n1"]).says("active endpoints").says(&name);
    assert!(sandbox.is_running(&name));
    sandbox.ok(["rm", "-f", &name]);
    sandbox.ok(["network", "rm", "n1"]);
    nothing_of_containers(&sandbox, &[id], 18080, "rm");
    nothing_at_all(&sandbox, "network rm");
}

#[test]
fn a_container_whose_record_is_damaged_keeps_its_address_until_it_is_removed() {
    ours_only!("damages our own files");
    let sandbox = Sandbox::new();
    sandbox.ok(["network", "create", "--subnet", "10.85.0.0/24", "n1"]);
    let name = sandbox.name("c");
    let id = sandbox.idle(&name, &["--network", "n1", "-p", PUBLISH]);
    let record = sandbox.root().join("containers").join(&id).join("state.json");
    // The shim writes that it runs after it has told us.
    eventually("it is on record", || fs::read_to_string(&record).unwrap().contains("\"running\""));
    fs::write(&record, "{").unwrap();
    sandbox.fails(1, ["network", "rm", "n1"]).says("active endpoints").says(&id);
    let same = ["run", "--rm", "--network", "n1", "--ip", "10.85.0.2", "busybox", "true"];
    sandbox.fails(125, same).says("Address already in use");
    sandbox.ok(["rm", "-f", &id]);
    nothing_of_containers(&sandbox, &[id], 18080, "rm");
    sandbox.ok(same);
    sandbox.ok(["network", "rm", "n1"]);
    nothing_at_all(&sandbox, "network rm");
}

#[test]
fn a_damaged_default_network_is_made_anew_once_it_is_removed() {
    ours_only!("damages our own files");
    let sandbox = Sandbox::new();
    sandbox.ok(["run", "--rm", "busybox", "true"]);
    fs::write(sandbox.root().join("network/networks/bridge.json"), "").unwrap();
    sandbox.fails(125, ["run", "--rm", "busybox", "true"]).says("bridge.json").says("mydocker network rm bridge");
    sandbox.ok(["network", "rm", "bridge"]);
    assert!(!host::ip(&["link"]).contains("mydocker0"));
    sandbox.ok(["run", "--rm", "busybox", "true"]);
    sandbox.fails(1, ["network", "rm", "bridge"]).says("pre-defined");
}

#[test]
fn damaged_and_deleted_indexes_of_addresses_are_made_anew() {
    ours_only!("damages our own files");
    let sandbox = Sandbox::new();
    sandbox.ok(["network", "create", "--subnet", "10.82.0.0/24", "n1"]);
    let name = sandbox.name("c");
    sandbox.idle(&name, &["--network", "n1"]);
    let directory = sandbox.root().join("network/ipam").join(id_of(&sandbox, "n1"));
    let bitmap = directory.join("10.82.0.0_24.bitmap");
    let address = |script: &str| sandbox.script(&["--network", "n1"], script);
    let own = "ip -o -4 address show eth0 | sed 's/.*inet \\([0-9.]*\\).*/\\1/'";
    for damage in ["", "x", "mydocker index of something else"] {
        fs::write(&bitmap, damage).unwrap();
        assert_ne!(address(own), "10.82.0.2", "after {damage:?}");
    }
    fs::remove_file(&bitmap).unwrap();
    assert_ne!(address(own), "10.82.0.2");
    // The owners are the truth, and gone with them is who has what; the next start makes the place anew.
    fs::remove_dir_all(&directory).unwrap();
    address("true");
    sandbox.ok(["rm", "-f", &name]);
    fs::remove_dir_all(sandbox.root().join("network/names")).unwrap();
    address("true");
    assert_eq!(leases(&sandbox, "n1").len(), 0);
    sandbox.ok(["network", "rm", "n1"]);
    nothing_at_all(&sandbox, "rm");
}

#[test]
fn a_full_disk_is_an_error_for_networks_too_and_leaves_nothing() {
    ours_only!("mounts a small file system over our data root");
    let sandbox = Sandbox::new();
    let root = sandbox.host_dir("root");
    // Full of bytes, then full of files. More than once: what the run before had mounted comes back late, for the kernel
    // ends a mount namespace behind its last process.
    let script = format!(
        r#"fill() {{
            case $full in
            bytes) head -c 100m /dev/zero >>{root}/ballast 2>/dev/null ;;
            files) mkdir -p {root}/many; while true 2>/dev/null >{root}/many/$files; do files=$((files + 1)); done ;;
            esac
        }}
        files=0
        mount -t tmpfs -o size=6m,nr_inodes=2000 none {root} || exit 90
        "$@" network create n1 || exit 91
        "$@" run --rm --network n1 busybox true || exit 92
        for full in bytes files; do
            fill; tries=0
            while "$@" network create n2; do
                "$@" network rm n2; fill; tries=$((tries + 1)); [ $tries -lt 20 ] || exit 93
            done
            "$@" run --rm --network n1 -p 18080:80 busybox true && exit 94
            rm -rf {root}/ballast {root}/many
            [ "$("$@" network ls -q --filter type=custom | wc -l)" = 1 ] || exit 95
            "$@" run --rm --network n1 -p 18080:80 busybox echo room || exit 96
            [ -z "$("$@" ps -aq)" ] || exit 97
            "$@" network create n2 && "$@" network rm n2 || exit 98
        done
        "$@" network rm n1 || exit 99
        [ -z "$(ls -A {root}/network/networks {root}/network/ipam {root}/network/names | grep -v :)" ]"#
    );
    let outer = format!("exec unshare -m sh -c '{}' sh \"$@\"", script.replace('\'', "'\\''"));
    let output = sandbox.with_shell(&outer, [] as [&str; 0]).run().code(0).says("no space left on device");
    assert_eq!(output.out().matches("room").count(), 2, "{output}");
    nothing_at_all(&sandbox, "the end");
}

#[test]
fn a_bridge_deleted_by_hand_comes_back_with_its_containers() {
    ours_only!("knows our devices");
    let sandbox = Sandbox::new();
    sandbox.ok(["network", "create", "n1"]);
    let (first, second) = (sandbox.name("first"), sandbox.name("second"));
    sandbox.idle(&first, &["--network", "n1"]);
    sh("ip link del n1");
    assert!(sandbox.ok(["network", "ls"]).contains("n1"));
    sandbox.idle(&second, &["--network", "n1"]);
    for name in [&first, &second] {
        reaches_its_gateway(&sandbox, name);
    }
    sandbox.ok(["exec", &first, "ping", "-c", "1", "-W", "5", &second]);
    // Also while it is taken away.
    sh("ip link del n1");
    sandbox.ok(["stop", "-t", "1", &first]);
    sandbox.ok(["rm", "-f", &first, &second]);
    sandbox.ok(["network", "rm", "n1"]);
    nothing_at_all(&sandbox, "rm");
}

#[test]
fn flushed_rules_come_back_with_the_next_published_port_and_are_not_missed_at_the_end() {
    ours_only!("knows our rules");
    let sandbox = Sandbox::new();
    sandbox.ok(["network", "create", "--ipv6", "n1"]);
    let flush = "for program in iptables ip6tables; do for table in filter nat raw; do
        $program -t $table -F; $program -t $table -X; done; done";
    let name = sandbox.name("c");
    let id = sandbox.idle(&name, &["--network", "n1", "-p", PUBLISH]);
    let before = rules("iptables-save").len();
    sh(flush);
    sandbox.ok(["rm", "-f", &name]);
    nothing_of_containers(&sandbox, &[id], 18080, "rm after a flush");
    let id = sandbox.idle(&name, &["--network", "n1", "-p", PUBLISH]);
    assert_eq!(targets_of(18080).len(), 1);
    assert!(rules("iptables-save").len() >= before, "the rules of the network are missing");
    sandbox.ok(["rm", "-f", &name]);
    nothing_of_containers(&sandbox, &[id], 18080, "rm");
    sh(flush);
    sandbox.ok(["network", "rm", "n1"]);
    nothing_at_all(&sandbox, "network rm after a flush");
}

#[test]
fn a_device_of_somebody_else_is_neither_used_nor_removed() {
    ours_only!("knows our devices");
    let sandbox = Sandbox::new();
    sandbox.ok(["network", "create", "n1"]);
    sandbox.ok(["run", "--rm", "--network", "n1", "busybox", "true"]);
    for (kind, more) in [("veth", "peer name other"), ("bridge", "")] {
        sh(&format!("ip link del n1; ip link add n1 type {kind} {more}; ip link set n1 up"));
        let output = sandbox.fails(125, ["run", "--rm", "--network", "n1", "busybox", "true"]);
        output.says(&format!("n1 is the name of a {kind} of the host"));
    }
    sandbox.ok(["network", "rm", "n1"]);
    assert!(host::ip(&["-d", "link", "show", "n1"]).contains("bridge"), "somebody else's device was removed");
    sh("ip link del n1");
    nothing_at_all(&sandbox, "rm");
    // The default network goes elsewhere.
    let address = "ip -o -4 address show eth0";
    let before = sandbox.script(&[], address);
    sh("ip link del mydocker0; ip link add mydocker0 type bridge; ip link set mydocker0 up");
    let after = sandbox.script(&[], address);
    assert_ne!(before, after);
    assert!(host::ip(&["link"]).contains("mydocker1"));
    sh("ip link del mydocker0");
}

#[test]
fn a_bridge_of_the_users_is_used_as_it_is_and_stays() {
    ours_only!("knows our devices and rules");
    let sandbox = Sandbox::new();
    sh("ip link add br9 type bridge; ip link set br9 up");
    let option = "com.docker.network.bridge.name=br9";
    sandbox.ok(["network", "create", "--subnet", "10.83.0.0/24", "--opt", option, "n1"]);
    sandbox.fails(1, ["network", "create", "--opt", option, "n2"]).says("n1 have the same bridge name br9");
    let name = sandbox.name("c");
    sandbox.idle(&name, &["--network", "n1"]);
    reaches_its_gateway(&sandbox, &name);
    assert!(rules("iptables-save").iter().any(|line| line.contains("-o br9")), "it has no rules");
    sandbox.ok(["rm", "-f", &name]);
    sandbox.ok(["network", "rm", "n1"]);
    host::ip(&["link", "del", "br9"]);
    nothing_at_all(&sandbox, "rm");
}

#[test]
fn after_a_reboot_networks_are_made_again_and_nothing_is_taken() {
    ours_only!("pretends that the machine was rebooted");
    let sandbox = Sandbox::new();
    sandbox.ok(["network", "create", "--subnet", "10.84.0.0/24", "n1"]);
    let (first, second) = (sandbox.name("first"), sandbox.name("second"));
    let fixed = ["--network", "n1", "--ip", "10.84.0.9", "-p", PUBLISH];
    let ids = [sandbox.idle(&first, &fixed), sandbox.idle(&second, &["--network", "n1"])];
    for (name, id) in [&first, &second].into_iter().zip(&ids) {
        for pid in [processes::shim_of(name).unwrap().as_raw_nonzero().get(), sandbox.pid(name)] {
            let pid = rustix::process::Pid::from_raw(pid).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
            eventually("it is gone", || !processes::is_alive(pid.as_raw_nonzero().get()));
        }
        let record = sandbox.root().join("containers").join(id).join("state.json");
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        let text = fs::read_to_string(&record).unwrap();
        assert!(text.contains(boot.trim()));
        fs::write(&record, text.replace(boot.trim(), "00000000-0000-0000-0000-000000000000")).unwrap();
    }
    // The kernel has nothing of it any more.
    host::enter_private();
    assert!(sandbox.ok(["network", "ls"]).contains("n1"));
    assert!(sandbox.ok(["ps", "-a"]).contains("Exited"));
    assert_eq!(sandbox.ok(["network", "inspect", "--format", "{{len .Containers}}", "n1"]), "0");
    // Addresses of containers that are down are no obstacle, not even one that is asked for.
    let other = sandbox.name("other");
    sandbox.idle(&other, &fixed);
    reaches_its_gateway(&sandbox, &other);
    assert_eq!(targets_of(18080), ["10.84.0.9:80"]);
    sandbox.fails(1, ["start", &first]);
    sandbox.ok(["rm", "-f", &other]);
    sandbox.ok(["start", &first, &second]);
    for name in [&first, &second] {
        reaches_its_gateway(&sandbox, name);
    }
    assert_eq!(leases(&sandbox, "n1").len(), 2);
    sandbox.ok(["rm", "-f", &first, &second]);
    sandbox.ok(["network", "rm", "n1"]);
    nothing_of_containers(&sandbox, &ids, 18080, "rm");
    nothing_at_all(&sandbox, "network rm");
}
