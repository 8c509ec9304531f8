//! A host with networks and containers, and a host outside, each a network namespace.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use super::super::super::{Driver, FORMAT_VERSION, Network, Protocol, Published, Subnet};
use super::super::bridge_sysctls;

/// A network namespace; it lives as long as this or a socket in it.
pub struct Place(File);

impl Place {
    pub fn new() -> Place {
        thread::spawn(|| {
            #[allow(deprecated)] // Safe for what is unshared here: no descriptor table.
            rustix::thread::unshare(UnshareFlags::NEWNET).unwrap();
            Place(File::open("/proc/thread-self/ns/net").unwrap())
        })
        .join()
        .unwrap()
    }

    /// Runs something in a thread that is there.
    pub fn run<R: Send>(&self, job: impl FnOnce() -> R + Send) -> R {
        use std::os::fd::AsFd;
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                rustix::thread::move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                job()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// How `ip link set … netns` finds it.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }

    /// `ip` commands, one a line.
    pub fn ip(&self, batch: &str) {
        self.run(|| feed("ip", &["-batch", "-"], batch));
    }

    /// Standard output of a program that succeeds.
    pub fn output(&self, program: &str, arguments: &[&str]) -> String {
        self.run(|| {
            let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().unwrap();
            assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap()
        })
    }

    pub fn set(&self, sysctl: &str, value: &str) {
        self.run(|| fs::write(format!("/proc/sys/{sysctl}"), value).unwrap_or_else(|e| panic!("{sysctl}: {e}")));
    }

    /// Serves TCP and UDP on a port of all addresses: whoever comes is told the address he comes from.
    pub fn serve(&self, port: u16) {
        let (tcp, udp) =
            self.run(|| (TcpListener::bind(("::", port)).unwrap(), UdpSocket::bind(("::", port)).unwrap()));
        thread::spawn(move || {
            for stream in tcp.incoming().flatten() {
                let mut stream = stream;
                let peer = stream.peer_addr().unwrap().ip().to_canonical();
                let _ = write!(stream, "{peer}");
            }
        });
        thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok((_, peer)) = udp.recv_from(&mut buffer) {
                let _ = udp.send_to(peer.ip().to_canonical().to_string().as_bytes(), peer);
            }
        });
    }

    /// What a server at that address calls us; `None` when nobody answers.
    pub fn ask(&self, protocol: Protocol, address: SocketAddr, patience: Duration) -> Option<IpAddr> {
        self.run(|| {
            let mut text = String::new();
            if protocol == Protocol::Tcp {
                let mut stream = TcpStream::connect_timeout(&address, patience).ok()?;
                stream.set_read_timeout(Some(patience)).unwrap();
                stream.read_to_string(&mut text).ok()?;
            } else {
                let any: IpAddr = if address.is_ipv6() { "::".parse().unwrap() } else { "0.0.0.0".parse().unwrap() };
                let socket = UdpSocket::bind((any, 0)).unwrap();
                socket.set_read_timeout(Some(patience)).unwrap();
                let mut buffer = [0; 64];
                socket.send_to(b"?", address).ok()?;
                let count = receive(&socket, &mut buffer).ok()?;
                text = String::from_utf8_lossy(&buffer[..count]).into_owned();
            }
            text.parse().ok()
        })
    }

    /// Something answers an echo request.
    pub fn ping(&self, address: IpAddr) -> bool {
        self.run(|| {
            let mut ping = Command::new("busybox");
            ping.args(["ping", "-c", "1", "-W", "1", &address.to_string()]);
            ping.stdin(Stdio::null()).output().unwrap().status.success()
        })
    }
}

