//! The program that leads packets for 127.0.0.11:53 to the resolver's sockets, whatever ports these are bound to
//! (`Documentation/bpf/prog_sk_lookup.rst`, Linux 5.9).
//!
//! The kernel runs it in the container's network namespace for every first packet of a TCP connection and every UDP
//! packet to a socket that is not connected, with `struct bpf_sk_lookup` in `r1`. It names a socket or stays out of it:
//!
//! ```text
//!  0  r2 = local_port;  another than 53?          → 22
//!  2  r2 = local_ip4;   another than 127.0.0.11?  → 22
//!  4  key = 0 for TCP, 1 for UDP
//!  8  r0 = the map's socket with this key; none?  → 22
//! 15  assign it to the packet, give it back
//! 22  pass
//! ```

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use super::{ADDRESS, PORT};
use crate::sys::bpf::{self, LoadError};

/// What `bpftool prog` shows.
const PROGRAM_NAME: &str = "mydocker_dns";

/// Places in the map.
const TCP: u32 = 0;
const UDP: u32 = 1;

/// Offsets in `struct bpf_sk_lookup`.
const PROTOCOL_FIELD: i16 = 12;
const LOCAL_IP4_FIELD: i16 = 40;
const LOCAL_PORT_FIELD: i16 = 60;

/// `enum bpf_func_id`.
const MAP_LOOKUP_ELEM: i32 = 1;
const SK_RELEASE: i32 = 86;
const SK_ASSIGN: i32 = 124;

/// `BPF_PSEUDO_MAP_FD`: the value of a 64-bit load is a map, named by its descriptor.
const MAP_DESCRIPTOR: u8 = 1;
/// The key's place in the stack.
const KEY: i16 = -4;
/// `SK_PASS`: the lookup goes on with the socket that was assigned, or as if the program were not there.
const PASS: i32 = 1;

/// Leads the packets of the namespace behind `namespace` to these sockets until the result is closed. The sockets are
/// not kept alive by it.
///
/// # Errors
/// The kernel is too old, this process may not, or the verifier refuses the program.
pub(super) fn steer(namespace: BorrowedFd<'_>, tcp: BorrowedFd<'_>, udp: BorrowedFd<'_>) -> Result<OwnedFd, LoadError> {
    let plain = |source: io::Error| LoadError { source, log: String::new() };
    let map = bpf::socket_map(2).map_err(plain)?;
    bpf::set_socket(map.as_fd(), TCP, tcp).map_err(plain)?;
    bpf::set_socket(map.as_fd(), UDP, udp).map_err(plain)?;
    let program = bpf::load_lookup_program(&program(map.as_raw_fd()), PROGRAM_NAME)?;
    bpf::attach_lookup(namespace, program.as_fd()).map_err(plain)
}

/// The instructions, with `map` for the map.
fn program(map: RawFd) -> [u64; 24] {
    // Addresses in the context are in network order, ports of this side are not.
    let address = i32::from_ne_bytes(ADDRESS.octets());
    // Distances count from the instruction behind the jump.
    let to_pass = |place: i16| 22 - place - 1;
    [
        load(2, 1, LOCAL_PORT_FIELD),
        encode(0x55, 2, 0, to_pass(1), i32::from(PORT)), // if r2 != 53 goto pass
        load(2, 1, LOCAL_IP4_FIELD),
        encode(0x56, 2, 0, to_pass(3), address), // if w2 != 127.0.0.11 goto pass
        load(2, 1, PROTOCOL_FIELD),
        encode(0x62, 10, 0, KEY, TCP as i32), // *(u32 *)(r10 - 4) = TCP
        encode(0x15, 2, 0, 1, libc::IPPROTO_TCP),
        encode(0x62, 10, 0, KEY, UDP as i32),
        copy(6, 1),
        encode(0x18, 1, MAP_DESCRIPTOR, 0, map), // r1 = map, in two words
        0,
        copy(2, 10),
        encode(0x07, 2, 0, 0, i32::from(KEY)), // r2 += -4
        encode(0x85, 0, 0, 0, MAP_LOOKUP_ELEM),
        encode(0x15, 0, 0, to_pass(14), 0), // if r0 == 0 goto pass
        copy(7, 0),
        copy(1, 6),
        copy(2, 7),
        encode(0xb7, 3, 0, 0, 0),
        encode(0x85, 0, 0, 0, SK_ASSIGN),
        copy(1, 7),
        encode(0x85, 0, 0, 0, SK_RELEASE),
        encode(0xb7, 0, 0, 0, PASS), // pass: r0 = SK_PASS
        encode(0x95, 0, 0, 0, 0),
    ]
}

fn load(to: u8, from: u8, field: i16) -> u64 {
    encode(0x61, to, from, field, 0)
}

fn copy(to: u8, from: u8) -> u64 {
    encode(0xbf, to, from, 0, 0)
}

/// One `struct bpf_insn`.
fn encode(code: u8, to: u8, from: u8, offset: i16, value: i32) -> u64 {
    // Two bit fields of a C structure: the first lies in the low half on little-endian machines.
    let registers = if cfg!(target_endian = "little") { from << 4 | to } else { to << 4 | from };
    let ([o0, o1], [v0, v1, v2, v3]) = (offset.to_ne_bytes(), value.to_ne_bytes());
    u64::from_ne_bytes([code, registers, o0, o1, v0, v1, v2, v3])
}
