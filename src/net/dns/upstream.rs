//! The servers that are asked for everything that is not ours (resolv.conf(5)).

use std::fs::{self, File};
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::PORT;

/// Where hosts say who their servers are.
pub const HOST_FILE: &str = "/etc/resolv.conf";

/// resolv.conf(5): servers that are looked at, and the bounds of its options.
const MAX_SERVERS: usize = 3;
const TIMEOUT: u64 = 5;
const MAX_TIMEOUT: u64 = 30;
const ATTEMPTS: u32 = 2;
const MAX_ATTEMPTS: u32 = 5;
/// Bytes of such a file that are read.
const MAX_FILE: u64 = 64 * 1024;

/// Whom to ask.
#[derive(Debug, Clone)]
pub enum Upstream {
    /// These.
    Servers(Servers),
    /// Those of a file like the host's [`HOST_FILE`], as it is at the time of a query.
    HostFile(PathBuf),
}

/// Servers, and how to ask them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Servers {
    /// In the order in which they are asked.
    pub addresses: Vec<SocketAddr>,
    /// How long each of them is waited for.
    pub timeout: Duration,
    /// How often each of them is asked.
    pub attempts: u32,
    /// Begin with another one each time.
    pub rotate: bool,
}

impl Default for Servers {
    fn default() -> Self {
        let timeout = Duration::from_secs(TIMEOUT);
        Servers { addresses: Vec::new(), timeout, attempts: ATTEMPTS, rotate: false }
    }
}

impl Servers {
    /// These servers, the first three of them, with options as in resolv.conf(5).
    pub fn new(addresses: impl IntoIterator<Item = IpAddr>, options: &[String]) -> Servers {
        let addresses = addresses.into_iter().take(MAX_SERVERS).map(|address| SocketAddr::new(address, PORT));
        let mut servers = Servers { addresses: addresses.collect(), ..Servers::default() };
        options.iter().for_each(|option| servers.set(option));
        servers
    }

    /// What a file says. Without any server it is the host's own one.
    pub fn from_resolv_conf(text: &str) -> Servers {
        let mut servers = Servers::default();
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") if servers.addresses.len() < MAX_SERVERS => {
                    servers.addresses.extend(words.next().and_then(server));
                }
                Some("options") => words.for_each(|option| servers.set(option)),
                _ => {}
            }
        }
        if servers.addresses.is_empty() {
            servers.addresses.push(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), PORT));
        }
        servers
    }

    /// Takes an option; those that do not concern a server's clients are left to the container's programs.
    fn set(&mut self, option: &str) {
        match option.split_once(':') {
            Some(("timeout", seconds)) => {
                if let Ok(seconds) = seconds.parse::<u64>() {
                    self.timeout = Duration::from_secs(seconds.clamp(1, MAX_TIMEOUT));
                }
            }
            Some(("attempts", attempts)) => {
                if let Ok(attempts) = attempts.parse::<u32>() {
                    self.attempts = attempts.clamp(1, MAX_ATTEMPTS);
                }
            }
            _ if option == "rotate" => self.rotate = true,
            _ => {}
        }
    }
}

/// A server's address as in resolv.conf(5): link-local ones of IPv6 name their device, `fe80::1%eth0`.
fn server(text: &str) -> Option<SocketAddr> {
    let Some((address, device)) = text.split_once('%') else {
        return Some(SocketAddr::new(text.parse().ok()?, PORT));
    };
    let device = device.parse().ok().or_else(|| index_of(device))?;
    Some(SocketAddrV6::new(address.parse().ok()?, PORT, 0, device).into())
}

/// The number of a device of this network namespace.
fn index_of(device: &str) -> Option<u32> {
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    );
    rustix::net::netdevice::name_to_index(socket.ok()?, device).ok()
}

/// The servers as they are now.
#[derive(Debug)]
pub(super) struct Source {
    upstream: Upstream,
    /// What was read last, and from which file.
    read: Option<(Version, Arc<Servers>)>,
}

/// Device, inode, size, and the time of the last change: another one for another content.
type Version = (u64, u64, u64, i64, i64);

impl Source {
    pub(super) fn new(upstream: Upstream) -> Self {
        Source { upstream, read: None }
    }

    /// Whom to ask now. A file that cannot be read says nothing.
    pub(super) fn servers(&mut self) -> Arc<Servers> {
        let path = match &self.upstream {
            Upstream::Servers(servers) => {
                let (_, servers) = self.read.get_or_insert_with(|| (Version::default(), Arc::new(servers.clone())));
                return Arc::clone(servers);
            }
            Upstream::HostFile(path) => path,
        };
        let version = version(path);
        if let (Some(version), Some((known, servers))) = (version, &self.read)
            && version == *known
        {
            return Arc::clone(servers);
        }
        let servers = Arc::new(Servers::from_resolv_conf(&read(path).unwrap_or_default()));
        // Taken before reading: a change in between is seen at the next query.
        self.read = version.map(|version| (version, Arc::clone(&servers)));
        servers
    }
}

fn version(path: &Path) -> Option<Version> {
    let file = fs::metadata(path).ok()?;
    Some((file.dev(), file.ino(), file.len(), file.ctime(), file.ctime_nsec()))
}

fn read(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(MAX_FILE).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}