/// A call with a time limit is not begun again by the kernel after an interruption (signal(7)).
pub fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> std::io::Result<usize> {
    loop {
        match socket.recv(buffer) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

pub fn feed(program: &str, arguments: &[&str], input: &str) {
    let mut command = Command::new(program);
    let mut child = command.args(arguments).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{program}: {}\n{input}", String::from_utf8_lossy(&output.stderr));
}

/// A bridge network with one subnet of each family.
pub fn network(name: &str, id: &str, number: u8) -> Network {
    let subnet = |text: String, gateway: String| Subnet {
        subnet: text.parse().unwrap(),
        gateway: Some(gateway.parse().unwrap()),
        range: None,
        auxiliary: Default::default(),
    };
    Network {
        version: FORMAT_VERSION,
        id: id.repeat(64 / id.len()),
        name: name.to_owned(),
        driver: Driver::Bridge,
        created: "2026-01-02T03:04:05Z".parse().unwrap(),
        subnets: vec![
            subnet(format!("10.{number}.0.0/24"), format!("10.{number}.0.1")),
            subnet(format!("fd00:{number}::/64"), format!("fd00:{number}::1")),
        ],
        internal: false,
        ipv6: true,
        attachable: false,
        labels: Default::default(),
        options: Default::default(),
        device: format!("br-{name}"),
    }
}

pub fn published(protocol: Protocol, host: &str, target: &str) -> Published {
    Published { host: host.parse().unwrap(), target: target.parse().unwrap(), protocol }
}

/// `192.0.2.1` and `2001:db8::1` are the host's, `….2` is outside and routes the containers'
/// subnets to the host, as a hostile neighbour would.
pub struct World {
    pub host: Place,
    pub outside: Place,
}

impl World {
    pub fn new() -> World {
        let (host, outside) = (Place::new(), Place::new());
        host.ip(&format!(
            "link set lo up\nlink add eth0 type veth peer name eth0 netns {}\nlink set eth0 up\n\
             addr add 192.0.2.1/24 dev eth0\naddr add 2001:db8::1/64 dev eth0 nodad\n",
            outside.path()
        ));
        outside.ip("link set lo up\nlink set eth0 up\naddr add 192.0.2.2/24 dev eth0\n\
             addr add 2001:db8::2/64 dev eth0 nodad\nroute add 10.0.0.0/8 via 192.0.2.1\n\
             route add fd00::/8 via 2001:db8::1\n");
        host.set("net/ipv4/ip_forward", "1");
        host.set("net/ipv6/conf/all/forwarding", "1");
        World { host, outside }
    }

    /// Makes a network's bridge, without rules.
    pub fn bridge(&self, network: &Network) {
        let device = &network.device;
        let mut batch = format!("link add {device} type bridge\nlink set {device} up\n");
        for subnet in &network.subnets {
            let (gateway, length) = (subnet.gateway.unwrap(), subnet.subnet.prefix());
            let nodad = if gateway.is_ipv6() { " nodad" } else { "" };
            batch.push_str(&format!("addr add {gateway}/{length} dev {device}{nodad}\n"));
        }
        self.host.ip(&batch);
        for (path, value) in bridge_sysctls(network) {
            self.host.set(&path, &value);
        }
    }

    /// A container with the subnets' address `number`, which serves the ports 80 and 81.
    ///
    /// `isolated` ports of a bridge do not hear each other, as with icc=false. A packet that is
    /// translated back to the port it came from is only sent there with `hairpin`, when br_netfilter
    /// is on (`br_nf_pre_routing_finish`: it is switched, not routed).
    pub fn container(&self, network: &Network, number: u8, isolated: bool) -> Place {
        let place = Place::new();
        let (device, port) = (&network.device, format!("v{}{number}", network.name));
        self.host.ip(&format!(
            "link add {port} type veth peer name eth0 netns {}\nlink set {port} master {device}\nlink set {port} up\n",
            place.path()
        ));
        let isolated = if isolated { "on" } else { "off" };
        self.host.output("bridge", &["link", "set", "dev", &port, "hairpin", "on", "isolated", isolated]);
        let mut batch = "link set lo up\nlink set eth0 up\n".to_owned();
        for subnet in &network.subnets {
            let gateway = subnet.gateway.unwrap();
            let address = gateway.to_string();
            let address = format!("{}{number}", address.strip_suffix('1').unwrap());
            let nodad = if gateway.is_ipv6() { " nodad" } else { "" };
            batch.push_str(&format!("addr add {address}/{} dev eth0{nodad}\n", subnet.subnet.prefix()));
            batch.push_str(&format!("route add default via {gateway}\n"));
        }
        place.ip(&batch);
        place.serve(80);
        place.serve(81);
        place
    }
}
