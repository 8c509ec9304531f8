//! Network namespaces, and the one device that each has.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

/// Sets the loopback device of this network namespace up (netdevice(7), SIOCSIFFLAGS). The kernel
/// then gives it 127.0.0.1 and ::1 by itself.
pub fn loopback_up() -> io::Result<()> {
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: all-zero is a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (slot, byte) in request.ifr_name.iter_mut().zip(b"lo\0") {
        *slot = *byte as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads an `ifreq` that outlives the call.
    match unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Runs `action` with the calling thread in another network namespace (setns(2)). What it opens there
/// goes on working there.
///
/// # Errors
/// When the namespace cannot be entered. A thread that cannot come back would do everything else in
/// the wrong place, so the process ends there.
pub fn inside<T>(namespace: BorrowedFd<'_>, action: impl FnOnce() -> T) -> io::Result<T> {
    let own = own_namespace()?;
    move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network))?;
    let value = action();
    if move_into_link_name_space(own.as_fd(), Some(LinkNameSpaceType::Network)).is_err() {
        std::process::abort();
    }
    Ok(value)
}

/// A handle on the calling thread's network namespace.
pub fn own_namespace() -> io::Result<OwnedFd> {
    Ok(rustix::fs::open("/proc/thread-self/ns/net", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

/// A new network namespace with its loopback device up; it goes when its last handle does.
pub fn new_namespace() -> io::Result<OwnedFd> {
    let own = own_namespace()?;
    // SAFETY: only the network namespace of this thread changes; descriptors and memory stay shared.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }?;
    let made = own_namespace().and_then(|made| loopback_up().map(|()| made));
    if move_into_link_name_space(own.as_fd(), Some(LinkNameSpaceType::Network)).is_err() {
        std::process::abort();
    }
    made
}

/// What the kernel says of a device when it is asked by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceState {
    /// Its number within the namespace.
    pub index: u32,
    /// It is set up.
    pub up: bool,
    /// Its hardware address.
    pub mac: [u8; 6],
}

/// Looks for a device of the calling thread's network namespace by three ioctls (netdevice(7)), which
/// is all that a start needs to know; `None` when there is none of that name.
pub fn device_state(name: &str) -> io::Result<Option<DeviceState>> {
    if name.is_empty() || name.len() >= libc::IFNAMSIZ {
        return Ok(None);
    }
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    let index = match rustix::net::netdevice::name_to_index(&socket, name) {
        Err(rustix::io::Errno::NODEV) => return Ok(None),
        result => result?,
    };
    // SAFETY: all-zero is a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (slot, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *slot = byte as libc::c_char;
    }
    // SAFETY: SIOCGIFFLAGS reads and writes an `ifreq` that outlives the call.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut request) } != 0 {
        return match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            error => Err(error),
        };
    }
    // SAFETY: SIOCGIFFLAGS has filled this field of the union.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    // SAFETY: SIOCGIFHWADDR reads and writes an `ifreq` that outlives the call.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFHWADDR, &raw mut request) } != 0 {
        return match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            error => Err(error),
        };
    }
    // SAFETY: SIOCGIFHWADDR has filled this field of the union.
    let address = unsafe { request.ifr_ifru.ifru_hwaddr };
    let mut mac = [0; 6];
    for (byte, filled) in mac.iter_mut().zip(address.sa_data) {
        *byte = filled as u8;
    }
    Ok(Some(DeviceState { index, up: i32::from(flags) & libc::IFF_UP != 0, mac }))
}
