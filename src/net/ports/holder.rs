//! Who has a port, for error messages.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::super::Protocol;
use crate::sys::inet_diag::{self, Bound};

/// A process with a socket on a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its number, as seen from here.
    pub pid: i32,
    /// Its name (`/proc/<pid>/comm`).
    pub command: String,
}

/// The process whose socket is in the way of binding `address`; `None` when it cannot be told (it
/// lives in a PID namespace beside ours, or the kernel lacks sock_diag). Looks through the open
/// files of all processes: for errors only.
pub fn holder(protocol: Protocol, address: SocketAddr) -> Option<Holder> {
    let number = match protocol {
        Protocol::Tcp => libc::IPPROTO_TCP,
        Protocol::Udp => libc::IPPROTO_UDP,
        Protocol::Sctp => return None,
    } as u8;
    let mut inodes = Vec::new();
    // A socket on [::] has 0.0.0.0 as well unless it says otherwise.
    for ipv6 in [false, true] {
        let found = inet_diag::sockets(ipv6, number, address.port()).unwrap_or_default();
        inodes.extend(found.into_iter().filter(|bound| overlaps(bound, address, ipv6)).map(|bound| bound.inode));
    }
    inodes.retain(|inode| *inode != 0);
    owner(&inodes)
}

fn overlaps(bound: &Bound, address: SocketAddr, ipv6: bool) -> bool {
    let same_family = ipv6 == address.is_ipv6();
    bound.address.is_unspecified() || (same_family && (address.ip().is_unspecified() || bound.address == address.ip()))
}

/// The first process that has one of these sockets open.
fn owner(inodes: &[u64]) -> Option<Holder> {
    let names: Vec<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    if names.is_empty() {
        return None;
    }
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let mut pids: Vec<i32> = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    let pid = pids.into_iter().find(|pid| has_open(*pid, &names))?;
    let command = fs::read(format!("/proc/{pid}/comm")).ok()?;
    Some(Holder { pid, command: String::from_utf8_lossy(&command).trim_end().to_owned() })
}

fn has_open(pid: i32, names: &[String]) -> bool {
    let Ok(files) = fs::read_dir(Path::new("/proc").join(pid.to_string()).join("fd")) else { return false };
    files.flatten().any(|file| {
        fs::read_link(file.path())
            .is_ok_and(|target| names.iter().any(|name| target.as_os_str().as_bytes() == name.as_bytes()))
    })
}
