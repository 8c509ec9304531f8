//! A host's network for one test: a network namespace that the test's thread, and whatever it starts,
//! take for the machine's, and neighbours of that host on wires of their own.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::Command;
use std::sync::Arc;

use nix::sched::{CloneFlags, setns, unshare};

use super::Output;
use super::invocation::Invocation;

/// Gives the calling thread a network of its own, with nothing but a loopback device that is up.
/// Threads and processes that it starts from now on have the same.
#[track_caller]
pub fn enter_private() {
    unshare(CloneFlags::CLONE_NEWNET).expect("make a network namespace");
    ip(&["link", "set", "lo", "up"]);
}

/// Runs `ip` (iproute2) in the present namespace; what it prints.
#[track_caller]
pub fn ip(args: &[&str]) -> String {
    let output = Command::new("ip").args(args).output().expect("run ip");
    assert!(output.status.success(), "ip {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What `iptables` or `ip6tables` prints in the present namespace.
#[track_caller]
pub fn rules(args: &[&str]) -> String {
    let output = Command::new(args[0]).args(&args[1..]).output().expect("run iptables");
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Sets a kernel parameter of the present namespace.
#[track_caller]
pub fn set_parameter(name: &str, value: &str) {
    let path = format!("/proc/sys/{name}");
    std::fs::write(&path, value).unwrap_or_else(|error| panic!("{path}: {error}"));
}

/// A network namespace, held open.
#[derive(Clone)]
pub struct Namespace(Arc<OwnedFd>);

impl Namespace {
    /// That of the calling thread: the test's host.
    pub fn here() -> Namespace {
        Namespace::open("/proc/thread-self/ns/net")
    }

    /// That of a process.
    #[track_caller]
    pub fn of(pid: i32) -> Namespace {
        Namespace::open(&format!("/proc/{pid}/ns/net"))
    }

    /// A new one, with a loopback device that is down.
    pub fn new() -> Namespace {
        std::thread::scope(|scope| {
            let made = scope.spawn(|| {
                unshare(CloneFlags::CLONE_NEWNET).expect("make a network namespace");
                Namespace::here()
            });
            made.join().unwrap()
        })
    }

    #[track_caller]
    fn open(path: &str) -> Namespace {
        let file = File::open(path).unwrap_or_else(|error| panic!("{path}: {error}"));
        Namespace(Arc::new(file.into()))
    }

    /// Makes it the calling thread's.
    pub fn enter(&self) {
        setns(self.0.as_fd(), CloneFlags::CLONE_NEWNET).expect("enter a network namespace");
    }

    /// Does `work` inside, on a thread that is gone afterwards.
    #[track_caller]
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let outcome = std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                self.enter();
                work()
            });
            inside.join()
        });
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Runs a program inside to its end, whatever its end.
    #[track_caller]
    pub fn command(&self, args: &[&str]) -> Output {
        let mut command = Command::new(args[0]);
        command.args(&args[1..]);
        let invocation = Invocation::new(command);
        self.run(move || invocation.run())
    }

    /// `ip` inside.
    #[track_caller]
    pub fn ip(&self, args: &[&str]) -> String {
        self.run(|| ip(args))
    }

    /// A path by which other programs of the machine find it, while this process lives.
    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }
}

/// Another machine on a wire of its own to the test's host: 203.0.113.16·N and 2001:db8:N::.
pub struct Neighbour {
    pub namespace: Namespace,
    /// The host's device for this wire.
    pub device: String,
    /// The host's address on this wire.
    pub host: IpAddr,
    /// The same of IPv6.
    pub host6: IpAddr,
    /// The neighbour's own.
    pub address: IpAddr,
    /// The same of IPv6.
    pub address6: IpAddr,
}

impl Neighbour {
    /// Joins a neighbour to the present namespace. It has no routes but the one to its wire, and no
    /// loopback device, so that nothing hinders it from forging.
    #[track_caller]
    pub fn join(number: u8) -> Neighbour {
        let namespace = Namespace::new();
        let v4 = |last: u8| IpAddr::from(Ipv4Addr::new(203, 0, 113, 16 * number + last));
        let v6 = |last: u16| IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, number.into(), 0, 0, 0, 0, last));
        let device = format!("lan{number}");
        let neighbour = Neighbour { namespace, device, host: v4(1), host6: v6(1), address: v4(2), address6: v6(2) };
        let device = neighbour.device.as_str();
        ip(&["link", "add", device, "type", "veth", "peer", "name", "eth0", "netns", &neighbour.namespace.path()]);
        let equip = |device: &str, v4: IpAddr, v6: IpAddr| {
            ip(&["addr", "add", &format!("{v4}/28"), "dev", device]);
            // Nobody else is on the wire: an address is usable at once.
            ip(&["addr", "add", &format!("{v6}/64"), "dev", device, "nodad"]);
            ip(&["link", "set", device, "up"]);
        };
        equip(device, neighbour.host, neighbour.host6);
        neighbour.namespace.run(|| equip("eth0", neighbour.address, neighbour.address6));
        neighbour
    }

    /// Sends packets for `destination` (an address or a subnet) to the host.
    #[track_caller]
    pub fn route(&self, destination: &str) {
        let (family, host) = if destination.contains(':') { ("-6", self.host6) } else { ("-4", self.host) };
        self.namespace.ip(&[family, "route", "replace", destination, "via", &host.to_string(), "dev", "eth0"]);
    }
}
